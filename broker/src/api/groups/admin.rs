//! Groups as operators see them: list, describe, delete, pause.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::ids::{GroupId, MemberId, TopicIdPartition};
use wire::pb;

use super::{assignment, check};
use crate::api::Api;
use crate::group::{Group, GroupCommand, GroupEntry, GroupError, Member, Slot};
use crate::metadata::image::MetadataImage;

/// Groups that one request may describe.
const DESCRIBED_MAX: usize = 1_000;

impl Api {
    /// All groups whose id contains a text.
    pub fn list_groups(&self, filter: &str) -> pb::ListGroupsResponse {
        let image = self.parts().metadata.image();
        let wanted = image.consumer_groups.all().iter().filter(|(id, _)| id.0.contains(filter));
        pb::ListGroupsResponse { groups: wanted.map(|(id, entry)| summary(&image, id, entry)).collect() }
    }

    /// Groups with members, assignment and offsets, and with `lag` how far they are behind; one that is not there has
    /// its error.
    ///
    /// # Errors
    /// An id that cannot be, or too many.
    pub async fn describe_groups(
        &self,
        request: &pb::DescribeGroupsRequest,
        deadline: Instant,
    ) -> Result<pb::DescribeGroupsResponse, ApiError> {
        if request.group_ids.is_empty() || request.group_ids.len() > DESCRIBED_MAX {
            let code = wire::error_code::ErrorCode::InvalidRequest;
            return Err(ApiError::new(code, format!("name 1 to {DESCRIBED_MAX} groups")));
        }
        let ids = request.group_ids.iter().map(|id| check::group_id(id)).collect::<Result<Vec<_>, _>>()?;
        let image = self.parts().metadata.image();
        let mut groups: Vec<pb::GroupDescription> = ids.iter().map(|id| describe(&image, id)).collect();
        for group in &mut groups {
            group.coordinator_id = self.controller();
        }
        if request.lag {
            self.fill_lag(&image, &mut groups, deadline).await;
        }
        Ok(pb::DescribeGroupsResponse { groups })
    }

    /// Removes a group that has no members, with its offsets.
    ///
    /// # Errors
    /// `UnknownGroup`, `GroupNotEmpty`; `OutcomeUnknown`.
    pub async fn delete_group(
        &self,
        request: &pb::DeleteGroupRequest,
        deadline: Instant,
    ) -> Result<pb::DeleteGroupResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        if request.dry_run {
            let image = self.parts().metadata.image();
            let entry = image.consumer_groups.get(&group).ok_or_else(|| check::unknown(&group))?;
            let members = u32::try_from(entry.group.members.len()).unwrap_or(u32::MAX);
            if members > 0 {
                return Err(GroupError::NotEmpty { members }.into());
            }
        } else {
            self.change_group(&group, GroupCommand::Delete, deadline).await?;
        }
        Ok(pb::DeleteGroupResponse {})
    }

    /// Lets the members of a group stop reading, or go on.
    ///
    /// # Errors
    /// `UnknownGroup`; `OutcomeUnknown`.
    pub async fn pause_group(
        &self,
        request: &pb::PauseGroupRequest,
        deadline: Instant,
    ) -> Result<pb::PauseGroupResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        self.change_group(&group, GroupCommand::SetPaused { paused: request.paused }, deadline).await?;
        Ok(pb::PauseGroupResponse {})
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Partitions that are assigned or have an offset, of topics that are not deleted.
pub(super) fn partitions_of(image: &MetadataImage, entry: &GroupEntry) -> BTreeSet<TopicIdPartition> {
    let committed = entry.offsets.iter().flat_map(|(topic, of_topic)| {
        of_topic.keys().map(|partition| TopicIdPartition { topic: *topic, partition: *partition })
    });
    let assigned = entry.group.assignment.slots().keys().copied();
    let live = |at: &TopicIdPartition| assignment::name(image, at.topic).is_some();
    committed.chain(assigned).filter(live).collect()
}

