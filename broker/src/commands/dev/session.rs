//! The running cluster of `altair dev`: carries out words, one after the other.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::{LocalCluster, ProcessState};
use client::{Client, ClientConfig};
use tokio::time::Instant;

use super::traffic::{Counters, Worker};
use super::words::{Action, HELP, Word};

/// How long a broker may take to get ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a broker may take to hand over its leaderships and stop.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// How long `status` waits for a broker's answer.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);

/// What the main loop does after a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Stop,
}

/// The cluster, a client, and the traffic.
pub(super) struct Session {
    cluster: LocalCluster,
    client: Client,
    rf: u32,
    counters: Arc<Counters>,
    producer: Worker,
    consumer: Worker,
}

impl Session {
    /// Starts the brokers and waits until they are ready.
    ///
    /// # Errors
    /// If a broker does not get ready.
    pub(super) async fn start(mut cluster: LocalCluster) -> Result<Self> {
        cluster.start_all(READY_DEADLINE).await?;
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()))
            .await
            .context("connecting to the brokers")?;
        let rf = u32::try_from(cluster.ids().count())?.min(3);
        Ok(Self {
            cluster,
            client,
            rf,
            counters: Arc::default(),
            producer: Worker::default(),
            consumer: Worker::default(),
        })
    }

    /// Addresses, for the greeting.
    pub(super) fn bootstrap(&self) -> String {
        self.cluster.bootstrap().join(",")
    }

    /// Carries out one word; the text is for whoever said it.
    ///
    /// # Errors
    /// What went wrong, for whoever said it; the session goes on.
    pub(super) async fn obey(&mut self, word: Word) -> Result<(String, Next)> {
        let text = match word {
            Word::Help => HELP.to_owned(),
            Word::Status => self.status().await,
            Word::BrokerList => self.brokers()?,
            Word::BrokerStart(id) => self.start_broker(id).await?,
            Word::BrokerStop(id) => self.stop_broker(id).await?,
            Word::BrokerKill(id) => {
                self.cluster.kill(id).await?;
                format!("broker {id} killed with SIGKILL\nnext: status   |   broker start {id}")
            }
            Word::BrokerRestart(id) => {
                let stopped = self.stop_broker(id).await?;
                format!("{stopped}\n{}", self.start_broker(id).await?)
            }
            Word::RestartAll => self.restart_all().await?,
            Word::Producer(action) => self.traffic(true, action).await?,
            Word::Consumer(action) => self.traffic(false, action).await?,
            Word::Quit => return Ok(("stopping".to_owned(), Next::Stop)),
        };
        Ok((text, Next::GoOn))
    }

    /// Stops traffic, then brokers.
    pub(super) async fn stop(mut self) {
        self.producer.stop().await;
        self.consumer.stop().await;
        self.cluster.stop_all(STOP_GRACE).await;
    }

    async fn start_broker(&mut self, id: u32) -> Result<String> {
        let started = Instant::now();
        self.cluster.start(id)?;
        self.cluster.wait_ready(id, READY_DEADLINE).await?;
        Ok(format!("broker {id} ready in {} ms", started.elapsed().as_millis()))
    }

    async fn stop_broker(&mut self, id: u32) -> Result<String> {
        let started = Instant::now();
        let graceful = self.cluster.stop(id, STOP_GRACE).await?;
        let how = if graceful { "stopped" } else { "did not stop in time and was killed" };
        Ok(format!("broker {id} {how} after {} ms", started.elapsed().as_millis()))
    }

    async fn restart_all(&mut self) -> Result<String> {
        let started = Instant::now();
        self.cluster.stop_all(STOP_GRACE).await;
        self.cluster.start_all(READY_DEADLINE).await?;
        Ok(format!("all brokers restarted in {} ms", started.elapsed().as_millis()))
    }

    async fn traffic(&mut self, producer: bool, action: Action) -> Result<String> {
        let worker = if producer { &mut self.producer } else { &mut self.consumer };
        let name = if producer { "producer" } else { "consumer" };
        if matches!(action, Action::Stop | Action::Restart) {
            worker.stop().await;
        }
        if matches!(action, Action::Start | Action::Restart) {
            if producer {
                worker.produce(&self.client, self.rf, &self.counters).await?;
            } else {
                worker.consume(&self.client, self.rf, &self.counters).await?;
            }
        }
        let state = if worker.is_running() { "runs" } else { "is stopped" };
        Ok(format!("{name} {state}, topic {}", super::traffic::TOPIC))
    }

    fn brokers(&self) -> Result<String> {
        let mut text =
            format!("{:<7} {:<22} {:<21} {:<21} {}\n", "BROKER", "STATE", "GRPC", "HTTP", "DIRECTORY");
        for id in self.cluster.ids() {
            let at = self.cluster.addresses(id)?;
            let (state, dir) = (self.cluster.state(id)?, self.cluster.dir(id)?.display());
            let (state, grpc, http) = (state.to_string(), at.grpc.to_string(), at.http.to_string());
            let _ = writeln!(text, "{id:<7} {state:<22} {grpc:<21} {http:<21} {dir}");
        }
        Ok(text.trim_end().to_owned())
    }

    async fn status(&self) -> String {
        let mut text = self.brokers().unwrap_or_else(|error| error.to_string());
        let admin = self.client.admin();
        match tokio::time::timeout(STATUS_DEADLINE, admin.cluster_status(wire::pb::ClusterStatusRequest {}))
            .await
        {
            Ok(Ok(status)) => {
                let _ = write!(
                    text,
                    "\n\ncluster {}: {}, {} topics, {} partitions, {} without a leader, {} under-replicated",
                    status.cluster_name,
                    status.verdict,
                    status.topics,
                    status.partitions,
                    status.leaderless.len(),
                    status.under_replicated.len()
                );
                for reason in &status.reasons {
                    let _ = write!(text, "\n  {reason}");
                }
            }
            Ok(Err(error)) => {
                let _ = write!(text, "\n\ncluster: {error}");
            }
            Err(_) => text.push_str("\n\ncluster: no broker answered in time"),
        }
        let running = |worker: &Worker| if worker.is_running() { "runs" } else { "stopped" };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let _ = write!(
            text,
            "\nproducer {}: {} acked, {} failed, {} unknown\nconsumer {}: {} read, {} out of order",
            running(&self.producer),
            count(&self.counters.acked),
            count(&self.counters.failed),
            count(&self.counters.unknown),
            running(&self.consumer),
            count(&self.counters.read),
            count(&self.counters.out_of_order),
        );
        text
    }

    /// Brokers that ended without being asked since the last call named them.
    pub(super) fn surprises(&self, known: &mut std::collections::BTreeSet<u32>) -> Vec<String> {
        let mut news = Vec::new();
        for id in self.cluster.ids() {
            match self.cluster.state(id) {
                Ok(ProcessState::Exited { how, .. }) => {
                    if known.insert(id) {
                        news.push(format!(
                            "broker {id} ended ({how}); its last words:\n{}",
                            self.cluster.log_tail(id)
                        ));
                    }
                }
                _ => {
                    known.remove(&id);
                }
            }
        }
        news
    }
}
