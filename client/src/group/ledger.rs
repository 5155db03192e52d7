//! How far a member is with each of its partitions: done, committed. Locked for a few lines at a time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;

/// Member and epoch that a commit carries: those under which the application got what it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) member: String,
    pub(super) epoch: u64,
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition.
    pub at: TopicPartition,
    /// The next record to read: one more than the last that is done.
    pub offset: u64,
    /// Up to 4,096 bytes of the application's own, kept beside the offset.
    pub metadata: String,
}

/// One partition that the member owns.
#[derive(Debug, Clone, Default)]
struct Place {
    /// What `poll` returned up to now, not included. Nothing beyond may be committed.
    returned: Option<u64>,
    /// What is done up to now, not included.
    done: Option<u64>,
    committed: Option<u64>,
    /// Number of the departure that it is in: it is read no more, and its last commit is under way.
    departing: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    fence: Option<Fence>,
    places: BTreeMap<TopicPartition, Place>,
    departures: u64,
}

/// Partitions that go back to the group once what is done of them is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Departure {
    number: u64,
    partitions: Vec<TopicPartition>,
}

/// Offsets under one fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fenced {
    pub(super) fence: Fence,
    pub(super) offsets: Vec<OffsetCommit>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<State>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition begins anew, with what is committed for it.
    pub(super) fn begin(&self, at: &TopicPartition, committed: Option<u64>) {
        let place = Place { returned: committed, committed, ..Place::default() };
        self.lock().places.insert(at.clone(), place);
    }

    /// A partition is not the member's any more.
    pub(super) fn end(&self, at: &TopicPartition) {
        self.lock().places.remove(at);
    }

    /// Partitions leave, and with them goes what is done of them and not committed. [`departed`](Self::departed) ends it.
    pub(super) fn depart(&self, mut partitions: Vec<TopicPartition>) -> (Departure, Option<Fenced>) {
        partitions.sort_unstable();
        let mut state = self.lock();
        let due = state.collect(|at, place| place.done.filter(|_| partitions.binary_search(at).is_ok()));
        state.departures += 1;
        let number = state.departures;
        for at in &partitions {
            if let Some(place) = state.places.get_mut(at) {
                place.departing = Some(number);
            }
        }
        (Departure { number, partitions }, due)
    }

    /// The last commit is over, however it went: what did not stay nor was lost meanwhile is not the member's any more.
    pub(super) fn departed(&self, departure: Departure) -> Vec<TopicPartition> {
        let Departure { number, mut partitions } = departure;
        let mut state = self.lock();
        partitions.retain(|at| state.places.get(at).is_some_and(|place| place.departing == Some(number)));
        for at in &partitions {
            state.places.remove(at);
        }
        partitions
    }

    /// The group leaves a partition to the member after all; false if it is gone already.
    pub(super) fn stay(&self, at: &TopicPartition) -> bool {
        self.lock().places.get_mut(at).is_some_and(|place| {
            place.departing = None;
            true
        })
    }

    /// True for a partition that has begun and not ended.
    pub(super) fn has(&self, at: &TopicPartition) -> bool {
        self.lock().places.contains_key(at)
    }

    /// Commits go under this fence from now on; `None` = it is no member and owns nothing.
    pub(super) fn set_fence(&self, fence: Option<Fence>) {
        let mut state = self.lock();
        if fence.is_none() {
            state.places.clear();
        }
        state.fence = fence;
    }

    /// The application has all records before `offset`; it may also have gone back, or to where nobody knows yet.
    pub(super) fn returned(&self, at: &TopicPartition, offset: Option<u64>) {
        if let Some(place) = self.lock().places.get_mut(at) {
            place.returned = offset;
        }
    }

    /// What was returned of these is done.
    pub(super) fn done(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        let mut state = self.lock();
        for at in partitions {
            if let Some(place) = state.places.get_mut(&at) {
                place.done = place.returned;
            }
        }
    }

    /// The next record that the application gets of a partition, if that is known.
    pub(super) fn reached(&self, at: &TopicPartition) -> Option<u64> {
        self.lock().places.get(at)?.returned
    }

    /// What is done and not committed.
    pub(super) fn due(&self) -> Option<Fenced> {
        self.lock().collect(|_, place| place.done)
    }

    /// What was returned and is not committed.
    pub(super) fn due_returned(&self) -> Option<Fenced> {
        self.lock().collect(|_, place| place.returned)
    }

    /// Checks offsets that the application chose.
    ///
    /// # Errors
    /// `NotOwner` for a partition that is not assigned; `StaleGeneration` for an offset that `poll` did not reach since the
    /// partition was assigned: it belongs to an earlier time, before a reset or somebody else's turn.
    pub(super) fn check(&self, offsets: Vec<OffsetCommit>) -> Result<Fenced, ApiError> {
        let state = self.lock();
        for commit in &offsets {
            let Some(place) = state.places.get(&commit.at).filter(|place| place.departing.is_none()) else {
                let message = format!("{} is not assigned to this consumer", commit.at);
                return Err(ApiError::new(ErrorCode::NotOwner, message));
            };
            if place.returned.is_none_or(|returned| commit.offset > returned) {
                let message =
                    format!("offset {} of {} was not read since it was assigned", commit.offset, commit.at);
                return Err(ApiError::new(ErrorCode::StaleGeneration, message));
            }
        }
        let fence = state.fence.clone().ok_or_else(no_member)?;
        Ok(Fenced { fence, offsets })
    }

    /// An offset is committed.
    pub(super) fn committed(&self, fence: &Fence, at: &TopicPartition, offset: u64) {
        let mut state = self.lock();
        if state.fence.as_ref().is_none_or(|now| now.member != fence.member) {
            return;
        }
        if let Some(place) = state.places.get_mut(at) {
            place.committed = place.committed.max(Some(offset));
        }
    }
}

