//! `bench produce`.

use client::Producer;
use futures::future::{Either, select, try_join_all};

use super::args::ProduceBench;
use super::load::{Course, Load, Until, producer_config, send};
use super::measure::{Meter, Tally, Window};
use super::process::Cost;
use super::report::{RESULT, Result as BenchResult};
use super::topic::{Stage, on_a_topic};
use crate::context::Context;
use crate::exit::Failure;

pub(super) async fn run(context: &Context, args: &ProduceBench) -> Result<(), Failure> {
    if context.out.explain(&RESULT)? {
        return Ok(());
    }
    let result = on_a_topic(context, &args.target, |stage| measure(context, args, stage)).await?;
    result.show(context, "next: altair-cli bench consume   |   altair-cli bench e2e --rate 1000")
}

async fn measure(context: &Context, args: &ProduceBench, stage: Stage) -> Result<BenchResult, Failure> {
    let load = Load::new(&stage.name, stage.partitions, &args.writing, args.rate)?;
    let load = match args.scenario {
        Some(scenario) => load.scenario(scenario, args.writing.producers),
        None => load,
    };
    let producers = producers(context, args)?;
    let meter = Meter::new(context, args.span.no_progress);
    let window = Window::after(args.span.warmup, args.span.duration);
    let course = Course { window, until: Until::WindowEnds, meter: &meter };
    let sends = producers.iter().map(|producer| send(producer, &load, course));
    let (tallies, cost) = {
        let work = async { tokio::join!(try_join_all(sends), cost_of(window)) };
        let (work, shown) = (std::pin::pin!(work), std::pin::pin!(meter.show("produce")));
        match select(work, shown).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => unreachable!("the meter goes on until it is dropped"),
        }
    };
    meter.clear();
    let tally = tallies?.iter().fold(Tally::default(), Tally::merge);
    let result = BenchResult::new("produce", &stage, window.seconds(), tally, cost);
    Ok(result.written_with(&args.writing).corrected(load.is_paced()))
}

fn producers(context: &Context, args: &ProduceBench) -> Result<Vec<Producer>, Failure> {
    let config = producer_config(&args.writing);
    (0..args.writing.producers).map(|_| Ok(context.patient_client()?.producer(config.clone())?)).collect()
}

/// What is spent while the window is open.
pub(super) async fn cost_of(window: Window) -> Cost {
    tokio::time::sleep_until(window.from).await;
    let before = Cost::now();
    tokio::time::sleep_until(window.to).await;
    Cost::now().since(before)
}
