//! The process that plays the rounds.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster_test::chaos::round::{self, RoundSpec};
use cluster_test::chaos::{Plan, RoundReport, RunReport, leftovers, sandbox};
use cluster_test::harness;

use super::EXIT_FOUND;
use super::args::Args;
use super::keep::keep;
use super::tell::print;

/// Plays in `work`, a directory of the process that waits.
pub(crate) fn run(args: &Args, work: &Path) -> Result<ExitCode> {
    let dir = work.to_owned();
    sandbox::enter(move || leftovers::abandon(&dir))?;
    if let Ok(level) = std::env::var("RUST_LOG") {
        broker::runtime::telemetry::init(broker::runtime::telemetry::LogFormat::Text, &level)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(play(args, work))?;
    print(&report.text());
    print(&report.line(args.seed.unwrap_or_default(), &harness::commit())?);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

async fn play(args: &Args, work: &Path) -> Result<RunReport> {
    let seed = args.seed.unwrap_or_default();
    let length = Duration::from_secs(args.secs);
    let plan = Plan { seed, brokers: args.nodes, length, only: args.faults.clone() };
    let (fabric, nodes, secs) = (args.fabric.name(), args.nodes, args.secs);
    print(&format!(
        "chaos on {fabric}: {nodes} brokers, {secs} s a round, seed {seed}, commit {}\n",
        harness::commit()
    ));
    let mut report = RunReport::default();
    let numbers = args.round.map_or(1..=args.rounds, |number| number..=number);
    for number in numbers {
        let dir = work.join(format!("round-{number}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let spec = RoundSpec {
            fabric: args.fabric,
            plan: plan.round(number),
            binary: args.binary.clone().unwrap_or_default(),
            image: args.image.clone().unwrap_or_default(),
            dir,
            run: work.to_owned(),
        };
        let round = round::run(&spec).await;
        tell(args, &spec, &round)?;
        // Data of a round that is over is of no use to the next one, whose disk it would fill.
        std::fs::remove_dir_all(&spec.dir).with_context(|| format!("removing {}", spec.dir.display()))?;
        report.rounds.push(round);
    }
    Ok(report)
}

/// Prints a round, and how to see it again.
fn tell(args: &Args, spec: &RoundSpec, round: &RoundReport) -> Result<()> {
    print(round.text().trim_end());
    if !round.is_clean() {
        let replay = format!("{} --round {}", args.flags().join(" "), round.number);
        print(&format!(
            "  seed {}, commit {}; replay: cargo run --release -p cluster-test --bin chaos -- {replay}",
            args.seed.unwrap_or_default(),
            harness::commit()
        ));
    }
    if let Some(folder) = keep(args, spec, round)? {
        print(&format!("  kept: {}", folder.display()));
    }
    Ok(())
}
