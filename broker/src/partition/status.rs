//! State of one replica as `describe`, health and metrics show it.

use wire::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, RaftGroupId, ReplicaId, TopicId};

use super::replica::Replica;
use crate::raft::{GroupStatus, Role};

/// State of one replica.
#[derive(Debug, Clone)]
pub struct ReplicaStatus {
    /// The topic.
    pub topic: TopicId,
    /// Its name when the replica was opened.
    pub topic_name: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Its Raft group.
    pub group: RaftGroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// What it is to its group; `None` if the group has stopped.
    pub role: Option<Role>,
    /// Who leads, as far as this replica knows.
    pub leader: Option<(ReplicaId, BrokerId)>,
    /// Epoch that it follows.
    pub leader_epoch: LeaderEpoch,
    /// First offset stored.
    pub log_start: Offset,
    /// First offset that is not readable.
    pub high_watermark: Offset,
    /// Bytes in segments.
    pub size_bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// On the leader: replicas in sync by its own view.
    pub in_sync: usize,
    /// Raft index of the last applied entry.
    pub applied_index: u64,
    /// Raft index of the last entry of the log.
    pub last_index: u64,
    /// Raft's full state.
    pub raft: Option<GroupStatus>,
    /// Why the group stopped, if it did.
    pub stopped: Option<String>,
}

impl Replica {
    /// State of this replica now.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let core = self.core();
        let raft = core.groups.status(core.group_id());
        let (size_bytes, segments) = {
            let inner = core.log.lock();
            (inner.log.size_bytes(), inner.log.segment_count())
        };
        ReplicaStatus {
            topic: core.topic,
            topic_name: core.topic_name.clone(),
            partition: core.partition,
            group: core.group_id(),
            replica: core.id,
            role: raft.as_ref().map(|raft| raft.role),
            leader: raft.as_ref().and_then(|raft| raft.leader),
            leader_epoch: core.epoch(),
            log_start: core.log.log_start(),
            high_watermark: core.log.high_watermark().get(),
            size_bytes,
            segments,
            in_sync: core.in_sync.load(std::sync::atomic::Ordering::Relaxed),
            applied_index: core.log.applied_index(),
            last_index: raft.as_ref().and_then(|raft| raft.last_index).unwrap_or(0),
            stopped: raft.as_ref().and_then(|raft| raft.running.clone().err()),
            raft,
        }
    }
}
