//! `bench`: what a cluster does a second, and how long it takes, as its own clients see it.
//!
//! Everything runs through the SDK that applications use. A record's time ends when its receipt or the record itself is in
//! the hands of the application. Warm-up is not counted; what was sent but not answered within the measured time is waited
//! for, and counted for times and failures only.

pub(crate) mod args;
mod consume;
mod e2e;
mod load;
mod measure;
mod process;
mod produce;
mod report;
mod topic;

use args::Bench;

use crate::context::Context;
use crate::exit::Failure;

/// Runs one benchmark.
pub(crate) async fn run(context: &Context, bench: Bench) -> Result<(), Failure> {
    match bench {
        Bench::Produce(args) => produce::run(context, &args).await,
        Bench::Consume(args) => consume::run(context, &args).await,
        Bench::E2e(args) => e2e::run(context, &args).await,
    }
}
