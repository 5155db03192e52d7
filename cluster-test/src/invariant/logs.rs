//! The logs of all replicas as their brokers' write-ahead logs tell them: what can be read, and what would outlive a
//! power cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use broker::runtime::ProbeEvent;
use raft_store::{CheckpointMark, GroupReplica, LogPosition, RecoveredEntry, Vote, WalEvent};

use super::Sighting;

/// Voters of a membership: one set, or two while it is joint.
pub(super) type Voters = Vec<BTreeSet<u64>>;

/// An entry as one replica has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) digest: u32,
    /// When it was appended here.
    pub(super) at: Duration,
    /// Number of the append among all that this log was told to do.
    order: u64,
}

/// A durable entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Durable {
    pub(super) slot: Slot,
    /// The file of its newest place.
    pub(super) file: u64,
    /// The broker's write in which it became durable, about.
    pub(super) write: u64,
}

/// A truncation that is not known to be durable.
#[derive(Debug)]
struct Cut {
    order: u64,
    from: u64,
    entries: BTreeMap<u64, Slot>,
}

/// The log of one replica.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) broker: u32,
    /// What can be read.
    pub(super) memory: BTreeMap<u64, Slot>,
    /// What is durable. Entries stay here until no checkpoint needs them any more.
    pub(super) disk: BTreeMap<u64, Durable>,
    cuts: VecDeque<Cut>,
    orders: u64,
    pub(super) purged: Option<LogPosition>,
    /// What this replica has told others or made durable of its votes.
    pub(super) promised: Option<Vote>,
    pub(super) vote: Option<Vote>,
    /// Told to be committed, in this life.
    pub(super) committed: Option<LogPosition>,
    pub(super) committed_durable: Option<LogPosition>,
    /// Last entry that the replica's own files hold, as the newest durable checkpoint says.
    pub(super) mark: Option<LogPosition>,
    /// Last entry of the last snapshot of a peer.
    installed: Option<LogPosition>,
    pub(super) damaged: bool,
    pub(super) deleted: bool,
    /// It went with its disk.
    pub(super) lost: bool,
}

impl Log {
    /// True if the entry is on this replica's disk: in its log, behind a snapshot, or in its own files as a checkpoint says.
    pub(super) fn holds(&self, at: LogPosition) -> bool {
        let behind = self.purged.max(self.installed).max(self.mark);
        let covered = behind.is_some_and(|upto| upto.index >= at.index);
        covered || self.disk.get(&at.index).is_some_and(|durable| durable.slot.term == at.term)
    }

    /// True if the entry can be read on this replica, or was purged.
    pub(super) fn reads(&self, at: LogPosition) -> bool {
        self.purged.is_some_and(|purged| purged.index >= at.index)
            || self.memory.get(&at.index).is_some_and(|slot| slot.term == at.term)
    }

    /// Position of the last entry, or of the last purged one.
    pub(super) fn last(&self) -> Option<LogPosition> {
        let last = self.memory.last_key_value();
        last.map(|(index, slot)| LogPosition { term: slot.term, index: *index }).or(self.purged)
    }

    /// True if a truncation that may or may not be durable removed this index.
    pub(super) fn in_doubt(&self, index: u64) -> bool {
        self.cuts.iter().any(|cut| cut.from <= index)
    }

    /// True if a restart may find this entry.
    pub(super) fn may_find(&self, entry: &RecoveredEntry) -> bool {
        let RecoveredEntry { position: LogPosition { term, index }, digest, .. } = *entry;
        let same = |slot: &Slot| (slot.term, slot.digest) == (term, digest);
        self.memory.get(&index).is_some_and(same)
            || self.disk.get(&index).is_some_and(|durable| same(&durable.slot))
            || self.cuts.iter().any(|cut| cut.entries.get(&index).is_some_and(same))
    }

    fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    fn append(&mut self, at: Duration, position: LogPosition, digest: u32) {
        let order = self.next_order();
        self.memory.insert(position.index, Slot { term: position.term, digest, at, order });
    }

    fn truncate(&mut self, from: u64) {
        let (order, entries) = (self.next_order(), self.memory.split_off(&from));
        self.cuts.push_back(Cut { order, from, entries });
    }

    /// Truncations before this order are durable: the log is written in the order in which it was told.
    fn settle(&mut self, order: u64) {
        while self.cuts.front().is_some_and(|cut| cut.order < order) {
            self.settle_first();
        }
    }

