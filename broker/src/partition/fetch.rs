//! What a consumer asks of a replica and what it gets back.

use bytes::Bytes;
use tokio::time::Instant;
use wire::ids::{LeaderEpoch, Offset};

/// One fetch from one replica.
#[derive(Debug, Clone, Copy)]
pub struct FetchArgs {
    /// First offset wanted; the first batch returned contains it and may begin before it.
    pub offset: Offset,
    /// Bytes wanted at most; one batch is returned whole even if it is larger.
    pub max_bytes: usize,
    /// Fewer bytes than this are returned only at the deadline; 0 and 1 mean "as soon as there is anything".
    pub min_bytes: usize,
    /// How long to wait for `min_bytes`; a moment that has passed means no wait at all.
    pub deadline: Instant,
    /// True if only the leader may answer.
    pub leader_only: bool,
}

/// Batches as stored, and what the replica knew when it read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches in order of offsets, all below the high watermark; empty if there was nothing by the deadline.
    pub batches: Vec<Bytes>,
    /// First offset that is not yet readable.
    pub high_watermark: Offset,
    /// First offset that is still stored.
    pub log_start: Offset,
    /// Epoch of the leader that the replica follows.
    pub leader_epoch: LeaderEpoch,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first offset that is still stored.
    Earliest,
    /// The offset that the next record will get: the high watermark, proven by a quorum to be the newest (read index).
    Latest,
    /// The first offset whose record is not older than this time, in ms since 1970.
    Timestamp(i64),
}

/// The answer to an [`OffsetSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` if no record is as new as the timestamp.
    pub offset: Option<Offset>,
    /// Time of the record there, for a timestamp.
    pub timestamp_ms: Option<i64>,
    /// Epoch of the leader that answered.
    pub leader_epoch: LeaderEpoch,
}
