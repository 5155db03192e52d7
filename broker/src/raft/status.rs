//! openraft's metrics in our words.

use std::collections::BTreeMap;

use wire::ids::{BrokerId, ReplicaId};

/// What a replica is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Receives entries, does not vote.
    Learner,
    /// Receives entries and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped.
    Stopped,
}

/// A member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its replica id.
    pub replica: ReplicaId,
    /// Where it lives.
    pub broker: BrokerId,
    /// False for a learner.
    pub votes: bool,
}

/// State of one group as this replica knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// This replica.
    pub replica: ReplicaId,
    /// What it is.
    pub role: Role,
    /// Raft's term.
    pub term: u64,
    /// Who leads in this term, as far as known.
    pub leader: Option<(ReplicaId, BrokerId)>,
    /// Last entry of the log.
    pub last_index: Option<u64>,
    /// Last entry known to be committed.
    pub committed: Option<u64>,
    /// Last entry applied.
    pub applied: Option<u64>,
    /// Last entry covered by a snapshot.
    pub snapshot: Option<u64>,
    /// Last entry removed from the log.
    pub purged: Option<u64>,
    /// All members.
    pub members: Vec<Member>,
    /// True while a membership change is under way: the configuration is joint, or its entry is not yet committed.
    pub changing: bool,
    /// Raft index of the entry that set the membership.
    pub membership_index: Option<u64>,
    /// `Err` holds the reason for which the group stopped.
    pub running: Result<(), String>,
    /// On the leader: the last entry that each other member is known to have.
    pub matched: BTreeMap<ReplicaId, Option<u64>>,
    /// On the leader: time since a quorum last acknowledged it. Unit: ms.
    pub quorum_age_ms: Option<u64>,
}

impl GroupStatus {
    /// True if this replica leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}
