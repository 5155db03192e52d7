//! `altair.v1.Admin`: topics, partitions, brokers, the cluster.

use std::time::Duration;

use tonic::{Request, Response, Status};
use wire::ids::BrokerId;
use wire::pb;
use wire::pb::admin_server::Admin;

use super::deadline::deadline;
use crate::api::{Api, CreateTopicArgs, METADATA_DEADLINE, UpdateTopicArgs};

/// The longest a creation may wait for leaders.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time to ask the brokers about their replicas.
const DESCRIBE_WITHIN: Duration = Duration::from_secs(10);

/// The service.
pub(super) struct AdminService {
    api: Api,
}

impl AdminService {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<pb::CreateTopicRequest>,
    ) -> Result<Response<pb::CreateTopicResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let wait = Duration::from_millis(u64::from(message.wait_ms)).min(WAIT_MAX);
        let deadline = deadline(&metadata, METADATA_DEADLINE + wait);
        let args = CreateTopicArgs {
            name: message.name,
            partitions: message.partitions,
            replication_factor: message.replication_factor,
            config: message.config,
            dry_run: message.dry_run,
            wait: (!wait.is_zero()).then_some(wait),
        };
        let created = self.api.create_topic(args, deadline).await?;
        let ready = created.ready.map_or(0, |ready| ready.as_millis().max(1));
        Ok(Response::new(pb::CreateTopicResponse {
            topic: Some(created.topic),
            warnings: created.warnings,
            ready_ms: u32::try_from(ready).unwrap_or(u32::MAX),
        }))
    }

    async fn delete_topic(
        &self,
        request: Request<pb::DeleteTopicRequest>,
    ) -> Result<Response<pb::DeleteTopicResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        let message = request.into_inner();
        let id = self.api.delete_topic(&message.name, message.dry_run, deadline).await?;
        Ok(Response::new(pb::DeleteTopicResponse { topic_id: id.to_string() }))
    }

    async fn update_topic(
        &self,
        request: Request<pb::UpdateTopicRequest>,
    ) -> Result<Response<pb::UpdateTopicResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let deadline = deadline(&metadata, METADATA_DEADLINE);
        let args = UpdateTopicArgs {
            name: message.name,
            partitions: message.partitions,
            set: message.set,
            reset: message.reset,
            dry_run: message.dry_run,
        };
        let updated = self.api.update_topic(args, deadline).await?;
        Ok(Response::new(pb::UpdateTopicResponse { topic: Some(updated.topic), warnings: updated.warnings }))
    }

    async fn describe_topics(
        &self,
        request: Request<pb::DescribeTopicsRequest>,
    ) -> Result<Response<pb::DescribeTopicsResponse>, Status> {
        let topics = self.api.describe_topics(&request.into_inner().names);
        Ok(Response::new(pb::DescribeTopicsResponse { topics }))
    }

    async fn describe_partitions(
        &self,
        request: Request<pb::DescribePartitionsRequest>,
    ) -> Result<Response<pb::DescribePartitionsResponse>, Status> {
        let deadline = deadline(request.metadata(), DESCRIBE_WITHIN);
        let replicas = self.api.describe_partitions(request.get_ref(), deadline).await?;
        Ok(Response::new(pb::DescribePartitionsResponse { replicas }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        Ok(Response::new(self.api.transfer_leader(request.get_ref()).await?))
    }

    async fn list_brokers(
        &self,
        _request: Request<pb::ListBrokersRequest>,
    ) -> Result<Response<pb::ListBrokersResponse>, Status> {
        Ok(Response::new(pb::ListBrokersResponse { brokers: self.api.list_brokers() }))
    }

    async fn describe_broker(
        &self,
        request: Request<pb::DescribeBrokerRequest>,
    ) -> Result<Response<pb::DescribeBrokerResponse>, Status> {
        let described = self.api.describe_broker(BrokerId(request.get_ref().id))?;
        Ok(Response::new(described))
    }

    async fn cluster_status(
        &self,
        _request: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatusResponse>, Status> {
        Ok(Response::new(self.api.cluster_status()))
    }
}
