//! `altair.v1.Groups`: consumer groups.

use std::time::Duration;

use tonic::{Request, Response, Status};
use wire::pb;
use wire::pb::groups_server::Groups;

use super::deadline::deadline;
use super::limits::{ClientAddress, Crowded};
use crate::api::{Api, METADATA_DEADLINE};

/// The longest that a heartbeat may wait; its session is a bound, too.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The service.
pub(super) struct GroupsService {
    api: Api,
}

impl GroupsService {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn join_group(
        &self,
        request: Request<pb::JoinGroupRequest>,
    ) -> Result<Response<pb::JoinGroupResponse>, Status> {
        let host = request.extensions().get::<ClientAddress>().map(ToString::to_string).unwrap_or_default();
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.join_group(request.into_inner(), &host, deadline).await?))
    }

    async fn heartbeat(
        &self,
        mut request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        // Hundreds of members on one connection must leave places for the calls that do something: theirs then ask again.
        if request.extensions().get::<Crowded>().is_some() {
            request.get_mut().wait_ms = 0;
        }
        let wait = Duration::from_millis(u64::from(request.get_ref().wait_ms)).min(WAIT_MAX);
        let deadline = deadline(request.metadata(), METADATA_DEADLINE + wait);
        Ok(Response::new(self.api.heartbeat(request.into_inner(), deadline).await?))
    }

    async fn leave_group(
        &self,
        request: Request<pb::LeaveGroupRequest>,
    ) -> Result<Response<pb::LeaveGroupResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.leave_group(request.into_inner(), deadline).await?))
    }

    async fn commit_offsets(
        &self,
        request: Request<pb::CommitOffsetsRequest>,
    ) -> Result<Response<pb::CommitOffsetsResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.commit_offsets(request.into_inner(), deadline).await?))
    }

    async fn fetch_offsets(
        &self,
        request: Request<pb::FetchOffsetsRequest>,
    ) -> Result<Response<pb::FetchOffsetsResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.fetch_offsets(request.get_ref(), deadline).await?))
    }

    async fn delete_offsets(
        &self,
        request: Request<pb::DeleteOffsetsRequest>,
    ) -> Result<Response<pb::DeleteOffsetsResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.delete_offsets(request.into_inner(), deadline).await?))
    }

    async fn reset_offsets(
        &self,
        request: Request<pb::ResetOffsetsRequest>,
    ) -> Result<Response<pb::ResetOffsetsResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.reset_offsets(request.get_ref(), deadline).await?))
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        Ok(Response::new(self.api.list_groups(&request.get_ref().filter)))
    }

    async fn describe_groups(
        &self,
        request: Request<pb::DescribeGroupsRequest>,
    ) -> Result<Response<pb::DescribeGroupsResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.describe_groups(request.get_ref(), deadline).await?))
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.delete_group(request.get_ref(), deadline).await?))
    }

    async fn pause_group(
        &self,
        request: Request<pb::PauseGroupRequest>,
    ) -> Result<Response<pb::PauseGroupResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        Ok(Response::new(self.api.pause_group(request.get_ref(), deadline).await?))
    }
}
