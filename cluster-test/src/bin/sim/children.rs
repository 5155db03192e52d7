//! Seeds in processes of their own: state of a process that outlives a run would leak into the next.

use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use cluster_test::sim::SeedReport;

use super::args::Args;

/// Last lines of a process that ended without a report.
const LAST_WORDS: usize = 8;

/// Runs a seed in a fresh process.
pub(crate) fn apart(args: &Args, seed: u64) -> Result<SeedReport> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", &seed.to_string(), "--secs", &args.secs.to_string()]);
    command.args(["--nodes", &args.nodes_text(), "--patience", &args.patience.to_string()]);
    if args.no_faults {
        command.arg("--no-faults");
    }
    if let Some(directory) = &args.keep {
        command.arg("--keep").arg(directory);
    }
    let output = command.stdin(Stdio::null()).output().context("starting a process for the seed")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last().map(serde_json::from_str) {
        Some(Ok(report)) => Ok(report),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = errors.lines().collect();
            let last = lines.get(lines.len().saturating_sub(LAST_WORDS)..).unwrap_or_default();
            bail!("the process ended with {} and no report: {}", output.status, last.join(" | "))
        }
    }
}

/// Runs seeds, several at a time, and hands each report over.
pub(crate) fn each(args: &Args, seeds: Range<u64>, judge: impl Fn(u64, Result<SeedReport>) + Sync) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    judge(seed, apart(args, seed));
                }
            });
        }
    });
}
