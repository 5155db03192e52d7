//! The metadata group's state machine: `apply` of one command on the state, and nothing else.
//!
//! Pure: no clock, no randomness, no I/O (I8). A refused command changes nothing. Which stored entities a command
//! touched is remembered until [`MetadataState::take_dirty`], so that keyed state is written incrementally.

mod brokers;
mod groups;
mod replicas;
pub mod topics;

use std::collections::BTreeSet;
use std::sync::Arc;

use disk::mutant::{self, Mutant};
use wire::ids::{BrokerId, GroupId, ProducerId, RaftGroupId, ReplicaId, TopicId};

use super::command::{Command, CommandReply};
use super::error::MetaError;
use super::image::{MetadataImage, MetadataMember, Partition, Topic};
use crate::group::OffsetBlock;

/// Most producer ids handed out at once.
pub const PRODUCER_IDS_MAX: u32 = 10_000;

/// Feature level of a cluster formed by this version.
pub const FEATURE_LEVEL: u32 = 1;

/// A thing that is stored under a key of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entity {
    /// Identity, counters, membership.
    Cluster,
    /// A broker.
    Broker(BrokerId),
    /// A topic without its partitions.
    Topic(TopicId),
    /// A partition.
    Partition(RaftGroupId),
    /// The tombstone of a purged topic.
    Purged(TopicId),
    /// A consumer group without its offsets.
    Group(GroupId),
    /// Offsets of a consumer group, a block of partitions.
    Offsets(GroupId, OffsetBlock),
}

/// Numbers that are handed out once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Next Raft group; 0 is the metadata group.
    pub next_group: u64,
    /// Next replica id.
    pub next_replica: u64,
    /// Next producer id.
    pub next_producer: u64,
}

/// The state: an image in the making, and the numbers to hand out next.
#[derive(Debug, Clone)]
pub struct MetadataState {
    image: MetadataImage,
    next_group: u64,
    dirty: BTreeSet<Entity>,
}

impl Default for MetadataState {
    fn default() -> Self {
        let (next_replica, next_producer) = (ReplicaId(1), ProducerId(1));
        let image = MetadataImage { next_replica, next_producer, ..MetadataImage::default() };
        Self { image, next_group: 1, dirty: BTreeSet::new() }
    }
}

impl MetadataState {
    /// A state read back from storage.
    pub fn restored(image: MetadataImage, counters: Counters) -> Self {
        let mut state = Self { image, next_group: counters.next_group, dirty: BTreeSet::new() };
        state.image.next_replica = ReplicaId(counters.next_replica);
        state.image.next_producer = ProducerId(counters.next_producer);
        state
    }

    /// The state as readers see it.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The numbers to hand out next.
    pub fn counters(&self) -> Counters {
        Counters {
            next_group: self.next_group,
            next_replica: self.image.next_replica.0,
            next_producer: self.image.next_producer.0,
        }
    }

