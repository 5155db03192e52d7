//! Administration: topics, partitions, brokers, the cluster.

use std::sync::Arc;
use std::time::Duration;

use wire::pb;

use crate::ClientCore;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::retry::Repeat;

/// Calls of the `Admin` service. Any broker answers; calls that change something are repeated only when the failed
/// attempt certainly had no effect, so an [`ClientError::Unknown`] means: look before you repeat it.
#[derive(Debug, Clone)]
pub struct Admin {
    core: Arc<ClientCore>,
}

macro_rules! admin_calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $repeat:ident;)+) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError::Failed`] when it certainly had no effect, [`ClientError::Unknown`] when it may have had.
                pub async fn $name(&self, request: pb::$request) -> Result<pb::$response, ClientError> {
                    self.core.any_broker(Repeat::$repeat, Duration::ZERO, |connection, request| async move {
                        connection.admin().$name(request).await
                    }, request).await
                }
            )+
        }
    };
}

admin_calls! {
    /// Deletes a topic by name.
    delete_topic(DeleteTopicRequest) -> DeleteTopicResponse, IfDefinite;
    /// Adds partitions, sets and resets settings of a topic.
    update_topic(UpdateTopicRequest) -> UpdateTopicResponse, IfDefinite;
    /// Describes topics by name; an empty list asks for all.
    describe_topics(DescribeTopicsRequest) -> DescribeTopicsResponse, Always;
    /// Offsets, sizes and Raft state of partitions, from all their replicas.
    describe_partitions(DescribePartitionsRequest) -> DescribePartitionsResponse, Always;
    /// All brokers of the cluster.
    list_brokers(ListBrokersRequest) -> ListBrokersResponse, Always;
    /// One broker with the partitions that it leads and follows.
    describe_broker(DescribeBrokerRequest) -> DescribeBrokerResponse, Always;
    /// The verdict on the cluster, with reasons.
    cluster_status(ClusterStatusRequest) -> ClusterStatusResponse, Always;
}

impl Admin {
    pub(crate) fn new(core: Arc<ClientCore>) -> Self {
        Self { core }
    }

    /// Creates a topic; waits for its leaders if `wait_ms` says so.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when it certainly was not created, [`ClientError::Unknown`] when it may have been.
    pub async fn create_topic(
        &self,
        request: pb::CreateTopicRequest,
    ) -> Result<pb::CreateTopicResponse, ClientError> {
        let wait = Duration::from_millis(u64::from(request.wait_ms));
        let call =
            |connection: Connection, request| async move { connection.admin().create_topic(request).await };
        self.core.any_broker(Repeat::IfDefinite, wait, call, request).await
    }

    /// Moves the leadership of a partition.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when it certainly did not move, [`ClientError::Unknown`] when it may have.
    pub async fn transfer_leader(
        &self,
        request: pb::TransferLeaderRequest,
    ) -> Result<pb::TransferLeaderResponse, ClientError> {
        let wait = Duration::from_millis(u64::from(request.timeout_ms.max(5_000)));
        let call = |connection: Connection, request| async move {
            connection.admin().transfer_leader(request).await
        };
        self.core.any_broker(Repeat::IfDefinite, wait, call, request).await
    }

    /// Brokers, topics, partitions and leaders as one broker sees them; an empty list asks for all topics.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn metadata(&self, topics: Vec<String>) -> Result<pb::GetMetadataResponse, ClientError> {
        let request = pb::GetMetadataRequest { topics };
        let call =
            |connection: Connection, request| async move { connection.broker().get_metadata(request).await };
        self.core.any_broker(Repeat::Always, Duration::ZERO, call, request).await
    }
}
