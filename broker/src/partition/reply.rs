//! What `apply` says of each batch of an entry, and how that becomes a receipt or an error.

use std::fmt;

use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::Offset;

/// What became of one batch of a committed entry. The same on every replica (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Stored, first record at this offset.
    Appended {
        /// Offset of the first record.
        base_offset: Offset,
    },
    /// Stored by an earlier attempt at this offset; nothing was stored now.
    Duplicate {
        /// Offset of the first record, given then.
        base_offset: Offset,
    },
    /// Not stored: the producer's sequence has a gap.
    OutOfOrder {
        /// The sequence that would have followed.
        expected: u32,
        /// The sequence that came.
        found: u32,
    },
    /// Not stored: a newer instance of the producer has written here.
    Fenced {
        /// The newest epoch seen.
        current: u16,
    },
    /// Not stored: a batch in the middle of a sequence, by a producer that this partition does not (or no longer) know.
    UnknownProducer,
    /// Not stored: the bytes are no record batch.
    Corrupt,
}

impl BatchOutcome {
    /// Offset of the first record, if the batch is stored.
    #[must_use]
    pub fn base_offset(&self) -> Option<Offset> {
        match self {
            Self::Appended { base_offset } | Self::Duplicate { base_offset } => Some(*base_offset),
            Self::OutOfOrder { .. } | Self::Fenced { .. } | Self::UnknownProducer | Self::Corrupt => None,
        }
    }

    /// The error of a batch that was not stored; all of them are definite.
    #[must_use]
    pub fn error(&self) -> Option<ApiError> {
        match self {
            Self::Appended { .. } | Self::Duplicate { .. } => None,
            Self::OutOfOrder { expected, found } => Some(
                ApiError::new(
                    ErrorCode::OutOfOrderSequence,
                    "a batch of this producer is missing before this one",
                )
                .reason(format!("sequence {expected} was expected, {found} came"))
                .hint("send the batches before it again, in their order"),
            ),
            Self::Fenced { current } => Some(
                ApiError::new(ErrorCode::ProducerFenced, "a newer instance of this producer has taken over")
                    .reason(format!("the newest epoch is {current}"))
                    .hint("stop this instance, or ask for a fresh producer id"),
            ),
            Self::UnknownProducer => Some(
                ApiError::new(ErrorCode::UnknownProducer, "the partition does not know this producer")
                    .reason(
                        "its first batch here must carry sequence 0; producers idle for long are forgotten",
                    )
                    .hint("ask for a fresh producer id and begin at sequence 0"),
            ),
            Self::Corrupt => Some(ApiError::new(ErrorCode::CorruptBatch, "the batch is damaged")),
        }
    }
}

/// Reply of `apply` for one entry: one outcome a batch, in order; empty for entries without batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionReply {
    /// One outcome a batch.
    pub outcomes: Vec<BatchOutcome>,
}

impl fmt::Display for PartitionReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} batches", self.outcomes.len())
    }
}

/// What the batches of one request came to: the first base offset and whether all were duplicates.
///
/// # Errors
/// The error of the first batch that was not stored.
pub(crate) fn settle(outcomes: &[BatchOutcome]) -> Result<(Option<Offset>, bool), ApiError> {
    if let Some(error) = outcomes.iter().find_map(BatchOutcome::error) {
        return Err(error);
    }
    let first = outcomes.first().and_then(BatchOutcome::base_offset);
    let duplicate = !outcomes.is_empty()
        && outcomes.iter().all(|outcome| matches!(outcome, BatchOutcome::Duplicate { .. }));
    Ok((first, duplicate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_that_was_stored_before_is_a_duplicate_at_its_first_offset() {
        let outcomes = [
            BatchOutcome::Duplicate { base_offset: Offset(7) },
            BatchOutcome::Duplicate { base_offset: Offset(9) },
        ];
        assert_eq!(settle(&outcomes), Ok((Some(Offset(7)), true)));
    }

    #[test]
    fn one_refused_batch_fails_the_request_definitely() {
        let outcomes = [
            BatchOutcome::Appended { base_offset: Offset(7) },
            BatchOutcome::OutOfOrder { expected: 3, found: 5 },
        ];
        let error = settle(&outcomes).expect_err("must fail");
        assert_eq!(error.code, ErrorCode::OutOfOrderSequence);
        assert!(error.definite());
    }
}