impl State {
    fn collect(&self, reached: impl Fn(&TopicPartition, &Place) -> Option<u64>) -> Option<Fenced> {
        let places = self.places.iter().filter(|(_, place)| place.departing.is_none());
        let due = places.filter_map(|(at, place)| {
            let offset =
                reached(at, place).filter(|offset| place.committed.is_none_or(|known| known < *offset))?;
            Some(OffsetCommit { at: at.clone(), offset, metadata: String::new() })
        });
        let offsets: Vec<OffsetCommit> = due.collect();
        let fence = self.fence.clone().filter(|_| !offsets.is_empty())?;
        Some(Fenced { fence, offsets })
    }
}

fn no_member() -> ApiError {
    ApiError::new(ErrorCode::UnknownMember, "the consumer is not a member of its group now")
}

#[cfg(test)]
mod tests {
    use wire::ids::PartitionIndex;

    use super::*;

    fn at(n: u32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: PartitionIndex(n) }
    }

    fn fence(epoch: u64) -> Fence {
        Fence { member: "m".into(), epoch }
    }

    fn offsets(fenced: Option<Fenced>) -> Vec<(u32, u64)> {
        let offsets = fenced.map(|fenced| fenced.offsets).unwrap_or_default();
        offsets.into_iter().map(|commit| (commit.at.partition.0, commit.offset)).collect()
    }

    #[test]
    fn only_what_is_done_and_new_is_due() {
        let ledger = Ledger::default();
        ledger.set_fence(Some(fence(1)));
        ledger.begin(&at(0), Some(5));
        ledger.begin(&at(1), None);
        ledger.done([at(0), at(1)]);
        assert_eq!(ledger.due(), None, "nothing was read");
        ledger.returned(&at(0), Some(9));
        ledger.returned(&at(1), Some(2));
        assert_eq!(ledger.due(), None, "read, but not done");
        assert_eq!(offsets(ledger.due_returned()), [(0, 9), (1, 2)]);
        ledger.done([at(0), at(1)]);
        ledger.returned(&at(0), Some(12));
        assert_eq!(offsets(ledger.due()), [(0, 9), (1, 2)]);
        ledger.committed(&fence(1), &at(0), 9);
        assert_eq!(offsets(ledger.due()), [(1, 2)]);
        ledger.end(&at(1));
        assert_eq!(ledger.due(), None);
        // The application reads again: nothing goes back.
        ledger.returned(&at(0), Some(3));
        ledger.done([at(0)]);
        assert_eq!(ledger.due(), None);
    }

    #[test]
    fn a_partition_that_departs_ends_with_its_own_departure_only() {
        let ledger = Ledger::default();
        ledger.set_fence(Some(fence(1)));
        for n in 0..3 {
            ledger.begin(&at(n), Some(1));
            ledger.returned(&at(n), Some(5));
            ledger.done([at(n)]);
        }
        let (first, due) = ledger.depart(vec![at(0), at(1)]);
        assert_eq!(offsets(due), [(0, 5), (1, 5)]);
        assert_eq!(offsets(ledger.due()), [(2, 5)], "what departs is committed by its departure");
        let commit = OffsetCommit { at: at(0), offset: 2, metadata: String::new() };
        assert_eq!(ledger.check(vec![commit]).map_err(|error| error.code), Err(ErrorCode::NotOwner));
        // The group wants one back, and then asks for it again.
        assert!(ledger.stay(&at(1)));
        ledger.returned(&at(1), Some(7));
        ledger.done([at(1)]);
        let (second, due) = ledger.depart(vec![at(1)]);
        assert_eq!(offsets(due), [(1, 7)]);
        assert_eq!(ledger.departed(first), [at(0)], "the other one waits for its later commit");
        assert!(!ledger.has(&at(0)) && ledger.has(&at(1)));
        assert!(!ledger.stay(&at(0)));
        assert_eq!(ledger.departed(second), [at(1)]);
    }

    #[test]
    fn a_departure_releases_nothing_of_a_later_life() {
        let ledger = Ledger::default();
        ledger.set_fence(Some(fence(1)));
        ledger.begin(&at(0), Some(1));
        let (departure, _) = ledger.depart(vec![at(0)]);
        ledger.set_fence(None);
        ledger.set_fence(Some(Fence { member: "another".into(), epoch: 1 }));
        ledger.begin(&at(0), Some(3));
        assert_eq!(ledger.departed(departure), []);
        assert!(ledger.has(&at(0)));
    }

    #[test]
    fn what_was_not_read_under_this_assignment_is_refused() {
        let ledger = Ledger::default();
        let commit = |offset| OffsetCommit { at: at(0), offset, metadata: String::new() };
        let code = |offset| ledger.check(vec![commit(offset)]).map_err(|error| error.code);
        assert_eq!(code(1), Err(ErrorCode::NotOwner));
        ledger.set_fence(Some(fence(1)));
        ledger.begin(&at(0), Some(5));
        ledger.returned(&at(0), Some(9));
        assert_eq!(code(9).unwrap().fence, fence(1));
        // A reset to 3: what was read before it must not be committed under the new epoch.
        ledger.set_fence(Some(fence(2)));
        ledger.begin(&at(0), Some(3));
        assert_eq!(code(9), Err(ErrorCode::StaleGeneration));
        assert_eq!(code(3).unwrap().fence, fence(2));
        ledger.committed(&Fence { member: "another".into(), epoch: 1 }, &at(0), 9);
        ledger.returned(&at(0), Some(4));
        assert_eq!(offsets(ledger.due_returned()), [(0, 4)], "the commit of another life counts for nothing");
        ledger.set_fence(None);
        assert_eq!(code(3), Err(ErrorCode::NotOwner));
    }
}
