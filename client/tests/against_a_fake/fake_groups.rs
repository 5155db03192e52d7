//! A group of one member behind several brokers, which do what a test tells them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::{Request, Response, Status};
use wire::pb;

/// What a broker was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Join,
    Heartbeat,
    Commit,
}

/// The group.
#[derive(Debug, Default)]
pub(crate) struct GroupWorld {
    /// The broker that all of them name.
    pub(crate) coordinator: Option<u32>,
    pub(crate) epoch: u64,
    pub(crate) assignment: pb::Assignment,
    /// Commits wait until this ends.
    pub(crate) holds_commits: bool,
    /// Every call with the broker that it came to.
    pub(crate) calls: Vec<(u32, Call)>,
    pub(crate) committed: Vec<pb::PartitionCommit>,
    pub(crate) released: Vec<pb::PartitionRef>,
}

pub(crate) type SharedGroup = Arc<Mutex<GroupWorld>>;

/// One broker's door to it.
#[derive(Debug, Clone)]
pub(crate) struct FakeGroups {
    pub(crate) id: u32,
    pub(crate) group: SharedGroup,
}

/// Pause between two looks at the world.
const LOOK: Duration = Duration::from_millis(5);

impl FakeGroups {
    fn note(&self, call: Call) {
        self.group.lock().unwrap().calls.push((self.id, call));
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not here"))
}

#[tonic::async_trait]
impl pb::groups_server::Groups for FakeGroups {
    async fn join_group(
        &self,
        request: Request<pb::JoinGroupRequest>,
    ) -> Result<Response<pb::JoinGroupResponse>, Status> {
        self.note(Call::Join);
        let group = self.group.lock().unwrap();
        Ok(Response::new(pb::JoinGroupResponse {
            member_id: request.into_inner().member_id,
            member_epoch: group.epoch,
            session_timeout_ms: 10_000,
            heartbeat_interval_ms: 50,
            valid_ms: 9_000,
            assignment: Some(group.assignment.clone()),
            coordinator_id: group.coordinator,
            ..Default::default()
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        self.note(Call::Heartbeat);
        let request = request.into_inner();
        self.group.lock().unwrap().released.extend(request.released);
        let until = tokio::time::Instant::now() + Duration::from_millis(u64::from(request.wait_ms));
        loop {
            {
                let group = self.group.lock().unwrap();
                let is_news = group.epoch > request.member_epoch;
                if is_news || tokio::time::Instant::now() >= until {
                    return Ok(Response::new(pb::HeartbeatResponse {
                        member_epoch: group.epoch,
                        valid_ms: 9_000,
                        assignment: is_news.then(|| group.assignment.clone()),
                        coordinator_id: group.coordinator,
                        ..Default::default()
                    }));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn leave_group(
        &self,
        _request: Request<pb::LeaveGroupRequest>,
    ) -> Result<Response<pb::LeaveGroupResponse>, Status> {
        Ok(Response::new(pb::LeaveGroupResponse {}))
    }

    async fn commit_offsets(
        &self,
        request: Request<pb::CommitOffsetsRequest>,
    ) -> Result<Response<pb::CommitOffsetsResponse>, Status> {
        self.note(Call::Commit);
        while self.group.lock().unwrap().holds_commits {
            tokio::time::sleep(LOOK).await;
        }
        self.group.lock().unwrap().committed.extend(request.into_inner().partitions);
        Ok(Response::new(pb::CommitOffsetsResponse::default()))
    }

    async fn fetch_offsets(
        &self,
        _request: Request<pb::FetchOffsetsRequest>,
    ) -> Result<Response<pb::FetchOffsetsResponse>, Status> {
        not_here()
    }

    async fn delete_offsets(
        &self,
        _request: Request<pb::DeleteOffsetsRequest>,
    ) -> Result<Response<pb::DeleteOffsetsResponse>, Status> {
        not_here()
    }

    async fn reset_offsets(
        &self,
        _request: Request<pb::ResetOffsetsRequest>,
    ) -> Result<Response<pb::ResetOffsetsResponse>, Status> {
        not_here()
    }

    async fn list_groups(
        &self,
        _request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        not_here()
    }

    async fn describe_groups(
        &self,
        _request: Request<pb::DescribeGroupsRequest>,
    ) -> Result<Response<pb::DescribeGroupsResponse>, Status> {
        not_here()
    }

    async fn delete_group(
        &self,
        _request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        not_here()
    }

    async fn pause_group(
        &self,
        _request: Request<pb::PauseGroupRequest>,
    ) -> Result<Response<pb::PauseGroupResponse>, Status> {
        not_here()
    }
}
