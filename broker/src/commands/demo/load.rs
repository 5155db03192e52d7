//! Writers and one reader, and what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use client::{Client, Delivery, DeliveryError, Producer, ProducerRecord, RecordMetadata, TopicPartition};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::acks::Ack;
use super::verify::{Place, RecordName};

/// Deliveries that one writer may have open: at 1 KiB a record far more than a producer's own buffer holds.
const OPEN_DELIVERIES: usize = 65_536;

/// Shared knobs and counters of the load.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Records a second of all writers together; 0 = as fast as it goes.
    rate: AtomicU32,
    stop: AtomicBool,
    sent: AtomicU64,
    acked: AtomicU64,
}

impl Pace {
    /// Sets the rate; 0 = as fast as it goes.
    pub(super) fn set_rate(&self, per_second: u32) {
        self.rate.store(per_second, Ordering::Relaxed);
    }

    /// Lets the writers end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }
}

/// What is written where.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) topic: String,
    pub(super) partitions: u32,
    pub(super) writers: u32,
    pub(super) record_bytes: usize,
}

/// One record on its way.
struct Sent {
    name: RecordName,
    partition: u32,
    at: Instant,
    delivery: Delivery,
}

/// The writers of a run.
pub(super) struct Writers(JoinSet<Result<Vec<Ack>>>);

impl Writers {
    /// Starts them; they write until [`Pace::stop`].
    pub(super) fn start(producer: &Producer, load: &Load, pace: &Arc<Pace>) -> Self {
        let mut tasks = JoinSet::new();
        for writer in 0..load.writers {
            let (sender, receiver) = mpsc::channel(OPEN_DELIVERIES);
            let (producer, load, pace) = (producer.clone(), load.clone(), pace.clone());
            tasks.spawn(collect(receiver, pace.clone()));
            tasks.spawn(async move {
                write(writer, &producer, &load, &pace, sender).await?;
                Ok(Vec::new())
            });
        }
        Self(tasks)
    }

    /// Waits for every outcome.
    ///
    /// # Errors
    /// If a record was refused by the producer, which a healthy run never sees.
    pub(super) async fn receipts(mut self) -> Result<Vec<Ack>> {
        let mut all = Vec::new();
        while let Some(ended) = self.0.join_next().await {
            all.append(&mut ended.context("a writer panicked")??);
        }
        Ok(all)
    }
}

async fn write(
    writer: u32,
    producer: &Producer,
    load: &Load,
    pace: &Pace,
    outcomes: mpsc::Sender<Sent>,
) -> Result<()> {
    let filler = "x".repeat(load.record_bytes.saturating_sub(RecordName::LEN));
    let mut turn = Turn::new(load.writers);
    for number in 0_u64.. {
        if pace.stop.load(Ordering::Relaxed) {
            break;
        }
        turn.wait(pace).await;
        let name = RecordName { writer, number };
        let partition = u32::try_from(number % u64::from(load.partitions)).unwrap_or(0);
        let value = Bytes::from(format!("{}{filler}", name.encode()));
        let record = ProducerRecord::new(load.topic.as_str(), value).partition(partition);
        let at = Instant::now();
        let delivery = producer.send(record).await.context("the producer refused a record")?;
        pace.sent.fetch_add(1, Ordering::Relaxed);
        if outcomes.send(Sent { name, partition, at, delivery }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Collects outcomes in the order in which they come, so that a partition that stands still hides no other.
async fn collect(mut sent: mpsc::Receiver<Sent>, pace: Arc<Pace>) -> Result<Vec<Ack>> {
    let mut acks = Vec::new();
    let mut open = FuturesUnordered::new();
    let mut more = true;
    while more || !open.is_empty() {
        tokio::select! {
            record = sent.recv(), if more && open.len() < OPEN_DELIVERIES => match record {
                Some(record) => open.push(outcome(record)),
                None => more = false,
            },
            Some(ack) = open.next(), if !open.is_empty() => {
                if let Some(ack) = ack {
                    pace.acked.fetch_add(1, Ordering::Relaxed);
                    acks.push(ack);
                }
            }
        }
    }
    Ok(acks)
}

async fn outcome(sent: Sent) -> Option<Ack> {
    let result: Result<RecordMetadata, DeliveryError> = sent.delivery.await;
    match result {
        Ok(receipt) => receipt.offset.map(|offset| Ack {
            name: sent.name,
            place: Place { partition: sent.partition, offset },
            sent: sent.at,
            acked: Instant::now(),
        }),
        Err(error) => {
            // Not acked, so nothing was promised; whether it was written is for the final read to see.
            tracing::warn!(%error, "a record has no receipt");
            None
        }
    }
}

/// Keeps one writer to its share of the rate.
struct Turn {
    writers: u32,
    next: Instant,
}

impl Turn {
    fn new(writers: u32) -> Self {
        Self { writers, next: Instant::now() }
    }

    async fn wait(&mut self, pace: &Pace) {
        let rate = pace.rate.load(Ordering::Relaxed);
        if rate == 0 {
            self.next = Instant::now();
            return;
        }
        self.next += Duration::from_secs(1) * self.writers / rate;
        tokio::time::sleep_until(self.next).await;
    }
}

/// Reads every partition from its start until `ends`, in order, with the names of its records.
///
/// # Errors
/// If a broker refuses, a record has no name, or nothing comes any more before the end.
pub(super) async fn read_all(
    client: &Client,
    load: &Load,
    patience: Duration,
) -> Result<Vec<(RecordName, Place)>> {
    let partitions: Vec<TopicPartition> = (0..load.partitions)
        .map(|number| TopicPartition { topic: load.topic.clone(), partition: number.into() })
        .collect();
    let mut consumer = client.consumer(client::ConsumerConfig::default())?;
    consumer.assign_topic(&load.topic).await?;
    let ends = consumer.end_offsets(&partitions).await.context("asking for the end of each partition")?;
    let total: u64 = ends.values().sum();
    let mut read = Vec::new();
    let mut last_news = Instant::now();
    while (read.len() as u64) < total {
        let records = consumer.poll(Duration::from_millis(500)).await.context("reading back")?;
        if !records.is_empty() {
            last_news = Instant::now();
        }
        anyhow::ensure!(
            last_news.elapsed() < patience,
            "{} of {total} records came, then nothing more",
            read.len()
        );
        for record in records {
            let name =
                record.value.as_deref().and_then(RecordName::decode).context("a record that nobody wrote")?;
            read.push((name, Place { partition: record.partition, offset: record.offset }));
        }
    }
    Ok(read)
}
