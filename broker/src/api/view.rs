//! The metadata image as clients see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::ids::{BrokerId, ReplicaId};
use wire::pb;

use crate::metadata::image::{BrokerEntry, BrokerState, MetadataImage, Partition, Topic};

/// Replicas and leaderships of each broker.
#[derive(Debug, Default)]
pub(super) struct Loads(BTreeMap<BrokerId, (u32, u32)>);

impl Loads {
    pub(super) fn of(image: &MetadataImage) -> Self {
        let mut loads = BTreeMap::new();
        for partition in image.live_topics().flat_map(|topic| &topic.partitions) {
            for replica in partition.all_replicas() {
                loads.entry(replica.broker).or_insert((0, 0)).0 += 1;
            }
            if let Some(leader) = partition.leader_broker() {
                loads.entry(leader).or_insert((0, 0)).1 += 1;
            }
        }
        Self(loads)
    }

    fn get(&self, broker: BrokerId) -> (u32, u32) {
        self.0.get(&broker).copied().unwrap_or_default()
    }
}

/// One topic with its partitions.
pub(super) fn topic(topic: &Topic) -> pb::TopicInfo {
    pb::TopicInfo {
        name: topic.name.clone(),
        topic_id: topic.id.to_string(),
        error: None,
        replication_factor: topic.replication_factor,
        partitions: topic.partitions.iter().map(|one| partition(one)).collect(),
        config: topic.config.entries().into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        overridden: topic.overridden.iter().cloned().collect(),
    }
}

fn partition(partition: &Partition) -> pb::PartitionInfo {
    let broker_of = |id: ReplicaId| partition.replica(id).map(|replica| replica.broker.0);
    pb::PartitionInfo {
        partition: partition.index.0,
        leader: partition.leader_broker().map(|broker| broker.0),
        leader_epoch: partition.leader_epoch.0,
        preferred_leader: broker_of(partition.preferred).unwrap_or_default(),
        replicas: partition.all_replicas().map(|replica| replica.broker.0).collect(),
        isr: partition.isr.iter().filter_map(|id| broker_of(*id)).collect(),
        raft_group: partition.group.0,
    }
}

/// One broker with what it carries.
pub(super) fn broker(image: &MetadataImage, loads: &Loads, broker: &BrokerEntry) -> pb::BrokerInfo {
    let (replicas, leaders) = loads.get(broker.id);
    let state = match broker.state() {
        BrokerState::Alive => pb::BrokerState::Alive,
        BrokerState::Fenced => pb::BrokerState::Fenced,
        BrokerState::Draining => pb::BrokerState::Draining,
    };
    pb::BrokerInfo {
        id: broker.id.0,
        grpc_address: broker.grpc.clone(),
        http_address: broker.http.clone(),
        rack: broker.rack.clone(),
        state: state.into(),
        incarnation: broker.incarnation.to_string(),
        version: broker.version.clone(),
        replicas,
        leaders,
        metadata_role: metadata_role(image, broker.id).to_owned(),
    }
}

/// All brokers by id.
pub(super) fn brokers(image: &MetadataImage) -> Vec<pb::BrokerInfo> {
    let loads = Loads::of(image);
    image.brokers.values().map(|entry| broker(image, &loads, entry)).collect()
}

fn metadata_role(image: &MetadataImage, broker: BrokerId) -> &'static str {
    if image.metadata_voters.iter().any(|member| member.broker == broker) {
        "voter"
    } else if image.metadata_learners.iter().any(|member| member.broker == broker) {
        "learner"
    } else {
        "none"
    }
}

/// A partition by name.
pub(super) fn reference(topic: &Arc<Topic>, partition: &Partition) -> pb::PartitionRef {
    pb::PartitionRef { topic: topic.name.clone(), partition: partition.index.0 }
}