    fn settle_first(&mut self) {
        if let Some(cut) = self.cuts.pop_front() {
            self.disk.split_off(&cut.from);
        }
    }

    fn make_durable(&mut self, position: LogPosition, durable: (u32, u64), write: u64) {
        let (digest, file) = durable;
        let same = |slot: &&Slot| (slot.term, slot.digest) == (position.term, digest);
        let known = self.memory.get(&position.index).filter(same).copied();
        // Truncated since it was submitted: it stands on the disk until the truncation does.
        let known = known.or_else(|| {
            self.cuts.iter().rev().find_map(|cut| cut.entries.get(&position.index).filter(same).copied())
        });
        let Some(slot) = known else { return };
        self.settle(slot.order);
        self.disk.insert(position.index, Durable { slot, file, write });
    }

    fn promise(&mut self, vote: Vote) {
        if self.promised.is_none_or(|known| known.leader_id.term <= vote.leader_id.term) {
            self.promised = Some(vote);
        }
    }
}

/// What is known of one broker.
#[derive(Debug, Default)]
pub(super) struct Broker {
    /// Writes that made something durable, about: those at one time count as one.
    pub(super) writes: u64,
    wrote_at: Duration,
    /// What the kept checkpoints say of purged entries, oldest first; at most two.
    pub(super) kept: VecDeque<BTreeMap<GroupReplica, Option<LogPosition>>>,
}

/// An entry that was told to be committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    pub(super) term: u64,
    /// Term of whoever told so first: that of the leader that committed it, or a later one.
    pub(super) in_term: u64,
}

/// One Raft group over all of its replicas.
#[derive(Debug, Default)]
pub(super) struct GroupLog {
    pub(super) committed: BTreeMap<u64, Committed>,
    /// Memberships, by index and term.
    pub(super) members: BTreeMap<(u64, u64), Voters>,
}

/// All logs.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub(super) logs: BTreeMap<GroupReplica, Log>,
    pub(super) brokers: BTreeMap<u32, Broker>,
    pub(super) groups: BTreeMap<u64, GroupLog>,
}

impl Logs {
    /// The log of a replica.
    pub(super) fn log(&self, of: GroupReplica) -> Option<&Log> {
        self.logs.get(&of)
    }

    /// The logs on one broker that are still there.
    pub(super) fn on(&self, broker: u32) -> impl Iterator<Item = (&GroupReplica, &Log)> {
        self.logs.iter().filter(move |(_, log)| log.broker == broker && !log.deleted && !log.lost)
    }

    pub(super) fn wiped(&mut self, broker: u32) {
        self.logs.values_mut().filter(|log| log.broker == broker).for_each(|log| log.lost = true);
        self.brokers.remove(&broker);
    }

    fn at(&mut self, of: GroupReplica, broker: u32) -> &mut Log {
        let log = self.logs.entry(of).or_default();
        log.broker = broker;
        log
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, seen: &Sighting<'_>) {
        let broker = seen.broker;
        match seen.event {
            ProbeEvent::Wal(event) => self.take_wal(seen, event),
            ProbeEvent::Voted { of, vote } => self.at(*of, broker).promise(*vote),
            ProbeEvent::Leads { of, term } => {
                let leader_id = raft_store::LeaderId { term: *term, voted_for: of.replica };
                self.at(*of, broker).promise(Vote { leader_id, committed: true });
            }
            ProbeEvent::Unfit { of, .. } => self.at(*of, broker).damaged = true,
            ProbeEvent::Installed { of, upto, .. } => {
                let log = self.at(*of, broker);
                log.installed = log.installed.max(*upto);
                log.committed = log.committed.max(*upto);
                if of.group == 0 {
                    // The metadata group's snapshots need no checkpoint to be found again.
                    log.mark = log.mark.max(*upto);
                }
            }
            ProbeEvent::SnapshotFound { of, upto } => {
                let log = self.at(*of, broker);
                log.mark = log.mark.max(Some(*upto));
            }
            _ => {}
        }
    }

