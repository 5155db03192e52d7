//! One group's log in memory: where each entry stands in the WAL, and the entries themselves while there is room.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use uuid::Uuid;

use crate::checkpoint::GroupMark;
use crate::entry;
use crate::observe::{GroupReplica, RecoveredEntry, WalEvent};
use crate::types::{LogPosition, Payload, Vote};

/// Bookkeeping bytes that an entry in memory costs besides its body; they count against the tail cache.
const SLOT_COST: u64 = 64;

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: u64,
    pub(crate) offset: u64,
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    /// Number of the append, unique while the process lives: an entry that was truncated and written again at the same
    /// index is another entry.
    pub(crate) ticket: u64,
    /// `None` until the entry is on disk.
    pub(crate) place: Option<Place>,
    /// `None` when the entry has to be read back.
    pub(crate) payload: Option<Payload>,
    pub(crate) kind: u8,
    pub(crate) body_len: u32,
    pub(crate) body_crc: u32,
}

impl Slot {
    pub(crate) fn cost(&self) -> u64 {
        u64::from(self.body_len) + SLOT_COST
    }
}

/// A group that has a log here.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) group: u64,
    pub(crate) replica: u64,
    pub(crate) topic: Uuid,
    pub(crate) partition: u32,
    state: Mutex<GroupState>,
}

/// What changes in a [`Group`].
#[derive(Debug, Default)]
pub(crate) struct GroupState {
    /// Entries from index `first`, without gaps.
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) first: u64,
    pub(crate) purged: Option<LogPosition>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogPosition>,
    /// `committed` is newer than what the WAL says.
    pub(crate) hint_owed: bool,
    pub(crate) mark: Option<GroupMark>,
    /// LSN of the group's `GroupCreate`; 0 while it is not written.
    pub(crate) created_lsn: u64,
    pub(crate) deleted: bool,
    pub(crate) damaged: bool,
    /// Frames may not lie in the order of the indexes.
    pub(crate) scattered: bool,
    /// This many slots from the front have no payload in memory.
    pub(crate) evicted: usize,
}

/// An entry of a range: in memory, or to be read.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Memory { index: u64, term: u64, payload: Payload },
    Disk { index: u64, slot: Slot, place: Place },
}

impl Group {
    pub(crate) fn new(group: u64, replica: u64, topic: Uuid, partition: u32, state: GroupState) -> Self {
        Self { group, replica, topic, partition, state: Mutex::new(state) }
    }

    /// Whose log it is.
    pub(crate) fn of(&self) -> GroupReplica {
        GroupReplica { group: self.group, replica: self.replica }
    }

