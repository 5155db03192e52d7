//! Records waiting to be sent: one open and any number of complete batches for each partition, bounded in bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::record::RecordBatchBuilder;

use super::ProducerRecord;
use super::delivery::{Delivery, Outcome, SharedOutcome};
use crate::config::ProducerConfig;
use crate::error::{DeliveryError, SendError};

/// Bytes of a record beside key, value and header contents: lengths, deltas and counts at their longest.
const RECORD_OVERHEAD: usize = 36;
const HEADER_OVERHEAD: usize = 10;

/// An encoded batch without its place in the order.
#[derive(Debug)]
pub(crate) struct SealedBatch {
    pub(crate) bytes: Bytes,
    pub(crate) count: u32,
    pub(crate) deadline: Instant,
    pub(crate) claim: Claim,
}

/// What a batch holds until it is resolved: room in the buffer, its ticket, and the promise of an outcome.
#[derive(Debug)]
pub(crate) struct Claim {
    charge: usize,
    count: u32,
    ticket: u64,
    done: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
struct OpenBatch {
    builder: RecordBatchBuilder,
    opened: Instant,
    deadline: Instant,
    claim: Claim,
    outcome: SharedOutcome,
}

#[derive(Debug, Default)]
struct Waiting {
    open: Option<OpenBatch>,
    sealed: VecDeque<SealedBatch>,
    /// True while the sender has been told to look.
    announced: bool,
}

/// The batches of one partition.
#[derive(Debug)]
pub(crate) struct PartitionQueue {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    /// Number of the queue, by which the sender knows it.
    pub(crate) lane: usize,
    waiting: Mutex<Waiting>,
}

impl PartitionQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All queues of a producer.
#[derive(Debug)]
pub(crate) struct Accumulator {
    config: ProducerConfig,
    topics: RwLock<BTreeMap<Arc<str>, Vec<Arc<PartitionQueue>>>>,
    lanes: AtomicUsize,
    bytes: Semaphore,
    records: Option<Semaphore>,
    /// Senders that wait for room: while there are any, batches do not linger.
    blocked: AtomicUsize,
    closed: AtomicBool,
    /// Set when batches of all queues may have to be sent before their time.
    urgent: AtomicBool,
    dirty: Mutex<Vec<Arc<PartitionQueue>>>,
    wake: Notify,
    next_ticket: AtomicU64,
    tickets: Mutex<BTreeSet<u64>>,
    /// Every ticket below is resolved.
    floor: watch::Sender<u64>,
    /// Batches with a lower ticket do not linger.
    flush_below: AtomicU64,
}

impl Accumulator {
    pub(crate) fn new(config: ProducerConfig) -> Self {
        Self {
            topics: RwLock::default(),
            lanes: AtomicUsize::new(0),
            bytes: Semaphore::new(config.buffer_bytes as usize),
            records: (config.buffer_records > 0).then(|| Semaphore::new(config.buffer_records as usize)),
            blocked: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            dirty: Mutex::default(),
            wake: Notify::new(),
            next_ticket: AtomicU64::new(0),
            tickets: Mutex::default(),
            floor: watch::Sender::new(0),
            flush_below: AtomicU64::new(0),
            config,
        }
    }

