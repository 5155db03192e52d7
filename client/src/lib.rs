//! The Rust SDK of Altair: producers, consumers, consumer groups and administration over gRPC.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Client, ClientConfig, ConsumerConfig, ProducerConfig, ProducerRecord};
//!
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:7400"])).await?;
//! let producer = client.producer(ProducerConfig::default())?;
//! let delivery = producer.send(ProducerRecord::new("orders", "42 apples").key("customer-7")).await?;
//! let receipt = delivery.await?;
//! println!("{}/{} at {:?}", receipt.topic, receipt.partition, receipt.offset);
//!
//! let mut consumer = client.consumer(ConsumerConfig::default())?;
//! consumer.assign_topic("orders").await?;
//! for record in consumer.poll(std::time::Duration::from_secs(1)).await? {
//!     println!("{:?}", record.value);
//! }
//! producer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] owns the connections and the metadata; producers and consumers share them. All background work ends when
//! the last handle is dropped.
//!
//! **Invariant:** an outcome is told as [`DeliveryError::Failed`] only if the record was certainly not written by any
//! attempt; everything else that has no receipt is [`DeliveryError::Unknown`].

mod admin;
mod any_broker;
mod config;
mod connection;
mod consumer;
mod coordinator;
mod error;
mod group;
mod group_admin;
mod health;
mod metadata;
mod pinned;
mod producer;
mod random;
mod retry;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connections;
use crate::coordinator::Coordinator;
use crate::metadata::Metadata;
use crate::random::Random;
use crate::tasks::Tasks;

pub use crate::admin::Admin;
pub use crate::config::{
    Acks, ClientConfig, Clock, ConsumerConfig, OffsetReset, ProducerConfig, RetryConfig, Settings,
};
pub use crate::connection::{ByteStream, Connect, TcpConnect};
pub use crate::consumer::{ConsumedRecord, Consumer, Position};
pub use crate::error::{ClientError, ConfigProblem, ConfigProblems, DeliveryError, SendError};
pub use crate::group::config::{Assignor, GroupConfig, Guarantee};
pub use crate::group::{
    AfterError, Committer, GroupConsumer, HandlerError, OffsetCommit, OwnedPartition, PendingCommit, Problem,
    Rebalance,
};
pub use crate::group_admin::GroupAdmin;
pub use crate::health::{BrokerHealth, Health};
pub use crate::metadata::Broker;
pub use crate::pinned::PinnedBroker;
pub use crate::producer::delivery::{Delivery, RecordMetadata};
pub use crate::producer::partitioner::{KeyHashOrSticky, Partitioner, RoundRobin, Sticky};
pub use crate::producer::{Producer, ProducerRecord};
pub use wire::ids::TopicPartition;
pub use wire::record::Compression;

/// What all handles of one client share.
#[derive(Debug)]
pub(crate) struct ClientCore {
    pub(crate) config: ClientConfig,
    pub(crate) connections: Arc<Connections>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) coordinator: Coordinator,
    pub(crate) random: Arc<Random>,
    _tasks: Tasks,
}

/// A connection to a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<ClientCore>,
}

impl Client {
    /// Checks the configuration and fetches metadata from any of the bootstrap addresses.
    ///
    /// # Errors
    /// [`ClientError::Config`]; [`ClientError::Failed`] when no broker answered within three times
    /// `request_timeout_ms`.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let wait = Duration::from_millis(u64::from(config.request_timeout_ms)) * 3;
        let client = Self::start(config)?;
        let deadline = Instant::now() + wait;
        loop {
            match client.core.metadata.refresh(deadline).await {
                Ok(_) => return Ok(client),
                // A cluster that is just starting refuses connections for a moment.
                Err(error) if error.retriable() && Instant::now() + CONNECT_PAUSE < deadline => {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks the configuration and starts without waiting for a broker.
    ///
    /// # Errors
    /// [`ClientError::Config`].
    pub fn start(config: ClientConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let random = Arc::new(Random::new(config.random_seed));
        let connections = Arc::new(Connections::new(config.clone()));
        let metadata = Arc::new(Metadata::new(&config, Arc::clone(&connections), Arc::clone(&random)));
        let tasks = Tasks::default();
        tasks.spawn(Arc::clone(&metadata).run(tasks.token()));
        let coordinator = Coordinator::default();
        let core = ClientCore { config, connections, metadata, coordinator, random, _tasks: tasks };
        Ok(Self { core: Arc::new(core) })
    }

    /// Starts a producer.
    ///
    /// # Errors
    /// [`ClientError::Config`].
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, ClientError> {
        Producer::start(Arc::clone(&self.core), config)
    }

    /// Starts a consumer; it reads nothing until partitions are assigned.
    ///
    /// # Errors
    /// [`ClientError::Config`].
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        Consumer::start(Arc::clone(&self.core), config)
    }

    /// Starts a member of a consumer group; it joins when it subscribes.
    ///
    /// # Errors
    /// [`ClientError::Config`].
    pub fn group_consumer(&self, config: GroupConfig) -> Result<GroupConsumer, ClientError> {
        GroupConsumer::start(Arc::clone(&self.core), config)
    }

    /// Administration of consumer groups.
    pub fn groups(&self) -> GroupAdmin {
        GroupAdmin::new(Arc::clone(&self.core))
    }

    /// Administration of topics, partitions and brokers.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.core))
    }

    /// One broker by its address (`host:port`), whether or not it leads anything.
    pub fn pinned(&self, address: impl Into<String>) -> PinnedBroker {
        PinnedBroker::new(Arc::clone(&self.core), address.into())
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// `UnknownTopic`, or that no broker answered.
    pub async fn partitions(&self, topic: &str) -> Result<u32, ClientError> {
        let wait = Duration::from_millis(u64::from(self.core.config.request_timeout_ms));
        self.core.metadata.topic(topic, Instant::now() + wait).await
    }

    /// The brokers as last heard of.
    pub fn brokers(&self) -> Vec<Broker> {
        self.core.metadata.view().brokers.values().cloned().collect()
    }

    /// The cluster's id; empty before the first answer.
    pub fn cluster_id(&self) -> String {
        self.core.metadata.view().cluster_id.clone()
    }

    /// Whether each known broker answers, and how fast. For health routes of applications.
    pub async fn health(&self) -> Health {
        health::check(&self.core).await
    }
}

/// Pause between attempts to find a first broker.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
