//! Commands about replicas, their leaders and who is in sync.

use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::MetadataState;
use crate::metadata::command::{CommandReply, IsrReport, LeaderReport};
use crate::metadata::error::MetaError;
use crate::metadata::image::{Partition, Replica};

impl MetadataState {
    pub(super) fn report_leaders(&mut self, reports: &[LeaderReport]) -> CommandReply {
        let mut accepted = 0;
        let mut stale = 0;
        for report in reports {
            if self.report_leader(report) { accepted += 1 } else { stale += 1 }
        }
        CommandReply::Reported { accepted, stale }
    }

    /// Raft decides who leads; a report only tells it. One of an older epoch comes late and changes nothing.
    fn report_leader(&mut self, report: &LeaderReport) -> bool {
        let Ok((_, partition)) = self.partition(report.group) else { return false };
        let newer = report.epoch > partition.leader_epoch;
        let again =
            report.epoch == partition.leader_epoch && partition.leader.is_none_or(|l| l == report.replica);
        if partition.replica(report.replica).is_none() || !(newer || again) {
            return false;
        }
        if partition.leader == Some(report.replica) && !newer {
            return true;
        }
        let Ok(partition) = self.partition_mut(report.group) else { return false };
        partition.leader = Some(report.replica);
        partition.leader_epoch = report.epoch;
        if !partition.isr.contains(&report.replica) {
            partition.isr.push(report.replica);
        }
        true
    }

    pub(super) fn report_isr(&mut self, reports: &[IsrReport]) -> CommandReply {
        let mut accepted = 0;
        let mut stale = 0;
        for report in reports {
            if self.report_one_isr(report) { accepted += 1 } else { stale += 1 }
        }
        CommandReply::Reported { accepted, stale }
    }

    fn report_one_isr(&mut self, report: &IsrReport) -> bool {
        let Ok((_, partition)) = self.partition(report.group) else { return false };
        if partition.leader != Some(report.leader) || partition.leader_epoch != report.epoch {
            return false;
        }
        let known = |id: &ReplicaId| partition.replica(*id).is_some();
        if !report.isr.contains(&report.leader) || !report.isr.iter().all(known) {
            return false;
        }
        let mut isr = report.isr.clone();
        isr.sort_unstable();
        isr.dedup();
        if isr != partition.isr
            && let Ok(partition) = self.partition_mut(report.group)
        {
            partition.isr = isr;
        }
        true
    }

    pub(super) fn replace_replica(
        &mut self,
        group: RaftGroupId,
        old: ReplicaId,
        to: BrokerId,
    ) -> Result<CommandReply, MetaError> {
        if !self.image.brokers.contains_key(&to) {
            return Err(MetaError::UnknownBroker { broker: to });
        }
        let (_, partition) = self.partition(group)?;
        // One that is on its way in may itself be lost or damaged: another one takes its part.
        let in_the_way = partition.adding.filter(|adding| adding.id != old && !self.image.is_lost(*adding));
        if let (Some(adding), Some(removing)) = (in_the_way, partition.removing) {
            if removing == old && adding.broker == to {
                return Ok(CommandReply::Replacing { new: adding.id });
            }
            let rule = format!("replica {removing} is being replaced by {}", adding.id);
            return Err(MetaError::ReplaceConflict { group, rule });
        }
        let old = match (partition.adding, partition.removing) {
            (Some(adding), Some(removing)) if adding.id == old => removing,
            _ => old,
        };
        let leaving = partition.replicas.iter().find(|replica| replica.id == old);
        let leaving = *leaving.ok_or(MetaError::UnknownReplica { group, replica: old })?;
        let taken = |replica: &&Replica| replica.broker == to && replica.id != leaving.id;
        if let Some(other) = partition.replicas.iter().find(taken) {
            let rule = format!("broker {to} carries replica {} already", other.id);
            return Err(MetaError::ReplaceConflict { group, rule });
        }
        let new = self.new_replica_id();
        let partition = self.partition_mut(group)?;
        partition.adding = Some(Replica { id: new, broker: to });
        partition.removing = Some(old);
        Ok(CommandReply::Replacing { new })
    }

    pub(super) fn complete_replace(
        &mut self,
        group: RaftGroupId,
        new: ReplicaId,
    ) -> Result<CommandReply, MetaError> {
        let (_, partition) = self.partition(group)?;
        if partition.adding.is_none() && partition.replicas.iter().any(|replica| replica.id == new) {
            return Ok(CommandReply::Done);
        }
        let partition = self.replacement_mut(group, new)?;
        let (Some(adding), Some(removing)) = (partition.adding.take(), partition.removing.take()) else {
            return Err(MetaError::UnknownReplica { group, replica: new });
        };
        for replica in partition.replicas.iter_mut().filter(|replica| replica.id == removing) {
            *replica = adding;
        }
        partition.isr.retain(|id| *id != removing);
        if partition.isr.is_empty() {
            partition.isr.push(adding.id);
        }
        for place in [&mut partition.preferred, &mut partition.initializer] {
            if *place == removing {
                *place = adding.id;
            }
        }
        if partition.leader == Some(removing) {
            partition.leader = None;
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn cancel_replace(
        &mut self,
        group: RaftGroupId,
        new: ReplicaId,
    ) -> Result<CommandReply, MetaError> {
        let partition = self.replacement_mut(group, new)?;
        partition.adding = None;
        partition.removing = None;
        partition.isr.retain(|id| *id != new);
        if partition.isr.is_empty() {
            partition.isr = partition.replicas.iter().map(|replica| replica.id).collect();
        }
        if partition.leader == Some(new) {
            partition.leader = None;
        }
        Ok(CommandReply::Done)
    }

    pub(super) fn set_initializer(
        &mut self,
        group: RaftGroupId,
        replica: ReplicaId,
    ) -> Result<CommandReply, MetaError> {
        let (_, partition) = self.partition(group)?;
        if !partition.initial_members.iter().any(|member| member.id == replica) {
            return Err(MetaError::UnknownReplica { group, replica });
        }
        if partition.initializer != replica {
            self.partition_mut(group)?.initializer = replica;
        }
        Ok(CommandReply::Done)
    }

    fn replacement_mut(&mut self, group: RaftGroupId, new: ReplicaId) -> Result<&mut Partition, MetaError> {
        let (_, partition) = self.partition(group)?;
        if partition.adding.is_none_or(|adding| adding.id != new) {
            return Err(MetaError::UnknownReplica { group, replica: new });
        }
        self.partition_mut(group)
    }
}
