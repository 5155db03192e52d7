//! One broker by its address: what this one has, whoever leads.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Response, Status};
use wire::pb;

use crate::ClientCore;
use crate::connection::Connection;
use crate::error::ClientError;

/// Calls to exactly one broker: not routed to leaders and not repeated. For tools that compare replicas; applications
/// read with a [`Consumer`](crate::Consumer).
///
/// Every call has one attempt of `request_timeout_ms`. All of them but [`produce`](Self::produce) only read.
#[derive(Debug, Clone)]
pub struct PinnedBroker {
    core: Arc<ClientCore>,
    address: String,
}

impl PinnedBroker {
    pub(crate) fn new(core: Arc<ClientCore>, address: String) -> Self {
        Self { core, address }
    }

    /// The address (`host:port`).
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Committed records of replicas on this broker, leader or not.
    ///
    /// # Errors
    /// The broker did not answer or refused the whole call; each partition has an error of its own in the answer.
    pub async fn fetch(&self, request: pb::FetchRequest) -> Result<pb::FetchResponse, ClientError> {
        let wait = Duration::from_millis(u64::from(request.max_wait_ms));
        self.call(wait, |connection| async move { connection.broker().fetch(request).await }).await
    }

    /// Writes batches as they are, once: neither repeated nor brought into order. For tools that show what a broker does
    /// with a client that is not this SDK; applications write with a [`Producer`](crate::Producer).
    ///
    /// # Errors
    /// The broker did not answer or refused the whole call; each partition has an error of its own in the answer.
    pub async fn produce(&self, request: pb::ProduceRequest) -> Result<pb::ProduceResponse, ClientError> {
        let call = |connection: Connection| async move { connection.broker().produce(request).await };
        self.call(Duration::ZERO, call).await
    }

    /// A producer id that nobody else has, for batches of [`produce`](Self::produce).
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn init_producer(
        &self,
        request: pb::InitProducerRequest,
    ) -> Result<pb::InitProducerResponse, ClientError> {
        let call = |connection: Connection| async move { connection.broker().init_producer(request).await };
        self.call(Duration::ZERO, call).await
    }

    /// Offsets as this broker knows them; with `linearizable` only a leader answers.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn list_offsets(
        &self,
        request: pb::ListOffsetsRequest,
    ) -> Result<pb::ListOffsetsResponse, ClientError> {
        self.call(Duration::ZERO, |connection| async move { connection.broker().list_offsets(request).await })
            .await
    }

    /// Brokers, topics, partitions and leaders as this broker sees them.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn metadata(
        &self,
        request: pb::GetMetadataRequest,
    ) -> Result<pb::GetMetadataResponse, ClientError> {
        self.call(Duration::ZERO, |connection| async move { connection.broker().get_metadata(request).await })
            .await
    }

    async fn call<T, F, Fut>(&self, wait: Duration, call: F) -> Result<T, ClientError>
    where
        F: FnOnce(Connection) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let core = &self.core;
        let timeout = Duration::from_millis(u64::from(core.config.request_timeout_ms)) + wait;
        Ok(core.connections.call(&self.address, timeout, call).await?)
    }
}