fn summary(image: &MetadataImage, id: &GroupId, entry: &GroupEntry) -> pb::GroupSummary {
    let group = &entry.group;
    let partitions = partitions_of(image, entry);
    let topics: BTreeSet<_> = partitions.iter().filter_map(|at| assignment::name(image, at.topic)).collect();
    pb::GroupSummary {
        group_id: id.0.clone(),
        state: group.phase().name().to_owned(),
        paused: group.paused,
        members: count(group.members.len()),
        assignor: group.assignor.name().to_owned(),
        generation: group.generation.0,
        partitions: count(partitions.len()),
        topics: topics.into_iter().collect(),
        idle_since_ms: entry.idle_since_ms().unwrap_or(0),
    }
}

fn describe(image: &MetadataImage, id: &GroupId) -> pb::GroupDescription {
    let Some(entry) = image.consumer_groups.get(id) else {
        let summary = pb::GroupSummary { group_id: id.0.clone(), ..Default::default() };
        let error = Some(check::unknown(id).into());
        return pb::GroupDescription { summary: Some(summary), error, ..Default::default() };
    };
    let group = &entry.group;
    let mut owned: BTreeMap<MemberId, u32> = BTreeMap::new();
    for owner in group.assignment.slots().values().filter_map(|slot| slot.owner) {
        *owned.entry(owner.member).or_default() += 1;
    }
    let members = group.members.iter();
    pb::GroupDescription {
        summary: Some(summary(image, id, entry)),
        epoch: group.epoch.0,
        last_rebalance: last_rebalance(group),
        members: members.map(|(id, one)| member(*id, one, owned.get(id).copied().unwrap_or(0))).collect(),
        partitions: partitions_of(image, entry)
            .into_iter()
            .filter_map(|at| partition(image, entry, at))
            .collect(),
        ..Default::default()
    }
}

fn last_rebalance(group: &Group) -> Option<pb::LastRebalance> {
    let last = group.last_rebalance.as_ref()?;
    Some(pb::LastRebalance {
        reason: last.cause.to_string(),
        time_ms: last.time_ms.unwrap_or(0),
        moved: last.moved,
    })
}

fn member(id: MemberId, member: &Member, partitions: u32) -> pb::GroupMember {
    let subscription = &member.subscription;
    pb::GroupMember {
        member_id: id.to_string(),
        instance_id: member.instance.clone().unwrap_or_default(),
        client_id: member.client_id.clone(),
        host: member.host.clone(),
        topics: subscription.topics.iter().cloned().collect(),
        patterns: subscription.patterns.iter().map(ToString::to_string).collect(),
        assignor: member.assignor.map(|assignor| assignor.name().to_owned()).unwrap_or_default(),
        session_timeout_ms: member.session_timeout_ms,
        joined_ms: member.joined_ms,
        member_epoch: member.epoch.0,
        away: member.away,
        partitions,
    }
}

fn partition(image: &MetadataImage, entry: &GroupEntry, at: TopicIdPartition) -> Option<pb::GroupPartition> {
    let slot = entry.group.assignment.slots().get(&at).copied().unwrap_or_default();
    let committed = entry.committed(at);
    let text = |member: Option<MemberId>| member.map(|id| id.to_string()).unwrap_or_default();
    let (owner, next) = holders(slot);
    Some(pb::GroupPartition {
        topic: assignment::name(image, at.topic)?,
        partition: at.partition.0,
        member_id: text(owner),
        next_member_id: text(next),
        committed_offset: committed.map(|committed| committed.offset.0),
        metadata: committed.map(|committed| committed.metadata.clone()).unwrap_or_default(),
        committed_ms: committed.map_or(0, |committed| committed.time_ms),
        ..Default::default()
    })
}

/// The owner, and the other member that the partition goes to.
fn holders(slot: Slot) -> (Option<MemberId>, Option<MemberId>) {
    let owner = slot.owner.map(|owner| owner.member);
    (owner, slot.target.filter(|target| Some(*target) != owner))
}
