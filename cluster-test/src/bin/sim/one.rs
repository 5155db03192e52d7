//! One seed in this process.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use cluster_test::sim::{Logs, SimConfig, run_seed};
use rustix::process::{Signal, set_parent_process_death_signal};
use verify::history::Event;

use super::args::Args;
use super::tell::{print, say, tell};

/// Exit code of a seed that did not end in time, as of `timeout`.
const EXIT_HUNG: i32 = 124;

/// Runs a seed; for people (`replay`) with its trace, for a parent process with its report alone. True if it is clean.
pub(crate) fn run(args: &Args, seed: u64, replay: bool) -> Result<bool> {
    if !replay {
        obey_parent(args.patience);
    }
    if let Some(name) = &args.mutant {
        carry(name)?;
    }
    let logs = match std::env::var("RUST_LOG") {
        Ok(level) if replay => Logs::install(&level)?,
        _ => Logs::default(),
    };
    let config = SimConfig {
        secs: Duration::from_secs(args.secs),
        with: args.with.clone(),
        nodes: args.nodes.clone(),
        faults: !args.no_faults,
        keep_trace: replay,
        logs: logs.clone(),
    };
    let outcome = run_seed(seed, &config)?;
    let report = &outcome.report;
    outcome.trace.lines(logs.take()).iter().for_each(|line| print(line));
    if let Some(directory) = &args.keep
        && (replay || !report.is_clean())
    {
        let path = keep(directory, seed, &outcome.history)?;
        if replay {
            say(&format!("history: {}", path.display()));
        }
    }
    if replay {
        tell(args, report);
    }
    print(&serde_json::to_string(report)?);
    Ok(report.is_clean())
}

/// Makes this process carry a deliberate bug.
#[cfg(feature = "mutants")]
fn carry(name: &str) -> Result<()> {
    disk::mutant::choose(name)?;
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn carry(_: &str) -> Result<()> {
    anyhow::bail!(super::args::NO_MUTANTS)
}

/// Dies with the parent, and by itself when a seed hangs: a simulation that spins cannot be asked to stop.
fn obey_parent(patience_s: u64) {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        say(&format!("this process will outlive a parent that is killed: {error}"));
    }
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(patience_s));
        say(&format!("no end within {patience_s} s of wall-clock time"));
        std::process::exit(EXIT_HUNG);
    });
}

/// Writes a history as JSON Lines.
#[expect(clippy::disallowed_types, reason = "a history is a file of whoever runs the check, not broker data")]
fn keep(directory: &Path, seed: u64, history: &[Event]) -> Result<PathBuf> {
    let path = directory.join(format!("seed-{seed}.jsonl"));
    let write = || -> Result<()> {
        std::fs::create_dir_all(directory)?;
        let mut file = BufWriter::new(std::fs::File::create(&path)?);
        for event in history {
            serde_json::to_writer(&mut file, event)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    };
    write().with_context(|| format!("writing the history to {}", path.display()))?;
    Ok(path)
}
