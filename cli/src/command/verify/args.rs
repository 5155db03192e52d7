//! The words of `verify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::convert;

#[derive(Debug, Subcommand)]
pub(crate) enum Verify {
    /// Run a workload on the cluster for a while and judge what its clients saw
    Run(Box<VerifyRun>),
    /// Judge a history that was kept once more
    #[command(
        after_help = "Exit codes: 0 clean, 10 the cluster broke its word, 2 a history that cannot be read or believed.\n\
        Example: altair-cli verify report kept/"
    )]
    Report {
        /// Histories of one run; of a directory, its files that end with .jsonl
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
What it does: creates a topic of its own, lets writers send records that are all different and readers, seekers and \
observers look at them, writes every call and its answer into a history, reads every replica whole at the end, and \
judges: nothing acknowledged is lost, nothing of an idempotent producer stands twice, order holds, replicas are the same. \
Outcomes that nobody can know count as unknown, for and against the cluster.\n\n\
Nothing but its own topic is touched, and it is removed at the end; after findings it stays, as evidence. Break what you \
like meanwhile (restart brokers, pull cables); with --with transfers the run moves leaders of its own partitions itself. \
Ctrl-C ends the run early and still judges; a second one ends at once.\n\n\
Exit codes: 0 clean, 10 the cluster broke its word, 6 it cannot be reached or read, 4 it cannot carry the topic.\n\n\
Examples:\n  \
altair-cli verify run --minutes 5\n  \
altair-cli verify run --duration 90s --partitions 12 --with transfers --yes\n  \
altair-cli verify run --minutes 30 --keep kept/ -o json; altair-cli verify report kept/")]
pub(crate) struct VerifyRun {
    /// How long the workload runs [default: 1 minute]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=10_080), conflicts_with = "duration")]
    pub(crate) minutes: Option<u32>,
    /// How long the workload runs, for example 90s or 1h
    #[arg(long, value_name = "DURATION", value_parser = convert::duration)]
    pub(crate) duration: Option<Duration>,
    /// Beginning of the topic's name; the rest makes it unique
    #[arg(long, value_name = "NAME", default_value = "altair-verify")]
    pub(crate) topic_prefix: String,
    /// Partitions of the topic
    #[arg(long, short, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) partitions: u32,
    /// Replicas of each partition [default: 3, or as many as there are brokers]
    #[arg(long = "rf", visible_alias = "replication-factor", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rf: Option<u32>,
    /// Writers, each with a connection of its own and about a hundred records a second
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) writers: u32,
    /// Readers; every second one seeks to and fro
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=200))]
    pub(crate) readers: u32,
    /// Faults that the run itself may cause; none without this
    #[arg(long = "with", value_name = "FAULT", value_delimiter = ',', value_enum)]
    pub(crate) with: Vec<VerifyFault>,
    /// Keep the history and the report in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Do not remove the topic at the end
    #[arg(long)]
    pub(crate) keep_topic: bool,
    /// Do not ask before faults are caused
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

/// What a run may do to the cluster besides writing and reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyFault {
    /// Move the leaders of the run's own partitions to and fro
    Transfers,
}
