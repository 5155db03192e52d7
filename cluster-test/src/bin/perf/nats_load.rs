//! The loads of `altair-cli bench`, on NATS JetStream: one stream for each partition, one connection.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture};
use async_nats::jetstream::{self};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::select_all;
use hdrhistogram::Histogram;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::contest::Figures;
use super::nats::{Servers, Sync, stream_config};
use cluster_test::harness::cpu_seconds;

const PARTITIONS: usize = 12;
/// Messages without their ack at once, over all streams.
const IN_FLIGHT: usize = 8_192;
const WARMUP: Duration = Duration::from_secs(2);
/// An ack, or a message that is on its way, that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are written before they are read.
const PRELOAD: u64 = 256 << 20;
/// Messages that a reader asks for at once.
const ASKED: usize = 2_000;
const MIB: f64 = 1024.0 * 1024.0;

/// What is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records {
    pub(super) sync: Sync,
    pub(super) size: usize,
}

/// Publishes as fast as it goes.
///
/// # Errors
/// If the servers fail, or an ack does not come.
pub(super) async fn produce(records: Records, span: Duration) -> Result<Figures> {
    let servers = Servers::start(records.sync).await?;
    let context = context(&servers).await?;
    streams(&context).await?;
    let value = Bytes::from(vec![7; records.size]);
    let from = Instant::now() + WARMUP;
    let to = from + span;
    let (send, acked) = mpsc::channel(IN_FLIGHT);
    let publish = async {
        let mut number = 0;
        while Instant::now() < to {
            let ack = context.publish(subject(number), value.clone()).await?;
            let _ = send.send((Instant::now(), ack)).await;
            number += 1;
        }
        drop(send);
        Ok::<(), anyhow::Error>(())
    };
    let cost = async {
        tokio::time::sleep_until(from).await;
        let before = spent(&servers)?;
        tokio::time::sleep_until(to).await;
        Ok::<f64, anyhow::Error>(spent(&servers)? - before)
    };
    let ((), tally, spent) = tokio::try_join!(publish, acks(acked, (from, to)), cost)?;
    let bytes = tally.count as f64 * records.size as f64;
    ensure!(tally.count > 0, "NATS acknowledged nothing");
    Ok(Figures::from([
        ("mib", bytes / span.as_secs_f64() / MIB),
        ("records", tally.count as f64 / span.as_secs_f64()),
        ("p50", tally.quantile_ms(0.5)),
        ("p99", tally.quantile_ms(0.99)),
        ("cpu", spent / (bytes / 1e9)),
        ("rss", servers.rss_bytes()? / MIB),
    ]))
}

/// Reads what was published before, each stream with a consumer that acknowledges nothing.
///
/// # Errors
/// If the servers fail, or a message does not come.
pub(super) async fn consume(records: Records) -> Result<Figures> {
    let servers = Servers::start(records.sync).await?;
    let context = context(&servers).await?;
    streams(&context).await?;
    let (value, count) = (Bytes::from(vec![7; records.size]), PRELOAD / records.size as u64);
    let mut waiting: VecDeque<PublishAckFuture> = VecDeque::new();
    for number in 0..count {
        waiting.push_back(context.publish(subject(number), value.clone()).await?);
        while waiting.len() >= IN_FLIGHT {
            waiting.pop_front().context("one that waits")?.await?;
        }
    }
    for ack in waiting {
        ack.await?;
    }
    let mut messages = readers(&context, DeliverPolicy::All).await?;
    let (before, begun) = (spent(&servers)?, Instant::now());
    let mut bytes = 0;
    for _ in 0..count {
        let message =
            tokio::time::timeout(PATIENCE, messages.next()).await?.context("the end of a stream")??;
        bytes += message.payload.len();
    }
    let took = begun.elapsed().as_secs_f64();
    Ok(Figures::from([
        ("mib", bytes as f64 / took / MIB),
        ("records", count as f64 / took),
        ("cpu", (spent(&servers)? - before) / (bytes as f64 / 1e9)),
    ]))
}

