//! Commands about topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::ids::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};

use super::{Entity, MetadataState};
use crate::metadata::command::{CommandReply, CreateTopic};
use crate::metadata::error::{Ineligible, MetaError};
use crate::metadata::image::{Partition, Replica, Topic};
use crate::metadata::placement::{self, Candidate};
use crate::metadata::topic_config::{REPLICATION_FACTOR_MAX, TopicConfig, TopicSetting};

/// Most partitions of one topic.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Longest topic name, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// Tombstones of purged topics that are kept; the oldest go first, and what a long absent broker still carries of such
/// a topic then stays on its disk.
const PURGED_KEPT: usize = 100_000;

impl MetadataState {
    pub(super) fn create_topic(&mut self, topic: &CreateTopic) -> Result<CommandReply, MetaError> {
        if let Some(known) = self.image.topics.get(&topic.id) {
            // The proposer's own retry: the first attempt was applied.
            if known.name == topic.name && known.deleted_ms.is_none() {
                return Ok(CommandReply::TopicCreated {
                    id: topic.id,
                    warnings: warnings(topic.replication_factor),
                });
            }
            return Err(MetaError::TopicExists { name: topic.name.clone() });
        }
        check_name(&topic.name)?;
        if self.image.names.contains_key(&topic.name) {
            return Err(MetaError::TopicExists { name: topic.name.clone() });
        }
        if !(1..=PARTITIONS_MAX).contains(&topic.partitions) {
            let rule = format!("a topic has 1 to {PARTITIONS_MAX} partitions");
            return Err(MetaError::InvalidPartitionCount { count: topic.partitions, rule });
        }
        if !(1..=REPLICATION_FACTOR_MAX).contains(&topic.replication_factor) {
            return Err(MetaError::InvalidReplicationFactor { factor: topic.replication_factor });
        }
        check_config(&topic.config, topic.replication_factor)?;
        let candidates = self.candidates(&topic.name, topic.replication_factor)?;
        let mut entry = Topic {
            id: topic.id,
            name: topic.name.clone(),
            replication_factor: topic.replication_factor,
            config: topic.config.clone(),
            overridden: topic.overridden.clone(),
            partitions: Vec::new(),
            created_ms: topic.time_ms,
            deleted_ms: None,
        };
        self.place_partitions(&mut entry, topic.partitions, &candidates);
        Arc::make_mut(&mut self.image.names).insert(topic.name.clone(), topic.id);
        self.image.topics.insert(topic.id, Arc::new(entry));
        self.dirty.insert(Entity::Topic(topic.id));
        Ok(CommandReply::TopicCreated { id: topic.id, warnings: warnings(topic.replication_factor) })
    }

    pub(super) fn add_partitions(&mut self, id: TopicId, total: u32) -> Result<CommandReply, MetaError> {
        let topic = self.live_topic(id)?;
        let have = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        if total == have {
            return Ok(CommandReply::Done);
        }
        if total < have || total > PARTITIONS_MAX {
            let rule = format!("topic {:?} has {have} and can only grow, up to {PARTITIONS_MAX}", topic.name);
            return Err(MetaError::InvalidPartitionCount { count: total, rule });
        }
        let candidates = self.candidates(&topic.name, topic.replication_factor)?;
        let mut entry = Topic::clone(topic);
        self.place_partitions(&mut entry, total, &candidates);
        self.image.topics.insert(id, Arc::new(entry));
        self.dirty.insert(Entity::Topic(id));
        Ok(CommandReply::Done)
    }

