//! The in-sync replicas as the leader sees them: voters whose log is close enough to the leader's own.
//!
//! The ISR is for people, for metrics and for `min.insync.replicas`; it never decides a commit (architecture section 5).
//! This page is the pure computation; the registry feeds it from Raft's replication progress and reports changes.

use std::collections::{BTreeSet, VecDeque};

use disk::mutant::{self, Mutant};
use wire::ids::ReplicaId;

/// How far a voter may be behind and still be in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LagLimits {
    /// Bytes of entries that the voter does not have.
    pub max_bytes: u64,
    /// Time since the voter last had everything that the leader had.
    pub max_ms: u64,
}

/// What the leader's log was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Monotonic time, ms.
    at_ms: u64,
    /// Last index of the leader's log then.
    last_index: u64,
    /// Bytes proposed up to then, counted from an arbitrary start.
    bytes: u64,
}

/// One voter as Raft's replication progress shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VoterProgress {
    /// The replica.
    pub replica: ReplicaId,
    /// Last index known to be on its disk; `None` if not known in this term.
    pub matched: Option<u64>,
    /// False if its broker is suspected dead.
    pub alive: bool,
}

/// Bound on the samples kept; with one a tick of 200 ms it covers more than the longest `replica.lag_max_ms` that makes
/// sense at this resolution (the oldest sample is kept as the base of the comparison).
const SAMPLES_MAX: usize = 512;

/// History of one leader's log in one term, from which lag in bytes and in time is told.
#[derive(Debug, Clone)]
pub(crate) struct LagHistory {
    samples: VecDeque<Sample>,
    /// Voters that were in sync when this leader began: they have `max_ms` to prove it.
    initial: BTreeSet<ReplicaId>,
    began_ms: u64,
}

impl LagHistory {
    /// Starts a leader's history. `initial` is the ISR of the leader before; its members stay in until `max_ms` has
    /// passed without proof, since a fresh leader knows nobody's progress yet.
    #[must_use]
    pub(crate) fn new(now_ms: u64, initial: BTreeSet<ReplicaId>) -> Self {
        Self { samples: VecDeque::new(), initial, began_ms: now_ms }
    }

