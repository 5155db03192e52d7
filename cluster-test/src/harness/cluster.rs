//! A cluster of real processes in a directory of its own, one at a time on this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::{ClusterSpec, LocalCluster, PortChoice, ProcessState};
use client::{Client, ClientConfig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::pb;

use super::tools::{altair, eventually};
use super::usage::Usage;

/// Time for brokers to get ready: far more than they take, so that only a hang trips it.
const READY: Duration = Duration::from_secs(60);

/// Clusters alive at once: two cores carry one; a second would measure the first.
static TURN: std::sync::LazyLock<Arc<Semaphore>> = std::sync::LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// Brokers, and a client to them. Dropping it kills them and removes their data.
#[derive(Debug)]
pub struct TestCluster {
    /// The processes.
    pub brokers: LocalCluster,
    dir: tempfile::TempDir,
    _turn: OwnedSemaphorePermit,
}

impl TestCluster {
    /// Makes directories and configs; starts nothing.
    ///
    /// # Errors
    /// If the machine refuses.
    pub async fn prepare(brokers: u32, settings: &[(&str, &str)]) -> Result<Self> {
        let turn = TURN.clone().acquire_owned().await?;
        let dir = tempfile::Builder::new().prefix("altair-test-").tempdir()?;
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let brokers = LocalCluster::prepare(ClusterSpec {
            brokers,
            dir: dir.path().to_owned(),
            binary: altair(),
            ports: PortChoice::Free,
            settings,
            own: BTreeMap::new(),
        })?;
        Ok(Self { brokers, dir, _turn: turn })
    }

    /// Starts a cluster with default settings and waits until every broker is ready.
    ///
    /// # Errors
    /// If a broker does not get ready.
    pub async fn start(brokers: u32) -> Result<Self> {
        Self::start_with(brokers, &[]).await
    }

    /// As [`TestCluster::start`], with settings over the defaults.
    ///
    /// # Errors
    /// If a broker does not get ready.
    pub async fn start_with(brokers: u32, settings: &[(&str, &str)]) -> Result<Self> {
        let mut cluster = Self::prepare(brokers, settings).await?;
        cluster.brokers.start_all(READY).await?;
        Ok(cluster)
    }

    /// A client that knows all brokers.
    ///
    /// # Errors
    /// If none answers.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(ClientConfig::new(self.brokers.bootstrap())).await.context("connecting")
    }

    /// Creates a topic and waits for its leaders.
    ///
    /// # Errors
    /// The broker's.
    pub async fn topic(&self, client: &Client, name: &str, partitions: u32, rf: u32) -> Result<()> {
        let request = pb::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            replication_factor: rf,
            wait_ms: 30_000,
            ..pb::CreateTopicRequest::default()
        };
        client.admin().create_topic(request).await.with_context(|| format!("creating topic {name}"))?;
        Ok(())
    }

    /// Leader of a partition, once there is one that is not `besides`.
    ///
    /// # Errors
    /// If none came.
    pub async fn leader(
        &self,
        client: &Client,
        topic: &str,
        partition: u32,
        besides: Option<u32>,
    ) -> Result<u32> {
        eventually("a leader", READY, || async {
            let leader = self.describe(client, topic, partition).await?.leader?;
            (Some(leader) != besides).then_some(leader)
        })
        .await
    }

    /// A partition as some broker sees it now.
    pub async fn describe(&self, client: &Client, topic: &str, partition: u32) -> Option<pb::PartitionInfo> {
        let request = pb::DescribeTopicsRequest { names: vec![topic.to_owned()] };
        let topics = client.admin().describe_topics(request).await.ok()?.topics;
        topics.first()?.partitions.iter().find(|info| info.partition == partition).cloned()
    }

    /// Waits until the cluster calls itself healthy.
    ///
    /// # Errors
    /// If it does not.
    pub async fn healthy(&self, client: &Client) -> Result<()> {
        eventually("a healthy cluster", READY, || async {
            let status = client.admin().cluster_status(pb::ClusterStatusRequest {}).await.ok()?;
            (status.verdict == "healthy").then_some(())
        })
        .await
    }

    /// Starts a broker again and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn restart(&mut self, id: u32) -> Result<()> {
        self.brokers.start(id)?;
        Ok(self.brokers.wait_ready(id, READY).await?)
    }

    /// What the brokers that run used so far.
    ///
    /// # Errors
    /// If a process ends meanwhile.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for id in self.brokers.ids() {
            if let ProcessState::Running { pid } = self.brokers.state(id)? {
                usage.add(&pid.to_string())?;
            }
        }
        Ok(usage)
    }

    /// Directory of all brokers.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
