//! The command tree. A noun, a verb, then names and flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCompleter;

use crate::command::bench::args::Bench;
use crate::command::group::args::Group;
use crate::command::verify::args::Verify;
use crate::completion;
use crate::convert;
use crate::escape;
use crate::offset::{Place, Range};
use crate::output::Format;

/// Talk to an Altair cluster.
#[derive(Debug, Parser)]
#[command(
    name = "altair-cli",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
#[command(
    after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable (retry), \
    7 timeout or outcome unknown, 10 unhealthy.\nAn error's code is explained by: altair-cli error <code>"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// gRPC addresses of brokers; one that answers is enough
    #[arg(
        long,
        global = true,
        env = "ALTAIR_ADDR",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7400",
        hide_env_values = true
    )]
    pub(crate) addr: Vec<String>,
    /// Form of the output; help lists the fields of the JSON [default: table]
    #[arg(
        short,
        long,
        global = true,
        env = "ALTAIR_OUTPUT",
        value_enum,
        hide_possible_values = true,
        value_name = "table|wide|json|yaml|ndjson|name|help"
    )]
    pub(crate) output: Option<Format>,
    /// Print names only, and nothing for people
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show the calls that are made
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Longest wait for an answer, and of consume for the next record
    #[arg(long, global = true, value_parser = convert::duration, value_name = "DURATION", default_value = "10s")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe, change and delete topics
    #[command(subcommand)]
    Topic(Topic),
    /// Look at partitions and move their leaders
    #[command(subcommand)]
    Partition(Partition),
    /// Write records: one from the command line, or many from a file or standard input
    Produce(Produce),
    /// Read records
    Consume(Consume),
    /// Look at consumer groups, see how far they are behind, move and delete their offsets
    #[command(subcommand)]
    Group(Group),
    /// Look at brokers
    #[command(subcommand)]
    Broker(Broker),
    /// Look at the cluster as a whole
    #[command(subcommand)]
    Cluster(Cluster),
    /// Measure what the cluster does a second, and how long it takes
    #[command(subcommand)]
    Bench(Bench),
    /// Prove that a running cluster keeps its word: write, read, compare, judge
    #[command(subcommand)]
    Verify(Verify),
    /// Look into the data directory of a stopped broker
    #[command(subcommand)]
    Log(Log),
    /// Explain an error code; without one, list all
    Error {
        /// For example ALT-2107, or 2107
        code: Option<String>,
    },
    /// Print the script that gives a shell completion: source <(altair-cli completion bash)
    Completion {
        /// The shell
        #[arg(value_parser = ["bash", "zsh", "fish", "powershell", "elvish"])]
        shell: String,
    },
    /// Print the version
    Version,
}

/// Watching instead of looking once.
#[derive(Debug, Clone, Args)]
pub(crate) struct Watch {
    /// Show it again and again until Ctrl-C
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_name = "EVERY", value_parser = convert::duration)]
    pub(crate) watch: Option<Duration>,
}