    /// Notes what the leader's log is now: its last index and the bytes proposed so far.
    pub(crate) fn sample(&mut self, now_ms: u64, last_index: u64, bytes: u64) {
        let sample = Sample { at_ms: now_ms, last_index, bytes };
        match self.samples.back_mut() {
            // An idle log keeps one sample, with the first time at which it was so: the lag of a voter counts from the
            // moment at which it fell behind.
            Some(last) if last.last_index == last_index => {}
            _ => self.samples.push_back(sample),
        }
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// The voters that are in sync now. The leader itself is one of `voters` and always in.
    #[must_use]
    pub(crate) fn in_sync(
        &self,
        now_ms: u64,
        leader: ReplicaId,
        voters: &[VoterProgress],
        limits: LagLimits,
    ) -> Vec<ReplicaId> {
        let mut in_sync: Vec<ReplicaId> = voters
            .iter()
            .filter(|voter| voter.replica == leader || self.is_in_sync(now_ms, voter, limits))
            .map(|voter| voter.replica)
            .collect();
        in_sync.sort_unstable();
        in_sync
    }

    fn is_in_sync(&self, now_ms: u64, voter: &VoterProgress, limits: LagLimits) -> bool {
        if mutant::on(Mutant::IsrIgnoresLag) {
            return true;
        }
        if !voter.alive {
            return false;
        }
        let Some(matched) = voter.matched else {
            return self.initial.contains(&voter.replica)
                && now_ms.saturating_sub(self.began_ms) <= limits.max_ms;
        };
        // The first sample that the voter does not cover says since when, and by how much, it is behind.
        let Some(missing) = self.samples.iter().position(|sample| sample.last_index > matched) else {
            return true;
        };
        let since_ms = self.samples.get(missing).map_or(now_ms, |sample| sample.at_ms);
        let covered_bytes = match missing.checked_sub(1).and_then(|before| self.samples.get(before)) {
            Some(sample) => sample.bytes,
            None => self.samples.front().map_or(0, |sample| sample.bytes),
        };
        let behind_bytes = self.samples.back().map_or(0, |last| last.bytes.saturating_sub(covered_bytes));
        behind_bytes <= limits.max_bytes && now_ms.saturating_sub(since_ms) <= limits.max_ms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: LagLimits = LagLimits { max_bytes: 1000, max_ms: 10_000 };
    const LEADER: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(2);

    fn voters(matched: Option<u64>, alive: bool) -> Vec<VoterProgress> {
        vec![
            VoterProgress { replica: LEADER, matched: Some(u64::MAX), alive: true },
            VoterProgress { replica: OTHER, matched, alive },
        ]
    }

    #[test]
    fn a_voter_with_everything_is_in_sync_however_long_the_log_is_idle() {
        let mut history = LagHistory::new(0, BTreeSet::new());
        history.sample(0, 5, 100);
        history.sample(900_000, 5, 100);
        assert_eq!(history.in_sync(900_000, LEADER, &voters(Some(5), true), LIMITS), [LEADER, OTHER]);
    }

    #[test]
    fn a_voter_behind_by_too_many_bytes_is_out_at_once() {
        let mut history = LagHistory::new(0, BTreeSet::new());
        history.sample(0, 5, 100);
        history.sample(200, 9, 1101);
        assert_eq!(history.in_sync(200, LEADER, &voters(Some(5), true), LIMITS), [LEADER]);
        assert_eq!(history.in_sync(200, LEADER, &voters(Some(9), true), LIMITS), [LEADER, OTHER]);
    }

    #[test]
    fn a_voter_behind_for_too_long_is_out_however_few_the_bytes() {
        let mut history = LagHistory::new(0, BTreeSet::new());
        history.sample(0, 5, 100);
        history.sample(1000, 6, 101);
        assert_eq!(history.in_sync(11_000, LEADER, &voters(Some(5), true), LIMITS), [LEADER, OTHER]);
        assert_eq!(history.in_sync(11_001, LEADER, &voters(Some(5), true), LIMITS), [LEADER]);
    }

    #[test]
    fn a_dead_broker_is_out_and_the_leader_is_always_in() {
        let mut history = LagHistory::new(0, BTreeSet::from([OTHER]));
        history.sample(0, 5, 100);
        assert_eq!(history.in_sync(1, LEADER, &voters(Some(5), false), LIMITS), [LEADER]);
    }

    #[test]
    fn a_fresh_leader_gives_the_old_isr_time_to_prove_itself() {
        let mut history = LagHistory::new(0, BTreeSet::from([OTHER]));
        history.sample(0, 5, 100);
        assert_eq!(history.in_sync(10_000, LEADER, &voters(None, true), LIMITS), [LEADER, OTHER]);
        assert_eq!(history.in_sync(10_001, LEADER, &voters(None, true), LIMITS), [LEADER]);
        let stranger = LagHistory::new(0, BTreeSet::new());
        assert_eq!(stranger.in_sync(1, LEADER, &voters(None, true), LIMITS), [LEADER]);
    }

    proptest! {
        #[test]
        fn more_progress_never_puts_a_voter_out(
            steps in proptest::collection::vec((0u64..3000, 0u64..20, 0u64..500), 1..50),
            matched in 0u64..400, more in 0u64..100,
        ) {
            let mut history = LagHistory::new(0, BTreeSet::new());
            let (mut now, mut index, mut bytes) = (0, 0, 0);
            for (pause, entries, size) in steps {
                now += pause;
                index += entries;
                bytes += size * entries;
                history.sample(now, index, bytes);
            }
            let less = history.in_sync(now, LEADER, &voters(Some(matched), true), LIMITS);
            let ahead = history.in_sync(now, LEADER, &voters(Some(matched + more), true), LIMITS);
            prop_assert!(!less.contains(&OTHER) || ahead.contains(&OTHER));
        }
    }
}
