//! What can go wrong with a partition log.

use disk::DiskError;
use wire::ids::{LeaderEpoch, Offset};
use wire::record::RecordError;

/// Why an operation on a partition log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset is not stored: below the log start or above the log end.
    #[error("offset {wanted} is outside [{start}, {end})")]
    OffsetOutOfRange {
        /// Offset asked for.
        wanted: Offset,
        /// First offset stored.
        start: Offset,
        /// Offset after the last one stored.
        end: Offset,
    },
    /// Stored bytes are not what was written. The replica must be repaired from its peers.
    #[error("segment {segment} is damaged at offset {at}: {what}")]
    Corrupt {
        /// First offset of the segment.
        segment: Offset,
        /// Offset of the batch that was expected there.
        at: Offset,
        /// The check that failed.
        what: &'static str,
    },
    /// The bytes to append are not one whole batch.
    #[error("not a batch that can be appended")]
    BadBatch(#[source] RecordError),
    /// The epoch to append under is older than the last one: entries came out of order.
    #[error("epoch {epoch} is older than {current}")]
    StaleEpoch {
        /// Epoch of the append.
        epoch: LeaderEpoch,
        /// Epoch of the last append.
        current: LeaderEpoch,
    },
    /// The files are less than what the restored state names. The replica must be rebuilt from its peers (I4).
    #[error("segment {segment} does not fit the state to restore: {what}")]
    Unrestorable {
        /// First offset of the segment.
        segment: Offset,
        /// What does not fit.
        what: &'static str,
    },
    /// The segment asked for by its base is not there, or not that long.
    #[error("no such range in segment {segment}")]
    NoSuchRange {
        /// First offset of the segment.
        segment: Offset,
    },
    /// An earlier write or sync failed; what is on the disk is unknown, so nothing more is written (I3).
    #[error("the log failed before and takes no more writes")]
    Failed,
    /// The disk failed.
    #[error("the disk failed")]
    Disk(#[from] DiskError),
}
