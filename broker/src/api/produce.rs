//! Produce: check at the edge, find the replica, hand over, give the receipt.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::PartitionIndex;
use wire::murmur2::partition_for_key;
use wire::record::{BatchHeader, Compression, RecordBatchBuilder, split_batches, validate_batch};

use super::{Api, CreateTopicArgs, route};
use crate::metadata::image::{MetadataImage, Topic};
use crate::partition::{Acks, ProduceBatches, Receipt};

/// How long a broker that does not know a producer's id asks whether it was given out meanwhile.
const PRODUCER_KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// One produce over any number of partitions.
#[derive(Debug, Clone)]
pub struct ProduceRequest {
    /// When to answer.
    pub acks: Acks,
    /// When to stop waiting; after the append the outcome is then unknown.
    pub deadline: Instant,
    /// What goes where.
    pub items: Vec<ProduceItem>,
}

/// Records for one partition, or records whose partitions the broker picks.
#[derive(Debug, Clone)]
pub struct ProduceItem {
    /// Name of the topic.
    pub topic: String,
    /// `None` = by key hash or round robin; only for plain records.
    pub partition: Option<PartitionIndex>,
    /// The records.
    pub payload: ProducePayload,
}

/// Records as a producer sends them.
#[derive(Debug, Clone)]
pub enum ProducePayload {
    /// Concatenated record batches, not yet checked.
    Batches(Bytes),
    /// Plain records that the broker puts into a batch.
    Records(Vec<PlainRecord>),
}

/// One record in plain form.
#[derive(Debug, Clone, Default)]
pub struct PlainRecord {
    /// `None` = null key.
    pub key: Option<Bytes>,
    /// `None` = null value.
    pub value: Option<Bytes>,
    /// In the order given.
    pub headers: Vec<(String, Bytes)>,
    /// Milliseconds since 1970; 0 = now.
    pub timestamp_ms: i64,
}

/// What became of the records of one partition.
#[derive(Debug, Clone)]
pub struct ProduceOutcome {
    /// Name of the topic.
    pub topic: String,
    /// The partition; 0 where it was never picked.
    pub partition: PartitionIndex,
    /// The receipt, or why there is none.
    pub result: Result<Receipt, ApiError>,
}

/// Batches of one partition, checked.
struct Ready {
    topic: String,
    partition: PartitionIndex,
    batches: Vec<(BatchHeader, Bytes)>,
}

impl Api {
    /// Appends to partitions that this broker leads; one outcome for each partition of each item, in their order.
    ///
    /// Everything up to a replica's queue happens at the first poll, unless a topic must be created first: a caller
    /// that polls two of these in order has their batches in order.
    ///
    /// # Cancel safety
    /// Batches that were handed over are written even if the caller goes away.
    pub async fn produce(&self, request: ProduceRequest) -> Vec<ProduceOutcome> {
        let started = Instant::now();
        if self.parts().config.topics.auto_create {
            self.create_missing(&request).await;
        }
        let image = self.parts().metadata.image();
        let prepared = request.items.into_iter().flat_map(|item| self.prepare(&image, item));
        let handed = prepared.map(|part| async {
            match part {
                Ok(ready) => self.hand_over(&image, ready, request.acks, request.deadline).await,
                Err(refused) => refused,
            }
        });
        // Polled for the first time in order.
        let outcomes = join_all(handed).await;
        self.metrics().produce_seconds(request.acks).observe(started.elapsed().as_secs_f64());
        outcomes
    }

