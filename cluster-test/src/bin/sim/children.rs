//! Seeds in processes of their own: state of a process that outlives a run would leak into the next.

use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use cluster_test::sim::{FaultKind, SeedReport};

use super::args::{Args, names};

/// Last lines of a process that ended without a report.
const LAST_WORDS: usize = 8;

/// A run in a process of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    /// The seed.
    pub(crate) seed: u64,
    /// The deliberate bug that the process carries.
    pub(crate) mutant: Option<&'static str>,
    /// Kinds of faults that come whatever the seed draws.
    pub(crate) with: &'a [FaultKind],
}

/// Runs a seed in a fresh process.
pub(crate) fn apart(args: &Args, task: &Task<'_>) -> Result<SeedReport> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", &task.seed.to_string(), "--secs", &args.secs.to_string()]);
    command.args(["--nodes", &args.nodes_text(), "--patience", &args.patience.to_string()]);
    if args.no_faults {
        command.arg("--no-faults");
    }
    if !task.with.is_empty() {
        command.args(["--with", &names(task.with)]);
    }
    if let Some(mutant) = task.mutant {
        command.args(["--mutant", mutant]);
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

/// Does something for each number, for several at a time.
pub(crate) fn each(args: &Args, numbers: Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}