/// Settings of a topic, as flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct TopicSettings {
    /// How long records are kept, for example 7d, or none
    #[arg(long, value_name = "DURATION")]
    pub(crate) retention: Option<String>,
    /// How much of a partition is kept, for example 10GiB, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) retention_bytes: Option<String>,
    /// Replicas that must be in sync for a write to be taken
    #[arg(long, value_name = "N")]
    pub(crate) min_insync_replicas: Option<u32>,
    /// Any setting: retention_ms, retention_bytes, segment_bytes, max_batch_bytes, min_insync_replicas, description
    #[arg(long = "config", short = 'c', value_name = "KEY=VALUE", value_parser = convert::topic_setting)]
    pub(crate) config: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create topics
    #[command(after_help = "Example: altair-cli topic create orders --rf 3 --partitions 12 --retention 7d")]
    Create(TopicCreate),
    /// List topics
    List {
        /// Only topics whose name contains this
        filter: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show topics with their partitions and settings
    Describe {
        /// Names of topics
        #[arg(required = true, add = ArgValueCompleter::new(completion::topics))]
        names: Vec<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Change settings, or add partitions
    Update(TopicUpdate),
    /// Delete topics with all their records
    Delete {
        /// Names of topics
        #[arg(required = true, add = ArgValueCompleter::new(completion::topics))]
        names: Vec<String>,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
        /// Check, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TopicCreate {
    /// Names of the new topics
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Number of partitions [default: the broker's topics.default_partitions]
    #[arg(long, short, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) partitions: u32,
    /// Replicas of each partition [default: the broker's topics.default_rf]
    #[arg(
        long = "rf",
        visible_alias = "replication-factor",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) rf: u32,
    #[command(flatten)]
    pub(crate) settings: TopicSettings,
    /// Check, and create nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait until every partition has a leader
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopicUpdate {
    /// Name of the topic
    #[arg(add = ArgValueCompleter::new(completion::topics))]
    pub(crate) name: String,
    /// New number of partitions; it can only grow
    #[arg(long, short, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) partitions: u32,
    #[command(flatten)]
    pub(crate) settings: TopicSettings,
    /// Settings that go back to their default
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub(crate) reset: Vec<String>,
    /// Check, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Partition {
    /// List partitions with leader, replicas, offsets and size
    List {
        /// Only of this topic
        #[arg(add = ArgValueCompleter::new(completion::topics))]
        topic: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Move the leadership of a partition to another replica
    TransferLeader {
        /// The partition, for example orders/3
        partition: String,
        /// Id of the broker [default: the preferred leader]
        #[arg(long, value_name = "BROKER")]
        to: Option<u32>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    altair-cli produce orders --key a hello\n  \
    seq 1000 | altair-cli produce numbers\n  \
    altair-cli produce users --key-separator : --file users.txt\n  \
    apt-cache dumpavail | altair-cli produce packages --delimiter '\\n\\n' --key-field Package --compression zstd")]
pub(crate) struct Produce {
    /// The topic
    #[arg(add = ArgValueCompleter::new(completion::topics))]
    pub(crate) topic: String,
    /// The value of one record; without it, records are read from --file or standard input
    #[arg(conflicts_with_all = ["file", "delimiter", "key_separator", "key_field"])]
    pub(crate) value: Option<String>,
    /// Read records from this file; - is standard input
    #[arg(long, short, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// What stands between records; \n \t \r \0 \\ \xNN are understood [default: \n]
    #[arg(long, short, value_parser = escape::separator, value_name = "TEXT")]
    pub(crate) delimiter: Option<std::vec::Vec<u8>>,
    /// Write empty records too, instead of skipping them
    #[arg(long)]
    pub(crate) keep_empty: bool,
    /// The key of all records
    #[arg(long, short, conflicts_with_all = ["key_separator", "key_field"])]
    pub(crate) key: Option<String>,
    /// The key stands before this, the value after it, in each record
    #[arg(long, value_parser = escape::separator, value_name = "TEXT", conflicts_with = "key_field")]
    pub(crate) key_separator: Option<std::vec::Vec<u8>>,
    /// The key is what follows `NAME:` at the beginning of a line of the record, for example Package; the record itself
    /// stays whole
    #[arg(long, value_name = "NAME")]
    pub(crate) key_field: Option<String>,
    /// A header of all records
    #[arg(long = "header", short = 'H', value_name = "KEY=VALUE", value_parser = convert::header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Write to this partition instead of choosing by key
    #[arg(long, short, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// When a record counts as written: all (on a quorum), leader, or none
    #[arg(long, default_value = "all", value_parser = ["all", "leader", "none", "-1", "1", "0"])]
    pub(crate) acks: String,
    /// Compression: none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', default_value = "none", value_parser = clap::value_parser!(wire::record::Compression))]
    pub(crate) compression: wire::record::Compression,
    /// At most this many records a second
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) rate: u32,
    /// Give up on a record after this long, retries included
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = convert::duration)]
    pub(crate) delivery_timeout: Duration,
    /// No progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Places: earliest, latest, an offset (4711), -100 for the last hundred, @2026-11-20T10:00Z, @-15m.\n\
    Examples:\n  \
    altair-cli consume orders --from earliest\n  \
    altair-cli consume orders --follow -o json\n  \
    altair-cli consume orders --partition 3 --from 100..200\n  \
    altair-cli consume orders --from @-15m -n 10\n  \
    altair-cli consume orders --group billing --follow"
)]
pub(crate) struct Consume {
    /// The topic
    #[arg(add = ArgValueCompleter::new(completion::topics))]
    pub(crate) topic: String,
    /// Where to begin, or a range a..b [default: earliest; with --follow: latest]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    pub(crate) from: Option<Range>,
    /// Where to end, not included [default: latest, as it was at the start]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true, conflicts_with = "follow")]
    pub(crate) to: Option<Place>,
    /// Wait for new records until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// End at the end of the log, which is the default
    #[arg(long, conflicts_with = "follow")]
    pub(crate) no_follow: bool,
    /// End after this many records
    #[arg(short = 'n', long = "count", value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Only these partitions
    #[arg(long, short, value_name = "N", value_delimiter = ',')]
    pub(crate) partition: Vec<u32>,
    /// What follows each value with -o value; \n \t \r \0 \\ \xNN are understood
    #[arg(long, short, default_value = "\\n", value_parser = escape::unescape, value_name = "TEXT")]
    pub(crate) delimiter: std::vec::Vec<u8>,
    /// Read as a member of a consumer group, from its committed offsets; the topic may be a pattern (orders.*, orders.>)
    #[arg(long, short, value_name = "GROUP", conflicts_with_all = ["partition", "to"], add = ArgValueCompleter::new(completion::groups))]
    pub(crate) group: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Broker {
    /// List the brokers of the cluster
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one broker and the partitions it leads and follows
    Describe {
        /// Its id
        id: u32,
        #[command(flatten)]
        watch: Watch,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the cluster: brokers, topics, and what is wrong
    Status {
        #[command(flatten)]
        watch: Watch,
    },
    /// Say in one line whether all is well; exit code 10 if not
    Health {
        /// Wait until it is healthy, at most as long as --timeout
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Print what stands in a data directory: write-ahead log, checkpoints, partitions. Changes nothing
    Dump {
        /// The broker's storage.data_dir
        directory: PathBuf,
        /// Every frame and batch, not only the files
        #[arg(long)]
        full: bool,
        /// Only this Raft group
        #[arg(long, value_name = "GROUP")]
        group: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_documentation_parse() {
        for line in [
            "altair-cli topic create orders --rf 3",
            "altair-cli topic create orders --rf 3 --partitions 12 --retention 7d -c max_batch_bytes=4MiB",
            "altair-cli topic list --watch",
            "altair-cli topic list --watch=500ms -o json",
            "altair-cli topic describe orders payments",
            "altair-cli topic update orders --partitions 24 --reset retention_ms,segment_bytes",
            "altair-cli topic delete orders --yes",
            "altair-cli partition list orders",
            "altair-cli partition transfer-leader orders/3 --to 2",
            "altair-cli produce orders --key a hello",
            "altair-cli produce packages --delimiter \\n\\n --key-field Package",
            "altair-cli produce orders -H trace=1 -H a=b --acks leader -z zstd --file x",
            "altair-cli consume orders --from earliest",
            "altair-cli consume orders --from -100",
            "altair-cli consume orders --from 10..-5 -n 3 --partition 1,2",
            "altair-cli consume orders --to @-15m",
            "altair-cli consume orders --follow -o json",
            "altair-cli consume orders --group billing",
            "altair-cli consume payments.> --group billing --follow -n 5",
            "altair-cli group list bill --watch",
            "altair-cli group describe billing fraud",
            "altair-cli group lag --partitions -o json",
            "altair-cli group seek billing --to -100 --topic orders --dry-run",
            "altair-cli group seek billing --shift -5 --partition orders/3,orders/4 --yes",
            "altair-cli group delete billing --yes",
            "altair-cli group pause billing",
            "altair-cli group resume billing",
            "altair-cli cluster status",
            "altair-cli cluster health --wait --timeout 30s",
            "altair-cli broker list --addr a:1,b:2",
            "altair-cli broker describe 3",
            "altair-cli verify run --minutes 5",
            "altair-cli verify run --duration 90s --partitions 12 --rf 3 --writers 8 --readers 0 --with transfers --yes",
            "altair-cli verify run --keep kept --keep-topic --topic-prefix mine -o json",
            "altair-cli verify report kept/a.jsonl kept/b.jsonl",
            "altair-cli log dump data",
            "altair-cli bench produce --record-size 100 --acks leader --duration 30s --rf 3",
            "altair-cli bench produce --scenario realistic -o json",
            "altair-cli bench consume --preload 1GiB",
            "altair-cli bench e2e --rate 1000 --record-size 1KiB",
            "altair-cli error ALT-2107",
            "altair-cli completion zsh",
            "altair-cli version",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "altair-cli produce orders value --file x",
            "altair-cli produce orders --key a --key-field b",
            "altair-cli consume orders --follow --to latest",
            "altair-cli consume orders --from never",
            "altair-cli consume orders --group billing --partition 3",
            "altair-cli consume orders --group billing --to latest",
            "altair-cli consume",
            "altair-cli group seek billing",
            "altair-cli group seek billing --to latest --shift 3",
            "altair-cli produce orders --acks most",
            "altair-cli topic create",
            "altair-cli bench produce --scenario size --rate 5",
            "altair-cli bench produce --in-flight 6",
            "altair-cli bench e2e --rate 0",
            "altair-cli topic list -o xml",
            "altair-cli verify run --minutes 1 --duration 60s",
            "altair-cli verify run --minutes 0",
            "altair-cli verify run --with kills",
            "altair-cli verify report",
            "altair-cli --timeout soon version",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
