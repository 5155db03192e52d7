//! Reading partitions: positions, prefetch, order.
//!
//! ```text
//! broker ⇄ fetcher (one task: long polls, leaders, backoff) ─► shared (positions, chunks) ─► poll() decodes
//! ```
//!
//! **Invariant:** within one assignment and between seeks, every record of a partition is returned exactly once and in
//! offset order: answers are taken only for the poll that was last sent for the position, and what lies before the
//! position is skipped when it is decoded.

mod fetcher;
mod offsets;
mod parts;
mod shared;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{Offset, PartitionIndex, TopicPartition};
use wire::record::{BatchHeader, OwnedRecord, decode_records, split_batches, validate_batch};

use self::fetcher::Fetcher;
use self::shared::{Chunk, Shared};
use crate::ClientCore;
use crate::config::ConsumerConfig;
use crate::error::ClientError;
use crate::tasks::Tasks;

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest record that is still there.
    Earliest,
    /// After the newest committed record.
    Latest,
    /// This offset.
    Offset(u64),
    /// The first record with this timestamp or a later one; after the newest if there is none. Unit: ms since the Unix epoch.
    Timestamp(i64),
}

/// A record as read. Contents share the memory of the batch they came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Topic it was read from.
    pub topic: Arc<str>,
    /// Partition it was read from.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Unit: ms since the Unix epoch.
    pub timestamp_ms: i64,
    /// Key, if it has one.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

/// Reads assigned partitions. Dropping it ends all background work.
#[derive(Debug)]
pub struct Consumer {
    core: Arc<ClientCore>,
    config: ConsumerConfig,
    shared: Arc<Shared>,
    /// The chunk whose batches are being returned.
    open: Option<OpenChunk>,
    tasks: Tasks,
}

/// A fetched chunk, decoded batch by batch.
#[derive(Debug)]
struct OpenChunk {
    chunk: Chunk,
    rest: VecDeque<Bytes>,
    records: std::vec::IntoIter<OwnedRecord>,
    /// Position after the batch that `records` came from.
    batch_end: u64,
    /// Offset of the next record to return.
    position: u64,
}

