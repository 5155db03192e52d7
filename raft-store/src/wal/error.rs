//! What can go wrong with the WAL.

use std::io;

use disk::DiskError;

/// Why the WAL did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A write or fsync failed before: nothing is written or acknowledged any more, the broker must stop (I3).
    #[error("the write-ahead log has failed: {reason}")]
    Failed {
        /// The error that stopped it.
        reason: String,
    },
    /// The WAL was closed.
    #[error("the write-ahead log is closed")]
    Closed,
    /// No such group has a log here.
    #[error("group {group} has no log here")]
    UnknownGroup {
        /// The group.
        group: u64,
    },
    /// The group's log here belongs to another replica.
    #[error("the log of group {group} belongs to replica {replica}")]
    OtherReplica {
        /// The group.
        group: u64,
        /// The replica that has the log.
        replica: u64,
    },
    /// The group lost durable frames: this replica must not take part again (I4).
    #[error("the log of group {group} lost durable entries; its replica must be replaced")]
    Damaged {
        /// The group.
        group: u64,
    },
    /// An entry is longer than a WAL file can take.
    #[error("an entry of {bytes} bytes is longer than {max}")]
    EntryTooLarge {
        /// Its length.
        bytes: u64,
        /// The longest.
        max: u64,
    },
    /// An entry does not follow the last one.
    #[error("entry {index} of group {group} does not follow the log, which goes on at {next}")]
    Gap {
        /// The group.
        group: u64,
        /// Index of the entry.
        index: u64,
        /// Index that had to come.
        next: u64,
    },
    /// Entries that should be there are not.
    #[error("entry {index} of group {group} is not in the log")]
    Missing {
        /// The group.
        group: u64,
        /// Index of the entry.
        index: u64,
    },
    /// An entry that was read back fails its checksum.
    #[error("entry {index} of group {group} is damaged in WAL file {file}")]
    DamagedEntry {
        /// The group.
        group: u64,
        /// Index of the entry.
        index: u64,
        /// The file.
        file: u64,
    },
    /// The directory cannot be opened without losing votes: both checkpoints are gone while the WAL was released.
    #[error("the write-ahead log cannot be recovered: {reason}")]
    Unrecoverable {
        /// What is missing.
        reason: &'static str,
    },
    /// The configuration makes no sense.
    #[error("wrong configuration: {reason}")]
    Config {
        /// What is wrong.
        reason: &'static str,
    },
    /// The disk failed while the WAL was being opened or read.
    #[error("using the write-ahead log")]
    Disk(#[from] DiskError),
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> Self {
        Self::other(error)
    }
}
