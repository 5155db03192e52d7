//! All groups of a cluster, shared piece by piece with older states: a change copies only what it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wire::ids::{GroupId, MemberId, TopicId, TopicIdPartition};

use super::catalog::TopicCatalog;
use super::command::{Changes, Commit, CommitOffset, GroupCommand, GroupReply, Refused};
use super::error::GroupError;
use super::offsets::{Committed, OffsetBlock, TopicOffsets};
use super::one::{Cause, Group, limit};
use super::size::offset_bytes;
use super::{COMMIT_METADATA_BYTES_MAX, GROUP_BYTES_MAX, GROUPS_BYTES_MAX, GROUPS_MAX};

/// One group with its offsets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupEntry {
    /// Members and assignment.
    pub group: Arc<Group>,
    /// Committed offsets of each topic.
    pub offsets: BTreeMap<TopicId, Arc<TopicOffsets>>,
    /// Bytes of `group` and of `offsets`.
    weight: (usize, usize),
}

impl GroupEntry {
    /// An entry read back from storage.
    pub fn new(group: Group, offsets: BTreeMap<TopicId, Arc<TopicOffsets>>) -> Self {
        let weight = (group.bytes(), offset_bytes(&offsets));
        Self { group: Arc::new(group), offsets, weight }
    }

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

    fn bytes(&self) -> usize {
        self.weight.0 + self.weight.1
    }

    /// The parts in which the offsets are stored.
    pub fn blocks(&self) -> BTreeSet<OffsetBlock> {
        let at = |topic: TopicId, partition| OffsetBlock::of(TopicIdPartition { topic, partition });
        let of_topic = |(topic, offsets): (&TopicId, &Arc<TopicOffsets>)| {
            let topic = *topic;
            offsets.keys().map(move |partition| at(topic, *partition)).collect::<BTreeSet<_>>()
        };
        self.offsets.iter().flat_map(of_topic).collect()
    }

    fn set(&mut self, at: TopicIdPartition, committed: Committed) {
        let of_topic = Arc::make_mut(self.offsets.entry(at.topic).or_default());
        self.weight.1 += committed.bytes();
        let before = of_topic.insert(at.partition, committed);
        self.weight.1 -= before.map_or(0, |before| before.bytes());
    }
}

/// All groups.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    groups: Arc<BTreeMap<GroupId, Arc<GroupEntry>>>,
    /// Bytes of all of them.
    bytes: usize,
}

impl PartialEq for Groups {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.groups == other.groups
    }
}

impl Eq for Groups {}

impl Groups {
    /// Groups read back from storage.
    pub fn restored(groups: BTreeMap<GroupId, GroupEntry>) -> Self {
        let bytes = groups.values().map(GroupEntry::bytes).sum();
        let groups = groups.into_iter().map(|(id, entry)| (id, Arc::new(entry))).collect();
        Self { groups: Arc::new(groups), bytes }
    }

    /// All groups, by id.
    pub fn all(&self) -> &BTreeMap<GroupId, Arc<GroupEntry>> {
        &self.groups
    }

    /// One group.
    pub fn get(&self, id: &GroupId) -> Option<&Arc<GroupEntry>> {
        self.groups.get(id)
    }

    /// Bytes that all groups take when they are stored, at most.
    pub fn bytes(&self) -> usize {
        self.bytes
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
            GroupCommand::Join(join) => {
                let reply = group.join(join, catalog)?;
                self.check_room(id, &group)?;
                reply
            }
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
        let changed = self.get(id).is_none_or(|entry| *entry.group != group);
        if changed {
            self.put(id, group);
        }
        Ok((reply, Changes { group: changed, ..Changes::default() }))
    }

    /// Members come only while they have room; what goes on by itself (a topic that grows) is not stopped.
    fn check_room(&self, id: &GroupId, group: &Group) -> Result<(), GroupError> {
        let (before, after) = (self.get(id).map_or(0, |entry| entry.weight.0), group.bytes());
        if after > before && after > GROUP_BYTES_MAX {
            return Err(limit("bytes of a group's members and assignment", GROUP_BYTES_MAX));
        }
        self.check_total(after.saturating_sub(before))
    }

