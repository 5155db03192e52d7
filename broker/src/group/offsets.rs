//! Committed offsets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicIdPartition};

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

/// Partitions whose offsets are stored under one key: few enough that a commit writes little, and that their texts fit
/// into one value.
const BLOCK_PARTITIONS: u32 = 256;

/// Neighbouring partitions of a topic, whose offsets are stored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetBlock {
    /// The topic.
    pub topic: TopicId,
    /// Which of its blocks, from 0.
    pub block: u32,
}

impl OffsetBlock {
    /// The block of a partition.
    pub fn of(at: TopicIdPartition) -> Self {
        Self { topic: at.topic, block: at.partition.0 / BLOCK_PARTITIONS }
    }

    /// What is committed in this block.
    pub fn of_topic(self, offsets: &TopicOffsets) -> impl Iterator<Item = (PartitionIndex, &Committed)> {
        let first = self.block.saturating_mul(BLOCK_PARTITIONS);
        let last = first.saturating_add(BLOCK_PARTITIONS - 1);
        offsets.range(PartitionIndex(first)..=PartitionIndex(last)).map(|(index, at)| (*index, at))
    }
}