    /// What an observer is told of a log that was recovered.
    pub(crate) fn recovered(&self) -> WalEvent {
        let state = self.lock();
        let found = |(index, slot): (u64, &Slot)| RecoveredEntry {
            position: LogPosition { term: slot.term, index },
            digest: entry::digest(slot.kind, slot.body_crc),
            file: slot.place.map_or(0, |place| place.file),
        };
        WalEvent::Recovered {
            of: self.of(),
            vote: state.vote,
            purged: state.purged,
            committed: state.committed,
            applied: state.mark.map(|mark| mark.applied),
            damaged: state.damaged,
            entries: (state.first..).zip(&state.slots).map(found).collect(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupState {
    /// Index that the next entry must have; `None` if the log never had one, and any may come.
    pub(crate) fn next_index(&self) -> Option<u64> {
        if self.slots.is_empty() {
            self.purged.map(|purged| purged.index.saturating_add(1))
        } else {
            Some(self.first.saturating_add(self.slots.len() as u64))
        }
    }

    /// Position of the last entry, or of the last purged one.
    pub(crate) fn last(&self) -> Option<LogPosition> {
        match self.slots.back() {
            Some(slot) => Some(LogPosition { term: slot.term, index: self.last_index() }),
            None => self.purged,
        }
    }

    fn last_index(&self) -> u64 {
        (self.first + self.slots.len() as u64).saturating_sub(1)
    }

    pub(crate) fn push(&mut self, index: u64, slot: Slot) {
        if self.slots.is_empty() {
            self.first = index;
            self.evicted = 0;
        }
        if slot.payload.is_none() && self.evicted == self.slots.len() {
            self.evicted += 1;
        }
        self.slots.push_back(slot);
    }

    pub(crate) fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Removes entries from `from` on; returns the cached bytes that they held.
    pub(crate) fn truncate(&mut self, from: u64) -> u64 {
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut freed = 0;
        while self.slots.len() > keep {
            freed += self.slots.pop_back().map_or(0, |slot| cached_cost(&slot));
        }
        self.evicted = self.evicted.min(self.slots.len());
        freed
    }

    /// Removes entries up to `upto`; returns the cached bytes that they held.
    pub(crate) fn purge(&mut self, upto: LogPosition) -> u64 {
        let mut freed = 0;
        while !self.slots.is_empty() && self.first <= upto.index {
            freed += self.slots.pop_front().map_or(0, |slot| cached_cost(&slot));
            self.first += 1;
            self.evicted = self.evicted.saturating_sub(1);
        }
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        freed
    }

    /// Removes everything; returns the cached bytes.
    pub(crate) fn clear(&mut self) -> u64 {
        self.truncate(0)
    }

    /// File of the oldest frame of a live entry.
    ///
    /// Entries lie in the order of their indexes, so it is the first one's. Only relocation breaks that order: an entry
    /// that was moved lies behind one that was appended meanwhile, or that a crash kept from being moved. Then all are
    /// looked at, until they are in order again.
    pub(crate) fn oldest_file(&mut self) -> Option<u64> {
        if self.scattered {
            let mut files = self.slots.iter().filter_map(|slot| slot.place).map(|place| place.file);
            self.scattered = !files.clone().is_sorted();
            return files.by_ref().min();
        }
        self.slots.front().and_then(|slot| slot.place).map(|place| place.file)
    }

    /// Sum of body lengths of all entries.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.slots.iter().map(Slot::cost).sum()
    }

    /// Cached bytes of all entries.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.slots.iter().map(cached_cost).sum()
    }

    /// Forgets payloads of entries in files up to `file`; returns the cached bytes freed.
    pub(crate) fn evict(&mut self, file: u64) -> u64 {
        let mut freed = 0;
        while let Some(slot) = self.slots.get_mut(self.evicted) {
            if slot.place.is_none_or(|place| place.file > file) {
                break;
            }
            freed += cached_cost(slot);
            slot.payload = None;
            self.evicted += 1;
        }
        freed
    }

    /// Entries of `start..end` that the log has, up to `max_bytes` of bodies but at least one.
    pub(crate) fn find(&self, start: u64, end: u64, max_bytes: u64) -> Vec<Found> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in start.max(self.first)..end {
            let Some(slot) = self.slot(index) else { break };
            bytes += slot.cost();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(match (&slot.payload, slot.place) {
                (Some(payload), _) => Found::Memory { index, term: slot.term, payload: payload.clone() },
                (None, Some(place)) => Found::Disk { index, slot: slot.clone(), place },
                // A payload leaves memory only after it has a place.
                (None, None) => break,
            });
        }
        found
    }
}

/// Body bytes of an entry in memory: what its eviction frees.
fn cached_cost(slot: &Slot) -> u64 {
    if slot.payload.is_some() { slot.cost() } else { 0 }
}

/// The body that a payload has in a frame.
pub(crate) fn body_of(payload: &Payload) -> (u8, Bytes) {
    crate::entry::encode_payload(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(indexes: std::ops::Range<u64>) -> GroupState {
        let mut state = GroupState::default();
        for index in indexes {
            let place = Some(Place { file: index / 10, offset: 4096 });
            let payload = Some(Payload::Blank);
            state.push(
                index,
                Slot { term: 1, ticket: index, place, payload, kind: 0, body_len: 36, body_crc: 0 },
            );
        }
        state
    }

    #[test]
    fn purge_beyond_the_end_leaves_an_empty_log_that_goes_on_after_it() {
        let mut state = state(0..5);
        assert_eq!(state.purge(LogPosition { term: 2, index: 9 }), 500);
        assert_eq!(state.next_index(), Some(10));
        assert_eq!(state.last(), Some(LogPosition { term: 2, index: 9 }));
    }

    #[test]
    fn evicted_entries_are_found_on_disk_and_counted_once() {
        let mut state = state(0..20);
        assert_eq!(state.evict(0), 1000);
        assert_eq!(state.evict(0), 0);
        let found = state.find(8, 12, u64::MAX);
        assert!(matches!(
            found[..],
            [Found::Disk { .. }, Found::Disk { .. }, Found::Memory { .. }, Found::Memory { .. }]
        ));
        assert_eq!(state.purge(LogPosition { term: 1, index: 4 }), 0);
        assert_eq!(state.evict(1), 1000);
        assert_eq!(state.truncate(0), 0);
    }

    #[test]
    fn find_gives_at_least_one_entry_and_stops_at_the_bound() {
        let state = state(0..5);
        assert_eq!(state.find(1, 5, 0).len(), 1);
        assert_eq!(state.find(1, 5, 250).len(), 2);
        assert_eq!(state.find(7, 9, 250).len(), 0);
    }
}
