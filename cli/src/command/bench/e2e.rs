//! `bench e2e`: a producer and a consumer in one process, on one clock.

use std::time::Duration;

use client::{Client, Consumer, ConsumerConfig, Position};
use futures::future::{Either, select};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::error_code::ErrorCode;

use super::args::E2eBench;
use super::load::{Course, Load, Stamp, Until, producer_config, send};
use super::measure::{Meter, Tally, Times, Window};
use super::produce::cost_of;
use super::report::{RESULT, Result as BenchResult};
use super::topic::{Stage, on_a_topic};
use crate::context::Context;
use crate::exit::Failure;

/// Time for the last records to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait of one poll.
const POLL: Duration = Duration::from_millis(100);

pub(super) async fn run(context: &Context, args: &E2eBench) -> Result<(), Failure> {
    if context.out.explain(&RESULT)? {
        return Ok(());
    }
    let result = on_a_topic(context, &args.target, |stage| measure(context, args, stage)).await?;
    result.show(context, "next: altair-cli bench produce   |   altair-cli bench e2e --help")
}

async fn measure(context: &Context, args: &E2eBench, stage: Stage) -> Result<BenchResult, Failure> {
    let writing = super::args::Writing { producers: 1, ..args.writing.clone() };
    let load = Load::new(&stage.name, stage.partitions, &writing, args.rate)?;
    let client = context.patient_client()?;
    let consumer = tail(&client, &stage).await?;
    let producer = context.patient_client()?.producer(producer_config(&writing))?;
    let meter = Meter::new(context, args.span.no_progress);
    let stamp = Stamp::now();
    let load = load.stamped(stamp);
    let window = Window::after(args.span.warmup, args.span.duration);
    let course = Course { window, until: Until::WindowEnds, meter: &meter };
    let (expect, expected) = watch::channel(None);
    let sending = async {
        let tally = send(&producer, &load, course).await?;
        expect.send_replace(Some(tally.times.count()));
        Ok::<Tally, Failure>(tally)
    };
    let (acked, arrived, cost) = {
        let work = async {
            let both = async { tokio::try_join!(sending, read(consumer, stamp, window, expected)) };
            let (both, cost) = tokio::join!(both, cost_of(window));
            both.map(|(acked, arrived)| (acked, arrived, cost))
        };
        let (work, shown) = (std::pin::pin!(work), std::pin::pin!(meter.show("end to end")));
        match select(work, shown).await {
            Either::Left((done, _)) => done?,
            Either::Right(_) => unreachable!("the meter goes on until it is dropped"),
        }
    };
    meter.clear();
    let result = BenchResult::new("e2e", &stage, window.seconds(), acked, cost);
    Ok(result.written_with(&writing).corrected(true).end_to_end(arrived))
}

/// A consumer at the end of every partition.
async fn tail(client: &Client, stage: &Stage) -> Result<Consumer, Failure> {
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_topic(&stage.name).await?;
    consumer.seek_all(Position::Latest);
    // The place is known once a broker was asked; what is sent before would be missed.
    let begun = Instant::now();
    while consumer.positions().values().any(Option::is_none) {
        if begun.elapsed() >= ARRIVE_WITHIN {
            let message = format!("the ends of {} were not told within {ARRIVE_WITHIN:?}", stage.name);
            return Err(Failure::new(ErrorCode::Timeout, message));
        }
        consumer.poll(POLL).await?;
    }
    Ok(consumer)
}

/// Reads until every acknowledged record of the window has arrived.
async fn read(
    mut consumer: Consumer,
    stamp: Stamp,
    window: Window,
    mut expected: watch::Receiver<Option<u64>>,
) -> Result<Times, Failure> {
    let mut times = Times::default();
    let mut last = None;
    loop {
        for record in consumer.poll(POLL).await? {
            let due = record.value.as_deref().and_then(|value| stamp.due(value));
            if let Some(due) = due.filter(|due| window.holds(*due)) {
                times.add(due.elapsed());
            }
        }
        let Some(count) = *expected.borrow_and_update() else { continue };
        if times.count() >= count {
            return Ok(times);
        }
        if last.get_or_insert_with(Instant::now).elapsed() >= ARRIVE_WITHIN {
            let missing = count - times.count();
            let message = format!("{missing} acknowledged records did not arrive within {ARRIVE_WITHIN:?}");
            return Err(Failure::new(ErrorCode::Timeout, message));
        }
    }
}
