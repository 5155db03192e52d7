//! Sending records: bounded buffer, batches, partitions, order, retries, receipts.
//!
//! ```text
//! send() ─ partitioner ─ room ─► accumulator ─► sender ─┬─ lane (order of one partition)
//!   many tasks                   a batch per    one     ├─ lane
//!                                partition      task    └─ link (stream to one broker) ⇄ broker
//! ```

mod accumulator;
pub(crate) mod delivery;
mod lane;
mod link;
pub(crate) mod partitioner;
mod sender;
mod stamp;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use self::accumulator::{Accumulator, PartitionQueue, charge_of};
use self::delivery::Delivery;
use self::lane::LaneContext;
use self::sender::Sender;
use crate::ClientCore;
use crate::config::ProducerConfig;
use crate::error::{ClientError, SendError};
use crate::tasks::Tasks;

/// A record to be sent.
#[derive(Debug, Clone, Default)]
pub struct ProducerRecord {
    /// Topic; a clone of one `Arc` for many records costs no allocation.
    pub topic: Arc<str>,
    /// Partition; `None` lets the partitioner choose.
    pub partition: Option<u32>,
    /// Key: records of one key stay in one partition, in order.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone where the topic is compacted.
    pub value: Option<Bytes>,
    /// Headers, in order; names may repeat.
    pub headers: Vec<(String, Bytes)>,
    /// Unit: ms since the Unix epoch. `None`: the client's clock in `send`.
    pub timestamp_ms: Option<i64>,
}

impl ProducerRecord {
    /// A record with a value only.
    pub fn new(topic: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), value: Some(value.into()), ..Self::default() }
    }

    /// With a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// For one partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a timestamp of its own. Unit: ms since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// Sends records. Cheap to clone; when the last handle is dropped without [`close`](Self::close), what is unresolved then
/// is given up.
#[derive(Debug, Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    core: Arc<ClientCore>,
    config: ProducerConfig,
    accumulator: Arc<Accumulator>,
    pace: Option<Pace>,
    tasks: Tasks,
}

impl Producer {
    pub(crate) fn start(core: Arc<ClientCore>, config: ProducerConfig) -> Result<Self, ClientError> {
        config.validate()?;
        config.partitioner.seed(core.random.next());
        let accumulator = Arc::new(Accumulator::new(config.clone()));
        let cx = LaneContext {
            config: config.clone(),
            retry: core.config.retry.clone(),
            random: Arc::clone(&core.random),
            accumulator: Arc::clone(&accumulator),
        };
        let tasks = Tasks::default();
        tasks.spawn(Sender::new(Arc::clone(&core), cx, tasks.token()).run());
        let pace = (config.rate_limit_per_s > 0).then(|| Pace::new(config.rate_limit_per_s));
        Ok(Self { shared: Arc::new(Shared { core, config, accumulator, pace, tasks }) })
    }

    /// Takes a record into the buffer and sends it in the background. Returns as soon as it is in the buffer: the
    /// [`Delivery`] tells what became of it. Records that one task sends to one partition keep their order.
    ///
    /// # Errors
    /// [`SendError`]: the record was not taken and will not be written.
    ///
    /// # Cancel safety
    /// Safe: a record of a cancelled call was not taken.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        let shared = &self.shared;
        if let Some(pace) = &shared.pace {
            pace.wait().await;
        }
        let queue = self.queue(&record).await?;
        let charge = charge_of(&record);
        shared.accumulator.reserve(charge).await?;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| shared.core.config.clock.now_ms());
        let (delivery, completed) = shared.accumulator.append(&queue, &record, timestamp_ms, charge)?;
        if completed && record.partition.is_none() {
            let partitions = u32::try_from(shared.accumulator.partitions(&record.topic)).unwrap_or(u32::MAX);
            shared.config.partitioner.batch_done(&record.topic, queue.partition, partitions);
        }
        Ok(delivery)
    }

    /// Sends everything that was accepted before this call without lingering, and waits until all of it is resolved, at
    /// most until its delivery deadlines.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the producer stopped meanwhile. Whether a record was delivered, its [`Delivery`] says.
    ///
    /// # Cancel safety
    /// Safe: the records are on their way all the same.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let accumulator = &self.shared.accumulator;
        let below = accumulator.start_flush();
        // The sender resolves everything by its delivery deadline; beyond that it is gone.
        let patience = Duration::from_millis(u64::from(self.shared.config.delivery_timeout_ms)) + FLUSH_GRACE;
        let resolved = async {
            if !accumulator.is_resolved_below(below) {
                accumulator.resolved_below(below).await;
            }
        };
        tokio::time::timeout(patience, resolved).await.map_err(|_elapsed| ClientError::Closed)
    }

    /// Flushes and stops. All clones are closed with it.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if it was closed before.
    pub async fn close(&self) -> Result<(), ClientError> {
        if self.shared.accumulator.is_closed() {
            return Err(ClientError::Closed);
        }
        self.shared.accumulator.close();
        let flushed = self.flush().await;
        self.shared.tasks.stop();
        flushed
    }

    /// Bytes of records that are accepted and not resolved yet.
    pub fn buffered_bytes(&self) -> usize {
        self.shared.accumulator.buffered_bytes()
    }

    /// The settings it runs with.
    pub fn config(&self) -> &ProducerConfig {
        &self.shared.config
    }

    async fn queue(&self, record: &ProducerRecord) -> Result<Arc<PartitionQueue>, SendError> {
        let shared = &self.shared;
        let choose = |partitions: u32| match record.partition {
            Some(partition) => partition,
            None => shared.config.partitioner.partition(&record.topic, record.key.as_deref(), partitions),
        };
        match shared.accumulator.queue(&record.topic, choose) {
            Ok(queue) => return Ok(queue),
            // The partition may be new; an explicit one is looked up once more.
            Err(known) if known > 0 => {
                let deadline = Instant::now() + PARTITION_PATIENCE;
                let _ignored = shared.core.metadata.refresh(deadline).await;
            }
            Err(_) => {}
        }
        // At least one attempt, also for senders that do not want to block.
        let patience = Duration::from_millis(u64::from(shared.config.max_block_ms)).max(PARTITION_PATIENCE);
        let found = shared.core.metadata.topic(&record.topic, Instant::now() + patience).await;
        let partitions = found.map_err(|error| SendError::Refused(error.into_api()))?;
        shared.accumulator.grow(&record.topic, partitions);
        shared.accumulator.queue(&record.topic, choose).map_err(|known| {
            let message = format!("topic \"{}\" has {known} partitions, numbered from 0", record.topic);
            SendError::Refused(ApiError::new(ErrorCode::UnknownPartition, message))
        })
    }
}

/// Time for a first look at an unknown topic or partition.
const PARTITION_PATIENCE: Duration = Duration::from_secs(2);

/// Time for the last outcomes to be told after the last deadline.
const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// Evenly spaced permissions, with up to 100 ms of them saved up.
#[derive(Debug)]
struct Pace {
    spacing: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    const SAVED: Duration = Duration::from_millis(100);

    fn new(per_second: u32) -> Self {
        Self { spacing: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    async fn wait(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(Self::SAVED).unwrap_or(now);
            let at = next.map_or(now, |next| next.max(earliest));
            *next = Some(at + self.spacing);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}
