//! Deliberate bugs, one of which a process may carry, to prove that the simulator finds bugs of their kind.
//!
//! A mutation point stands in the real code and reads `mutant::on(Mutant::X)`. Without the feature `mutants`, which no
//! shipped build has, that is a constant `false` and nothing is left of it. With the feature it is true in a process
//! that called `choose` with the mutant's name before it started a broker; no file and no variable turns it on.

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// The fsync of a write of the write-ahead log comes before the next write, not before the answer.
    AckBeforeFsync = 1,
    /// Every 64th write of the write-ahead log is not synced.
    SkipFsync,
    /// A vote is kept in memory only.
    VoteNotPersisted,
    /// A truncation leaves no trace in the write-ahead log.
    TruncateNotPersisted,
    /// The committed position on disk is that of the last entry.
    CommittedTooFar,
    /// Recovery takes a frame whose body fails its checksum.
    BadCrcAccepted,
    /// Recovery takes damage for a torn tail.
    DamageAsTornTail,
    /// A failed fsync is tried again.
    FsyncErrorRetried,
    /// A purge takes one entry more than the state on disk covers.
    PurgeOneTooFar,
    /// A file of the write-ahead log goes although entries in it are needed.
    WalReleasedEarly,
    /// A restarted leader leads on without an election.
    ResumeAsLeader,
    /// A follower applies what it receives.
    ApplyBeforeCommit,
    /// The leader counts an entry as replicated when it is sent.
    HighWatermarkFromAppend,
    /// Snapshots and state files do not know the producers.
    ProducersNotInSnapshot,
    /// A checkpoint names segments that were not synced.
    CheckpointBeforeSegmentSync,
    /// The end of a partition is told without asking a quorum.
    StaleLeaderReads,
    /// Every voter counts as in sync.
    IsrIgnoresLag,
    /// A broker that lost its disk keeps its replica ids.
    ReplicaIdReused,
    /// The first batches of a new leader are not checked for duplicates.
    DuplicatesAfterFailover,
    /// The applied position on disk is older than the data beside it.
    AppliedNotAtomic,
    /// An unknown outcome is told as a definite failure.
    UnknownToldAsFailure,
    /// A gap in a producer's sequences is accepted.
    SequenceGapAccepted,
    /// Batches are stamped with the epoch that the replica is at, not with the entry's.
    EpochOfReplica,
    /// An installed snapshot is not named by a checkpoint.
    InstallWithoutCheckpoint,
    /// A block of producer ids is handed out again and again.
    ProducerIdsReused,
    /// A replica that the metadata do not know is deleted.
    OrphanDeleted,
    /// A replica that has not caught up calls an offset out of range.
    LaggingOutOfRange,
    /// A partition of a group goes to its next member before the one that has it let go.
    GrantBeforeRelease,
    /// A member is told to begin one record behind the committed offset.
    AssignedOneTooFar,
    /// A commit of offsets is answered before it is committed.
    CommitNotAwaited,
    /// A rebalance leaves the last partition to nobody.
    PartitionLeftOut,
    /// Silent members keep their sessions.
    SessionsNeverEnd,
    /// A member is expelled after a fifth of its session.
    ExpelledEarly,
}

/// What people read about a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// The mutant.
    pub mutant: Mutant,
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// The invariant of the architecture (I) or class of bugs that it stands for.
    pub breaks: &'static str,
}

const fn describe(
    mutant: Mutant,
    name: &'static str,
    what: &'static str,
    breaks: &'static str,
) -> Description {
    Description { mutant, name, what, breaks }
}

