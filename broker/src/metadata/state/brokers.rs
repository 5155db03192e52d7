//! Commands about the cluster and its brokers.

use std::sync::Arc;

use disk::mutant::{self, Mutant};
use uuid::Uuid;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::{Entity, FEATURE_LEVEL, MetadataState};
use crate::metadata::command::{BrokerRegistration, CommandReply};
use crate::metadata::error::MetaError;
use crate::metadata::image::BrokerEntry;

impl MetadataState {
    pub(super) fn form(&mut self, cluster_id: Uuid, name: &str) -> Result<CommandReply, MetaError> {
        if cluster_id.is_nil() {
            return Err(MetaError::WrongCluster { actual: self.image.cluster_id, given: cluster_id });
        }
        if self.image.is_formed() && self.image.cluster_id != cluster_id {
            return Err(MetaError::WrongCluster { actual: self.image.cluster_id, given: cluster_id });
        }
        if !self.image.is_formed() {
            self.image.cluster_id = cluster_id;
            self.image.cluster_name = name.to_owned();
            self.image.feature_level = FEATURE_LEVEL;
            self.dirty.insert(Entity::Cluster);
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn register(
        &mut self,
        broker: &BrokerRegistration,
        time_ms: i64,
    ) -> Result<CommandReply, MetaError> {
        let known = self.image.brokers.get(&broker.id);
        let reused = mutant::on(Mutant::ReplicaIdReused);
        let same_disk = known.is_some_and(|known| known.incarnation == broker.incarnation || reused);
        if let Some(known) = known.filter(|known| !known.fenced && !same_disk) {
            return Err(MetaError::DuplicateBroker { broker: broker.id, peer: known.peer.clone() });
        }
        let lost_below = match known {
            // A disk that is gone takes all replicas with it that were placed on it.
            Some(_) if !same_disk => self.image.next_replica,
            Some(known) => known.lost_below,
            None => ReplicaId(0),
        };
        let was_alive = known.is_some_and(|known| !known.fenced);
        let entry = BrokerEntry {
            id: broker.id,
            incarnation: broker.incarnation,
            metadata_replica: broker.metadata_replica,
            grpc: broker.grpc.clone(),
            http: broker.http.clone(),
            peer: broker.peer.clone(),
            rack: broker.rack.clone(),
            version: broker.version.clone(),
            fenced: false,
            draining: known.is_some_and(|known| known.draining && same_disk),
            since_ms: known.filter(|_| was_alive).map_or(time_ms, |known| known.since_ms),
            lost_below,
        };
        if known.is_none_or(|known| **known != entry) {
            self.image.brokers.insert(broker.id, Arc::new(entry));
            self.dirty.insert(Entity::Broker(broker.id));
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn fence(
        &mut self,
        broker: BrokerId,
        incarnation: Uuid,
        fenced: bool,
        time_ms: i64,
    ) -> Result<CommandReply, MetaError> {
        let entry = self.image.brokers.get_mut(&broker).ok_or(MetaError::UnknownBroker { broker })?;
        if entry.incarnation != incarnation {
            return Err(MetaError::StaleIncarnation { broker });
        }
        if entry.fenced != fenced {
            let entry = Arc::make_mut(entry);
            entry.fenced = fenced;
            entry.since_ms = time_ms;
            self.dirty.insert(Entity::Broker(broker));
            if fenced {
                self.retire_replicas_on(broker);
            }
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn set_draining(
        &mut self,
        broker: BrokerId,
        draining: bool,
        time_ms: i64,
    ) -> Result<CommandReply, MetaError> {
        let entry = self.image.brokers.get_mut(&broker).ok_or(MetaError::UnknownBroker { broker })?;
        if entry.draining != draining {
            let entry = Arc::make_mut(entry);
            entry.draining = draining;
            entry.since_ms = time_ms;
            self.dirty.insert(Entity::Broker(broker));
        }
        Ok(CommandReply::Done)
    }

    /// A dead broker's replicas leave the ISR and lead nothing; the last one of an ISR stays, so that people see who
    /// has the data.
    fn retire_replicas_on(&mut self, broker: BrokerId) {
        let touched = |partition: &crate::metadata::image::Partition| {
            partition.replicas.iter().any(|replica| replica.broker == broker)
        };
        let groups: Vec<RaftGroupId> = self
            .image
            .topics
            .values()
            .flat_map(|topic| &topic.partitions)
            .filter(|partition| touched(partition))
            .map(|partition| partition.group)
            .collect();
        for group in groups {
            let Ok(partition) = self.partition_mut(group) else { continue };
            let here: Vec<ReplicaId> =
                partition.all_replicas().filter(|r| r.broker == broker).map(|r| r.id).collect();
            let left: Vec<ReplicaId> =
                partition.isr.iter().copied().filter(|id| !here.contains(id)).collect();
            if !left.is_empty() {
                partition.isr = left;
            }
            if partition.leader.is_some_and(|leader| here.contains(&leader)) {
                partition.leader = None;
            }
        }
    }
}
