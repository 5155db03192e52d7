//! The outcome of a record, shared by all records of its batch.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::Shared;
use tokio::sync::oneshot;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use crate::config::Acks;
use crate::error::DeliveryError;

/// Where a record was written: its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Topic of the record.
    pub topic: Arc<str>,
    /// Partition of the record.
    pub partition: u32,
    /// Its offset; only with [`Acks::All`], since offsets are assigned when an entry is applied.
    pub offset: Option<u64>,
    /// Epoch of the leader that took it.
    pub leader_epoch: u32,
    /// Raft entry that carries it; 0 for [`Acks::None`].
    pub raft_index: u64,
    /// How far it had come.
    pub level: Acks,
    /// True while a quorum does not have it ([`Acks::Leader`]): it is lost if the leader dies now.
    pub provisional: bool,
    /// True if an earlier attempt had already written it.
    pub duplicate: bool,
    /// Brokers that had it on disk when it was committed.
    pub on_disk_brokers: Arc<[u32]>,
    /// Timestamp of the record. Unit: ms since the Unix epoch.
    pub timestamp_ms: i64,
}

/// The receipt of a batch; a record's is made from it and its place.
#[derive(Debug, Clone)]
pub(crate) struct BatchReceipt {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) base_offset: Option<u64>,
    pub(crate) leader_epoch: u32,
    pub(crate) raft_index: u64,
    pub(crate) level: Acks,
    pub(crate) provisional: bool,
    pub(crate) duplicate: bool,
    pub(crate) on_disk_brokers: Arc<[u32]>,
}

pub(crate) type Outcome = Result<BatchReceipt, DeliveryError>;
pub(crate) type SharedOutcome = Shared<oneshot::Receiver<Outcome>>;

/// The outcome of one record; await it, or drop it if it does not matter (the record is sent all the same).
///
/// # Cancel safety
/// Safe: the record is on its way whether or not anyone waits.
#[derive(Debug)]
#[must_use = "the record is sent in the background; await the delivery or call flush() before you rely on it"]
pub struct Delivery {
    outcome: SharedOutcome,
    index: u32,
    timestamp_ms: i64,
}

impl Delivery {
    pub(crate) fn new(outcome: SharedOutcome, index: u32, timestamp_ms: i64) -> Self {
        Self { outcome, index, timestamp_ms }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (index, timestamp_ms) = (self.index, self.timestamp_ms);
        self.outcome.poll_unpin(context).map(|resolved| match resolved {
            Ok(Ok(receipt)) => Ok(RecordMetadata {
                offset: receipt.base_offset.map(|base| base + u64::from(index)),
                topic: receipt.topic,
                partition: receipt.partition,
                leader_epoch: receipt.leader_epoch,
                raft_index: receipt.raft_index,
                level: receipt.level,
                provisional: receipt.provisional,
                duplicate: receipt.duplicate,
                on_disk_brokers: receipt.on_disk_brokers,
                timestamp_ms,
            }),
            Ok(Err(error)) => Err(error),
            // The producer's task ended without a word; nothing is certain then.
            Err(_dropped) => Err(DeliveryError::Unknown(ApiError::new(
                ErrorCode::OutcomeUnknown,
                "the producer stopped before the outcome was known",
            ))),
        })
    }
}
