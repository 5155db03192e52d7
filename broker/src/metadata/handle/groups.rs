//! What consumer groups need of the metadata beside changes: sessions, commits in numbers, waiting, and fresh reads.

use std::time::Duration;

use disk::mutant::{self, Mutant};
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, GroupId, MemberId};

use super::{Metadata, stopping};
use crate::group::{Commit, GroupCommand, GroupReply, Refused};
use crate::metadata::bells::GroupChanges;
use crate::metadata::command::{Command, CommandReply};
use crate::metadata::coordinator;
use crate::metadata::core::SERVICE;
use crate::metadata::message::{Answer, Request};
use crate::metadata::proposer::no_quorum;
use crate::metadata::touches::{Touch, Touched, no_coordinator};

/// Bytes that a committed offset takes on its way, beside its text.
const OFFSET_BYTES: usize = 64;
/// One attempt to ask the metadata leader how far it is.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Pause between two such attempts.
const PAUSE: Duration = Duration::from_millis(50);

impl Metadata {
    /// Tells the coordinator that a member was heard of.
    ///
    /// # Errors
    /// `NotCoordinator` if none answered in time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn touch(
        &self,
        group: GroupId,
        member: MemberId,
        deadline: Instant,
    ) -> Result<Touched, ApiError> {
        // Here it costs no way through a queue.
        let key = [(group, member)];
        if let Some(heard) = coordinator::hear(&self.core, &key)
            && let Some(lease) = heard.leases.first()
        {
            return Ok(Touched { index: heard.index, lease: *lease });
        }
        let [(group, member)] = key;
        let (reply, answer) = oneshot::channel();
        let touch = Touch { group, member, deadline, reply };
        match tokio::time::timeout_at(deadline, self.core.touches.send(touch)).await {
            Ok(Ok(())) => answer.await.map_err(|_| stopping(ErrorCode::ShuttingDown))?,
            Ok(Err(_)) => Err(stopping(ErrorCode::ShuttingDown)),
            Err(_) => Err(no_coordinator()),
        }
    }

    /// The broker that coordinates consumer groups, as far as this one knows; `None` also if it may be outdated.
    #[must_use]
    pub fn coordinator(&self) -> Option<BrokerId> {
        coordinator::known(&self.core)
    }

    /// Sees every change of a group from now on.
    pub fn group_changes(&self, group: GroupId) -> GroupChanges {
        GroupChanges::new(self.core.clone(), group)
    }

    /// Commits offsets, many members' together. Returns those that were refused.
    ///
    /// # Errors
    /// The refusal of the whole (definite), `NoQuorum`, or `OutcomeUnknown`; repeating it does no harm.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the commit back.
    pub async fn commit(
        &self,
        id: GroupId,
        commit: Commit,
        deadline: Instant,
    ) -> Result<Vec<Refused>, ApiError> {
        let bytes: usize = commit.offsets.iter().map(|offset| OFFSET_BYTES + offset.metadata.len()).sum();
        let room = u32::try_from(bytes.clamp(1, super::COMMIT_ROOM)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout_at(deadline, self.core.commit_room.clone().acquire_many_owned(room));
        let room = match room.await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(stopping(ErrorCode::ShuttingDown)),
            Err(_) => return Err(no_quorum()),
        };
        let command = Command::Group { id, command: GroupCommand::Commit(commit) };
        let made = self.send(&self.core.commits, command, deadline, Some(room));
        if mutant::on(Mutant::CommitNotAwaited) {
            // Its way into the queue is enough.
            let _ = made.now_or_never();
            return Ok(Vec::new());
        }
        match made.await?.reply {
            CommandReply::Group(GroupReply::Committed { refused }) => Ok(refused),
            _ => Err(ApiError::new(ErrorCode::Internal, "a commit was answered with something else")),
        }
    }

    /// Waits until this broker's image has the entry of this index; false at the deadline.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn shows(&self, index: u64, deadline: Instant) -> bool {
        if self.image().version >= index {
            return true;
        }
        let mut image = self.watch();
        let seen = image.wait_for(|image| image.version >= index);
        matches!(tokio::time::timeout_at(deadline, seen).await, Ok(Ok(_)))
    }

    /// Waits until this broker's image has everything that was acknowledged before the call, by the word of a metadata
    /// leader that a quorum follows.
    ///
    /// # Errors
    /// `NotCoordinator` if none answered in time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn refresh(&self, deadline: Instant) -> Result<(), ApiError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT);
            if let Some(index) = self.ask_read_index(left).await {
                return if self.shows(index, deadline).await { Ok(()) } else { Err(no_coordinator()) };
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(no_coordinator());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask_read_index(&self, limit: Duration) -> Option<u64> {
        let core = &self.core;
        let leader = core.leader()?;
        if leader == core.me() {
            return coordinator::read_index(core, limit).await;
        }
        let body = Request::ReadIndex.encode().ok()?;
        let answer = core.groups.peers().call(leader, SERVICE, body, limit).await.ok()?;
        match Answer::decode(&answer) {
            Ok(Answer::ReadIndex(index)) => Some(index),
            _ => None,
        }
    }
}
