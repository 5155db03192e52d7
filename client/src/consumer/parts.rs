//! Partitions that come and go one by one, for a consumer whose assignment somebody else decides.

use wire::ids::TopicPartition;

use super::{ConsumedRecord, Consumer, Position};
use crate::config::OffsetReset;
use crate::error::ClientError;

impl Consumer {
    /// Reads one more partition; nothing else changes. Not checked: its topic may be known later.
    pub(crate) fn add(&mut self, at: &TopicPartition, from: Position, paused: bool) {
        self.core.metadata.follow(&at.topic);
        self.shared.add(at.clone(), from, paused);
    }

    /// Reads a partition no more.
    pub(crate) fn remove(&mut self, at: &TopicPartition) {
        self.shared.remove(at);
    }

    /// Takes up one more partition that is read only once it is told where from; the next `poll` reports why.
    pub(crate) fn add_unread(&mut self, at: &TopicPartition, paused: bool, error: ClientError) {
        self.core.metadata.follow(&at.topic);
        self.shared.add_unread(at, paused, error);
    }

    /// What has arrived, without waiting.
    pub(crate) fn take_ready(&mut self) -> Result<Vec<ConsumedRecord>, ClientError> {
        self.take()
    }

    /// Waits until something has arrived.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn arrived(&self) {
        self.shared.arrived().await;
    }

    /// The offset of the next record of a partition, if it is known.
    pub(crate) fn position(&self, at: &TopicPartition) -> Option<u64> {
        self.shared.position(at)
    }
}

impl OffsetReset {
    /// Where to begin without a position; `None` = nowhere.
    pub(crate) fn start(self) -> Option<Position> {
        match self {
            Self::Earliest => Some(Position::Earliest),
            Self::Latest => Some(Position::Latest),
            Self::Error => None,
        }
    }
}