/// All mutants.
pub const ALL: &[Description] = &[
    describe(
        Mutant::AckBeforeFsync,
        "ack-before-fsync",
        "the write-ahead log answers first and syncs before its next write",
        "I2 ack before fsync",
    ),
    describe(
        Mutant::SkipFsync,
        "skip-fsync",
        "every 64th write of the write-ahead log is answered without an fsync",
        "I2 ack before fsync",
    ),
    describe(
        Mutant::VoteNotPersisted,
        "vote-not-persisted",
        "a vote is answered without a frame in the write-ahead log",
        "I2 two votes in one term",
    ),
    describe(
        Mutant::TruncateNotPersisted,
        "truncate-not-persisted",
        "neither a truncation nor the append after it removes entries when the log is replayed",
        "I2 truncated entries come back",
    ),
    describe(
        Mutant::CommittedTooFar,
        "committed-too-far",
        "the committed position that a restart applies up to is the last entry of the log",
        "I9 uncommitted entries applied",
    ),
    describe(
        Mutant::BadCrcAccepted,
        "bad-crc-accepted",
        "recovery of the write-ahead log takes frames whose body fails its checksum",
        "I4 damage accepted",
    ),
    describe(
        Mutant::DamageAsTornTail,
        "damage-as-torn-tail",
        "damage in the newest file of the write-ahead log cuts the log there without a word",
        "I4 durable entries forgotten",
    ),
    describe(
        Mutant::FsyncErrorRetried,
        "fsync-error-retried",
        "a failed fsync of the write-ahead log is tried once more and believed",
        "I3 fsync retried",
    ),
    describe(
        Mutant::PurgeOneTooFar,
        "purge-one-too-far",
        "a purge takes the first entry that the state on disk does not cover",
        "I7 purge beyond the snapshot",
    ),
    describe(
        Mutant::WalReleasedEarly,
        "wal-released-early",
        "the oldest file of the write-ahead log that is needed is released",
        "I7 log released before it is covered",
    ),
    describe(
        Mutant::ResumeAsLeader,
        "resume-as-leader",
        "a leader that restarts leads on in its old term",
        "I9 no election after a restart",
    ),
    describe(
        Mutant::ApplyBeforeCommit,
        "apply-before-commit",
        "a follower takes the last entry of each request as committed",
        "I5 apply before commit",
    ),
    describe(
        Mutant::HighWatermarkFromAppend,
        "high-watermark-from-append",
        "a leader counts entries as replicated when they are sent",
        "I1 commit without a quorum",
    ),
    describe(
        Mutant::ProducersNotInSnapshot,
        "producers-not-in-snapshot",
        "state files and snapshots leave the producers out",
        "I7 producer state lost",
    ),
    describe(
        Mutant::CheckpointBeforeSegmentSync,
        "checkpoint-before-segment-sync",
        "checkpoints name segments that were not synced, and the log is purged behind them",
        "I7 checkpoint before data",
    ),
    describe(
        Mutant::StaleLeaderReads,
        "stale-leader-reads",
        "a leader tells the end of its partition without asking a quorum",
        "I9 stale read",
    ),
    describe(
        Mutant::IsrIgnoresLag,
        "isr-ignores-lag",
        "every voter counts as in sync, however far behind or dead",
        "min.insync.replicas void",
    ),
    describe(
        Mutant::ReplicaIdReused,
        "replica-id-reused",
        "a broker that comes back without its disk carries on under its old replica ids",
        "I4 forgotten votes and entries",
    ),
    describe(
        Mutant::DuplicatesAfterFailover,
        "duplicates-after-failover",
        "the first entry of a new leader is not checked for duplicates",
        "C7 duplicate after failover",
    ),
    describe(
        Mutant::AppliedNotAtomic,
        "applied-not-atomic",
        "the applied position in state files lags one entry behind the data at times",
        "I7 entries applied twice",
    ),
    describe(
        Mutant::UnknownToldAsFailure,
        "unknown-told-as-failure",
        "a produce whose outcome is unknown is answered as certainly not written",
        "C16 definite for unknown",
    ),
    describe(
        Mutant::SequenceGapAccepted,
        "sequence-gap-accepted",
        "any sequence of a known producer is appended unless it is a remembered one",
        "C7 reordered or repeated batches",
    ),
    describe(
        Mutant::EpochOfReplica,
        "epoch-of-replica",
        "batches are stamped with the epoch that the replica has published",
        "I6 bytes differ between replicas",
    ),
    describe(
        Mutant::InstallWithoutCheckpoint,
        "install-without-checkpoint",
        "an installed snapshot is not named by a checkpoint before the log is purged",
        "I7 installed snapshot forgotten",
    ),
    describe(
        Mutant::ProducerIdsReused,
        "producer-ids-reused",
        "the counter of producer ids does not move",
        "C7 two producers with one id",
    ),
    describe(
        Mutant::OrphanDeleted,
        "orphan-deleted",
        "a replica whose topic the metadata do not know yet is deleted",
        "I11 deletion without a command",
    ),
    describe(
        Mutant::LaggingOutOfRange,
        "lagging-out-of-range",
        "a replica that has not caught up calls an offset out of range",
        "I5 watermark seen to go back",
    ),
    describe(
        Mutant::GrantBeforeRelease,
        "grant-before-release",
        "a partition of a group goes to its next member before the one that has it let go",
        "I12 two owners",
    ),
    describe(
        Mutant::AssignedOneTooFar,
        "assigned-one-too-far",
        "a member begins one record behind the committed offset",
        "C8 a record skipped",
    ),
    describe(
        Mutant::CommitNotAwaited,
        "commit-not-awaited",
        "a commit of offsets is answered before it is committed",
        "I12 committed offset lost",
    ),
    describe(
        Mutant::PartitionLeftOut,
        "partition-left-out",
        "a rebalance leaves the last partition to nobody",
        "C9 a partition without a reader",
    ),
    describe(
        Mutant::SessionsNeverEnd,
        "sessions-never-end",
        "members that are silent keep their partitions for ever",
        "C9 a partition without a reader",
    ),
    describe(
        Mutant::ExpelledEarly,
        "expelled-early",
        "a member that is silent for a fifth of its session is expelled, whatever its lease says",
        "I12 two owners",
    ),
];

