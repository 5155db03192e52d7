//! Partitions that wait, by the application's wish or the group's, and positions that it moves.

use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;

use super::GroupConsumer;
use super::rebalance::{is_of, place};
use crate::consumer::Position;
use crate::error::ClientError;

impl GroupConsumer {
    /// Returns no records of a partition until [`resume`](Self::resume); it stays the consumer's own, at its position. False if
    /// it is not assigned.
    pub fn pause(&mut self, topic: &str, partition: u32) -> bool {
        let at = place(topic, partition);
        if !self.parts.contains_key(&at) {
            return false;
        }
        self.hold(&at);
        self.held.insert(at);
        true
    }

    /// Ends a pause. False if the partition is not assigned.
    pub fn resume(&mut self, topic: &str, partition: u32) -> bool {
        let at = place(topic, partition);
        self.held.remove(&at);
        if !self.group_paused {
            self.reader.resume(topic, partition);
        }
        self.parts.contains_key(&at)
    }

    /// Continues at another position. Committed offsets do not go back by that: only a reset of the group moves them back.
    ///
    /// # Errors
    /// `NotOwner` if the partition is not assigned.
    pub fn seek(&mut self, topic: &str, partition: u32, to: Position) -> Result<(), ClientError> {
        let at = place(topic, partition);
        if self.parts.get(&at).is_none_or(|part| part.is_revoked) {
            let message = format!("{at} is not assigned to this consumer");
            return Err(ClientError::Failed(ApiError::new(ErrorCode::NotOwner, message)));
        }
        self.ready.retain(|record| !is_of(record, &at));
        self.handed.remove(&at);
        self.unanchored.remove(&at);
        let offset = match to {
            Position::Offset(offset) => Some(offset),
            Position::Earliest | Position::Latest | Position::Timestamp(_) => None,
        };
        self.ledger.returned(&at, offset);
        self.reader.seek(topic, partition, to)
    }

    /// Somebody paused or resumed the whole group.
    pub(super) fn set_group_paused(&mut self, paused: bool) {
        if self.group_paused == paused {
            return;
        }
        self.group_paused = paused;
        let all: Vec<TopicPartition> = self.parts.keys().cloned().collect();
        for at in all {
            if paused {
                self.hold(&at);
            } else if !self.held.contains(&at) {
                self.reader.resume(&at.topic, at.partition.0);
            }
        }
    }

    /// Stops returning a partition. What waits to be returned is fetched again later.
    fn hold(&mut self, at: &TopicPartition) {
        self.rewind(at);
        self.reader.pause(&at.topic, at.partition.0);
    }

    /// Puts back what was taken from the reader and not returned.
    pub(super) fn rewind(&mut self, at: &TopicPartition) {
        let first = self.ready.iter().find(|record| is_of(record, at)).map(|record| record.offset);
        if let Some(offset) = first {
            self.ready.retain(|record| !is_of(record, at));
            // It is assigned, or nothing of it would wait.
            let _ = self.reader.seek(&at.topic, at.partition.0, Position::Offset(offset));
        }
    }
}
