//! The flags of `group`.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use crate::args::Watch;
use crate::completion;
use crate::offset::Place;

/// What is done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List consumer groups
    List {
        /// Only groups whose id contains this
        filter: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show members, hosts, assignment, lag, and the last rebalance with its reason
    Describe {
        /// Ids of groups
        #[arg(required = true, add = ArgValueCompleter::new(completion::groups))]
        names: Vec<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show how far groups are behind, in records and in time
    Lag {
        /// Ids of groups [default: all]
        #[arg(add = ArgValueCompleter::new(completion::groups))]
        names: Vec<String>,
        /// One line for each partition
        #[arg(long, short)]
        partitions: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Move committed offsets, also backwards; members that read begin again from there
    #[command(
        after_help = "Places: earliest, latest, an offset (4711), -100 for the last hundred, @2026-11-20T10:00Z, @-15m.\n\
        Examples:\n  \
        altair-cli group seek billing --to earliest --dry-run\n  \
        altair-cli group seek billing --to @-15m --topic orders\n  \
        altair-cli group seek billing --shift -100 --partition orders/3 --yes"
    )]
    Seek(GroupSeek),
    /// Delete groups without members, with their offsets
    Delete {
        /// Ids of groups
        #[arg(required = true, add = ArgValueCompleter::new(completion::groups))]
        names: Vec<String>,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
        /// Check, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Let the members of groups stop reading; they keep their partitions
    Pause {
        /// Ids of groups
        #[arg(required = true, add = ArgValueCompleter::new(completion::groups))]
        names: Vec<String>,
    },
    /// End a pause
    Resume {
        /// Ids of groups
        #[arg(required = true, add = ArgValueCompleter::new(completion::groups))]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct GroupSeek {
    /// Id of the group
    #[arg(add = ArgValueCompleter::new(completion::groups))]
    pub(crate) name: String,
    /// Where to go on
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true, required_unless_present = "shift")]
    pub(crate) to: Option<Place>,
    /// By how many records to move, backwards with a minus
    #[arg(long, value_name = "N", allow_hyphen_values = true, conflicts_with = "to")]
    pub(crate) shift: Option<i64>,
    /// Only these topics [default: everything that the group has committed or assigned]
    #[arg(long, value_name = "TOPIC", value_delimiter = ',', add = ArgValueCompleter::new(completion::topics))]
    pub(crate) topic: Vec<String>,
    /// Only these partitions, for example orders/3
    #[arg(long, value_name = "TOPIC/N", value_delimiter = ',')]
    pub(crate) partition: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    /// Show where the offsets would go, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
