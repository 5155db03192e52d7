//! The state as it is stored: whole in a snapshot, piece by piece in the keyed state. Field order is the format.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft_store::{LogPosition, Membership, StoredMembership, entry};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId, TopicId};

use super::codec::{self, DecodeError};
use super::image::{BrokerEntry, MetadataImage, MetadataMember, Partition, Topic};
use super::state::{Counters, Entity, MetadataState};
use super::topic_config::TopicConfig;

mod groups;

use groups::GroupParts;

/// Identity, counters and membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredCluster {
    cluster_id: Uuid,
    name: String,
    feature_level: u32,
    counters: Counters,
    /// Log id of the membership entry: term and index; `None` before the first.
    membership_at: Option<(u64, u64)>,
    /// The membership in the layout of `raft_store::entry`.
    membership: Vec<u8>,
}

/// A topic without its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredTopic {
    id: TopicId,
    name: String,
    replication_factor: u32,
    config: TopicConfig,
    overridden: BTreeSet<String>,
    created_ms: i64,
    deleted_ms: Option<i64>,
    partitions: u32,
}

/// Everything, as of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSnapshot {
    /// Term and index of the last entry in it.
    last: (u64, u64),
    cluster: StoredCluster,
    brokers: Vec<BrokerEntry>,
    topics: Vec<StoredTopic>,
    /// Partitions of all topics, by group.
    partitions: Vec<(TopicId, Partition)>,
    purged: Vec<(TopicId, u64)>,
}

/// The state with the membership of its group and the last entry in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) state: MetadataState,
    pub(crate) last: Option<LogPosition>,
    pub(crate) membership: StoredMembership,
}

impl Applied {
    /// Takes over a membership, and shows it in the image.
    pub(crate) fn set_membership(&mut self, membership: StoredMembership) {
        let member = |id: u64| {
            let broker = membership.get_node(&id).map(|node| node.broker).unwrap_or_default();
            MetadataMember { replica: ReplicaId(id), broker: BrokerId(broker) }
        };
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let learners = membership.membership().learner_ids().map(member).collect();
        self.state.set_membership(voters.into_iter().map(member).collect(), learners);
        self.membership = membership;
    }

