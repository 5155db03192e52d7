//! What the metadata group is asked to do, and what it answers.
//!
//! Variants and fields are only ever appended: their order is the stored format, kept by golden bytes in the tests.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::ids::{BrokerId, GroupId, LeaderEpoch, ProducerId, RaftGroupId, ReplicaId, TopicId};

use super::error::MetaError;
use super::topic_config::{TopicConfig, TopicSetting};
use crate::group::{GroupCommand, GroupReply};

/// What a broker says of itself when it joins or comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistration {
    /// `node.id`.
    pub id: BrokerId,
    /// Its data directory.
    pub incarnation: Uuid,
    /// Its id in the metadata group.
    pub metadata_replica: ReplicaId,
    /// Address for gRPC clients.
    pub grpc: String,
    /// Address for HTTP clients.
    pub http: String,
    /// Address for other brokers.
    pub peer: String,
    /// Failure domain; empty = none.
    pub rack: String,
    /// Version of the software.
    pub version: String,
}

/// A new topic, with everything settled but where its replicas go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Identity, drawn by the proposer: a retry carries the same one and finds its own topic.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication_factor: u32,
    /// Settings, defaults of the proposing broker filled in.
    pub config: TopicConfig,
    /// Canonical names of the settings that were given.
    pub overridden: BTreeSet<String>,
    /// The proposer's wall clock. Unit: ms since 1970.
    pub time_ms: i64,
}

/// A replica leads its partition since an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderReport {
    /// The partition's group.
    pub group: RaftGroupId,
    /// The leader.
    pub replica: ReplicaId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
}

/// The replicas in sync as a leader sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrReport {
    /// The partition's group.
    pub group: RaftGroupId,
    /// The leader that saw it.
    pub leader: ReplicaId,
    /// Its epoch; a report of an older one is stale.
    pub epoch: LeaderEpoch,
    /// Replicas in sync, with the leader.
    pub isr: Vec<ReplicaId>,
}

/// One change of the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First command of a cluster: its identity.
    FormCluster {
        /// The cluster.
        cluster_id: Uuid,
        /// Its name.
        name: String,
    },
    /// A broker joins, or comes back with new addresses or a new disk.
    RegisterBroker {
        /// What it says of itself.
        broker: BrokerRegistration,
        /// The proposer's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// A broker is believed dead: it leaves the ISR and leads nothing.
    FenceBroker {
        /// The broker.
        broker: BrokerId,
        /// The disk that was seen dead; a later one is not fenced by this.
        incarnation: Uuid,
        /// The proposer's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// A broker is back.
    UnfenceBroker {
        /// The broker.
        broker: BrokerId,
        /// The disk that was seen alive.
        incarnation: Uuid,
        /// The proposer's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// A broker shall (not) get new replicas.
    SetDraining {
        /// The broker.
        broker: BrokerId,
        /// True = drain.
        draining: bool,
        /// The proposer's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// Creates a topic.
    CreateTopic(CreateTopic),
    /// Deletes a topic; its data stays until it is purged.
    DeleteTopic {
        /// The topic.
        id: TopicId,
        /// The proposer's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// Removes the data of a deleted topic for good.
    PurgeTopic {
        /// The topic.
        id: TopicId,
    },
    /// Changes settings of a topic.
    AlterTopic {
        /// The topic.
        id: TopicId,
        /// Settings to put in place.
        set: Vec<TopicSetting>,
        /// Settings that go back to their default, with that default.
        reset: Vec<TopicSetting>,
    },
    /// Grows a topic.
    AddPartitions {
        /// The topic.
        id: TopicId,
        /// How many it shall have.
        total: u32,
    },
    /// Who leads which partitions.
    ReportLeaders(Vec<LeaderReport>),
    /// Who is in sync in which partitions.
    ReportIsr(Vec<IsrReport>),
    /// Begins to replace a replica by a fresh one.
    ReplaceReplica {
        /// The partition's group.
        group: RaftGroupId,
        /// The replica to go.
        old: ReplicaId,
        /// Where the fresh one goes; may be the same broker.
        to: BrokerId,
    },
    /// The membership change is committed in the partition's group: the old replica is gone.
    CompleteReplace {
        /// The partition's group.
        group: RaftGroupId,
        /// The fresh replica.
        new: ReplicaId,
    },
    /// Gives a replacement up; the fresh replica is not used any more.
    CancelReplace {
        /// The partition's group.
        group: RaftGroupId,
        /// The fresh replica.
        new: ReplicaId,
    },
    /// Names another replica to initialise a group whose first choice is down.
    SetInitializer {
        /// The partition's group.
        group: RaftGroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// Hands out producer ids, never to be given again.
    AllocateProducerIds {
        /// How many.
        count: u32,
    },
    /// Changes a consumer group.
    Group {
        /// The group.
        id: GroupId,
        /// The change.
        command: GroupCommand,
    },
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandReply {
    /// It is done, and there is nothing to tell.
    Done,
    /// The topic stands in the image from this entry on.
    TopicCreated {
        /// The topic.
        id: TopicId,
        /// What the user should know.
        warnings: Vec<String>,
    },
    /// Reports taken and reports that were stale.
    Reported {
        /// Taken, or nothing new.
        accepted: u32,
        /// Of an older epoch or an unknown replica.
        stale: u32,
    },
    /// The fresh replica of a replacement.
    Replacing {
        /// Its id.
        new: ReplicaId,
    },
    /// Producer ids.
    ProducerIds {
        /// The first.
        first: ProducerId,
        /// How many, one after the other.
        count: u32,
    },
    /// What a change of a consumer group did.
    Group(GroupReply),
}

/// What one Raft entry of commands did: one result for each command, in order, and the index of the entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Replies {
    /// Raft index of the entry; an image of this version shows what it did.
    pub index: u64,
    /// One result for each command.
    pub results: Vec<Result<CommandReply, MetaError>>,
}

impl fmt::Display for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.results.iter().filter(|result| result.is_err()).count();
        write!(f, "entry {}: {} commands, {failed} refused", self.index, self.results.len())
    }
}

impl Command {
    /// True if proposing the command a second time, after an attempt of unknown outcome, ends in the same state.
    ///
    /// A setting is not such a command: somebody else may have changed it between the two attempts.
    pub fn is_retry_safe(&self) -> bool {
        match self {
            Self::AlterTopic { .. } | Self::SetDraining { .. } => false,
            Self::Group { command, .. } => command.is_retry_safe(),
            _ => true,
        }
    }
}
