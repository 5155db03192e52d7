//! The clients of the simulated cluster: real SDK clients on two machines of their own, which faults may separate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{
    Client, ClientConfig, ClientError, Clock, Consumer, ConsumerConfig, DeliveryError, ProducerConfig,
    ProducerRecord,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use verify::history::{Recorder, value, value_parts};
use wire::pb;

use super::ledger::Ledger;
use super::net::SimConnect;
use super::operator::Operator;
use super::plan::Plan;
use super::station::{grpc_address, wall_ms};
use super::trace::{SimClock, Trace};

/// Topic of the workload.
pub(super) const TOPIC: &str = "t";
/// Its partitions.
pub(super) const PARTITIONS: u32 = 3;
/// Machines with clients, each with a reader and this many writers.
pub(super) const MACHINES: u32 = 2;
const WRITERS: u32 = 2;
/// Wait of one poll. Unit: simulated.
const POLL: Duration = Duration::from_millis(200);
/// Time for the final read. Unit: simulated.
const FINAL_READ: Duration = Duration::from_secs(40);

/// What the world and the clients tell each other.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// The topic is there.
    pub(super) ready: CancellationToken,
    /// Ends the workload.
    pub(super) stop: CancellationToken,
    /// Begins the final read.
    pub(super) last_look: CancellationToken,
    /// Machines whose workload has ended.
    pub(super) ended: AtomicU32,
    /// The final read is done.
    pub(super) done: AtomicBool,
    /// Records acked.
    pub(super) acked: AtomicU64,
    /// Acks or reads of each worker.
    progress: Mutex<BTreeMap<u32, u64>>,
    ledger: Mutex<Ledger>,
}

impl Stage {
    /// What was acked and read.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acks or reads of each worker so far.
    pub(super) fn progress(&self) -> BTreeMap<u32, u64> {
        self.lock_progress().clone()
    }

    fn lock_progress(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, worker: u32, done: u64) {
        *self.lock_progress().entry(worker).or_default() += done;
    }
}

/// Everything the clients need.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    pub(super) plan: Arc<Plan>,
    pub(super) clock: SimClock,
    pub(super) trace: Trace,
    pub(super) stage: Arc<Stage>,
    pub(super) operator: Arc<Operator>,
    pub(super) recorder: Recorder,
}

impl Clients {
    fn config(&self, worker: u32) -> ClientConfig {
        let clock = self.clock.clone();
        ClientConfig {
            connect: Arc::new(SimConnect),
            random_seed: Some(self.plan.derive(0xC11E, u64::from(worker))),
            clock: Clock::from_fn(move || wall_ms(&clock)),
            request_timeout_ms: 2_000,
            keep_alive_ms: 1_000,
            ..ClientConfig::new((1..=self.plan.nodes).map(grpc_address))
        }
    }