/// True if this process carries the bug.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{Refused, choose, on};

#[cfg(feature = "mutants")]
mod chosen {
    //! The choice of one process.

    use std::sync::atomic::{AtomicU8, Ordering};

    use super::{ALL, Description, Mutant};

    /// The chosen mutant's number; 0 for none.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Why a mutant was not chosen.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    pub enum Refused {
        /// There is none of that name.
        #[error("there is no mutant {0:?}")]
        Unknown(String),
        /// This process has one already.
        #[error("this process carries a mutant already")]
        Chosen,
    }

    /// Makes this process carry the bug of that name, for good.
    ///
    /// # Errors
    /// [`Refused`]; nothing is changed then.
    pub fn choose(name: &str) -> Result<&'static Description, Refused> {
        let found = ALL.iter().find(|known| known.name == name);
        let found = found.ok_or_else(|| Refused::Unknown(name.to_owned()))?;
        let number = found.mutant as u8;
        CHOSEN
            .compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed)
            .map_err(|_| Refused::Chosen)?;
        Ok(found)
    }

    /// True if this process carries the bug.
    #[must_use]
    pub fn on(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_process_carries_the_one_mutant_that_it_chose() {
            assert!(!ALL.iter().any(|known| on(known.mutant)));
            assert_eq!(choose("no-such"), Err(Refused::Unknown("no-such".to_owned())));
            assert_eq!(choose("skip-fsync").map(|found| found.mutant), Ok(Mutant::SkipFsync));
            assert_eq!(choose("ack-before-fsync"), Err(Refused::Chosen));
            let carried: Vec<_> = ALL.iter().filter(|known| on(known.mutant)).collect();
            assert_eq!(carried.len(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_the_command_line() {
        let names: BTreeSet<&str> = ALL.iter().map(|known| known.name).collect();
        let mutants: BTreeSet<Mutant> = ALL.iter().map(|known| known.mutant).collect();
        assert_eq!((names.len(), mutants.len()), (ALL.len(), ALL.len()));
        let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(names.iter().all(plain));
    }
}