    fn take_wal(&mut self, seen: &Sighting<'_>, event: &WalEvent) {
        let (broker, at) = (seen.broker, seen.at);
        match event {
            WalEvent::Recovered { .. } => self.recover(broker, event),
            WalEvent::Opened | WalEvent::FileReleased { .. } => {}
            WalEvent::Created { of } => {
                self.wrote(broker, at);
                *self.at(*of, broker) = Log { broker, ..Log::default() };
            }
            WalEvent::Deleted { of } => {
                let log = self.at(*of, broker);
                *log = Log { broker, deleted: true, ..Log::default() };
            }
            WalEvent::Vote { of, vote } => self.at(*of, broker).vote = Some(*vote),
            WalEvent::VoteDurable { of, vote } => {
                self.wrote(broker, at);
                self.at(*of, broker).promise(*vote);
            }
            WalEvent::Appended { of, position, digest, voters } => {
                if let Some(voters) = voters {
                    let group = self.groups.entry(of.group).or_default();
                    group.members.insert((position.index, position.term), voters.clone());
                }
                self.at(*of, broker).append(at, *position, *digest);
            }
            WalEvent::EntryDurable { of, position, digest, file, .. } => {
                let write = self.wrote(broker, at);
                self.at(*of, broker).make_durable(*position, (*digest, *file), write);
            }
            WalEvent::Truncated { of, from } => self.at(*of, broker).truncate(*from),
            WalEvent::TruncateDurable { of, from } => {
                self.wrote(broker, at);
                let log = self.at(*of, broker);
                if log.cuts.front().is_some_and(|cut| cut.from == *from) {
                    log.settle_first();
                }
            }
            WalEvent::Purged { of, upto } => {
                let log = self.at(*of, broker);
                log.memory = log.memory.split_off(&upto.index.saturating_add(1));
                log.purged = log.purged.max(Some(*upto));
            }
            WalEvent::Committed { of, upto } => self.commit(*of, *upto),
            WalEvent::CommittedDurable { of, upto } => {
                self.wrote(broker, at);
                self.at(*of, broker).committed_durable = Some(*upto);
            }
            WalEvent::Checkpoint { marks, .. } => self.checkpoint(broker, marks),
        }
    }

    fn wrote(&mut self, broker: u32, at: Duration) -> u64 {
        let broker = self.brokers.entry(broker).or_default();
        if broker.wrote_at != at {
            broker.wrote_at = at;
            broker.writes += 1;
        }
        broker.writes
    }

    fn recover(&mut self, broker: u32, event: &WalEvent) {
        let WalEvent::Recovered { of, vote, purged, committed, applied, damaged, entries } = event else {
            return;
        };
        let log = self.at(*of, broker);
        let slot = |entry: &RecoveredEntry| Slot {
            term: entry.position.term,
            digest: entry.digest,
            at: Duration::ZERO,
            order: 0,
        };
        let memory: BTreeMap<u64, Slot> =
            entries.iter().map(|entry| (entry.position.index, slot(entry))).collect();
        let durable = |entry: &RecoveredEntry| Durable { slot: slot(entry), file: entry.file, write: 0 };
        *log = Log {
            broker,
            memory,
            disk: entries.iter().map(|entry| (entry.position.index, durable(entry))).collect(),
            purged: *purged,
            promised: *vote,
            vote: *vote,
            committed: *committed,
            committed_durable: *committed,
            mark: *applied,
            damaged: *damaged,
            ..Log::default()
        };
    }

    fn commit(&mut self, of: GroupReplica, upto: LogPosition) {
        let Some(log) = self.logs.get_mut(&of) else { return };
        log.committed = log.committed.max(Some(upto));
        let in_term = log.vote.map_or(0, |vote| vote.leader_id.term);
        let group = self.groups.entry(of.group).or_default();
        let known = group.committed.last_key_value().map_or(0, |(index, _)| index + 1);
        if known <= upto.index {
            for (index, slot) in log.memory.range(known..=upto.index) {
                group.committed.insert(*index, Committed { term: slot.term, in_term });
            }
        }
    }

    fn checkpoint(&mut self, broker: u32, marks: &[CheckpointMark]) {
        for mark in marks {
            let log = self.at(mark.of, broker);
            log.mark = log.mark.max(mark.applied);
        }
        let kept = &mut self.brokers.entry(broker).or_default().kept;
        kept.push_back(marks.iter().map(|mark| (mark.of, mark.purged)).collect());
        while kept.len() > 2 {
            kept.pop_front();
        }
        let Some(oldest) = kept.front().filter(|_| kept.len() == 2).cloned() else { return };
        for (of, purged) in oldest {
            if let (Some(log), Some(purged)) = (self.logs.get_mut(&of), purged) {
                log.disk = log.disk.split_off(&purged.index.saturating_add(1));
            }
        }
    }
}
