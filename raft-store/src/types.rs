//! The types that Raft groups of this broker share: what an entry carries, who its nodes are, what openraft is told.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use tokio::sync::oneshot;

/// A replica of one Raft group: unique in the cluster and never used again (I4). It is openraft's node id.
pub type ReplicaId = u64;

/// openraft's id of a leader: one leader a term.
pub type LeaderId = leader_id_std::LeaderId<u64, u64>;

/// The part of a leader id that a log id keeps: the term.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;

/// openraft's log id.
pub type LogId = openraft::LogId<CommittedLeaderId>;

/// A vote of a replica.
pub type Vote = openraft::impls::Vote<LeaderId>;

/// Members of a group.
pub type Membership = openraft::Membership<u64, BrokerRef>;

/// Members of a group with the log id of the entry that set them.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, BrokerRef>;

/// What an entry carries.
pub type Payload = openraft::EntryPayload<EntryData, u64, BrokerRef>;

/// One entry of a Raft log.
pub type Entry = openraft::Entry<CommittedLeaderId, Payload>;

/// Where a replica lives; openraft's `Node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerRef {
    /// Number of the broker (`node.id`).
    pub broker: u32,
}

impl fmt::Display for BrokerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {}", self.broker)
    }
}

/// Term and index of an entry: openraft's log id without its wrappers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Raft index.
    pub index: u64,
}

impl LogPosition {
    /// Position of a log id.
    #[must_use]
    pub fn of(log_id: &LogId) -> Self {
        Self { term: log_id.leader_id.term, index: log_id.index }
    }

    /// The log id at this position.
    #[must_use]
    pub fn log_id(self) -> LogId {
        LogId::new(LeaderId { term: self.term, voted_for: 0 }.to_committed(), self.index)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// What an entry of a state machine carries: bytes that are encoded once, at the proposer, and never again.
#[derive(Clone, Default)]
pub struct EntryData {
    /// The encoded command or record batches.
    pub body: Bytes,
    /// Fired when the proposer's own log has the entry on disk. It is not part of the entry: it is never encoded,
    /// and an entry that was read back or replicated has none.
    pub durable: Option<Arc<DurableToken>>,
}

impl EntryData {
    /// An entry without a token.
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        Self { body, durable: None }
    }

    /// An entry whose local durability is told to `token`'s receiver.
    #[must_use]
    pub fn with_token(body: Bytes, token: Arc<DurableToken>) -> Self {
        Self { body, durable: Some(token) }
    }
}

impl PartialEq for EntryData {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body
    }
}

impl Eq for EntryData {}

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryData").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.body.len())
    }
}

/// Tells one waiter that the leader's own log has an entry on disk (`acks=leader`).
///
/// The token travels with the entry from the proposer to the log store of the same process. The WAL fires it after the
/// `fdatasync` that covers the entry; if the entry is never written, the receiver sees a closed channel.
pub struct DurableToken {
    sender: Mutex<Option<oneshot::Sender<LogPosition>>>,
}

impl DurableToken {
    /// A token and the receiver that learns the position of the durable entry.
    #[must_use]
    pub fn new() -> (Arc<Self>, oneshot::Receiver<LogPosition>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Self { sender: Mutex::new(Some(sender)) }), receiver)
    }

    /// Fires the token; only the first call has an effect. The WAL calls it.
    pub fn fire(&self, position: LogPosition) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // The waiter may have gone: that is its business.
            let _ = sender.send(position);
        }
    }
}

impl fmt::Debug for DurableToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableToken")
    }
}

/// The openraft type configurations that this crate stores: ours but for the reply, the responder and the runtime.
pub trait StoreConfig:
    RaftTypeConfig<
        D = EntryData,
        NodeId = u64,
        Node = BrokerRef,
        Term = u64,
        LeaderId = LeaderId,
        Vote = Vote,
        Payload = Payload,
        Entry = Entry,
    >
{
}

impl<C> StoreConfig for C where
    C: RaftTypeConfig<
            D = EntryData,
            NodeId = u64,
            Node = BrokerRef,
            Term = u64,
            LeaderId = LeaderId,
            Vote = Vote,
            Payload = Payload,
            Entry = Entry,
        >
{
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_fires_once_and_tells_the_position() {
        let (token, mut receiver) = DurableToken::new();
        token.fire(LogPosition { term: 3, index: 7 });
        token.fire(LogPosition { term: 4, index: 8 });
        assert_eq!(receiver.try_recv(), Ok(LogPosition { term: 3, index: 7 }));
    }

    #[test]
    fn dropped_token_closes_its_receiver() {
        let (token, mut receiver) = DurableToken::new();
        drop(token);
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn log_position_round_trips_through_openraft() {
        let position = LogPosition { term: 9, index: 4 };
        assert_eq!(LogPosition::of(&position.log_id()), position);
    }
}
