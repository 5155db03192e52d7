//! The console's own producer and consumer: a little steady traffic on topic `dev`, so that a person sees a cluster work
//! while brokers come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use client::{Client, ConsumerConfig, ProducerConfig, ProducerRecord};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Topic of the traffic.
pub(super) const TOPIC: &str = "dev";
/// Partitions of the topic.
const PARTITIONS: u32 = 3;
/// Time between two records: ten a second.
const EVERY: Duration = Duration::from_millis(100);
/// How long the topic may take to get its leaders.
const TOPIC_DEADLINE: Duration = Duration::from_secs(15);

/// What the traffic has seen since the session began.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) acked: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) read: AtomicU64,
    /// Records that stood where an earlier or a later one should have.
    pub(super) out_of_order: AtomicU64,
}

/// One of the two workers.
#[derive(Debug, Default)]
pub(super) struct Worker {
    running: Option<(CancellationToken, JoinSet<()>)>,
}

impl Worker {
    /// True while it works.
    pub(super) fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|(_, tasks)| !tasks.is_empty())
    }

    /// Ends it and waits until it has.
    pub(super) async fn stop(&mut self) {
        if let Some((token, mut tasks)) = self.running.take() {
            token.cancel();
            while tasks.join_next().await.is_some() {}
        }
    }

    /// Starts the producer; fine if it runs.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub(super) async fn produce(&mut self, client: &Client, rf: u32, counters: &Arc<Counters>) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        crate::commands::topics::create(client, TOPIC, PARTITIONS, rf, TOPIC_DEADLINE).await?;
        let producer = client.producer(ProducerConfig::default())?;
        let (token, counters) = (CancellationToken::new(), counters.clone());
        let stop = token.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut outcomes = JoinSet::new();
            for number in 0_u64.. {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(EVERY) => {}
                }
                let partition = u32::try_from(number % u64::from(PARTITIONS)).unwrap_or(0);
                let value = Bytes::from(format!("record {number}"));
                let record = ProducerRecord::new(TOPIC, value).partition(partition);
                match producer.send(record).await {
                    Ok(delivery) => {
                        let counters = counters.clone();
                        outcomes.spawn(async move {
                            let counter = match delivery.await {
                                Ok(_) => &counters.acked,
                                Err(error) if error.definite() => &counters.failed,
                                Err(_) => &counters.unknown,
                            };
                            counter.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the console's producer was refused");
                        counters.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                while outcomes.try_join_next().is_some() {}
            }
            // What is on its way still gets its outcome.
            let _ = producer.close().await;
            while outcomes.join_next().await.is_some() {}
        });
        self.running = Some((token, tasks));
        Ok(())
    }

    /// Starts the consumer at the start of the topic; fine if it runs.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub(super) async fn consume(&mut self, client: &Client, rf: u32, counters: &Arc<Counters>) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        crate::commands::topics::create(client, TOPIC, PARTITIONS, rf, TOPIC_DEADLINE).await?;
        let mut consumer = client.consumer(ConsumerConfig::default())?;
        consumer.assign_topic(TOPIC).await.context("assigning the console's consumer")?;
        let (token, counters) = (CancellationToken::new(), counters.clone());
        let stop = token.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut next = std::collections::BTreeMap::new();
            loop {
                let records = tokio::select! {
                    () = stop.cancelled() => break,
                    records = consumer.poll(Duration::from_secs(1)) => records,
                };
                match records {
                    Ok(records) => {
                        for record in records {
                            let expected = next.entry(record.partition).or_insert(record.offset);
                            if *expected != record.offset {
                                counters.out_of_order.fetch_add(1, Ordering::Relaxed);
                            }
                            *expected = record.offset + 1;
                            counters.read.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the console's consumer met an error");
                        tokio::time::sleep(EVERY).await;
                    }
                }
            }
        });
        self.running = Some((token, tasks));
        Ok(())
    }
}
