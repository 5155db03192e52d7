//! `bench consume`: how fast a log is read from its begin to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, Consumer, ConsumerConfig, TopicPartition};
use futures::future::{Either, select};
use tokio::time::Instant;
use wire::error_code::ErrorCode;

use super::args::ConsumeBench;
use super::load::{Course, Load, Until, producer_config, send};
use super::measure::{Meter, Tally, Window};
use super::process::Cost;
use super::report::{RESULT, Result as BenchResult};
use super::topic::{Stage, on_a_topic};
use crate::context::Context;
use crate::exit::Failure;

/// Longest time to write what is read then.
const PRELOAD_WITHIN: Duration = Duration::from_secs(600);
/// Longest wait of one poll.
const POLL: Duration = Duration::from_millis(200);
/// Records of one poll.
const POLL_RECORDS: u32 = 10_000;

pub(super) async fn run(context: &Context, args: &ConsumeBench) -> Result<(), Failure> {
    if context.out.explain(&RESULT)? {
        return Ok(());
    }
    let result = on_a_topic(context, &args.target, |stage| measure(context, args, stage)).await?;
    result.show(context, "next: altair-cli bench e2e --rate 1000")
}

async fn measure(context: &Context, args: &ConsumeBench, stage: Stage) -> Result<BenchResult, Failure> {
    let meter = Meter::new(context, args.no_progress);
    if stage.own {
        shown(&meter, "writing what is to be read", preload(context, args, &stage, &meter)).await?;
    }
    let client = context.patient_client()?;
    let consumer =
        client.consumer(ConsumerConfig { max_poll_records: POLL_RECORDS, ..ConsumerConfig::default() })?;
    let meter = Meter::new(context, args.no_progress);
    let before = Cost::now();
    let (tally, seconds) =
        shown(&meter, "consume", read(&client, consumer, &stage, args.duration, &meter)).await?;
    let cost = Cost::now().since(before);
    let result = BenchResult::new("consume", &stage, seconds, tally, cost);
    Ok(if stage.own { result.written_with(&args.writing) } else { result })
}

async fn shown<T>(
    meter: &Meter,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (work, show) = (std::pin::pin!(work), std::pin::pin!(meter.show(what)));
    let outcome = match select(work, show).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => unreachable!("the meter goes on until it is dropped"),
    };
    meter.clear();
    outcome
}

async fn preload(
    context: &Context,
    args: &ConsumeBench,
    stage: &Stage,
    meter: &Meter,
) -> Result<(), Failure> {
    let load = Load::new(&stage.name, stage.partitions, &args.writing, 0)?;
    let producer = context.patient_client()?.producer(producer_config(&args.writing))?;
    let window = Window::after(Duration::ZERO, PRELOAD_WITHIN);
    let course = Course { window, until: Until::Bytes(args.preload), meter };
    let tally = send(&producer, &load, course).await?;
    if tally.failed + tally.unknown > 0 {
        let lost = tally.failed + tally.unknown;
        return Err(Failure::new(
            ErrorCode::DeliveryExpired,
            format!("{lost} records could not be written first"),
        ));
    }
    Ok(())
}

/// Reads everything that is there, or for as long as it may take. Returns the seconds to the last record, too.
async fn read(
    client: &Client,
    mut consumer: Consumer,
    stage: &Stage,
    at_most: Duration,
    meter: &Meter,
) -> Result<(Tally, f64), Failure> {
    let all: Vec<TopicPartition> = (0..client.partitions(&stage.name).await?)
        .map(|partition| TopicPartition { topic: stage.name.clone(), partition: partition.into() })
        .collect();
    let ends = consumer.end_offsets(&all).await?;
    let begins = consumer.beginning_offsets(&all).await?;
    // What a partition holds, by its offsets: gaps of a compacted log would not be waited for, there are none.
    let mut left: BTreeMap<u32, u64> = ends
        .iter()
        .filter(|(partition, end)| **end > begins.get(partition).copied().unwrap_or(0))
        .map(|(partition, end)| (partition.partition.0, *end))
        .collect();
    consumer.assign_topic(&stage.name).await?;
    let (begun, mut tally) = (Instant::now(), Tally::default());
    while !left.is_empty() && begun.elapsed() < at_most {
        let (mut records, mut bytes) = (0, 0);
        for record in consumer.poll(POLL).await? {
            records += 1;
            bytes += (record.value.as_ref().map_or(0, bytes::Bytes::len)
                + record.key.as_ref().map_or(0, bytes::Bytes::len)) as u64;
            if left.get(&record.partition).is_some_and(|end| record.offset + 1 >= *end) {
                left.remove(&record.partition);
            }
        }
        tally.records += records;
        tally.bytes += bytes;
        meter.count(records, bytes);
    }
    Ok((tally, begun.elapsed().as_secs_f64()))
}
