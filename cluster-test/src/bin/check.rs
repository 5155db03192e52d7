//! Judges recorded histories once more: `check -- FILE…`.
//!
//! Files, and the `*.jsonl` files of directories, are merged into the history of one run. The report for people comes
//! first, the last line is the same as JSON. Exit code 0: nothing wrong; 1: findings; 2: usage, or a history that cannot
//! be believed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use verify::history::{Expectations, History, files_of};
use verify::report::Report;

/// Judge recorded histories: was anything acknowledged lost, written twice, out of order, or different on two replicas?
#[derive(Debug, Parser)]
#[command(
    name = "check",
    after_help = "Without flags the histories' own expectations count, as the harness that recorded them told them.\n\
    Exit codes: 0 clean, 1 findings, 2 usage or a history that cannot be read or believed.\n\
    Example: cargo run --release -p cluster-test --bin check -- target/chaos/round-3"
)]
struct Args {
    /// Histories of one run, as JSON lines; of a directory, its files that end with .jsonl
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Each partition must have been read from this many replicas at the end
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Records may have been deleted by retention
    #[arg(long)]
    retention: bool,
    /// Not every offset needs to hold a record
    #[arg(long)]
    sparse: bool,
    /// Topics may have been given more partitions
    #[arg(long)]
    grows: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match judge(&args) {
        Ok(report) => {
            // A closed pipe is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{report}\n{}", report.json_line());
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "check: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn judge(args: &Args) -> Result<Report> {
    let history = History::read(&files_of(&args.paths)?)?;
    Ok(Report::judge(&history, &args.expectations(&history)))
}

impl Args {
    /// The history's own, and what the flags say over them.
    fn expectations(&self, history: &History) -> Expectations {
        let own = history.expectations.unwrap_or_default();
        Expectations {
            retention: own.retention || self.retention,
            replicas: self.replicas.unwrap_or(own.replicas),
            dense: own.dense && !self.sparse,
            grows: own.grows || self.grows,
        }
    }
}
