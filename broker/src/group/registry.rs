//! All groups of a cluster, shared piece by piece with older states: a change copies only what it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::ids::{GroupId, MemberId, TopicId, TopicIdPartition};

use super::catalog::TopicCatalog;
use super::command::{Changes, Commit, CommitOffset, GroupCommand, GroupReply, Refused};
use super::error::GroupError;
use super::offsets::{Committed, TopicOffsets};
use super::one::{Cause, Group, limit};
use super::{COMMIT_METADATA_BYTES_MAX, GROUPS_MAX};

/// One group with its offsets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupEntry {
    /// Members and assignment.
    pub group: Arc<Group>,
    /// Committed offsets of each topic.
    pub offsets: BTreeMap<TopicId, Arc<TopicOffsets>>,
}

impl GroupEntry {
    /// What is committed for a partition.
    pub fn committed(&self, at: TopicIdPartition) -> Option<&Committed> {
        self.offsets.get(&at.topic)?.get(&at.partition)
    }

    /// Since when the group has neither members nor commits; `None` while it has members. Unit: ms since 1970.
    pub fn idle_since_ms(&self) -> Option<i64> {
        if !self.group.members.is_empty() {
            return None;
        }
        let commits = self.offsets.values().flat_map(|of_topic| of_topic.values()).map(|at| at.time_ms);
        Some(commits.max().unwrap_or(i64::MIN).max(self.group.idle_since_ms))
    }
}

/// All groups.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    groups: Arc<BTreeMap<GroupId, GroupEntry>>,
    /// Grows with every change that a waiting member may have to hear of; commits leave it. Not part of the state.
    news: u64,
}

impl PartialEq for Groups {
    fn eq(&self, other: &Self) -> bool {
        self.groups == other.groups
    }
}

impl Eq for Groups {}

impl Groups {
    /// Groups read back from storage.
    pub fn restored(groups: BTreeMap<GroupId, GroupEntry>) -> Self {
        Self { groups: Arc::new(groups), news: 1 }
    }

    /// All groups, by id.
    pub fn all(&self) -> &BTreeMap<GroupId, GroupEntry> {
        &self.groups
    }

    /// One group.
    pub fn get(&self, id: &GroupId) -> Option<&GroupEntry> {
        self.groups.get(id)
    }

    /// Another number than before means that some group changed in more than its offsets.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// Applies one command.
    ///
    /// # Errors
    /// The reason for which nothing was changed.
    pub fn apply(
        &mut self,
        id: &GroupId,
        command: &GroupCommand,
        catalog: &dyn TopicCatalog,
    ) -> Result<(GroupReply, Changes), GroupError> {
        let unknown = || GroupError::UnknownGroup { group: id.clone() };
        match command {
            GroupCommand::Commit(commit) => self.commit(id, commit, catalog),
            GroupCommand::Reset { offsets, time_ms } => self.reset(id, offsets, *time_ms, catalog),
            GroupCommand::DeleteOffsets { partitions } => self.delete_offsets(id, partitions),
            GroupCommand::Delete => {
                let members = self.get(id).ok_or_else(unknown)?.group.members.len();
                if members > 0 {
                    return Err(GroupError::NotEmpty { members: u32::try_from(members).unwrap_or(u32::MAX) });
                }
                Ok((GroupReply::Done, self.remove(id)))
            }
            GroupCommand::Forget { idle_since_ms } => {
                if self.get(id).ok_or_else(unknown)?.idle_since_ms() != Some(*idle_since_ms) {
                    return Err(GroupError::NotIdle);
                }
                Ok((GroupReply::Done, self.remove(id)))
            }
            other => self.change_members(id, other, catalog),
        }
    }