impl Consumer {
    pub(crate) fn start(core: Arc<ClientCore>, config: ConsumerConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(config.prefetch_bytes as usize));
        let tasks = Tasks::default();
        tasks.spawn(Fetcher::new(Arc::clone(&core), config.clone(), Arc::clone(&shared)).run(tasks.token()));
        Ok(Self { core, config, shared, open: None, tasks })
    }

    /// Reads exactly these partitions from now on. Those that were assigned before keep their position, new ones start
    /// where `offset_reset` says; [`seek`](Self::seek) changes it.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`, or that no broker answered; the assignment is then unchanged.
    pub async fn assign<S: Into<String>>(
        &mut self,
        partitions: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<(), ClientError> {
        let wanted: Vec<TopicPartition> = partitions
            .into_iter()
            .map(|(topic, partition)| TopicPartition {
                topic: topic.into(),
                partition: PartitionIndex(partition),
            })
            .collect();
        for at in &wanted {
            let count = self.count(&at.topic).await?;
            if at.partition.0 >= count {
                let message = format!("topic \"{}\" has {count} partitions, numbered from 0", at.topic);
                return Err(ClientError::Failed(ApiError::new(ErrorCode::UnknownPartition, message)));
            }
        }
        self.shared.assign(wanted, self.initial());
        Ok(())
    }

    /// Reads all partitions of a topic, as [`assign`](Self::assign) does.
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub async fn assign_topic(&mut self, topic: &str) -> Result<(), ClientError> {
        let count = self.count(topic).await?;
        self.assign((0..count).map(|partition| (topic, partition))).await
    }

    /// Continues at another position. What was fetched ahead is dropped.
    ///
    /// # Errors
    /// `InvalidRequest` if the partition is not assigned.
    pub fn seek(&mut self, topic: &str, partition: u32, to: Position) -> Result<(), ClientError> {
        let at = TopicPartition { topic: topic.to_owned(), partition: PartitionIndex(partition) };
        self.shared.seek(&at, to).then_some(()).ok_or_else(|| not_assigned(&at))
    }

    /// [`seek`](Self::seek) for every assigned partition.
    pub fn seek_all(&mut self, to: Position) {
        for (at, _) in self.shared.positions() {
            self.shared.seek(&at, to);
        }
    }

    /// Records that have arrived, at least one unless `timeout` passes, at most `max_poll_records`.
    ///
    /// # Errors
    /// What the next record of a partition cannot be read for: `OffsetOutOfRange` with `OffsetReset::Error`
    /// (crate::OffsetReset::Error), `CorruptBatch`, `UnknownTopic` for good. Records before it were returned by earlier
    /// calls; the partition is not read on until a [`seek`](Self::seek), all others are.
    ///
    /// # Cancel safety
    /// Safe: what was not returned is returned by the next call.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let deadline = Instant::now() + timeout;
        loop {
            let records = self.take()?;
            if !records.is_empty() {
                return Ok(records);
            }
            let shared = Arc::clone(&self.shared);
            if tokio::time::timeout_at(deadline, shared.arrived()).await.is_err() {
                return self.take();
            }
        }
    }

    /// Records one by one; ends only with the consumer. An error does not end it: see [`poll`](Self::poll).
    pub fn stream(&mut self) -> impl Stream<Item = Result<ConsumedRecord, ClientError>> + '_ {
        futures::stream::unfold((self, VecDeque::new()), async |(consumer, mut ready)| {
            loop {
                if let Some(record) = ready.pop_front() {
                    return Some((Ok(record), (consumer, ready)));
                }
                match consumer.poll(STREAM_PATIENCE).await {
                    Ok(records) => ready = records.into(),
                    Err(error) => return Some((Err(error), (consumer, ready))),
                }
            }
        })
    }

    /// The offset of the next record of each assigned partition; `None` while it is being looked up.
    pub fn positions(&self) -> BTreeMap<TopicPartition, Option<u64>> {
        self.shared.positions()
    }

    /// Stops reading a partition until [`resume`](Self::resume); its position stays. False if it is not assigned.
    pub fn pause(&mut self, topic: &str, partition: u32) -> bool {
        self.shared.set_paused(topic, partition, true)
    }

    /// Ends a pause. False if the partition is not assigned.
    pub fn resume(&mut self, topic: &str, partition: u32) -> bool {
        self.shared.set_paused(topic, partition, false)
    }

    /// The high watermark of each partition as of its last answer; `None` before the first.
    pub fn high_watermarks(&self) -> BTreeMap<TopicPartition, Option<u64>> {
        self.shared.high_watermarks()
    }

    /// The offset after the newest committed record of each partition. Counts every record acknowledged before the call.
    ///
    /// # Errors
    /// The first partition's error, after retries.
    pub async fn end_offsets(
        &self,
        of: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, u64>, ClientError> {
        offsets::list(&self.core, of, Position::Latest, true).await
    }

    /// The offset of the oldest record of each partition.
    ///
    /// # Errors
    /// The first partition's error, after retries.
    pub async fn beginning_offsets(
        &self,
        of: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, u64>, ClientError> {
        offsets::list(&self.core, of, Position::Earliest, false).await
    }

    /// The offset of the first record at or after a timestamp in each partition, or its end.
    ///
    /// # Errors
    /// The first partition's error, after retries.
    pub async fn offsets_for_time(
        &self,
        of: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<BTreeMap<TopicPartition, u64>, ClientError> {
        offsets::list(&self.core, of, Position::Timestamp(timestamp_ms), false).await
    }

    /// Stops reading. Dropping the consumer does the same.
    pub fn close(self) {
        self.tasks.stop();
    }

    async fn count(&self, topic: &str) -> Result<u32, ClientError> {
        let patience = Duration::from_millis(u64::from(self.core.config.request_timeout_ms));
        self.core.metadata.topic(topic, Instant::now() + patience).await
    }

    fn initial(&self) -> Position {
        self.config.offset_reset.start().unwrap_or(Position::Earliest)
    }

    /// What is there now.
    fn take(&mut self) -> Result<Vec<ConsumedRecord>, ClientError> {
        let most = self.config.max_poll_records as usize;
        let mut out = Vec::new();
        while out.len() < most {
            if self.open.is_none() {
                match self.shared.next_chunk(out.is_empty()) {
                    Some(Ok(chunk)) => self.open = Some(OpenChunk::new(chunk)),
                    Some(Err(error)) => return Err(error),
                    None => break,
                }
            }
            let Some(open) = &mut self.open else { break };
            match open.read(&self.config, &self.shared, most, &mut out) {
                Ok(true) => {}
                Ok(false) => {
                    if let Some(done) = self.open.take() {
                        self.shared.chunk_done(&done.chunk);
                    }
                }
                Err(error) => {
                    if let Some(done) = self.open.take() {
                        self.shared.chunk_done(&done.chunk);
                        self.shared.halt(&done.chunk, error);
                    }
                }
            }
        }
        Ok(out)
    }
}

/// How long one turn of [`Consumer::stream`] waits; it only bounds how often an idle stream looks around.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

impl OpenChunk {
    fn new(mut chunk: Chunk) -> Self {
        let rest = std::mem::take(&mut chunk.batches);
        let position = chunk.from;
        Self { position, chunk, rest, records: Vec::new().into_iter(), batch_end: 0 }
    }

    /// Moves records to `out` until it holds `most`; false when the chunk is used up or no longer wanted.
    fn read(
        &mut self,
        config: &ConsumerConfig,
        shared: &Shared,
        most: usize,
        out: &mut Vec<ConsumedRecord>,
    ) -> Result<bool, ClientError> {
        if !shared.is_wanted(&self.chunk) {
            return Ok(false);
        }
        loop {
            while out.len() < most {
                let Some(record) = self.records.next() else { break };
                if record.offset.0 < self.position {
                    continue;
                }
                self.position = record.offset.0 + 1;
                out.push(self.consumed(record));
            }
            if out.len() >= most && !self.records.as_slice().is_empty() {
                shared.advance(&self.chunk, self.position);
                return Ok(true);
            }
            // The end of a batch counts even if its last records are gone: a position inside would fetch it forever.
            self.position = self.position.max(self.batch_end);
            shared.advance(&self.chunk, self.position);
            let Some(batch) = self.rest.pop_front() else { return Ok(false) };
            let (header, records) = decode(&batch, config)?;
            if header.base_offset > self.position {
                tracing::warn!(
                    topic = %self.chunk.topic, partition = self.chunk.at.partition.0,
                    from = self.position, to = header.base_offset, "offsets are missing in the partition"
                );
            }
            self.batch_end = header.next_offset().0;
            self.records = records.into_iter();
        }
    }

    fn consumed(&self, record: OwnedRecord) -> ConsumedRecord {
        ConsumedRecord {
            topic: Arc::clone(&self.chunk.topic),
            partition: self.chunk.at.partition.0,
            offset: record.offset.0,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }
}

fn decode(batch: &[u8], config: &ConsumerConfig) -> Result<(BatchHeader, Vec<OwnedRecord>), ClientError> {
    let failed = |error: wire::record::RecordError| ClientError::Failed(error.into());
    let header = if config.check_crc { validate_batch(batch) } else { BatchHeader::parse(batch) };
    let header = header.map_err(failed)?;
    let records = decode_records(batch, config.inflated_bytes_max as usize).map_err(failed)?;
    Ok((header, records))
}

/// Cuts an answer into batches; a damaged one ends the list, since nothing behind it can be found.
fn batches_of(bytes: Bytes) -> (VecDeque<Bytes>, Option<(u64, Offset)>, Option<ApiError>) {
    let mut batches = VecDeque::new();
    let mut span = None;
    for batch in split_batches(bytes) {
        match batch {
            Ok((header, batch)) => {
                let first = span.map_or(header.base_offset, |(first, _)| first);
                span = Some((first, header.next_offset()));
                batches.push_back(batch);
            }
            Err(error) => return (batches, span, Some(error.into())),
        }
    }
    (batches, span, None)
}

fn not_assigned(at: &TopicPartition) -> ClientError {
    ClientError::Failed(ApiError::new(
        ErrorCode::InvalidRequest,
        format!("{at} is not assigned to this consumer"),
    ))
}
