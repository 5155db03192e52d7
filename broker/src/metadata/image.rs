//! What the cluster is made of, as one immutable value that readers share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use disk::mutant::{self, Mutant};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::ids::{BrokerId, LeaderEpoch, PartitionIndex, ProducerId, RaftGroupId, ReplicaId, TopicId};

use super::topic_config::TopicConfig;
use crate::group::{Groups, TopicCatalog, TopicShape};

/// One broker as the cluster knows it. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerEntry {
    /// `node.id`.
    pub id: BrokerId,
    /// The data directory: another one under the same id means that the old disk is gone.
    pub incarnation: Uuid,
    /// Its id in the metadata group.
    pub metadata_replica: ReplicaId,
    /// Address for gRPC clients, as `host:port`.
    pub grpc: String,
    /// Address for HTTP clients.
    pub http: String,
    /// Address for other brokers.
    pub peer: String,
    /// Failure domain; empty = none told.
    pub rack: String,
    /// Version of the software.
    pub version: String,
    /// The metadata leader believes it dead.
    pub fenced: bool,
    /// It gets no new replicas and gives its leaderships away.
    pub draining: bool,
    /// When `fenced` or `draining` last changed, by the proposer's wall clock. Unit: ms since 1970.
    pub since_ms: i64,
    /// Replicas on this broker with a lower id went with an earlier disk: they must never vote again (I4).
    pub lost_below: ReplicaId,
}

/// Whether a broker takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerState {
    /// In full service.
    Alive,
    /// Believed dead by the metadata leader.
    Fenced,
    /// In service, but about to leave.
    Draining,
}

impl BrokerState {
    /// The word that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Fenced => "fenced",
            Self::Draining => "draining",
        }
    }
}

impl BrokerEntry {
    /// Whether the broker takes part; a dead one is fenced even while it drains.
    pub fn state(&self) -> BrokerState {
        match (self.fenced, self.draining) {
            (true, _) => BrokerState::Fenced,
            (false, true) => BrokerState::Draining,
            (false, false) => BrokerState::Alive,
        }
    }

    /// True if new replicas may go there.
    pub fn is_eligible(&self) -> bool {
        !self.fenced && !self.draining
    }
}

/// One replica of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Its id in the partition's Raft group.
    pub id: ReplicaId,
    /// The broker that carries it.
    pub broker: BrokerId,
}

/// One partition. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Number within the topic.
    pub index: PartitionIndex,
    /// Its Raft group.
    pub group: RaftGroupId,
    /// The voters, in order of placement.
    pub replicas: Vec<Replica>,
    /// A replica on its way in: a learner until it has caught up.
    pub adding: Option<Replica>,
    /// The replica that `adding` takes the place of; still in `replicas` until then.
    pub removing: Option<ReplicaId>,
    /// Who should lead when all is well.
    pub preferred: ReplicaId,
    /// Who initialises the group if that has not happened yet.
    pub initializer: ReplicaId,
    /// The membership that the group begins with, fixed at creation: whoever initialises it uses this very set.
    pub initial_members: Vec<Replica>,
    /// Who leads, as last reported; `None` = nobody reported, or its broker was fenced since.
    pub leader: Option<ReplicaId>,
    /// Epoch of the last reported leader; never goes back.
    pub leader_epoch: LeaderEpoch,
    /// Replicas in sync, as the leader last reported; never empty.
    pub isr: Vec<ReplicaId>,
}

impl Partition {
    /// The replica of an id, also one that is on its way in.
    pub fn replica(&self, id: ReplicaId) -> Option<Replica> {
        self.replicas.iter().chain(&self.adding).find(|replica| replica.id == id).copied()
    }

    /// The replica that a broker carries now; the one on its way in wins over the one it replaces.
    pub fn replica_on(&self, broker: BrokerId) -> Option<Replica> {
        self.adding.iter().chain(&self.replicas).find(|replica| replica.broker == broker).copied()
    }

    /// All replicas: the voters and the one on its way in.
    pub fn all_replicas(&self) -> impl Iterator<Item = Replica> + '_ {
        self.replicas.iter().chain(&self.adding).copied()
    }

    /// The broker of the reported leader.
    pub fn leader_broker(&self) -> Option<BrokerId> {
        self.leader.and_then(|leader| self.replica(leader)).map(|replica| replica.broker)
    }

    /// True if fewer replicas are in sync than there should be.
    pub fn is_under_replicated(&self) -> bool {
        self.isr.len() < self.replicas.len()
    }
}

/// One topic. Partitions are shared with older images until they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Identity; the name is an alias.
    pub id: TopicId,
    /// Name, unique among topics that are not deleted.
    pub name: String,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// Settings in force.
    pub config: TopicConfig,
    /// Canonical names of settings that were set for this topic; the others are defaults.
    pub overridden: BTreeSet<String>,
    /// Partitions, at the place of their number.
    pub partitions: Vec<Arc<Partition>>,
    /// When it was created. Unit: ms since 1970.
    pub created_ms: i64,
    /// When it was deleted; its data stays until it is purged.
    pub deleted_ms: Option<i64>,
}

impl Topic {
    /// The partition of a number.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}

/// A member of the metadata group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetadataMember {
    /// Its id in the metadata group.
    pub replica: ReplicaId,
    /// Its broker.
    pub broker: BrokerId,
}

