//! The deterministic simulator: whole clusters under faults, one seed a process.

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use cluster_test::harness::commit;
use cluster_test::sim::{SeedReport, SimConfig, run_seed};

/// Something is wrong with the cluster.
const EXIT_FOUND: u8 = 1;
/// Something is wrong with the command.
const EXIT_USAGE: u8 = 2;

/// Simulates whole clusters - real brokers, real clients - on simulated time, network and disks, under faults.
///
/// Each seed decides one run: size and settings of the cluster, load, faults. The last line is one JSON object; the exit
/// code is 1 if any seed found anything. Every finding comes with the line that replays it.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  sim --seeds 0..100 --secs 30 --jobs 2\n  sim --replay 17 --secs 30\n  sim --determinism 0..10 --secs 10\n\nRUST_LOG, as in RUST_LOG=info, shows the brokers' own logs in a replay."
)]
struct Args {
    /// Runs the seeds A to B-1, each in a process of its own.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Runs one seed and prints what happened in it.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Runs each of the seeds A to B-1 in two processes and compares their traces.
    #[arg(long, value_name = "A..B", value_parser = range)]
    determinism: Option<(u64, u64)>,
    /// Runs one seed in this process and prints its report; what the others are made of.
    #[arg(long, value_name = "SEED", hide = true)]
    one: Option<u64>,
    /// Length of the phase with faults. Unit: simulated seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    secs: u64,
    /// Sizes of cluster among which a seed chooses.
    #[arg(long, default_value = "3,5", value_delimiter = ',', value_parser = size)]
    nodes: Vec<u32>,
    /// Seeds that run at the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Leaves the cluster in peace.
    #[arg(long)]
    no_faults: bool,
    /// Wall-clock time after which a seed counts as hung. Unit: seconds.
    #[arg(long, default_value_t = 300)]
    patience: u64,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((from, to)) if from < to => Ok((from, to)),
        Some(_) => Err(format!("{text} holds no seed: write A..B with A below B, as 0..100")),
        None => Err(format!("{text} is not a range of seeds: write A..B, as 0..100")),
    }
}

fn size(text: &str) -> Result<u32, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(format!("a simulated cluster has 3 or 5 brokers, not {text}")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let modes = [args.seeds.is_some(), args.replay.is_some(), args.determinism.is_some(), args.one.is_some()];
    if modes.iter().filter(|mode| **mode).count() != 1 {
        say("give one of --seeds A..B, --replay SEED, --determinism A..B; --help tells more");
        return ExitCode::from(EXIT_USAGE);
    }
    let outcome = if let Some(seed) = args.one {
        here(&args, seed, false)
    } else if let Some(seed) = args.replay {
        here(&args, seed, true)
    } else if let Some(seeds) = args.determinism {
        determinism(&args, seeds)
    } else {
        sweep(&args, args.seeds.unwrap_or_default())
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FOUND),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(EXIT_FOUND)
        }
    }
}

/// Runs a seed in this process.
fn here(args: &Args, seed: u64, replay: bool) -> Result<bool> {
    if let Ok(level) = std::env::var("RUST_LOG") {
        broker::runtime::telemetry::init(broker::runtime::telemetry::LogFormat::Text, &level)?;
    }
    let config = SimConfig {
        secs: Duration::from_secs(args.secs),
        nodes: args.nodes.clone(),
        faults: !args.no_faults,
        keep_trace: replay,
    };
    let (report, trace) = run_seed(seed, &config)?;
    trace.lines().iter().for_each(|line| print(line));
    if replay {
        tell(args, &report);
    }
    print(&serde_json::to_string(&report)?);
    Ok(report.is_clean())
}

/// Runs a seed in a fresh process.
fn apart(args: &Args, seed: u64) -> Result<SeedReport> {
    let mut command = Command::new("timeout");
    command.arg(args.patience.to_string()).arg(std::env::current_exe()?);
    command.args(["--one", &seed.to_string(), "--secs", &args.secs.to_string(), "--nodes", &nodes(args)]);
    if args.no_faults {
        command.arg("--no-faults");
    }
    let output = command.stdin(Stdio::null()).output().context("starting a process for the seed")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last().map(serde_json::from_str) {
        Some(Ok(report)) => Ok(report),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = errors.lines().rev().take(8).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!("the process ended with {} and no report: {}", output.status, last.join(" | "))
        }
    }
}

/// Runs seeds, several at a time, and hands each report over.
fn each(args: &Args, (from, to): (u64, u64), judge: impl Fn(u64, Result<SeedReport>) + Sync) {
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    judge(seed, apart(args, seed));
                }
            });
        }
    });
}

#[derive(Debug, Default, serde::Serialize)]
struct Sum {
    seeds: u64,
    violations: u64,
    liveness_failures: u64,
    acked: u64,
    faults: u64,
    sim_secs: u64,
    failed_seeds: Vec<u64>,
}

fn sweep(args: &Args, seeds: (u64, u64)) -> Result<bool> {
    let sum = Mutex::new(Sum::default());
    each(args, seeds, |seed, outcome| {
        let report = outcome.unwrap_or_else(|error| SeedReport {
            seed,
            violations: vec![format!("{error:#}")],
            ..SeedReport::default()
        });
        if !report.is_clean() {
            tell(args, &report);
        }
        let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.seeds += 1;
        sum.violations += report.violations.len() as u64;
        sum.liveness_failures += report.liveness_failures.len() as u64;
        sum.acked += report.acked;
        sum.faults += report.faults;
        sum.sim_secs += report.sim_ms / 1_000;
        if !report.is_clean() {
            sum.failed_seeds.push(seed);
        }
    });
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    print(&serde_json::to_string(&sum)?);
    Ok(sum.failed_seeds.is_empty())
}

fn determinism(args: &Args, seeds: (u64, u64)) -> Result<bool> {
    let differ = Mutex::new(Vec::new());
    each(args, seeds, |seed, first| {
        let same = match (first, apart(args, seed)) {
            (Ok(a), Ok(b)) if a.hash == b.hash => true,
            (Ok(a), Ok(b)) => {
                say(&format!(
                    "seed {seed} gave the traces {} ({} events) and {} ({})",
                    a.hash, a.events, b.hash, b.events
                ));
                false
            }
            (Err(error), _) | (_, Err(error)) => {
                say(&format!("seed {seed}: {error:#}"));
                false
            }
        };
        if !same {
            differ.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(seed);
        }
    });
    let differ = differ.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    print(&serde_json::json!({"seeds": seeds.1 - seeds.0, "differ": differ}).to_string());
    Ok(differ.is_empty())
}

/// Says what a seed found, and how to see it again.
fn tell(args: &Args, report: &SeedReport) {
    for finding in report.violations.iter().chain(&report.liveness_failures) {
        say(&format!("seed {}, commit {}: {finding}", report.seed, commit()));
    }
    if !report.is_clean() {
        let quiet = if args.no_faults { " --no-faults" } else { "" };
        say(&format!(
            "replay: cargo run --release -p cluster-test --bin sim -- --replay {} --secs {} --nodes {}{quiet}",
            report.seed,
            args.secs,
            nodes(args)
        ));
    }
}

fn nodes(args: &Args) -> String {
    args.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

// A closed pipe is no reason to fail.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
