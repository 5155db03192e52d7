//! Short stories of events for the tests of single invariants: group 1, replica N on broker N unless said otherwise.

use std::time::Duration;

use broker::runtime::ProbeEvent;
use raft_store::{CheckpointMark, GroupReplica, LeaderId, LogPosition, RecoveredEntry, Vote, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

/// One invariant and the logs that it looks at.
pub(super) struct Story {
    logs: Logs,
    invariant: Box<dyn Invariant>,
    life: u64,
    at: Duration,
    sound: bool,
}

/// A replica with its applied and its purged position, each as term and index.
type Mark = (u64, (u64, u64), Option<(u64, u64)>);

pub(super) fn at((term, index): (u64, u64)) -> LogPosition {
    LogPosition { term, index }
}

pub(super) fn vote(term: u64, voted_for: u64, committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for }, committed }
}

/// A restart that finds these entries: term, index and digest.
pub(super) fn recovered(replica: u64, vote: Option<Vote>, entries: &[(u64, u64, u32)]) -> ProbeEvent {
    let found = |(term, index, digest): &(u64, u64, u32)| RecoveredEntry {
        position: at((*term, *index)),
        digest: *digest,
        file: Story::FILE,
    };
    ProbeEvent::Wal(WalEvent::Recovered {
        of: Story::replica(replica),
        vote,
        purged: None,
        committed: None,
        applied: None,
        damaged: false,
        entries: entries.iter().map(found).collect(),
    })
}

impl Story {
    /// The WAL file in which every entry stands.
    pub(super) const FILE: u64 = 4;

    pub(super) fn of(invariant: impl Invariant + 'static) -> Self {
        let invariant = Box::new(invariant);
        Self { logs: Logs::default(), invariant, life: 1, at: Duration::ZERO, sound: true }
    }

    pub(super) fn replica(replica: u64) -> GroupReplica {
        GroupReplica { group: 1, replica }
    }

    pub(super) fn appended(replica: u64, position: (u64, u64), digest: u32) -> ProbeEvent {
        let (of, position) = (Self::replica(replica), at(position));
        ProbeEvent::Wal(WalEvent::Appended { of, position, digest, voters: None })
    }

    pub(super) fn members(replica: u64, position: (u64, u64), voters: &[u64]) -> ProbeEvent {
        let (of, position) = (Self::replica(replica), at(position));
        let voters = Some(vec![voters.iter().copied().collect()]);
        ProbeEvent::Wal(WalEvent::Appended { of, position, digest: 1, voters })
    }

    pub(super) fn durable(replica: u64, position: (u64, u64), digest: u32) -> ProbeEvent {
        let (of, position) = (Self::replica(replica), at(position));
        ProbeEvent::Wal(WalEvent::EntryDurable { of, position, digest, file: Self::FILE, relocated: false })
    }

    pub(super) fn committed(replica: u64, upto: (u64, u64)) -> ProbeEvent {
        ProbeEvent::Wal(WalEvent::Committed { of: Self::replica(replica), upto: at(upto) })
    }

    pub(super) fn applied(replica: u64, position: (u64, u64), end: u64) -> ProbeEvent {
        ProbeEvent::Applied { of: Self::replica(replica), position: at(position), end }
    }

    /// A checkpoint that says this of replicas.
    pub(super) fn checkpoint(marks: &[Mark]) -> ProbeEvent {
        let mark = |(replica, applied, purged): &Mark| CheckpointMark {
            of: Self::replica(*replica),
            vote: None,
            purged: purged.map(at),
            applied: Some(at(*applied)),
        };
        ProbeEvent::Wal(WalEvent::Checkpoint { id: 1, marks: marks.iter().map(mark).collect() })
    }

    pub(super) fn restart(&mut self) {
        self.life += 1;
    }

    pub(super) fn rot(&mut self) {
        self.sound = false;
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.at += time;
    }

    pub(super) fn wiped(&mut self, broker: u32) {
        self.logs.wiped(broker);
    }

    fn see(&mut self, broker: u32, event: &ProbeEvent) -> Result<(), String> {
        self.at += Duration::from_micros(1);
        let seen = Sighting { broker, life: self.life, at: self.at, sound: self.sound, event };
        let judged = self.invariant.see(&self.logs, &seen);
        self.logs.take(&seen);
        judged
    }

    pub(super) fn holds(&mut self, broker: u32, event: ProbeEvent) {
        assert_eq!(self.see(broker, &event), Ok(()), "{event:?}");
    }

    pub(super) fn breaks(&mut self, broker: u32, event: ProbeEvent, reason: &str) {
        let told = self.see(broker, &event).expect_err("it breaks the invariant");
        assert!(told.contains(reason), "{told}");
    }
}
