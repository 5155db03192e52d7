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
}

#[derive(Debug, Default)]
struct State {
    fence: Option<Fence>,
    places: BTreeMap<TopicPartition, Place>,
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
        let place = Place { returned: committed, done: None, committed };
        self.lock().places.insert(at.clone(), place);
    }

    /// A partition is not the member's any more.
    pub(super) fn end(&self, at: &TopicPartition) {
        self.lock().places.remove(at);
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
        self.collect(|place| place.done)
    }

    /// What was returned and is not committed.
    pub(super) fn due_returned(&self) -> Option<Fenced> {
        self.collect(|place| place.returned)
    }

    fn collect(&self, reached: impl Fn(&Place) -> Option<u64>) -> Option<Fenced> {
        let state = self.lock();
        let due = state.places.iter().filter_map(|(at, place)| {
            let offset =
                reached(place).filter(|offset| place.committed.is_none_or(|known| known < *offset))?;
            Some(OffsetCommit { at: at.clone(), offset, metadata: String::new() })
        });
        let offsets: Vec<OffsetCommit> = due.collect();
        let fence = state.fence.clone().filter(|_| !offsets.is_empty())?;
        Some(Fenced { fence, offsets })
    }

    /// Checks offsets that the application chose.
    ///
    /// # Errors
    /// `NotOwner` for a partition that is not assigned; `StaleGeneration` for an offset that `poll` did not reach since the
    /// partition was assigned: it belongs to an earlier time, before a reset or somebody else's turn.
    pub(super) fn check(&self, offsets: Vec<OffsetCommit>) -> Result<Fenced, ApiError> {
        let state = self.lock();
        for commit in &offsets {
            let Some(place) = state.places.get(&commit.at) else {
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
