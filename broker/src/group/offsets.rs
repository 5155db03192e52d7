//! Committed offsets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::ids::{LeaderEpoch, Offset, PartitionIndex};

/// What a group committed for a partition. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record that was read, if the consumer told it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The consumer's own text.
    pub metadata: String,
    /// When, by the coordinator's wall clock. Unit: ms since 1970.
    pub time_ms: i64,
}

/// Committed offsets of one topic.
pub type TopicOffsets = BTreeMap<PartitionIndex, Committed>;