    /// Commands that change the group itself and not its offsets.
    fn change_members(
        &mut self,
        id: &GroupId,
        command: &GroupCommand,
        catalog: &dyn TopicCatalog,
    ) -> Result<(GroupReply, Changes), GroupError> {
        let mut group = match (self.get(id), command) {
            (Some(entry), _) => Group::clone(&entry.group),
            (None, GroupCommand::Join(join)) => self.room_for_one(join.time_ms)?,
            (None, _) => return Err(GroupError::UnknownGroup { group: id.clone() }),
        };
        let reply = match command {
            GroupCommand::Join(join) => group.join(join, catalog)?,
            GroupCommand::Release { member, epoch, partitions } => {
                group.release(*member, *epoch, partitions)?;
                GroupReply::Done
            }
            GroupCommand::Leave { member, keep_place, time_ms } => {
                group.leave(*member, *keep_place, *time_ms, catalog);
                GroupReply::Done
            }
            GroupCommand::Expire { member, time_ms } => {
                group.expire(*member, *time_ms, catalog);
                GroupReply::Done
            }
            GroupCommand::SetPaused { paused } => {
                group.set_paused(*paused);
                GroupReply::Done
            }
            _ => GroupReply::Done,
        };
        let entry = self.entry(id);
        let changed = *entry.group != group;
        entry.group = Arc::new(group);
        self.news += u64::from(changed);
        Ok((reply, Changes { group: changed, ..Changes::default() }))
    }

    fn commit(
        &mut self,
        id: &GroupId,
        commit: &Commit,
        catalog: &dyn TopicCatalog,
    ) -> Result<(GroupReply, Changes), GroupError> {
        let mut changes = Changes::default();
        if let Some((member, epoch)) = commit.by {
            let entry = self.get(id).ok_or_else(|| GroupError::UnknownGroup { group: id.clone() })?;
            entry.group.fenced(member, epoch)?;
        } else if let Some(members) = self.get(id).map(|entry| entry.group.members.len()).filter(|n| *n > 0) {
            return Err(GroupError::MembersOnly { members: u32::try_from(members).unwrap_or(u32::MAX) });
        }
        if self.get(id).is_none() {
            let group = self.room_for_one(commit.time_ms)?;
            self.entry(id).group = Arc::new(group);
            changes.group = true;
            self.news += 1;
        }
        let entry = self.entry(id);
        let mut refused = Vec::new();
        for (place, offset) in (0..).zip(&commit.offsets) {
            match may_commit(entry, commit, offset, catalog) {
                Err(error) => refused.push(Refused { at: place, error }),
                Ok(()) => {
                    let of_topic = Arc::make_mut(entry.offsets.entry(offset.at.topic).or_default());
                    let committed = Committed {
                        offset: offset.offset,
                        leader_epoch: offset.leader_epoch,
                        metadata: offset.metadata.clone(),
                        time_ms: commit.time_ms,
                    };
                    of_topic.insert(offset.at.partition, committed);
                    changes.offsets.insert(offset.at.topic);
                }
            }
        }
        Ok((GroupReply::Committed { refused }, changes))
    }

    fn reset(
        &mut self,
        id: &GroupId,
        offsets: &[(TopicIdPartition, wire::ids::Offset)],
        time_ms: i64,
        catalog: &dyn TopicCatalog,
    ) -> Result<(GroupReply, Changes), GroupError> {
        if let Some((at, _)) = offsets.iter().find(|(at, _)| !catalog.has(*at)) {
            return Err(GroupError::UnknownPartition { at: *at });
        }
        let mut group = match self.get(id) {
            Some(entry) => Group::clone(&entry.group),
            None => self.room_for_one(time_ms)?,
        };
        group.renew(offsets.iter().map(|(at, _)| *at));
        let entry = self.entry(id);
        entry.group = Arc::new(group);
        let mut changes = Changes { group: true, ..Changes::default() };
        for (at, offset) in offsets {
            let committed =
                Committed { offset: *offset, leader_epoch: None, metadata: String::new(), time_ms };
            Arc::make_mut(entry.offsets.entry(at.topic).or_default()).insert(at.partition, committed);
            changes.offsets.insert(at.topic);
        }
        self.news += 1;
        Ok((GroupReply::Done, changes))
    }

