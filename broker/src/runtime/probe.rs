//! What a broker tells someone who watches it from inside: a simulation that checks invariants while it runs, and strikes
//! at chosen moments.
//!
//! Nobody listens in production, and nothing is built for nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use raft_store::{GroupReplica, LogPosition, Observer, Vote, WalEvent};
use wire::ids::MemberId;

/// Something that happened in a broker. Within one replica events come in the order of what they tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeEvent {
    /// Something in the write-ahead log.
    Wal(WalEvent),
    /// A replica answered a candidate that it has its vote.
    Voted {
        /// The voter.
        of: GroupReplica,
        /// The vote.
        vote: Vote,
    },
    /// A replica leads.
    Leads {
        /// The leader.
        of: GroupReplica,
        /// Its term.
        term: u64,
    },
    /// A partition's replica was opened from what its own files hold.
    Opened {
        /// The replica.
        of: GroupReplica,
        /// Last entry that they hold.
        applied: Option<LogPosition>,
        /// End of its partition log.
        end: u64,
    },
    /// A replica is not opened because its own files lack what they held: it must be rebuilt from its peers.
    Unfit {
        /// The replica.
        of: GroupReplica,
        /// What is lacking.
        reason: String,
    },
    /// A batch stands in a replica's partition log.
    Stored {
        /// The replica.
        of: GroupReplica,
        /// Its first offset.
        base: u64,
        /// The offset after it.
        next: u64,
        /// CRC-32C of its bytes.
        digest: u32,
        /// It was read back from files, not just appended.
        read_back: bool,
    },
    /// An entry was applied.
    Applied {
        /// The replica.
        of: GroupReplica,
        /// The entry.
        position: LogPosition,
        /// End of the partition log after it; 0 in the metadata group.
        end: u64,
    },
    /// A high watermark moved.
    Watermark {
        /// The replica.
        of: GroupReplica,
        /// Where it stands.
        to: u64,
    },
    /// A replica takes a snapshot of a peer in the place of its own files.
    Installing {
        /// The replica.
        of: GroupReplica,
        /// Last entry that the snapshot covers.
        upto: Option<LogPosition>,
    },
    /// The snapshot is in place.
    Installed {
        /// The replica.
        of: GroupReplica,
        /// Last entry that the snapshot covers.
        upto: Option<LogPosition>,
        /// End of the partition log; 0 in the metadata group.
        end: u64,
    },
    /// The metadata group found a snapshot among its files, which outlives the broker without any checkpoint.
    SnapshotFound {
        /// The replica.
        of: GroupReplica,
        /// Last entry that the snapshot covers.
        upto: LogPosition,
    },
    /// A leader begins to hand its leadership over.
    TransferBegun {
        /// The leader.
        of: GroupReplica,
        /// The replica that is to lead.
        to: u64,
    },
    /// The other replica leads, as the old leader hears.
    TransferDone {
        /// The old leader.
        of: GroupReplica,
        /// The new one.
        to: u64,
    },
    /// A leader knows which replicas are in sync.
    InSync {
        /// The leader.
        of: GroupReplica,
        /// Its term.
        term: u64,
        /// The replicas, itself among them.
        replicas: BTreeSet<u64>,
    },
    /// The coordinator of consumer groups heard of a member and tells it how long it may take itself for one.
    Leased {
        /// The member.
        member: MemberId,
        /// Counted from now.
        lease: Duration,
        /// Last entry of the metadata log that the coordinator knew.
        index: u64,
    },
    /// A member of a consumer group is expelled, as this broker applies it.
    Expelled {
        /// The member.
        member: MemberId,
        /// Entry of the metadata log that says so.
        index: u64,
    },
}

type Listener = dyn Fn(&ProbeEvent) + Send + Sync;

/// Who watches a broker; nobody by default. Cheap to clone.
///
/// The listener is called from the broker's tasks and threads. It must not call the broker.
#[derive(Clone, Default)]
pub struct Probe(Option<Arc<Listener>>);

impl Probe {
    /// A probe that hands every event to `listener`.
    pub fn new(listener: impl Fn(&ProbeEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// True if somebody listens.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of an event, which is made only if somebody listens.
    pub(crate) fn note(&self, event: impl FnOnce() -> ProbeEvent) {
        if let Some(listener) = &self.0 {
            listener(&event());
        }
    }

    /// The same for the write-ahead log.
    pub(crate) fn of_wal(&self) -> Observer {
        match self.0.clone() {
            Some(listener) => Observer::new(move |event| listener(&ProbeEvent::Wal(event.clone()))),
            None => Observer::default(),
        }
    }

    /// The same for one replica.
    pub(crate) fn of_replica(&self, group: u64, replica: u64) -> ReplicaProbe {
        ReplicaProbe { probe: self.clone(), of: GroupReplica { group, replica } }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.listens() { "Probe(listening)" } else { "Probe(nobody)" })
    }
}

/// A probe that knows which replica it speaks of. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaProbe {
    probe: Probe,
    of: GroupReplica,
}

impl ReplicaProbe {
    /// As [`Probe::listens`].
    pub(crate) fn listens(&self) -> bool {
        self.probe.listens()
    }

    /// As [`Probe::note`].
    pub(crate) fn note(&self, event: impl FnOnce(GroupReplica) -> ProbeEvent) {
        self.probe.note(|| event(self.of));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn an_event_is_made_only_for_a_listener() {
        Probe::default().of_replica(1, 2).note(|_| unreachable!("nobody listens"));
        let heard: Arc<Mutex<Vec<ProbeEvent>>> = Arc::default();
        let ear = heard.clone();
        let probe = Probe::new(move |event| ear.lock().unwrap().push(event.clone()));
        probe.of_replica(1, 2).note(|of| ProbeEvent::Leads { of, term: 3 });
        let of = GroupReplica { group: 1, replica: 2 };
        assert_eq!(*heard.lock().unwrap(), [ProbeEvent::Leads { of, term: 3 }]);
    }
}
