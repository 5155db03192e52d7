//! Producer ids, taken from the metadata group in blocks so that a new producer seldom waits for it.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::ProducerId;

use super::Api;
use crate::metadata::command::{Command, CommandReply};

/// Ids in a block. Those left over when a broker stops are never used: 2^64 last.
const BLOCK: u32 = 1000;

/// The ids this broker may still give.
#[derive(Debug, Default)]
pub(super) struct ProducerIds(Mutex<std::ops::Range<u64>>);

impl ProducerIds {
    fn take(&self) -> Option<ProducerId> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.next().map(ProducerId)
    }

    /// Puts a block in; if another call was faster, the shorter rest is dropped.
    fn refill(&self, block: std::ops::Range<u64>) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_empty() {
            *left = block;
        }
    }
}

impl Api {
    /// A fresh producer id with epoch 0.
    ///
    /// # Errors
    /// As a change of the metadata fails: no quorum, or the deadline.
    pub async fn init_producer(&self, deadline: Instant) -> Result<ProducerId, ApiError> {
        if let Some(id) = self.0.producer_ids.take() {
            return Ok(id);
        }
        let reply = self.change(Command::AllocateProducerIds { count: BLOCK }, deadline).await?;
        let CommandReply::ProducerIds { first, count } = reply else {
            return Err(ApiError::new(ErrorCode::Internal, "the metadata group gave no producer ids"));
        };
        let end = first.0.saturating_add(u64::from(count));
        self.0.producer_ids.refill(first.0.saturating_add(1)..end);
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_block_are_given_once_and_a_second_block_waits_its_turn() {
        let ids = ProducerIds::default();
        assert_eq!(ids.take(), None);
        ids.refill(5..7);
        ids.refill(100..102);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(ProducerId(5)), Some(ProducerId(6)), None));
    }
}