    fn delete_offsets(
        &mut self,
        id: &GroupId,
        partitions: &[TopicIdPartition],
    ) -> Result<(GroupReply, Changes), GroupError> {
        let entry = self.get(id).ok_or_else(|| GroupError::UnknownGroup { group: id.clone() })?;
        if let Some(at) = partitions.iter().find(|at| entry.group.assignment.owner(**at).is_some()) {
            return Err(GroupError::Owned { at: *at });
        }
        let entry = self.entry(id);
        let mut changes = Changes::default();
        for at in partitions {
            let Some(of_topic) = entry.offsets.get_mut(&at.topic) else { continue };
            if of_topic.contains_key(&at.partition) {
                Arc::make_mut(of_topic).remove(&at.partition);
                changes.offsets.insert(at.topic);
            }
            if of_topic.is_empty() {
                entry.offsets.remove(&at.topic);
            }
        }
        Ok((GroupReply::Done, changes))
    }

    /// A topic appeared, grew or was deleted: groups that read it share their partitions out anew. Returns them.
    pub fn topic_changed(
        &mut self,
        name: &str,
        topic: TopicId,
        time_ms: Option<i64>,
        catalog: &dyn TopicCatalog,
    ) -> Vec<GroupId> {
        let concerned: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, entry)| entry.group.is_concerned(name, topic))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &concerned {
            let group = Arc::make_mut(&mut self.entry(id).group);
            group.rebalance(catalog, Cause::Topic { name: name.to_owned() }, time_ms);
            self.news += 1;
        }
        concerned
    }

    /// A topic's data is gone for good: so is what was committed for it. Returns the groups that had something.
    pub fn topic_purged(&mut self, topic: TopicId) -> Vec<GroupId> {
        let having: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, entry)| entry.offsets.contains_key(&topic))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &having {
            self.entry(id).offsets.remove(&topic);
        }
        having
    }

    /// Where a member is: its group and itself.
    pub fn member(&self, group: &GroupId, member: MemberId) -> Option<(&GroupEntry, &super::Member)> {
        let entry = self.get(group)?;
        Some((entry, entry.group.members.get(&member)?))
    }

    fn room_for_one(&self, time_ms: i64) -> Result<Group, GroupError> {
        if self.groups.len() >= GROUPS_MAX {
            return Err(limit("groups of a cluster", GROUPS_MAX));
        }
        Ok(Group::new(time_ms))
    }

    fn entry(&mut self, id: &GroupId) -> &mut GroupEntry {
        Arc::make_mut(&mut self.groups).entry(id.clone()).or_default()
    }

    fn remove(&mut self, id: &GroupId) -> Changes {
        let removed = Arc::make_mut(&mut self.groups).remove(id);
        self.news += 1;
        let offsets = removed.map(|entry| entry.offsets.into_keys().collect()).unwrap_or_default();
        Changes { group: true, offsets }
    }
}

/// The rule of I12, for one partition.
fn may_commit(
    entry: &GroupEntry,
    commit: &Commit,
    offset: &CommitOffset,
    catalog: &dyn TopicCatalog,
) -> Result<(), GroupError> {
    let at = offset.at;
    if offset.metadata.len() > COMMIT_METADATA_BYTES_MAX {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (bytes, most) = (count(offset.metadata.len()), count(COMMIT_METADATA_BYTES_MAX));
        return Err(GroupError::MetadataTooLarge { bytes, most });
    }
    if !catalog.has(at) {
        return Err(GroupError::UnknownPartition { at });
    }
    if let Some((member, given)) = commit.by {
        let owner = entry.group.assignment.owner(at).filter(|owner| owner.member == member);
        let since = owner.ok_or(GroupError::NotOwner { at })?.since;
        if given < since {
            return Err(GroupError::Stale { at, given, since });
        }
    }
    match entry.committed(at) {
        Some(known) if known.offset > offset.offset => {
            Err(GroupError::GoesBack { at, given: offset.offset, committed: known.offset })
        }
        _ => Ok(()),
    }
}