    async fn hand_over(
        &self,
        image: &MetadataImage,
        part: Ready,
        acks: Acks,
        deadline: Instant,
    ) -> ProduceOutcome {
        let Ready { topic, partition, batches } = part;
        let produce = ProduceBatches { batches, acks, deadline };
        let (records, bytes) = (produce.records(), produce.bytes());
        let metrics = self.metrics();
        metrics.messages_received.inc_by(records);
        metrics.produced_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        for (header, _) in &produce.batches {
            metrics.batch_size.observe(f64::from(header.record_count));
        }
        let known = self.known_producers(image, &produce).await;
        let replica = known
            .and_then(|()| route::topic(image, &topic))
            .and_then(|topic| self.replica(image, topic, partition));
        let result = match replica {
            Ok(replica) => {
                replica.produce(produce).await.map_err(|error| with_hint(image, &topic, partition, error))
            }
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) => metrics.messages_stored.inc_by(records),
            Err(error) => {
                metrics.failed(error.code, records);
                0
            }
        };
        ProduceOutcome { topic, partition, result }
    }

    /// A producer id that was never given out is refused: whoever invents one could take another producer's place before it is
    /// even born.
    async fn known_producers(&self, image: &MetadataImage, produce: &ProduceBatches) -> Result<(), ApiError> {
        let producers = produce.batches.iter().filter_map(|(header, _)| header.producer());
        let Some(id) = producers.map(|producer| producer.id).max() else { return Ok(()) };
        if id < image.next_producer {
            return Ok(());
        }
        // Given out by another broker a moment ago, perhaps.
        let metadata = &self.parts().metadata;
        metadata
            .refresh(produce.deadline.min(Instant::now() + PRODUCER_KNOWN_WITHIN))
            .await
            .map_err(not_yet)?;
        if id < metadata.image().next_producer {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::UnknownProducer, format!("producer id {id} was never given to anybody"))
            .hint("take a producer id from InitProducer; the SDK does so by itself"))
    }

    /// Checks an item and cuts it into partitions, or says why not.
    fn prepare(&self, image: &MetadataImage, item: ProduceItem) -> Vec<Result<Ready, ProduceOutcome>> {
        let records = match &item.payload {
            ProducePayload::Batches(_) => 1,
            ProducePayload::Records(records) => u64::try_from(records.len()).unwrap_or(u64::MAX),
        };
        let (topic, partition) = (item.topic.clone(), item.partition.unwrap_or_default());
        match self.check(image, item) {
            Ok(parts) => parts.into_iter().map(Ok).collect(),
            Err(error) => {
                self.metrics().messages_received.inc_by(records);
                self.metrics().failed(error.code, records);
                vec![Err(ProduceOutcome { topic, partition, result: Err(error) })]
            }
        }
    }

    fn check(&self, image: &MetadataImage, item: ProduceItem) -> Result<Vec<Ready>, ApiError> {
        let topic = route::topic(image, &item.topic)?;
        match (item.payload, item.partition) {
            (ProducePayload::Batches(_), None) => Err(invalid(
                "record batches need a partition",
                "name the partition, or send plain records and let the broker pick one",
            )),
            (ProducePayload::Batches(bytes), Some(partition)) => {
                route::partition(topic, partition)?;
                let batches = checked_batches(topic, bytes)?;
                Ok(vec![Ready { topic: item.topic, partition, batches }])
            }
            (ProducePayload::Records(records), partition) => self.pack(topic, partition, records),
        }
    }

    /// Puts plain records into one batch a partition.
    fn pack(
        &self,
        topic: &Topic,
        partition: Option<PartitionIndex>,
        records: Vec<PlainRecord>,
    ) -> Result<Vec<Ready>, ApiError> {
        if records.is_empty() {
            return Err(invalid("there are no records", "send at least one record"));
        }
        if let Some(partition) = partition {
            route::partition(topic, partition)?;
        }
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX).max(1);
        // Records without key of one request stay together: a batch of many is cheaper than many of one.
        let keyless = PartitionIndex(self.0.round_robin.fetch_add(1, Ordering::Relaxed) % count);
        let now = self.parts().seams.clock.now_ms();
        let mut builders: BTreeMap<PartitionIndex, RecordBatchBuilder> = BTreeMap::new();
        for record in records {
            let at = partition.unwrap_or_else(|| match &record.key {
                Some(key) => partition_for_key(key, count),
                None => keyless,
            });
            let builder = builders.entry(at).or_insert_with(|| RecordBatchBuilder::new(Compression::None));
            push(builder, &record, now);
        }
        let mut ready = Vec::with_capacity(builders.len());
        for (partition, builder) in builders {
            let batch = builder.build()?;
            let batches = checked_batches(topic, batch)?;
            ready.push(Ready { topic: topic.name.clone(), partition, batches });
        }
        Ok(ready)
    }

    async fn create_missing(&self, request: &ProduceRequest) {
        let image = self.parts().metadata.image();
        let mut missing: Vec<&str> = request.items.iter().map(|item| item.topic.as_str()).collect();
        missing.sort_unstable();
        missing.dedup();
        missing.retain(|name| image.topic(name).is_none());
        for name in missing {
            let wait = request.deadline.saturating_duration_since(Instant::now());
            let args = CreateTopicArgs { name: name.to_owned(), wait: Some(wait), ..Default::default() };
            // Another producer may have been faster; whatever else went wrong, the produce itself will say.
            if let Err(error) = self.create_topic(args, request.deadline).await
                && error.code != ErrorCode::TopicExists
            {
                tracing::warn!(topic = name, %error, "a topic could not be created for its first record");
            }
        }
    }
}

/// Nothing was written, and another attempt may find the metadata leader.
fn not_yet(error: ApiError) -> ApiError {
    ApiError::new(ErrorCode::NotReady, "this broker does not know the producer's id yet")
        .reason(error.message)
        .retry_after_ms(100)
}

fn push(builder: &mut RecordBatchBuilder, record: &PlainRecord, now: i64) {
    let headers: Vec<(&str, &[u8])> =
        record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    let timestamp = if record.timestamp_ms == 0 { now } else { record.timestamp_ms };
    builder.push(timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
}

fn checked_batches(topic: &Topic, bytes: Bytes) -> Result<Vec<(BatchHeader, Bytes)>, ApiError> {
    let largest = usize::try_from(topic.config.max_batch_bytes).unwrap_or(usize::MAX);
    let mut batches = Vec::new();
    for cut in split_batches(bytes) {
        let (_, batch) = cut?;
        if batch.len() > largest {
            return Err(ApiError::new(
                ErrorCode::RecordTooLarge,
                format!("a batch of {} bytes exceeds the topic's max_batch_bytes of {largest}", batch.len()),
            )
            .hint(format!(
                "send smaller batches, or: altair-cli topic update {} --set max_batch_bytes=…",
                topic.name
            )));
        }
        let header = validate_batch(&batch)?;
        batches.push((header, batch));
    }
    if batches.is_empty() {
        return Err(invalid("there are no records", "send at least one batch"));
    }
    Ok(batches)
}

fn invalid(message: &str, hint: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message).hint(hint)
}

/// A replica that is not the leader may not know where the leader listens; the image does.
fn with_hint(image: &MetadataImage, topic: &str, partition: PartitionIndex, error: ApiError) -> ApiError {
    if error.code != ErrorCode::NotLeader || error.leader.is_some() {
        return error;
    }
    let known = image.topic(topic).and_then(|topic| topic.partition(partition));
    match known.and_then(|partition| route::leader_hint(image, partition)) {
        Some(hint) => error.leader(hint),
        None => error,
    }
}
