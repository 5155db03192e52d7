//! Consumer groups: members, heartbeats, offsets, lag. Any broker answers; the metadata leader coordinates.

mod admin;
mod assignment;
mod bounds;
mod check;
mod lag;
mod lag_metrics;
mod offsets;
mod reset;

use std::time::Duration;

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, MemberEpoch, MemberId};
use wire::pb;

use super::Api;
use crate::group::{Group, GroupCommand, GroupError, Join};
use crate::metadata::command::{Command, CommandReply};
use crate::metadata::image::MetadataImage;

pub(super) use bounds::answer as answer_bounds;
pub(super) use lag_metrics::GroupMetrics;

/// A heartbeat waits for at most this part of its member's session: the next one still comes in time.
const WAIT_SHARE: u32 = 3;
/// A broker whose image does not follow within this time is no help to a member: another one may be.
const FOLLOW: Duration = Duration::from_secs(5);

impl Api {
    /// Takes a member into a group, or changes what it wants.
    ///
    /// # Errors
    /// What is wrong with the request; `GroupLimit`, `InstanceIdInUse`; `NotCoordinator`, `NoQuorum` or `OutcomeUnknown`,
    /// after which the same request with the same member id may be sent again.
    pub async fn join_group(
        &self,
        request: pb::JoinGroupRequest,
        host: &str,
        deadline: Instant,
    ) -> Result<pb::JoinGroupResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        let config = &self.parts().config.groups;
        let default_ms = u32::try_from(config.session_timeout_ms).unwrap_or(u32::MAX);
        let session_timeout_ms = check::session_timeout(request.session_timeout_ms, default_ms)?;
        let member = match request.member_id.as_str() {
            "" => MemberId(self.parts().seams.random.uuid()),
            text => check::member_id(text)?,
        };
        let join = Join {
            member,
            instance: check::optional_name("instance_id", request.instance_id)?,
            client_id: check::name("client_id", request.client_id)?,
            host: host.to_owned(),
            subscription: check::subscription(request.topics, &request.patterns)?,
            assignor: check::assignor(&request.assignor)?,
            session_timeout_ms,
            take_over: false,
            time_ms: self.parts().seams.clock.now_ms(),
        };
        self.change_group(&group, GroupCommand::Join(join), deadline).await?;
        let lease = self.hear_member(&group, member, deadline).await?;
        let image = self.parts().metadata.image();
        let known = find(&image, &group, member)?;
        let heartbeat = config.heartbeat_interval_ms.min(u64::from(session_timeout_ms) / 3);
        Ok(pb::JoinGroupResponse {
            member_id: member.to_string(),
            member_epoch: known.epoch().0,
            generation: known.group.generation.0,
            session_timeout_ms,
            heartbeat_interval_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
            valid_ms: millis(lease),
            assignment: Some(assignment::of(&image, &known)),
            coordinator_id: self.coordinator(),
        })
    }

    /// Keeps a member's session alive, takes back what it lets go of, and waits for news.
    ///
    /// # Errors
    /// `UnknownGroup`, `UnknownMember` or `FencedMemberEpoch`: it is no member any more and owns nothing;
    /// `NotCoordinator` if it is not known whether it is: ask another broker.
    ///
    /// # Cancel safety
    /// Dropping the future does not take anything back.
    pub async fn heartbeat(
        &self,
        request: pb::HeartbeatRequest,
        deadline: Instant,
    ) -> Result<pb::HeartbeatResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        let member = check::member_id(&request.member_id)?;
        let told = MemberEpoch(request.member_epoch);
        if !request.released.is_empty() {
            let image = self.parts().metadata.image();
            let partitions = check::known_partitions(&image, &request.released)?;
            let release = GroupCommand::Release { member, epoch: told, partitions };
            self.change_group(&group, release, deadline).await?;
        }
        // Before the session is told of: what changes from here on rings.
        let mut changes = self.parts().metadata.group_changes(group.clone());
        let lease = self.hear_member(&group, member, deadline.min(Instant::now() + FOLLOW)).await?;
        let until = deadline.min(Instant::now() + Duration::from_millis(u64::from(request.wait_ms)));
        let mut bound = None;
        loop {
            let image = self.parts().metadata.image();
            let known = find(&image, &group, member)?;
            known.group.fenced(member, told)?;
            let session = Duration::from_millis(u64::from(known.member.session_timeout_ms));
            let until = until.min(*bound.get_or_insert_with(|| Instant::now() + session / WAIT_SHARE));
            let news = known.epoch() > told;
            if news || Instant::now() >= until || self.is_stopping() {
                return Ok(pb::HeartbeatResponse {
                    member_epoch: known.epoch().0,
                    generation: known.group.generation.0,
                    valid_ms: millis(lease),
                    assignment: news.then(|| assignment::of(&image, &known)),
                    coordinator_id: self.coordinator(),
                });
            }
            tokio::select! {
                () = changes.changed() => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.stopping() => {}
            }
        }
    }

    /// Takes a member out of its group. One that is gone already is fine.
    ///
    /// # Errors
    /// `UnknownGroup`, or as a change of the metadata fails.
    pub async fn leave_group(
        &self,
        request: pb::LeaveGroupRequest,
        deadline: Instant,
    ) -> Result<pb::LeaveGroupResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        let member = check::member_id(&request.member_id)?;
        let time_ms = self.parts().seams.clock.now_ms();
        let leave = GroupCommand::Leave { member, keep_place: request.keep_place, time_ms };
        self.change_group(&group, leave, deadline).await?;
        Ok(pb::LeaveGroupResponse {})
    }

    /// Where members should send their calls.
    fn coordinator(&self) -> Option<u32> {
        self.parts().metadata.coordinator().map(|broker| broker.0)
    }

    /// Changes a group; this broker's image shows the change when this returns.
    async fn change_group(
        &self,
        id: &GroupId,
        command: GroupCommand,
        deadline: Instant,
    ) -> Result<CommandReply, ApiError> {
        self.change(Command::Group { id: id.clone(), command }, deadline).await
    }

    /// Tells the coordinator of a member and waits until this broker knows what the coordinator knew. Returns how long
    /// the member may take itself for one.
    async fn hear_member(
        &self,
        group: &GroupId,
        member: MemberId,
        deadline: Instant,
    ) -> Result<Duration, ApiError> {
        let metadata = &self.parts().metadata;
        let touched = metadata.touch(group.clone(), member, deadline).await?;
        if !metadata.shows(touched.index, deadline).await {
            let message = format!("broker {} does not follow the metadata leader", self.0.me);
            return Err(ApiError::new(ErrorCode::NotCoordinator, message).retry_after_ms(100));
        }
        match touched.lease {
            Some(lease) => Ok(lease),
            // The image says whether the group or only the member is gone.
            None => {
                find(&metadata.image(), group, member)?;
                Err(GroupError::UnknownMember { member }.into())
            }
        }
    }
}

/// A member in its group.
struct Found<'a> {
    group: &'a Group,
    entry: &'a crate::group::GroupEntry,
    id: MemberId,
    member: &'a crate::group::Member,
}

impl Found<'_> {
    /// The epoch that the member must be told.
    fn epoch(&self) -> MemberEpoch {
        self.member.epoch
    }
}

fn find<'a>(image: &'a MetadataImage, group: &GroupId, id: MemberId) -> Result<Found<'a>, GroupError> {
    let entry = image.consumer_groups.get(group);
    let entry = entry.ok_or_else(|| GroupError::UnknownGroup { group: group.clone() })?;
    let member = entry.group.members.get(&id).ok_or(GroupError::UnknownMember { member: id })?;
    Ok(Found { group: &entry.group, entry, id, member })
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