    /// The queue of a partition, or how many partitions of the topic are known (0: none yet).
    pub(crate) fn queue(
        &self,
        topic: &str,
        choose: impl FnOnce(u32) -> u32,
    ) -> Result<Arc<PartitionQueue>, u32> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queues) = topics.get(topic) else { return Err(0) };
        let known = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        queues.get(choose(known) as usize).map(Arc::clone).ok_or(known)
    }

    /// Makes queues for all partitions of a topic. Partitions are never removed.
    pub(crate) fn grow(&self, topic: &Arc<str>, partitions: u32) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.entry(Arc::clone(topic)).or_default();
        for partition in u32::try_from(queues.len()).unwrap_or(u32::MAX)..partitions {
            queues.push(Arc::new(PartitionQueue {
                topic: Arc::clone(topic),
                partition,
                lane: self.lanes.fetch_add(1, Ordering::Relaxed),
                waiting: Mutex::default(),
            }));
        }
    }

    /// Partitions of a topic that have queues.
    pub(crate) fn partitions(&self, topic: &str) -> usize {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).map_or(0, Vec::len)
    }

    /// Bytes of records that are not resolved yet.
    pub(crate) fn buffered_bytes(&self) -> usize {
        (self.config.buffer_bytes as usize).saturating_sub(self.bytes.available_permits())
    }

    /// True after [`close`](Self::close).
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Topics that have queues, with the number of their partitions.
    pub(crate) fn topics(&self) -> Vec<(Arc<str>, usize)> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.iter().map(|(topic, queues)| (Arc::clone(topic), queues.len())).collect()
    }

    /// Takes room for a record of `charge` bytes, waiting at most `max_block_ms`.
    ///
    /// # Cancel safety
    /// Safe: no room is kept.
    pub(crate) async fn reserve(&self, charge: usize) -> Result<(), SendError> {
        let most = self.config.max_request_bytes.min(self.config.buffer_bytes) as usize;
        let permits = u32::try_from(charge).ok().filter(|_| charge <= most);
        let Some(permits) = permits else {
            return Err(SendError::RecordTooLarge { bytes: charge, limit: most });
        };
        let record = match &self.records {
            None => None,
            Some(records) => Some(self.take(records, 1).await?),
        };
        self.take(&self.bytes, permits).await?.forget();
        if let Some(record) = record {
            record.forget();
        }
        Ok(())
    }

    async fn take<'s>(
        &self,
        room: &'s Semaphore,
        permits: u32,
    ) -> Result<tokio::sync::SemaphorePermit<'s>, SendError> {
        if let Ok(permit) = room.try_acquire_many(permits) {
            return Ok(permit);
        }
        if room.is_closed() {
            return Err(SendError::Closed);
        }
        let patience = Duration::from_millis(u64::from(self.config.max_block_ms));
        let _blocked = Blocked::new(self);
        match tokio::time::timeout(patience, room.acquire_many(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(SendError::Closed),
            Err(_elapsed) => Err(SendError::BufferFull { waited_ms: u64::from(self.config.max_block_ms) }),
        }
    }

    /// Gives room back that [`reserve`](Self::reserve) took for a record that was not appended.
    pub(crate) fn unreserve(&self, charge: usize) {
        self.give_back(charge, 1);
    }

    /// Adds a record, for which room was reserved, to its partition. Returns true in second place if a batch was completed.
    pub(crate) fn append(
        &self,
        queue: &Arc<PartitionQueue>,
        record: &ProducerRecord,
        timestamp_ms: i64,
        charge: usize,
    ) -> Result<(Delivery, bool), SendError> {
        let mut completed = false;
        let mut waiting = queue.lock();
        // Under the lock, so that `close` and `drain_all` cannot miss the record.
        if self.closed.load(Ordering::Acquire) {
            drop(waiting);
            self.unreserve(charge);
            return Err(SendError::Closed);
        }
        let full = self.config.batch_size as usize;
        if waiting.open.as_ref().is_some_and(|open| open.builder.estimated_bytes() + charge > full) {
            self.seal(&mut waiting);
            completed = true;
        }
        let open = waiting.open.get_or_insert_with(|| self.open());
        push(&mut open.builder, record, timestamp_ms);
        let index = open.claim.count;
        open.claim.count += 1;
        open.claim.charge += charge;
        let delivery = Delivery::new(open.outcome.clone(), index, timestamp_ms);
        if open.builder.estimated_bytes() >= full {
            self.seal(&mut waiting);
            completed = true;
        }
        // The sender must hear of a new batch (to let it linger) and of a complete one (to send it).
        if (index == 0 || completed) && !waiting.announced {
            waiting.announced = true;
            drop(waiting);
            self.dirty.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(queue));
            self.wake.notify_one();
        }
        Ok((delivery, completed))
    }

    /// Queues that changed since the last call.
    pub(crate) fn take_dirty(&self) -> Vec<Arc<PartitionQueue>> {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        for queue in &dirty {
            queue.lock().announced = false;
        }
        dirty
    }

    /// True once after something said that batches must not linger.
    pub(crate) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }

    fn hurry(&self) {
        self.urgent.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until a queue changed.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// The next batch of a partition that is complete, or has lingered, or must not linger.
    pub(crate) fn pop(&self, queue: &PartitionQueue, now: Instant) -> Option<SealedBatch> {
        let mut waiting = queue.lock();
        if waiting.sealed.is_empty() && self.ripe_at(&waiting).is_some_and(|at| at <= now) {
            self.seal(&mut waiting);
        }
        waiting.sealed.pop_front()
    }

    /// When [`pop`](Self::pop) will return a batch, if no more records come.
    pub(crate) fn ready_at(&self, queue: &PartitionQueue, now: Instant) -> Option<Instant> {
        let waiting = queue.lock();
        if waiting.sealed.is_empty() { self.ripe_at(&waiting) } else { Some(now) }
    }

    /// The earliest delivery deadline in a queue.
    pub(crate) fn deadline(&self, queue: &PartitionQueue) -> Option<Instant> {
        let waiting = queue.lock();
        waiting
            .sealed
            .front()
            .map(|batch| batch.deadline)
            .or_else(|| waiting.open.as_ref().map(|open| open.deadline))
    }

    /// Fails what passed its deadline before it was ever sent.
    pub(crate) fn expire(&self, queue: &PartitionQueue, now: Instant, why: &ApiError) {
        loop {
            let mut waiting = queue.lock();
            if waiting.sealed.is_empty() && waiting.open.as_ref().is_some_and(|open| open.deadline <= now) {
                self.seal(&mut waiting);
            }
            if waiting.sealed.front().is_none_or(|batch| batch.deadline > now) {
                return;
            }
            let expired = waiting.sealed.pop_front();
            drop(waiting);
            if let Some(batch) = expired {
                self.settle(batch.claim, Err(DeliveryError::Failed(why.clone())));
            }
        }
    }

    /// Tells a batch's outcome and gives its room back.
    pub(crate) fn settle(&self, claim: Claim, outcome: Outcome) {
        // Nobody may be waiting for it: deliveries can be dropped.
        let _ignored = claim.done.send(outcome);
        self.give_back(claim.charge, claim.count as usize);
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.remove(&claim.ticket);
        let floor = tickets.first().copied().unwrap_or_else(|| self.next_ticket.load(Ordering::Acquire));
        self.floor.send_if_modified(|known| {
            let moved = *known < floor;
            *known = floor.max(*known);
            moved
        });
    }

    /// Lets nothing of what was appended so far linger; [`resolved_below`](Self::resolved_below) waits for it.
    pub(crate) fn start_flush(&self) -> u64 {
        let below = self.next_ticket.load(Ordering::Acquire);
        self.flush_below.fetch_max(below, Ordering::AcqRel);
        self.hurry();
        below
    }

    /// Waits until every batch with a lower ticket is resolved.
    pub(crate) async fn resolved_below(&self, ticket: u64) {
        let mut floor = self.floor.subscribe();
        // The sender of `floor` lives as long as `self`, so this cannot fail.
        let _ignored = floor.wait_for(|floor| *floor >= ticket).await;
    }

    /// True if every batch with a lower ticket is resolved.
    pub(crate) fn is_resolved_below(&self, ticket: u64) -> bool {
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.first().is_none_or(|first| *first >= ticket)
    }

    /// Refuses records from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.bytes.close();
        if let Some(records) = &self.records {
            records.close();
        }
    }

    /// Fails everything that was never sent. Only after [`close`](Self::close).
    pub(crate) fn drain_all(&self, why: &ApiError) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        for queue in topics.values().flatten() {
            let mut waiting = queue.lock();
            self.seal(&mut waiting);
            let sealed = std::mem::take(&mut waiting.sealed);
            drop(waiting);
            for batch in sealed {
                self.settle(batch.claim, Err(DeliveryError::Failed(why.clone())));
            }
        }
    }

    fn open(&self) -> OpenBatch {
        let (done, outcome) = oneshot::channel();
        let now = Instant::now();
        // Taken and entered under one lock: a flush that sees the next ticket also sees this one as open.
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = self.next_ticket.fetch_add(1, Ordering::AcqRel);
        tickets.insert(ticket);
        OpenBatch {
            builder: RecordBatchBuilder::new(self.config.compression),
            opened: now,
            deadline: now + Duration::from_millis(u64::from(self.config.delivery_timeout_ms)),
            claim: Claim { charge: 0, count: 0, ticket, done },
            outcome: outcome.shared(),
        }
    }

    /// Encodes the open batch and puts it behind the complete ones.
    fn seal(&self, waiting: &mut Waiting) {
        let Some(open) = waiting.open.take() else { return };
        let OpenBatch { builder, deadline, claim, .. } = open;
        match builder.build() {
            Ok(bytes) => {
                waiting.sealed.push_back(SealedBatch { bytes, count: claim.count, deadline, claim });
            }
            Err(error) => self.settle(claim, Err(DeliveryError::Failed(error.into()))),
        }
    }

    fn ripe_at(&self, waiting: &Waiting) -> Option<Instant> {
        let open = waiting.open.as_ref()?;
        let hurry = open.claim.ticket < self.flush_below.load(Ordering::Acquire)
            || self.blocked.load(Ordering::Relaxed) > 0
            || self.closed.load(Ordering::Acquire);
        Some(if hurry {
            open.opened
        } else {
            open.opened + Duration::from_millis(u64::from(self.config.linger_ms))
        })
    }

    fn give_back(&self, charge: usize, records: usize) {
        self.bytes.add_permits(charge);
        if let Some(limit) = &self.records {
            limit.add_permits(records);
        }
    }
}