    /// The software of a clients' machine; the first one also has the operator and takes the last look.
    pub(super) async fn run(self, machine: u32) -> turmoil::Result {
        let first = machine * (WRITERS + 1) + 1;
        if machine == 0 {
            self.create_topic().await?;
            self.stage.ready.cancel();
        }
        self.stage.ready.cancelled().await;
        let writers = (first..first + WRITERS).map(|worker| self.write(worker));
        let operate = async {
            if machine > 0 {
                return Ok(());
            }
            let (config, stop) = (self.config(100), self.stage.stop.clone());
            self.operator.clone().run(config, self.recorder.clone(), self.trace.clone(), stop).await
        };
        let (written, read, operated) =
            tokio::join!(futures::future::try_join_all(writers), self.read(first + WRITERS), operate);
        written.and(read).and(operated)?;
        self.stage.ended.fetch_add(1, Ordering::Relaxed);
        if machine == 0 {
            self.stage.last_look.cancelled().await;
            self.look().await?;
            self.stage.done.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn create_topic(&self) -> Result<(), ClientError> {
        let admin = Client::start(self.config(0))?;
        let config = [("min_insync_replicas".to_owned(), self.plan.load.min_insync.to_string())];
        loop {
            let request = pb::CreateTopicRequest {
                name: TOPIC.into(),
                partitions: PARTITIONS,
                replication_factor: 3,
                config: config.clone().into_iter().collect(),
                wait_ms: 10_000,
                ..pb::CreateTopicRequest::default()
            };
            match admin.admin().create_topic(request).await {
                Ok(_) => break,
                Err(error) => self.trace.note(format_args!("create_topic: {error}")),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.trace.note(format_args!("the topic is there"));
        Ok(())
    }

    /// An idempotent writer with acks=all and a window of records on their way.
    async fn write(&self, worker: u32) -> Result<(), ClientError> {
        let load = &self.plan.load;
        let client = Client::start(self.config(worker))?;
        let producer = client.producer(ProducerConfig {
            delivery_timeout_ms: load.delivery_timeout_ms,
            max_block_ms: load.delivery_timeout_ms,
            request_timeout_ms: 2_000,
            ..ProducerConfig::default()
        })?;
        let mut waiting = FuturesUnordered::new();
        let mut number = 0_u64;
        while !self.stage.stop.is_cancelled() {
            number += 1;
            let sent = value(worker, number);
            let padding = load.value_bytes.saturating_sub(16) as usize;
            let text = format!("{sent:016x}{:padding$}", "");
            match producer.send(ProducerRecord::new(TOPIC, text)).await {
                Ok(delivery) => waiting.push(async move { (sent, delivery.await) }),
                Err(error) => self.trace.note(format_args!("worker {worker} could not send: {error}")),
            }
            tokio::time::sleep(load.pace).await;
            while waiting.len() >= load.window as usize {
                if let Some((sent, outcome)) = waiting.next().await {
                    self.told(worker, sent, outcome);
                }
            }
        }
        while let Some((sent, outcome)) = waiting.next().await {
            self.told(worker, sent, outcome);
        }
        Ok(())
    }

    fn told(&self, worker: u32, sent: u64, outcome: Result<client::RecordMetadata, DeliveryError>) {
        let number = value_parts(sent).1;
        match outcome {
            Ok(receipt) => {
                self.stage.acked.fetch_add(1, Ordering::Relaxed);
                self.stage.count(worker, 1);
                let (partition, offset) = (receipt.partition, receipt.offset);
                self.trace.note(format_args!("worker {worker} acked {number} at {partition}/{offset:?}"));
                self.stage.ledger().acked(sent, partition, offset);
            }
            Err(error @ DeliveryError::Failed(_)) => {
                self.trace.note(format_args!("worker {worker} failed {number}: {error}"));
                self.stage.ledger().failed(sent);
            }
            Err(error) => self.trace.note(format_args!("worker {worker} unknown {number}: {error}")),
        }
    }

    /// A reader of all partitions from the start.
    async fn read(&self, worker: u32) -> Result<(), ClientError> {
        let client = Client::start(self.config(worker))?;
        let mut consumer = self.assigned(&client).await?;
        while !self.stage.stop.is_cancelled() {
            match self.poll(&mut consumer, worker).await {
                Ok(count) => self.stage.count(worker, count),
                Err(error) => {
                    self.trace.note(format_args!("worker {worker} poll: {error}"));
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        Ok(())
    }

    async fn assigned(&self, client: &Client) -> Result<Consumer, ClientError> {
        let mut consumer = client.consumer(ConsumerConfig::default())?;
        loop {
            match consumer.assign_topic(TOPIC).await {
                Ok(()) => return Ok(consumer),
                Err(error) => self.trace.note(format_args!("assign: {error}")),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn poll(&self, consumer: &mut Consumer, worker: u32) -> Result<u64, ClientError> {
        let records = consumer.poll(POLL).await?;
        if let Some(last) = records.last() {
            let count = records.len();
            self.trace
                .note(format_args!("worker {worker} read {count} to {}/{}", last.partition, last.offset));
        }
        let mut ledger = self.stage.ledger();
        for record in &records {
            ledger.read(record.partition, record.offset, record.value.as_deref());
        }
        Ok(records.len() as u64)
    }

    /// Reads everything from the start once more, until all that was acked is seen or the time is over.
    async fn look(&self) -> Result<(), ClientError> {
        let client = Client::start(self.config(200))?;
        let mut consumer = self.assigned(&client).await?;
        self.stage.ledger().begin_last_look();
        let until = Instant::now() + FINAL_READ;
        while Instant::now() < until && !self.stage.ledger().is_complete() {
            if let Err(error) = self.poll(&mut consumer, 200).await {
                self.trace.note(format_args!("last look: {error}"));
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}