/// Publishes at a steady rate and reads at the same time.
///
/// # Errors
/// If the servers fail, or a message does not come.
pub(super) async fn end_to_end(records: Records, rate: u32, span: Duration) -> Result<Figures> {
    let servers = Servers::start(records.sync).await?;
    let (writer, reader) = (context(&servers).await?, context(&servers).await?);
    streams(&writer).await?;
    let mut messages = readers(&reader, DeliverPolicy::New).await?;
    let begun = Instant::now();
    let pace = Duration::from_secs(1) / rate;
    let total = u64::try_from((WARMUP + span).as_nanos() / pace.as_nanos())?;
    let (send, acked) = mpsc::channel(IN_FLIGHT);
    let (ended, end) = watch::channel(false);
    let publish = async {
        for number in 0..total {
            let due = begun + pace.mul_f64(number as f64);
            tokio::time::sleep_until(due).await;
            let mut value = BytesMut::zeroed(records.size);
            let nanos = u64::try_from(begun.elapsed().as_nanos())?;
            value.get_mut(..8).context("room for a stamp")?.copy_from_slice(&nanos.to_le_bytes());
            let ack = writer.publish(subject(number), value.freeze()).await?;
            let _ = send.send((Instant::now(), ack)).await;
        }
        drop(send);
        ended.send_replace(true);
        Ok::<(), anyhow::Error>(())
    };
    let read = async {
        let mut times = Tally::new()?;
        for _ in 0..total {
            let message =
                tokio::time::timeout(PATIENCE, messages.next()).await?.context("the end of a stream")??;
            let stamp = message.payload.first_chunk::<8>().context("a stamp")?;
            let due = begun + Duration::from_nanos(u64::from_le_bytes(*stamp));
            if due >= begun + WARMUP {
                times.add(due.elapsed());
            }
        }
        Ok::<Tally, anyhow::Error>(times)
    };
    let window = (begun, begun + WARMUP + span);
    let ((), _, times) = tokio::try_join!(publish, acks(acked, window), read)?;
    drop(end);
    Ok(Figures::from([("p50", times.quantile_ms(0.5)), ("p99", times.quantile_ms(0.99))]))
}

/// Counts and times.
struct Tally {
    count: u64,
    times: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self { count: 0, times: Histogram::new_with_bounds(1, 600_000_000, 3)? })
    }

    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }
}

type Sent = (Instant, PublishAckFuture);

/// Takes acks in the order of their messages; those that come within the window count.
async fn acks(mut sent: mpsc::Receiver<Sent>, (from, to): (Instant, Instant)) -> Result<Tally> {
    let mut tally = Tally::new()?;
    while let Some((at, ack)) = sent.recv().await {
        ack.await?;
        if from <= Instant::now() && Instant::now() < to {
            tally.add(at.elapsed());
        }
    }
    Ok(tally)
}

async fn context(servers: &Servers) -> Result<jetstream::Context> {
    let client = servers.connect().await?;
    Ok(ContextBuilder::new()
        .timeout(PATIENCE)
        .ack_timeout(PATIENCE)
        .max_ack_inflight(IN_FLIGHT)
        .backpressure_on_inflight(true)
        .build(client))
}

fn subject(number: u64) -> String {
    format!("t{}", number % PARTITIONS as u64)
}

async fn streams(context: &jetstream::Context) -> Result<()> {
    for number in 0..PARTITIONS {
        context.create_stream(stream_config(format!("t{number}"))).await?;
    }
    Ok(())
}

type Messages = futures::stream::SelectAll<pull::Stream>;

/// A reader of every stream.
async fn readers(context: &jetstream::Context, deliver_policy: DeliverPolicy) -> Result<Messages> {
    let mut all = Vec::new();
    for number in 0..PARTITIONS {
        let config = pull::Config { deliver_policy, ack_policy: AckPolicy::None, ..pull::Config::default() };
        let consumer = context.create_consumer_on_stream(config, format!("t{number}")).await?;
        all.push(consumer.stream().max_messages_per_batch(ASKED).messages().await?);
    }
    Ok(select_all(all))
}

/// Processor time of the servers and of this process.
fn spent(servers: &Servers) -> Result<f64> {
    Ok(servers.cpu_seconds()? + cpu_seconds("self")?)
}