    fn check_total(&self, more: usize) -> Result<(), GroupError> {
        if more > 0 && self.bytes.saturating_add(more) > GROUPS_BYTES_MAX {
            return Err(limit("bytes of all groups of a cluster", GROUPS_BYTES_MAX));
        }
        Ok(())
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
        let begins = self.get(id).is_none();
        if begins {
            let group = self.room_for_one(commit.time_ms)?;
            self.put(id, group);
        }
        let (total, others) = (self.bytes, self.bytes - self.get(id).map_or(0, |entry| entry.bytes()));
        let entry = self.entry(id);
        let mut refused = Vec::new();
        for (place, offset) in (0..).zip(&commit.offsets) {
            let room = GROUPS_BYTES_MAX.max(total) - others;
            if let Err(error) = may_commit(entry, commit, offset, catalog, room) {
                refused.push(Refused { at: place, error });
                continue;
            }
            let committed = Committed {
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata: offset.metadata.clone(),
                time_ms: commit.time_ms,
            };
            entry.set(offset.at, committed);
            changes.offsets.insert(OffsetBlock::of(offset.at));
        }
        self.bytes = others + entry.bytes();
        changes.group = begins && !changes.offsets.is_empty();
        if begins && changes.offsets.is_empty() {
            // Nothing was taken: there is no reason for a group.
            self.remove(id);
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
        let fresh = |offset| Committed { offset, leader_epoch: None, metadata: String::new(), time_ms };
        let blank = fresh(wire::ids::Offset(0)).bytes();
        let known = |at| self.get(id).and_then(|entry| entry.committed(at)).is_some();
        self.check_total(blank * offsets.iter().filter(|(at, _)| !known(*at)).count())?;
        group.renew(offsets.iter().map(|(at, _)| *at));
        self.put(id, group);
        let others = self.bytes - self.get(id).map_or(0, |entry| entry.bytes());
        let entry = self.entry(id);
        let mut changes = Changes { group: true, ..Changes::default() };
        for (at, offset) in offsets {
            entry.set(*at, fresh(*offset));
            changes.offsets.insert(OffsetBlock::of(*at));
        }
        self.bytes = others + entry.bytes();
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
        let others = self.bytes - entry.bytes();
        let entry = self.entry(id);
        let mut changes = Changes::default();
        for at in partitions {
            let Some(of_topic) = entry.offsets.get_mut(&at.topic) else { continue };
            if of_topic.contains_key(&at.partition) {
                let removed = Arc::make_mut(of_topic).remove(&at.partition);
                entry.weight.1 -= removed.map_or(0, |removed| removed.bytes());
                changes.offsets.insert(OffsetBlock::of(*at));
            }
            if of_topic.is_empty() {
                entry.offsets.remove(&at.topic);
            }
        }
        self.bytes = others + entry.bytes();
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
        let concerned: Vec<(GroupId, Arc<Group>)> = self
            .groups
            .iter()
            .filter(|(_, entry)| entry.group.is_concerned(name, topic))
            .map(|(id, entry)| (id.clone(), entry.group.clone()))
            .collect();
        let mut ids = Vec::with_capacity(concerned.len());
        for (id, group) in concerned {
            let mut group = Group::clone(&group);
            group.rebalance(catalog, Cause::Topic { name: name.to_owned() }, time_ms);
            self.put(&id, group);
            ids.push(id);
        }
        ids
    }

    /// A topic's data is gone for good: so is what was committed for it. Returns the groups that had something, and
    /// the parts that went.
    pub fn topic_purged(&mut self, topic: TopicId) -> Vec<(GroupId, BTreeSet<OffsetBlock>)> {
        let having: Vec<(GroupId, BTreeSet<OffsetBlock>)> = self
            .groups
            .iter()
            .filter(|(_, entry)| entry.offsets.contains_key(&topic))
            .map(|(id, entry)| {
                (id.clone(), entry.blocks().into_iter().filter(|block| block.topic == topic).collect())
            })
            .collect();
        for (id, _) in &having {
            let entry = self.entry(id);
            let gone = entry.offsets.remove(&topic).unwrap_or_default();
            let bytes: usize = gone.values().map(Committed::bytes).sum();
            entry.weight.1 -= bytes;
            self.bytes -= bytes;
        }
        having
    }

    /// Where a member is: its group and itself.
    pub fn member(&self, group: &GroupId, member: MemberId) -> Option<(&GroupEntry, &super::Member)> {
        let entry: &GroupEntry = self.get(group)?;
        Some((entry, entry.group.members.get(&member)?))
    }

    fn room_for_one(&self, time_ms: i64) -> Result<Group, GroupError> {
        if self.groups.len() >= GROUPS_MAX {
            return Err(limit("groups of a cluster", GROUPS_MAX));
        }
        let group = Group::new(time_ms);
        self.check_total(group.bytes())?;
        Ok(group)
    }

    /// The entry, to be changed; shared with older states no longer.
    fn entry(&mut self, id: &GroupId) -> &mut GroupEntry {
        Arc::make_mut(Arc::make_mut(&mut self.groups).entry(id.clone()).or_default())
    }

    fn put(&mut self, id: &GroupId, group: Group) {
        let bytes = group.bytes();
        let entry = self.entry(id);
        let before = std::mem::replace(&mut entry.weight.0, bytes);
        entry.group = Arc::new(group);
        self.bytes = self.bytes + bytes - before;
    }

    fn remove(&mut self, id: &GroupId) -> Changes {
        let Some(removed) = Arc::make_mut(&mut self.groups).remove(id) else { return Changes::default() };
        self.bytes -= removed.bytes();
        Changes { group: true, offsets: removed.blocks() }
    }
}

/// The rule of I12, for one partition, and the bound of what `room` bytes of the group may hold.
fn may_commit(
    entry: &GroupEntry,
    commit: &Commit,
    offset: &CommitOffset,
    catalog: &dyn TopicCatalog,
    room: usize,
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
    let known = entry.committed(at);
    if let Some(known) = known.filter(|known| known.offset > offset.offset) {
        return Err(GroupError::GoesBack { at, given: offset.offset, committed: known.offset });
    }
    let (before, after) = (known.map_or(0, Committed::bytes), Committed::bytes_with(&offset.metadata));
    if after > before && entry.bytes() - before + after > room {
        return Err(limit("bytes of all groups of a cluster", GROUPS_BYTES_MAX));
    }
    Ok(())
}
