//! Commands about consumer groups, and what topics do to groups.

use wire::ids::{GroupId, TopicId};

use super::{Entity, MetadataState};
use crate::group::GroupCommand;
use crate::metadata::command::CommandReply;
use crate::metadata::error::MetaError;

impl MetadataState {
    pub(super) fn change_group(
        &mut self,
        id: &GroupId,
        command: &GroupCommand,
    ) -> Result<CommandReply, MetaError> {
        // The topics that a group reads are in the same image: it is taken out for the call.
        let mut groups = std::mem::take(&mut self.image.consumer_groups);
        let applied = groups.apply(id, command, &self.image);
        self.image.consumer_groups = groups;
        let (reply, changes) = applied.map_err(MetaError::Group)?;
        if changes.group {
            self.dirty.insert(Entity::Group(id.clone()));
        }
        self.dirty.extend(changes.offsets.into_iter().map(|block| Entity::Offsets(id.clone(), block)));
        Ok(CommandReply::Group(reply))
    }

    /// A topic is there, grew, or is deleted.
    pub(super) fn topic_changed(&mut self, id: TopicId, time_ms: Option<i64>) {
        let Some(name) = self.image.topic_by_id(id).map(|topic| topic.name.clone()) else { return };
        let mut groups = std::mem::take(&mut self.image.consumer_groups);
        let changed = groups.topic_changed(&name, id, time_ms, &self.image);
        self.image.consumer_groups = groups;
        self.dirty.extend(changed.into_iter().map(Entity::Group));
    }

    /// A topic's data is gone for good.
    pub(super) fn topic_purged(&mut self, id: TopicId) {
        for (group, blocks) in self.image.consumer_groups.topic_purged(id) {
            self.dirty.extend(blocks.into_iter().map(|block| Entity::Offsets(group.clone(), block)));
        }
    }

    /// Every stored piece of every group.
    pub(super) fn group_entities(&self) -> impl Iterator<Item = Entity> + '_ {
        self.image.consumer_groups.all().iter().flat_map(|(id, entry)| {
            let offsets = entry.blocks().into_iter().map(|block| Entity::Offsets(id.clone(), block));
            std::iter::once(Entity::Group(id.clone())).chain(offsets)
        })
    }
}
