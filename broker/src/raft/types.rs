//! The Raft types of this broker: one configuration per kind of group, all with the same ids, entries and runtime.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::sync::Arc;

use disk::mutant::{self, Mutant};
use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder};
use openraft::{Config, ConfigError, RaftTypeConfig, SnapshotPolicy};
use raft_store::{BrokerRef, CommittedLeaderId, Entry, EntryData, LeaderId, Vote};

use crate::runtime::RaftRuntime;

/// A kind of Raft group: what its state machine answers to a proposer.
pub trait GroupKind: Copy + Clone + Default + Debug + Eq + Ord + Send + Sync + 'static {
    /// Answer of `apply` to the proposer of an entry.
    type Reply: Debug + Display + Send + Sync + 'static;
}

/// openraft's type configuration of the groups of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types<K>(PhantomData<K>);

impl<K: GroupKind> RaftTypeConfig for Types<K> {
    type D = EntryData;
    type R = K::Reply;
    type NodeId = u64;
    type Node = BrokerRef;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = RaftRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// A running Raft group of kind `K` with the state machine `SM`.
pub type Group<K, SM> = openraft::Raft<Types<K>, SM>;

/// What an entry carries.
pub type Payload = openraft::EntryPayload<EntryData, u64, BrokerRef>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, BrokerRef>;

/// Timing and limits of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The metadata group: it ticks, so that it elects and beats by itself.
    Metadata,
    /// A partition group: no ticks, thousands of idle groups cost nothing; liveness is decided per broker.
    Partition,
}

impl Profile {
    /// The longest time for which a voter protects a leader that it heard of; also the leader's lease. Unit: ms.
    #[must_use]
    pub const fn lease_ms(self) -> u64 {
        match self {
            Self::Metadata => 3_000,
            Self::Partition => 4_000,
        }
    }

    /// openraft's configuration.
    ///
    /// # Errors
    /// If openraft refuses the numbers, which a test rules out.
    pub(crate) fn config(self) -> Result<Arc<Config>, ConfigError> {
        let shared = Config {
            cluster_name: "altair".to_owned(),
            // An RPC carries at most this many entries; the log store bounds it in bytes.
            max_payload_entries: 4096,
            snapshot_policy: SnapshotPolicy::Never,
            // openraft never purges by itself: it knows neither the checkpoint nor what a lagging voter still needs.
            max_in_snapshot_log_to_keep: u64::MAX,
            api_channel_size: Some(1024),
            notification_channel_size: Some(4096),
            state_machine_channel_size: Some(1024),
            enable_pre_vote: Some(true),
            // I9: a restarted leader stands for election like everybody else.
            enable_leader_restore: Some(mutant::on(Mutant::ResumeAsLeader)),
            backoff: "20ms 40ms 80ms ...1s".to_owned(),
            ..Config::default()
        };
        let config = match self {
            Self::Metadata => Config {
                heartbeat_interval: 250,
                election_timeout_min: 1_500,
                election_timeout_max: self.lease_ms(),
                // A leader that lost its quorum falls silent for as long as the others need to elect (CheckQuorum).
                quorum_loss_probe_interval: Some(8_000),
                ..shared
            },
            Self::Partition => Config {
                // Also the time to live of an RPC.
                heartbeat_interval: 1_000,
                election_timeout_min: 2_000,
                election_timeout_max: self.lease_ms(),
                enable_tick: false,
                ..shared
            },
        };
        config.validate().map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::Profile;

    #[test]
    fn openraft_accepts_both_profiles() {
        assert!(Profile::Metadata.config().unwrap().enable_tick);
        assert!(!Profile::Partition.config().unwrap().enable_tick);
    }

    #[test]
    fn no_group_purges_its_log_because_a_snapshot_was_built() {
        for profile in [Profile::Metadata, Profile::Partition] {
            assert_eq!(profile.config().unwrap().max_in_snapshot_log_to_keep, u64::MAX);
        }
    }
}
