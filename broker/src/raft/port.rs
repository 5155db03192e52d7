//! A group as the transport and the elections see it, whatever its kind and state machine.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use raft_store::Vote;
use tokio::sync::mpsc;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::snapshot::RangePuller;
use super::status::GroupStatus;
use super::transport::message::{Append, AppendRefusal, Offer, Transfer, VoteAsk, VoteTell};

/// Requests that may wait in a group's append stream: far above the window of one leader.
pub(crate) const APPEND_QUEUE: usize = 256;

/// What the elections look at, taken from openraft's metrics without waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) me: ReplicaId,
    pub(crate) term: u64,
    pub(crate) leader: Option<(ReplicaId, BrokerId)>,
    pub(crate) leading: bool,
    /// It leads, but only waits for a successor that does not come.
    pub(crate) stuck: bool,
    /// Members of the effective membership, true for voters.
    pub(crate) members: Vec<(ReplicaId, BrokerId, bool)>,
    pub(crate) last_index: Option<u64>,
    /// Why the group stopped, if it did.
    pub(crate) fatal: Option<String>,
}

impl Brief {
    pub(crate) fn voters(&self) -> impl Iterator<Item = (ReplicaId, BrokerId)> + '_ {
        self.members.iter().filter(|(_, _, votes)| *votes).map(|(replica, broker, _)| (*replica, *broker))
    }
}

/// A follower's end of one leader's pipelined appends.
pub(crate) struct AppendSession {
    /// Requests in order.
    pub(crate) requests: mpsc::Sender<Append>,
    /// Answers in the same order; the stream ends after the first refusal.
    pub(crate) answers: BoxStream<'static, Result<Result<(), AppendRefusal>, String>>,
}

/// One Raft group of this broker.
pub(crate) trait GroupPort: Send + Sync {
    fn brief(&self) -> Brief;
    /// This broker's replica.
    fn me(&self) -> u64;
    fn status(&self) -> GroupStatus;
    fn vote(&self, ask: VoteAsk, pre: bool) -> BoxFuture<'static, Result<VoteTell, String>>;
    fn append_once(&self, append: Append) -> BoxFuture<'static, Result<Result<(), AppendRefusal>, String>>;
    fn append_session(&self) -> AppendSession;
    /// True if this replica stands for election now.
    fn take_over(&self, transfer: Transfer) -> BoxFuture<'static, Result<bool, String>>;
    fn receive_snapshot(
        &self,
        from: BrokerId,
        offer: Offer,
        pull: RangePuller,
    ) -> BoxFuture<'static, Result<Vote, String>>;
    fn read_range(&self, request: Bytes) -> BoxFuture<'static, std::io::Result<Bytes>>;
    /// Stands for election; with `pre` only if a majority would grant it.
    fn elect(&self, pre: bool) -> BoxFuture<'static, ()>;
    /// Sends a heartbeat to every member at once.
    fn beat(&self) -> BoxFuture<'static, ()>;
    /// Retries replication to these members at once.
    fn reset_backoff(&self, members: Vec<u64>) -> BoxFuture<'static, ()>;
    /// Begins to hand leadership over.
    fn hand_over(&self, to: ReplicaId) -> BoxFuture<'static, ()>;
    /// Gives the vote of the next term to the successor that it was handed over to, and by that leads no longer.
    fn step_down(&self) -> BoxFuture<'static, ()>;
    /// Waits until the metrics change; false if the group stopped.
    fn changed(&self) -> BoxFuture<'static, bool>;
    /// On a follower: time since its leader spoke, or since this replica opened or voted if that is less.
    fn leader_silence(&self) -> BoxFuture<'static, Duration>;
    /// Milliseconds since a quorum last acknowledged this leader.
    fn quorum_age_ms(&self) -> Option<u64>;
    /// What asks a replica to take over from this leader; `None` if this replica does not lead.
    fn transfer_request(&self, to: ReplicaId) -> Option<Transfer>;
    /// Stops the group.
    fn stop(&self) -> BoxFuture<'static, ()>;
}

/// The groups of this broker by number.
#[derive(Default)]
pub(crate) struct Ports(RwLock<BTreeMap<u64, Arc<dyn GroupPort>>>);

impl Ports {
    pub(crate) fn get(&self, group: u64) -> Option<Arc<dyn GroupPort>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    /// Adds a group; false if its number is taken.
    pub(crate) fn insert(&self, group: u64, port: Arc<dyn GroupPort>) -> bool {
        let mut ports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ports.contains_key(&group) {
            return false;
        }
        ports.insert(group, port);
        true
    }

    pub(crate) fn remove(&self, group: u64) -> Option<Arc<dyn GroupPort>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&group)
    }

    pub(crate) fn all(&self) -> Vec<(u64, Arc<dyn GroupPort>)> {
        let ports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ports.iter().map(|(group, port)| (*group, port.clone())).collect()
    }

    pub(crate) fn ids(&self) -> Vec<RaftGroupId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().map(|id| RaftGroupId(*id)).collect()
    }
}