    pub(super) fn delete_topic(&mut self, id: TopicId, time_ms: i64) -> Result<CommandReply, MetaError> {
        let topic = self.topic_mut(id)?;
        if topic.deleted_ms.is_none() {
            topic.deleted_ms = Some(time_ms);
            let name = topic.name.clone();
            Arc::make_mut(&mut self.image.names).remove(&name);
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn purge_topic(&mut self, index: u64, id: TopicId) -> Result<CommandReply, MetaError> {
        if self.image.purged.contains_key(&id) {
            return Ok(CommandReply::Done);
        }
        let topic = self.image.topics.get(&id).ok_or(MetaError::UnknownTopic { id })?;
        if topic.deleted_ms.is_none() {
            let rule = "delete it before its data is purged".to_owned();
            return Err(MetaError::TopicState { name: topic.name.clone(), rule });
        }
        let groups = Arc::make_mut(&mut self.image.groups);
        for partition in &topic.partitions {
            groups.remove(&partition.group);
            self.dirty.insert(Entity::Partition(partition.group));
        }
        self.image.topics.remove(&id);
        let purged = Arc::make_mut(&mut self.image.purged);
        purged.insert(id, index);
        self.dirty.extend([Entity::Topic(id), Entity::Purged(id)]);
        if purged.len() > PURGED_KEPT {
            let oldest = purged.iter().min_by_key(|(id, index)| (**index, **id)).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                purged.remove(&oldest);
                self.dirty.insert(Entity::Purged(oldest));
            }
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn alter_topic(
        &mut self,
        id: TopicId,
        set: &[TopicSetting],
        reset: &[TopicSetting],
    ) -> Result<CommandReply, MetaError> {
        let topic = self.live_topic(id)?;
        let (mut config, mut overridden) = (topic.config.clone(), topic.overridden.clone());
        for setting in reset {
            config.set(setting);
            overridden.remove(setting.key());
        }
        for setting in set {
            config.set(setting);
            overridden.insert(setting.key().to_owned());
        }
        check_config(&config, topic.replication_factor)?;
        if config != topic.config || overridden != topic.overridden {
            let topic = self.topic_mut(id)?;
            topic.config = config;
            topic.overridden = overridden;
        }
        Ok(CommandReply::Done)
    }

    fn live_topic(&self, id: TopicId) -> Result<&Arc<Topic>, MetaError> {
        let topic = self.image.topics.get(&id).ok_or(MetaError::UnknownTopic { id })?;
        if topic.deleted_ms.is_some() {
            let rule = "it is deleted".to_owned();
            return Err(MetaError::TopicState { name: topic.name.clone(), rule });
        }
        Ok(topic)
    }

    /// Brokers that can take replicas, with their load.
    fn candidates(&self, topic: &str, factor: u32) -> Result<Vec<Candidate>, MetaError> {
        let (eligible, others): (Vec<_>, Vec<_>) = self.image.brokers.values().partition(|b| b.is_eligible());
        let count = u32::try_from(eligible.len()).unwrap_or(u32::MAX);
        if count < factor {
            let ineligible = |b: &&Arc<_>| {
                let b: &crate::metadata::image::BrokerEntry = b;
                Ineligible { broker: b.id, draining: b.draining && !b.fenced, since_ms: b.since_ms }
            };
            let ineligible = others.iter().map(ineligible).collect();
            return Err(MetaError::NotEnoughBrokers {
                topic: topic.to_owned(),
                wanted: factor,
                eligible: count,
                ineligible,
            });
        }
        let mut replicas: BTreeMap<BrokerId, u64> = BTreeMap::new();
        let mut leaders: BTreeMap<BrokerId, u64> = BTreeMap::new();
        for partition in self.image.topics.values().flat_map(|topic| &topic.partitions) {
            for replica in partition.all_replicas() {
                *replicas.entry(replica.broker).or_default() += 1;
            }
            if let Some(preferred) = partition.replica(partition.preferred) {
                *leaders.entry(preferred.broker).or_default() += 1;
            }
        }
        let candidate = |b: &Arc<crate::metadata::image::BrokerEntry>| Candidate {
            id: b.id,
            rack: b.rack.clone(),
            replicas: replicas.get(&b.id).copied().unwrap_or(0),
            leaders: leaders.get(&b.id).copied().unwrap_or(0),
        };
        Ok(eligible.into_iter().map(candidate).collect())
    }

    /// Fills a topic up to `total` partitions.
    fn place_partitions(&mut self, topic: &mut Topic, total: u32, candidates: &[Candidate]) {
        let have = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let mut leaders_here: BTreeMap<BrokerId, u64> = BTreeMap::new();
        for partition in &topic.partitions {
            if let Some(preferred) = partition.replica(partition.preferred) {
                *leaders_here.entry(preferred.broker).or_default() += 1;
            }
        }
        let factor = usize::try_from(topic.replication_factor).unwrap_or(usize::MAX);
        let places = placement::place(topic.id, have..total, factor, candidates, &leaders_here);
        for (index, brokers) in (have..total).zip(places) {
            let partition = self.new_partition(PartitionIndex(index), &brokers);
            Arc::make_mut(&mut self.image.groups).insert(partition.group, (topic.id, partition.index));
            self.dirty.insert(Entity::Partition(partition.group));
            topic.partitions.push(Arc::new(partition));
        }
    }

    fn new_partition(&mut self, index: PartitionIndex, brokers: &[BrokerId]) -> Partition {
        let group = self.new_group_id();
        let replicas: Vec<Replica> =
            brokers.iter().map(|broker| Replica { id: self.new_replica_id(), broker: *broker }).collect();
        let preferred = replicas.first().map(|replica| replica.id).unwrap_or_default();
        Partition {
            index,
            group,
            adding: None,
            removing: None,
            preferred,
            initializer: preferred,
            initial_members: replicas.clone(),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            isr: replicas.iter().map(|replica| replica.id).collect(),
            replicas,
        }
    }
}

/// Checks a topic's name.
///
/// # Errors
/// [`MetaError::InvalidTopicName`] with the broken rule.
pub fn check_name(name: &str) -> Result<(), MetaError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let rule = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("it is longer than {NAME_BYTES_MAX} bytes")
    } else if name == "." || name == ".." {
        "it means a directory".to_owned()
    } else if let Some(bad) = name.chars().find(|c| !fine(*c)) {
        format!("{bad:?} is none of a-z A-Z 0-9 . _ -")
    } else {
        return Ok(());
    };
    Err(MetaError::InvalidTopicName { name: name.chars().take(60).collect(), rule })
}

fn check_config(config: &TopicConfig, factor: u32) -> Result<(), MetaError> {
    if config.min_insync_replicas <= factor {
        return Ok(());
    }
    Err(MetaError::InvalidConfig {
        key: "min_insync_replicas".to_owned(),
        value: config.min_insync_replicas.to_string(),
        rule: format!("the topic has {factor} replicas, so acks=all could never succeed"),
    })
}

/// What the user should know about a replication factor: an even group survives no more failures than the odd one
/// below it, since a majority is needed.
pub fn warnings(factor: u32) -> Vec<String> {
    if matches!(factor, 2 | 4 | 6) {
        let survives = (factor - 1) / 2;
        return vec![format!(
            "replication factor {factor} survives {survives} failed brokers, no more than {}: \
             a majority must live; use 1, 3 or 5",
            factor - 1
        )];
    }
    Vec::new()
}
