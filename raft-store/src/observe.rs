//! What the WAL tells someone who watches it: a simulation that checks invariants while it runs.
//!
//! Nobody listens in production, and nothing is built for nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::types::{LogPosition, ReplicaId, Vote};

/// One replica of one Raft group: a replica id is never used again, so this names a log for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupReplica {
    /// The group.
    pub group: u64,
    /// Its replica.
    pub replica: ReplicaId,
}

impl fmt::Display for GroupReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} replica {}", self.group, self.replica)
    }
}

/// An entry that recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Its position.
    pub position: LogPosition,
    /// As [`crate::entry::digest`].
    pub digest: u32,
    /// The WAL file in which it stands.
    pub file: u64,
}

/// What a durable checkpoint says of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointMark {
    /// The replica.
    pub of: GroupReplica,
    /// Its vote.
    pub vote: Option<Vote>,
    /// Last purged entry.
    pub purged: Option<LogPosition>,
    /// Last entry that its own files hold durably.
    pub applied: Option<LogPosition>,
}

/// Something that happened in the WAL. Within one replica events come in the order of what they tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalEvent {
    /// The WAL was opened and holds this log.
    Recovered {
        /// The replica.
        of: GroupReplica,
        /// Its last vote.
        vote: Option<Vote>,
        /// Last purged entry.
        purged: Option<LogPosition>,
        /// Last entry known to be committed.
        committed: Option<LogPosition>,
        /// Last entry that the replica's own files hold durably.
        applied: Option<LogPosition>,
        /// Durable frames of it were lost: the replica does not take part again.
        damaged: bool,
        /// The entries that are there, in order, without gaps.
        entries: Vec<RecoveredEntry>,
    },
    /// The WAL is open: every log that it holds was told.
    Opened,
    /// A log was created, durably.
    Created {
        /// The replica.
        of: GroupReplica,
    },
    /// A log was deleted, durably.
    Deleted {
        /// The replica.
        of: GroupReplica,
    },
    /// A vote is about to be made durable.
    Vote {
        /// The replica.
        of: GroupReplica,
        /// Its vote.
        vote: Vote,
    },
    /// A vote is durable.
    VoteDurable {
        /// The replica.
        of: GroupReplica,
        /// Its vote.
        vote: Vote,
    },
    /// An entry was appended and can be read; it is not durable yet.
    Appended {
        /// The replica.
        of: GroupReplica,
        /// The entry.
        position: LogPosition,
        /// As [`crate::entry::digest`].
        digest: u32,
        /// The voters that it sets, if it is a membership change: one set, or two while it is joint.
        voters: Option<Vec<BTreeSet<ReplicaId>>>,
    },
    /// An entry is durable.
    EntryDurable {
        /// The replica.
        of: GroupReplica,
        /// The entry.
        position: LogPosition,
        /// As [`crate::entry::digest`].
        digest: u32,
        /// The WAL file in which it stands.
        file: u64,
        /// The entry was durable before and has another place now.
        relocated: bool,
    },
    /// Entries from this index on were removed from the log.
    Truncated {
        /// The replica.
        of: GroupReplica,
        /// First index removed.
        from: u64,
    },
    /// The removal is durable.
    TruncateDurable {
        /// The replica.
        of: GroupReplica,
        /// First index removed.
        from: u64,
    },
    /// Entries up to this one were removed from the log because they are no longer needed.
    Purged {
        /// The replica.
        of: GroupReplica,
        /// Last entry removed.
        upto: LogPosition,
    },
    /// Raft told that the log is committed up to this entry.
    Committed {
        /// The replica.
        of: GroupReplica,
        /// Last committed entry.
        upto: LogPosition,
    },
    /// The hint of how far the log is committed is durable.
    CommittedDurable {
        /// The replica.
        of: GroupReplica,
        /// Last committed entry.
        upto: LogPosition,
    },
    /// A checkpoint is durable.
    Checkpoint {
        /// Its number; the newest two are kept.
        id: u64,
        /// What it says of each replica.
        marks: Vec<CheckpointMark>,
    },
    /// A WAL file was given up: what stood in it cannot be read any more.
    FileReleased {
        /// The file.
        file: u64,
    },
}

type Listener = dyn Fn(&WalEvent) + Send + Sync;

/// Who watches a WAL; nobody by default. Cheap to clone.
///
/// The listener is called from the tasks of the groups and from the writer's thread. It must not call the WAL.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Listener>>);

impl Observer {
    /// An observer that hands every event to `listener`.
    pub fn new(listener: impl Fn(&WalEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// True if somebody listens.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of an event, which is made only if somebody listens.
    pub(crate) fn note(&self, event: impl FnOnce() -> WalEvent) {
        if let Some(listener) = &self.0 {
            listener(&event());
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.listens() { "Observer(listening)" } else { "Observer(nobody)" })
    }
}