    /// The snapshot of this state; the same on every replica that applied the same entries.
    ///
    /// # Errors
    /// If the part without consumer groups, or a single group, takes more than 16 MiB.
    pub(crate) fn encode_snapshot(&self) -> Result<Vec<u8>, raft_store::codec::CodecError> {
        let image = self.state.image();
        let last = self.last.unwrap_or_default();
        let mut partitions = Vec::with_capacity(image.groups.len());
        for (topic, index) in image.groups.values() {
            partitions.extend(image.partition(*topic, *index).map(|p| (*topic, Partition::clone(p))));
        }
        let snapshot = StoredSnapshot {
            last: (last.term, last.index),
            cluster: self.cluster(),
            brokers: image.brokers.values().map(|broker| BrokerEntry::clone(broker)).collect(),
            topics: image.topics.values().map(|topic| stored_topic(topic)).collect(),
            partitions,
            purged: image.purged.iter().map(|(id, index)| (*id, *index)).collect(),
        };
        let mut bytes = codec::encode(codec::SNAPSHOT, &snapshot)?;
        groups::append(&image.consumer_groups, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(crate) fn decode_snapshot(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (first, mut rest) = raft_store::codec::split_first(bytes)?;
        let snapshot: StoredSnapshot = codec::decode(codec::SNAPSHOT, first)?;
        let last = LogPosition { term: snapshot.last.0, index: snapshot.last.1 };
        let mut parts = Parts { cluster: Some(snapshot.cluster), ..Parts::default() };
        parts.brokers.extend(snapshot.brokers.into_iter().map(|broker| (broker.id, broker)));
        parts.topics.extend(snapshot.topics.into_iter().map(|topic| (topic.id, topic)));
        for (topic, partition) in snapshot.partitions {
            parts.partitions.insert(partition.group, (topic, partition));
        }
        parts.purged.extend(snapshot.purged);
        while !rest.is_empty() {
            let (part, behind) = raft_store::codec::split_first(rest)?;
            parts.consumer_groups.part(part)?;
            rest = behind;
        }
        parts.assemble(last)
    }

    /// What has to be written for these entities: a value, or `None` to remove the key.
    ///
    /// # Errors
    /// If a value cannot be encoded.
    pub(crate) fn writes(
        &self,
        entities: &BTreeSet<Entity>,
    ) -> Result<Writes, raft_store::codec::CodecError> {
        let image = self.state.image();
        let mut writes = Vec::with_capacity(entities.len());
        for entity in entities {
            let value = match entity {
                Entity::Cluster => Some(codec::encode(codec::KEYED, &self.cluster())?),
                Entity::Broker(id) => {
                    image.brokers.get(id).map(|broker| codec::encode(codec::KEYED, &**broker)).transpose()?
                }
                Entity::Topic(id) => {
                    let topic = image.topics.get(id).map(|topic| stored_topic(topic));
                    topic.map(|topic| codec::encode(codec::KEYED, &topic)).transpose()?
                }
                Entity::Partition(group) => {
                    let found = image.group(*group);
                    found.map(|(t, p)| codec::encode(codec::KEYED, &(t.id, &**p))).transpose()?
                }
                Entity::Purged(id) => {
                    image.purged.get(id).map(|index| codec::encode(codec::KEYED, index)).transpose()?
                }
                Entity::Group(id) => groups::group_value(&image.consumer_groups, id)?,
                Entity::Offsets(id, block) => groups::offsets_value(&image.consumer_groups, id, *block)?,
            };
            writes.push((key(entity), value));
        }
        Ok(writes)
    }

    /// Puts the state together from the pairs of the keyed store.
    ///
    /// # Errors
    /// [`DecodeError`]: the store is thrown away then, and the state rebuilt from snapshot and log.
    pub(crate) fn from_pairs(last: LogPosition, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, DecodeError> {
        let mut parts = Parts::default();
        for (key, value) in pairs {
            match key.first() {
                Some(b'c') => parts.cluster = Some(codec::decode(codec::KEYED, value)?),
                Some(b'b') => {
                    let broker: BrokerEntry = codec::decode(codec::KEYED, value)?;
                    parts.brokers.insert(broker.id, broker);
                }
                Some(b't') => {
                    let topic: StoredTopic = codec::decode(codec::KEYED, value)?;
                    parts.topics.insert(topic.id, topic);
                }
                Some(b'p') => {
                    let (topic, partition): (TopicId, Partition) = codec::decode(codec::KEYED, value)?;
                    parts.partitions.insert(partition.group, (topic, partition));
                }
                Some(b'x') => {
                    let id = key.get(1..).and_then(|id| Uuid::from_slice(id).ok());
                    let id = id.ok_or(DecodeError::Contradiction("a tombstone without a topic"))?;
                    parts.purged.insert(TopicId(id), codec::decode(codec::KEYED, value)?);
                }
                Some(b'g') => parts.consumer_groups.group(value)?,
                Some(b'o') => parts.consumer_groups.offsets(value)?,
                _ => return Err(DecodeError::Contradiction("an unknown key")),
            }
        }
        parts.assemble(last)
    }

    fn cluster(&self) -> StoredCluster {
        let image = self.state.image();
        let mut membership = Vec::new();
        entry::encode_membership(self.membership.membership(), &mut membership);
        StoredCluster {
            cluster_id: image.cluster_id,
            name: image.cluster_name.clone(),
            feature_level: image.feature_level,
            counters: self.state.counters(),
            membership_at: self.membership.log_id().as_ref().map(LogPosition::of).map(|p| (p.term, p.index)),
            membership,
        }
    }
}

/// Keys and their new values; `None` removes one.
pub(crate) type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A tag and an id, big endian, so that keys sort as ids do.
fn key(entity: &Entity) -> Vec<u8> {
    let tagged = |tag: u8, id: &[u8]| [&[tag], id].concat();
    match entity {
        Entity::Cluster => vec![b'c'],
        Entity::Broker(id) => tagged(b'b', &id.0.to_be_bytes()),
        Entity::Topic(id) => tagged(b't', id.0.as_bytes()),
        Entity::Partition(group) => tagged(b'p', &group.0.to_be_bytes()),
        Entity::Purged(id) => tagged(b'x', id.0.as_bytes()),
        Entity::Group(id) => tagged(b'g', id.0.as_bytes()),
        Entity::Offsets(id, block) => tagged(b'o', &groups::offsets_key(id, *block)),
    }
}

fn stored_topic(topic: &Topic) -> StoredTopic {
    StoredTopic {
        id: topic.id,
        name: topic.name.clone(),
        replication_factor: topic.replication_factor,
        config: topic.config.clone(),
        overridden: topic.overridden.clone(),
        created_ms: topic.created_ms,
        deleted_ms: topic.deleted_ms,
        partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
    }
}

/// Stored pieces on their way to a state.
#[derive(Default)]
struct Parts {
    cluster: Option<StoredCluster>,
    brokers: BTreeMap<BrokerId, BrokerEntry>,
    topics: BTreeMap<TopicId, StoredTopic>,
    partitions: BTreeMap<RaftGroupId, (TopicId, Partition)>,
    purged: BTreeMap<TopicId, u64>,
    consumer_groups: GroupParts,
}

impl Parts {
    fn assemble(self, last: LogPosition) -> Result<Applied, DecodeError> {
        let cluster = self.cluster.ok_or(DecodeError::Contradiction("no cluster"))?;
        let mut by_topic: BTreeMap<TopicId, BTreeMap<u32, Arc<Partition>>> = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for (group, (topic, partition)) in self.partitions {
            groups.insert(group, (topic, partition.index));
            let of_topic = by_topic.entry(topic).or_default();
            if of_topic.insert(partition.index.0, Arc::new(partition)).is_some() {
                return Err(DecodeError::Contradiction("one partition stands twice"));
            }
        }
        let mut topics = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (id, stored) in self.topics {
            let partitions = by_topic.remove(&id).unwrap_or_default();
            let dense = partitions.keys().copied().eq(0..stored.partitions);
            if !dense {
                return Err(DecodeError::Contradiction("a topic lacks partitions"));
            }
            if stored.deleted_ms.is_none() && names.insert(stored.name.clone(), id).is_some() {
                return Err(DecodeError::Contradiction("two topics have one name"));
            }
            topics.insert(id, Arc::new(stored.into_topic(partitions.into_values().collect())));
        }
        if !by_topic.is_empty() {
            return Err(DecodeError::Contradiction("a partition has no topic"));
        }
        let membership = read_membership(&cluster)?;
        let image = MetadataImage {
            version: last.index,
            cluster_id: cluster.cluster_id,
            cluster_name: cluster.name,
            feature_level: cluster.feature_level,
            brokers: self.brokers.into_iter().map(|(id, broker)| (id, Arc::new(broker))).collect(),
            topics,
            names: Arc::new(names),
            groups: Arc::new(groups),
            purged: Arc::new(self.purged),
            consumer_groups: self.consumer_groups.assemble()?,
            ..MetadataImage::default()
        };
        let state = MetadataState::restored(image, cluster.counters);
        let mut applied = Applied { state, last: Some(last), membership: StoredMembership::default() };
        applied.set_membership(membership);
        applied.state.take_dirty();
        Ok(applied)
    }
}

impl StoredTopic {
    fn into_topic(self, partitions: Vec<Arc<Partition>>) -> Topic {
        Topic {
            id: self.id,
            name: self.name,
            replication_factor: self.replication_factor,
            config: self.config,
            overridden: self.overridden,
            partitions,
            created_ms: self.created_ms,
            deleted_ms: self.deleted_ms,
        }
    }
}

fn read_membership(cluster: &StoredCluster) -> Result<StoredMembership, DecodeError> {
    let mut rest = cluster.membership.as_slice();
    let membership: Membership = entry::decode_membership(&mut rest).map_err(DecodeError::Membership)?;
    let at = cluster.membership_at.map(|(term, index)| LogPosition { term, index }.log_id());
    Ok(StoredMembership::new(at, membership))
}

#[cfg(test)]
mod tests;