/// Counts a sender that waits for room, for as long as it waits.
struct Blocked<'a>(&'a Accumulator);

impl<'a> Blocked<'a> {
    fn new(accumulator: &'a Accumulator) -> Self {
        accumulator.blocked.fetch_add(1, Ordering::Relaxed);
        accumulator.hurry();
        Self(accumulator)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.blocked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room that a record takes: an upper bound of its encoded size.
pub(crate) fn charge_of(record: &ProducerRecord) -> usize {
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD).sum();
    RECORD_OVERHEAD
        + record.key.as_ref().map_or(0, Bytes::len)
        + record.value.as_ref().map_or(0, Bytes::len)
        + headers
}

fn push(builder: &mut RecordBatchBuilder, record: &ProducerRecord, timestamp_ms: i64) {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    if record.headers.is_empty() {
        builder.push(timestamp_ms, key, value, &[]);
    } else {
        let headers: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
        builder.push(timestamp_ms, key, value, &headers);
    }
}

/// The error of a record whose time ran out before an attempt could have written it.
pub(crate) fn expired(timeout_ms: u32, last: Option<&ApiError>) -> ApiError {
    let error = ApiError::new(
        ErrorCode::DeliveryExpired,
        format!("the record could not be delivered within {timeout_ms} ms"),
    );
    match last {
        Some(last) => error.reason(format!("{last:#}")),
        None => error,
    }
}
