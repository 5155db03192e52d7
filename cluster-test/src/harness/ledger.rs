//! Unique records, their receipts, and the comparison with what is read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::{Client, ConsumerConfig, ProducerConfig, ProducerRecord, TopicPartition};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Time between two records of a writer.
const PACE: Duration = Duration::from_millis(2);
/// How long reading back may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// One receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Receipt {
    number: u64,
    partition: u32,
    offset: u64,
    at: Instant,
}

/// What one writer was promised.
#[derive(Debug, Clone)]
pub struct Ledger {
    topic: String,
    partitions: u32,
    sent: u64,
    receipts: Vec<Receipt>,
    unknown: u64,
    failed: u64,
}

/// A writer at work: an idempotent producer that sends numbered records, round robin over partitions, until it is told to stop.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Ledger>>,
}

impl Writer {
    /// Starts writing.
    ///
    /// # Errors
    /// If the client refuses the producer.
    pub fn start(client: &Client, topic: &str, partitions: u32) -> Result<Self> {
        let producer =
            client.producer(ProducerConfig { delivery_timeout_ms: 60_000, ..ProducerConfig::default() })?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (stop.clone(), topic.to_owned());
        #[expect(clippy::disallowed_methods, reason = "a test's own task, joined by Writer::finish")]
        let task = tokio::spawn(async move {
            let mut ledger =
                Ledger { topic, partitions, sent: 0, receipts: Vec::new(), unknown: 0, failed: 0 };
            let mut open = FuturesUnordered::new();
            while !stopped.load(Ordering::Relaxed) {
                let number = ledger.sent;
                let partition = u32::try_from(number % u64::from(partitions))?;
                let value = Bytes::from(format!("{number:016x}"));
                let record = ProducerRecord::new(ledger.topic.as_str(), value).partition(partition);
                let delivery = producer.send(record).await.context("sending")?;
                ledger.sent += 1;
                open.push(async move { (number, partition, delivery.await) });
                let pause = tokio::time::sleep(PACE);
                tokio::pin!(pause);
                loop {
                    tokio::select! {
                        () = &mut pause => break,
                        Some((number, partition, outcome)) = open.next(), if !open.is_empty() => {
                            ledger.note(number, partition, outcome);
                        }
                    }
                }
            }
            while let Some((number, partition, outcome)) = open.next().await {
                ledger.note(number, partition, outcome);
            }
            Ok(ledger)
        });
        Ok(Self { stop, task })
    }

    /// Stops writing and waits for every outcome.
    ///
    /// # Errors
    /// If the writer failed.
    pub async fn finish(self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

impl Ledger {
    fn note(
        &mut self,
        number: u64,
        partition: u32,
        outcome: Result<client::RecordMetadata, client::DeliveryError>,
    ) {
        match outcome {
            Ok(metadata) => {
                if let Some(offset) = metadata.offset {
                    self.receipts.push(Receipt { number, partition, offset, at: Instant::now() });
                }
            }
            Err(error) if error.definite() => self.failed += 1,
            Err(_) => self.unknown += 1,
        }
    }

    /// Records with a receipt.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.receipts.len()
    }

    /// Partition and offset of each record with a receipt.
    pub fn places(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.receipts.iter().map(|receipt| (receipt.partition, receipt.offset))
    }

    /// Longest time between two acks of one partition that ended after `from`.
    #[must_use]
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let mut last: BTreeMap<u32, Instant> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        let mut receipts = self.receipts.clone();
        receipts.sort_by_key(|receipt| receipt.at);
        for receipt in receipts {
            if let Some(earlier) = last.insert(receipt.partition, receipt.at)
                && receipt.at > from
            {
                longest = longest.max(receipt.at.saturating_duration_since(earlier));
            }
        }
        longest
    }

    /// Reads everything back and compares: each acked record stands at the offset of its receipt, none stands twice, and
    /// each partition holds its records in the order in which they were sent.
    ///
    /// # Errors
    /// The first difference, in words.
    pub async fn check(&self, client: &Client) -> Result<()> {
        ensure!(self.failed == 0, "{} records were refused", self.failed);
        let read = read_all(client, &self.topic, self.partitions).await?;
        let by_place: BTreeMap<(u32, u64), u64> = read.iter().map(|(p, o, n)| ((*p, *o), *n)).collect();
        for receipt in &self.receipts {
            let found = by_place.get(&(receipt.partition, receipt.offset));
            ensure!(
                found == Some(&receipt.number),
                "record {} was acked at {}/{}@{}, where now stands {found:?}",
                receipt.number,
                self.topic,
                receipt.partition,
                receipt.offset
            );
        }
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (partition, offset, number) in read {
            ensure!(number < self.sent, "record {number} at {partition}@{offset} was never sent");
            ensure!(seen.insert(number), "record {number} stands twice, again at {partition}@{offset}");
            let earlier = last.insert(partition, number);
            ensure!(
                earlier < Some(number),
                "record {number} stands behind {earlier:?} in partition {partition}"
            );
        }
        Ok(())
    }
}

/// All records of a topic: partition, offset, number.
async fn read_all(client: &Client, topic: &str, partitions: u32) -> Result<Vec<(u32, u64, u64)>> {
    let partitions: Vec<TopicPartition> = (0..partitions)
        .map(|partition| TopicPartition { topic: topic.to_owned(), partition: partition.into() })
        .collect();
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_topic(topic).await?;
    let ends = consumer.end_offsets(&partitions).await.context("asking for the ends")?;
    let total: u64 = ends.values().sum();
    let mut read = Vec::new();
    let mut news = Instant::now();
    while (read.len() as u64) < total {
        let records = consumer.poll(Duration::from_millis(200)).await.context("reading back")?;
        if !records.is_empty() {
            news = Instant::now();
        }
        ensure!(news.elapsed() < PATIENCE, "{} of {total} records came back, then no more", read.len());
        for record in records {
            let text = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let number = u64::from_str_radix(&text, 16).with_context(|| format!("nobody wrote {text:?}"))?;
            read.push((record.partition, record.offset, number));
        }
    }
    Ok(read)
}
