//! The speed of Altair beside what else runs on the same machine in the same minutes: one table of medians and ratios.
//!
//! `cargo run --release -p cluster-test --bin perf -- --suite core`. Everything that is measured is started here, one after
//! the other and in turns, so that all of it sees the same machine; nothing is left behind.

mod altair;
mod args;
mod contest;
mod core;
mod failover;
mod free;
mod nats;
mod nats_load;
mod plot;
mod raw;
mod scale;
mod slow_links;
mod suite;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use args::Args;
use contest::Plan;
use suite::Suite;

/// Something is slower than was asked for.
const EXIT_MISSED: u8 = 1;
/// The command makes no sense, or the machine cannot do it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_MISSED),
        Err(error) => {
            table::say(&format!("perf: {error:#}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    anyhow::ensure!(
        args.plot.is_none() || args.suite == Suite::Scale,
        "--plot draws the curve of another suite: add --suite scale"
    );
    let plan = Plan { runs: args.runs, span: Duration::from_secs(args.secs) };
    let contests = contest::chosen(args.suite.contests(plan), &args.only)?;
    if args.list {
        contests.iter().for_each(|contest| table::print(&format!("{:<16} {}", contest.name, contest.what)));
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut results = Vec::new();
    for contest in contests {
        results.push(runtime.block_on(contest.run(plan))?);
    }
    let told = if args.output == "json" { table::json(&results)? } else { table::markdown(&results) };
    table::print(&told);
    if let Some(path) = &args.plot {
        plot::draw(&results, scale::ALTAIR, path)?;
    }
    Ok(results.iter().all(contest::Outcome::holds))
}