    /// What changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<Entity> {
        std::mem::take(&mut self.dirty)
    }

    /// Number of entities that changed since the last [`MetadataState::take_dirty`].
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// Every entity that the state holds, for a full write.
    pub fn entities(&self) -> BTreeSet<Entity> {
        let mut all = BTreeSet::from([Entity::Cluster]);
        all.extend(self.image.brokers.keys().copied().map(Entity::Broker));
        all.extend(self.image.topics.keys().copied().map(Entity::Topic));
        all.extend(self.image.groups.keys().copied().map(Entity::Partition));
        all.extend(self.image.purged.keys().copied().map(Entity::Purged));
        all.extend(self.group_entities());
        all
    }

    /// Notes that the log is applied up to `index`, whatever the entry was.
    pub fn advance(&mut self, index: u64) {
        self.image.version = self.image.version.max(index);
    }

    /// Takes over a membership of the metadata group.
    pub fn set_membership(&mut self, voters: Vec<MetadataMember>, learners: Vec<MetadataMember>) {
        self.image.metadata_voters = voters;
        self.image.metadata_learners = learners;
        self.dirty.insert(Entity::Cluster);
    }

    /// Applies one command of the entry at `index`.
    ///
    /// # Errors
    /// The reason for which nothing was changed.
    pub fn apply(&mut self, index: u64, command: &Command) -> Result<CommandReply, MetaError> {
        self.advance(index);
        if !self.image.is_formed() && !matches!(command, Command::FormCluster { .. }) {
            return Err(MetaError::NotFormed);
        }
        match command {
            Command::FormCluster { cluster_id, name } => self.form(*cluster_id, name),
            Command::RegisterBroker { broker, time_ms } => self.register(broker, *time_ms),
            Command::FenceBroker { broker, incarnation, time_ms } => {
                self.fence(*broker, *incarnation, true, *time_ms)
            }
            Command::UnfenceBroker { broker, incarnation, time_ms } => {
                self.fence(*broker, *incarnation, false, *time_ms)
            }
            Command::SetDraining { broker, draining, time_ms } => {
                self.set_draining(*broker, *draining, *time_ms)
            }
            Command::CreateTopic(_)
            | Command::DeleteTopic { .. }
            | Command::PurgeTopic { .. }
            | Command::AddPartitions { .. } => self.change_topic(index, command),
            Command::AlterTopic { id, set, reset } => self.alter_topic(*id, set, reset),
            Command::ReportLeaders(reports) => Ok(self.report_leaders(reports)),
            Command::ReportIsr(reports) => Ok(self.report_isr(reports)),
            Command::ReplaceReplica { group, old, to } => self.replace_replica(*group, *old, *to),
            Command::CompleteReplace { group, new } => self.complete_replace(*group, *new),
            Command::CancelReplace { group, new } => self.cancel_replace(*group, *new),
            Command::SetInitializer { group, replica } => self.set_initializer(*group, *replica),
            Command::AllocateProducerIds { count } => self.allocate_producer_ids(*count),
            Command::Group { id, command } => self.change_group(id, command),
        }
    }

    /// Commands after which consumer groups may have other partitions to share out.
    fn change_topic(&mut self, index: u64, command: &Command) -> Result<CommandReply, MetaError> {
        match command {
            Command::CreateTopic(topic) => {
                let known = self.image.names.contains_key(&topic.name);
                let reply = self.create_topic(topic)?;
                if !known {
                    self.topic_changed(topic.id, Some(topic.time_ms));
                }
                Ok(reply)
            }
            Command::DeleteTopic { id, time_ms } => {
                let live = self.image.topic_by_id(*id).is_some_and(|topic| topic.deleted_ms.is_none());
                let reply = self.delete_topic(*id, *time_ms)?;
                if live {
                    self.topic_changed(*id, Some(*time_ms));
                }
                Ok(reply)
            }
            Command::AddPartitions { id, total } => {
                let count =
                    |image: &MetadataImage| image.topic_by_id(*id).map(|topic| topic.partitions.len());
                let before = count(&self.image);
                let reply = self.add_partitions(*id, *total)?;
                if count(&self.image) != before {
                    self.topic_changed(*id, None);
                }
                Ok(reply)
            }
            Command::PurgeTopic { id } => {
                let reply = self.purge_topic(index, *id)?;
                self.topic_purged(*id);
                Ok(reply)
            }
            _ => Ok(CommandReply::Done),
        }
    }

    fn allocate_producer_ids(&mut self, count: u32) -> Result<CommandReply, MetaError> {
        if !(1..=PRODUCER_IDS_MAX).contains(&count) {
            let what = "the number of producer ids".to_owned();
            return Err(MetaError::OutOfBounds { what, given: count, most: PRODUCER_IDS_MAX });
        }
        let first = self.image.next_producer;
        if !mutant::on(Mutant::ProducerIdsReused) {
            self.image.next_producer = ProducerId(first.0 + u64::from(count));
        }
        self.dirty.insert(Entity::Cluster);
        Ok(CommandReply::ProducerIds { first, count })
    }

    fn new_replica_id(&mut self) -> ReplicaId {
        let id = self.image.next_replica;
        self.image.next_replica = ReplicaId(id.0 + 1);
        self.dirty.insert(Entity::Cluster);
        id
    }

    fn new_group_id(&mut self) -> RaftGroupId {
        let id = RaftGroupId(self.next_group);
        self.next_group += 1;
        self.dirty.insert(Entity::Cluster);
        id
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, MetaError> {
        let topic = self.image.topics.get_mut(&id).ok_or(MetaError::UnknownTopic { id })?;
        self.dirty.insert(Entity::Topic(id));
        Ok(Arc::make_mut(topic))
    }

    /// The partition of a group, to be changed; its topic is shared with older images no longer.
    fn partition_mut(&mut self, group: RaftGroupId) -> Result<&mut Partition, MetaError> {
        let unknown = || MetaError::UnknownGroup { group };
        let (topic, index) = *self.image.groups.get(&group).ok_or_else(unknown)?;
        let topic = Arc::make_mut(self.image.topics.get_mut(&topic).ok_or_else(unknown)?);
        let at = usize::try_from(index.0).map_err(|_| unknown())?;
        let partition = topic.partitions.get_mut(at).ok_or_else(unknown)?;
        self.dirty.insert(Entity::Partition(group));
        Ok(Arc::make_mut(partition))
    }

    fn partition(&self, group: RaftGroupId) -> Result<(&Arc<Topic>, &Arc<Partition>), MetaError> {
        self.image.group(group).ok_or(MetaError::UnknownGroup { group })
    }
}

#[cfg(test)]
pub(crate) mod tests;
