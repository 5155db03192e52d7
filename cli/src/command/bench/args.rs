//! The flags of `bench`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::convert;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// How many records a second are written, and how long an ack takes
    #[command(after_help = "Examples:\n  \
        altair-cli bench produce\n  \
        altair-cli bench produce --record-size 100 --acks leader --duration 30s\n  \
        altair-cli bench produce --rate 1000 --linger 0ms\n  \
        altair-cli bench produce --scenario realistic -o json")]
    Produce(ProduceBench),
    /// How many records a second are read; writes them first unless --topic names some
    #[command(after_help = "Examples:\n  \
        altair-cli bench consume --preload 1GiB\n  \
        altair-cli bench consume --topic orders")]
    Consume(ConsumeBench),
    /// How long a record takes from its send to its arrival at a consumer
    #[command(after_help = "Example: altair-cli bench e2e --rate 1000 --record-size 1KiB --duration 30s")]
    E2e(E2eBench),
}

/// A load with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Records as fast as they go: batches are sent because they are full
    Size,
    /// A record now and then: batches are sent because their time is over
    Time,
    /// Records of mixed sizes with keys at a steady rate of 2,000 a second
    Realistic,
}

/// Where the records go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Topic")]
pub(crate) struct Target {
    /// An existing topic, which is kept [default: a new one, deleted at the end]
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// Partitions of a new topic
    #[arg(long, short, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) partitions: u32,
    /// Replicas of each partition of a new topic [default: the broker's topics.default_rf]
    #[arg(
        long = "rf",
        visible_alias = "replication-factor",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) rf: u32,
    /// Keep the new topic
    #[arg(long)]
    pub(crate) keep: bool,
}

/// How records are written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Records")]
pub(crate) struct Writing {
    /// Size of a record's value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = convert::size)]
    pub(crate) record_size: u64,
    /// Bytes of a full batch
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = convert::size)]
    pub(crate) batch_size: u64,
    /// How long a batch waits for more records
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = convert::duration)]
    pub(crate) linger: Duration,
    /// Batches of one partition on their way at once
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub(crate) in_flight: u32,
    /// When a record counts as written: all (on a quorum), leader, or none
    #[arg(long, default_value = "all", value_parser = ["all", "leader", "none", "-1", "1", "0"])]
    pub(crate) acks: String,
    /// Compression: none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', default_value = "none", value_parser = clap::value_parser!(wire::record::Compression))]
    pub(crate) compression: wire::record::Compression,
    /// Producers, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) producers: u32,
}

/// How long it is measured.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Measurement")]
pub(crate) struct Span {
    /// How long it is measured
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = convert::duration)]
    pub(crate) duration: Duration,
    /// How long it runs before that
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = convert::duration)]
    pub(crate) warmup: Duration,
    /// No progress line
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// `bench produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceBench {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) span: Span,
    /// Records a second over all producers; a record's time then counts from the moment at which it was due, so that a
    /// stall is not hidden by the records that were not sent during it [default: as fast as it goes]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) rate: u32,
    /// A load with a name, in place of --rate, --record-size and --linger
    #[arg(long, value_enum, conflicts_with_all = ["rate", "record_size", "linger"])]
    pub(crate) scenario: Option<Scenario>,
}

/// `bench consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeBench {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// How much is written first to a new topic
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = convert::size)]
    pub(crate) preload: u64,
    /// End after this long even if not everything is read
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = convert::duration)]
    pub(crate) duration: Duration,
    /// No progress line
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// `bench e2e`.
#[derive(Debug, Args)]
pub(crate) struct E2eBench {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) span: Span,
    /// Records a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
}