/// A replica that this broker should run.
#[derive(Debug, Clone)]
pub struct LocalReplica {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The partition.
    pub partition: Arc<Partition>,
    /// The replica.
    pub replica: Replica,
}

/// The whole of what the metadata group has decided up to one index. Cheap to share, never changed once published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataImage {
    /// Raft index of the last entry in it; grows with each image.
    pub version: u64,
    /// The cluster; nil until the first entries were applied.
    pub cluster_id: Uuid,
    /// Its name.
    pub cluster_name: String,
    /// Feature level that all brokers understand; gates new commands.
    pub feature_level: u32,
    /// Every broker that ever registered.
    pub brokers: BTreeMap<BrokerId, Arc<BrokerEntry>>,
    /// Topics, also deleted ones whose data is still kept.
    pub topics: BTreeMap<TopicId, Arc<Topic>>,
    /// Names of topics that are not deleted.
    pub names: Arc<BTreeMap<String, TopicId>>,
    /// Which partition a Raft group belongs to.
    pub groups: Arc<BTreeMap<RaftGroupId, (TopicId, PartitionIndex)>>,
    /// Topics whose data may be removed for good, and the index of the command that said so.
    pub purged: Arc<BTreeMap<TopicId, u64>>,
    /// Voters of the metadata group.
    pub metadata_voters: Vec<MetadataMember>,
    /// Learners of the metadata group.
    pub metadata_learners: Vec<MetadataMember>,
    /// The next replica id: one at or above it is unknown to this image.
    pub next_replica: ReplicaId,
    /// The next producer id: one at or above it was given to nobody that this image knows of.
    pub next_producer: ProducerId,
    /// Consumer groups with their offsets. (`groups` are Raft groups.)
    pub consumer_groups: Groups,
}

impl TopicCatalog for MetadataImage {
    fn by_name(&self, name: &str) -> Option<TopicShape> {
        self.topic(name).map(|topic| shape(topic))
    }

    fn by_id(&self, id: TopicId) -> Option<TopicShape> {
        self.topic_by_id(id).filter(|topic| topic.deleted_ms.is_none()).map(|topic| shape(topic))
    }

    fn each(&self, visit: &mut dyn FnMut(&str, TopicShape)) {
        self.live_topics().for_each(|topic| visit(&topic.name, shape(topic)));
    }
}

fn shape(topic: &Topic) -> TopicShape {
    TopicShape { id: topic.id, partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX) }
}

impl MetadataImage {
    /// The topic of a name, if it is not deleted.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic of an id, deleted or not.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// One partition.
    pub fn partition(&self, topic: TopicId, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.topics.get(&topic)?.partition(index)
    }

    /// The partition of a Raft group.
    pub fn group(&self, group: RaftGroupId) -> Option<(&Arc<Topic>, &Arc<Partition>)> {
        let (topic, index) = self.groups.get(&group)?;
        let topic = self.topics.get(topic)?;
        Some((topic, topic.partition(*index)?))
    }

    /// One broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerEntry>> {
        self.brokers.get(&id)
    }

    /// The broker of a partition's reported leader.
    pub fn leader_broker(&self, partition: &Partition) -> Option<&Arc<BrokerEntry>> {
        self.brokers.get(&partition.leader_broker()?)
    }

    /// Topics that are not deleted, by name.
    pub fn live_topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// The replicas that a broker should run, also of deleted topics whose data is kept (they accept nothing, but
    /// must not be forgotten). Replicas that went with an earlier disk are not among them: they must never vote again.
    pub fn local_replicas(&self, broker: BrokerId) -> Vec<LocalReplica> {
        let mut found = Vec::new();
        for topic in self.topics.values() {
            for partition in &topic.partitions {
                for replica in partition.all_replicas().filter(|replica| replica.broker == broker) {
                    if !self.is_lost(replica) {
                        let (topic, partition) = (topic.clone(), partition.clone());
                        found.push(LocalReplica { topic, partition, replica });
                    }
                }
            }
        }
        found
    }

    /// True if the replica's data went with an earlier disk of its broker.
    pub fn is_lost(&self, replica: Replica) -> bool {
        self.brokers.get(&replica.broker).is_some_and(|broker| replica.id < broker.lost_below)
    }

    /// Whether a broker may remove the data of a replica that it finds in its directory (I11).
    ///
    /// Absence alone is no permission, an old image lacks what is newer than it: either the topic was purged by name,
    /// or the partition is known here, was changed after this replica was placed, and no longer lists it.
    pub fn may_remove(&self, topic: TopicId, group: RaftGroupId, replica: ReplicaId) -> bool {
        if self.purged.contains_key(&topic) {
            return true;
        }
        match self.groups.get(&group).and_then(|(id, index)| Some((id, self.partition(*id, *index)?))) {
            Some((id, partition)) => {
                *id == topic && replica < self.next_replica && partition.replica(replica).is_none()
            }
            None => mutant::on(Mutant::OrphanDeleted),
        }
    }

    /// Number of partitions of topics that are not deleted.
    pub fn partition_count(&self) -> usize {
        self.live_topics().map(|topic| topic.partitions.len()).sum()
    }

    /// True once the cluster's first command was applied.
    pub fn is_formed(&self) -> bool {
        !self.cluster_id.is_nil()
    }
}
