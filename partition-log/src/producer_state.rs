//! What idempotent producers wrote last, so that a retry is recognised (KIP-98).
//!
//! Part of the replicated state: it changes by entries only, and the same entries give the same state (I8).

use std::collections::BTreeMap;

use disk::mutant::{self, Mutant};
use wire::ids::{Offset, ProducerId};
use wire::record::ProducerStamp;

/// Batches remembered per producer; a producer has at most this many in flight (Kafka's own number).
pub const BATCHES_REMEMBERED: usize = 5;

/// Producers remembered per partition. About 180 bytes each, so 12 MiB: a client that invents producer ids cannot bloat
/// the broker. Above it the longest silent sixteenth is forgotten.
const PRODUCERS_MAX: usize = 1 << 16;

const SEQUENCE_MAX: u32 = i32::MAX.cast_unsigned();

/// What to do with a batch of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: append and [`ProducerState::record`] it.
    Append,
    /// It was appended before.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// A batch before it is missing, or it is too old to be recognised.
    OutOfOrder {
        /// First sequence that would be taken.
        expected: u32,
    },
    /// A newer incarnation of the producer has written.
    Fenced {
        /// Its epoch.
        current: u16,
    },
    /// Nothing is known of the producer, and this is not its first batch.
    Unknown,
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBatch {
    /// Sequence of its first record.
    pub first_sequence: u32,
    /// Sequence of its last record.
    pub last_sequence: u32,
    /// Offset of its first record.
    pub base_offset: Offset,
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Its newest epoch.
    pub epoch: u16,
    /// Time of the entry that carried its last batch, in ms since 1970.
    pub last_ms: i64,
    /// Its last batches in that epoch, oldest first; between one and [`BATCHES_REMEMBERED`].
    pub batches: Vec<RememberedBatch>,
}

/// The producers of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProducerState {
    producers: BTreeMap<u64, ProducerEntry>,
}

impl ProducerState {
    /// Says what to do with a batch; changes nothing.
    #[must_use]
    pub fn check(&self, stamp: &ProducerStamp) -> Verdict {
        let Some(known) = self.producers.get(&stamp.id.0) else {
            return if stamp.first_sequence == 0 { Verdict::Append } else { Verdict::Unknown };
        };
        if stamp.epoch < known.epoch {
            return Verdict::Fenced { current: known.epoch };
        }
        if stamp.epoch > known.epoch {
            return first_of_epoch(stamp);
        }
        let same = |batch: &&RememberedBatch| {
            batch.first_sequence == stamp.first_sequence && batch.last_sequence == stamp.last_sequence
        };
        if let Some(batch) = known.batches.iter().rev().find(same) {
            return Verdict::Duplicate { base_offset: batch.base_offset };
        }
        match known.batches.last() {
            Some(last) if stamp.first_sequence == following(last.last_sequence) => Verdict::Append,
            Some(_) if mutant::on(Mutant::SequenceGapAccepted) => Verdict::Append,
            Some(last) => Verdict::OutOfOrder { expected: following(last.last_sequence) },
            None => first_of_epoch(stamp),
        }
    }

    /// Remembers a batch that was appended at `base_offset` by an entry of `time_ms`. The caller has seen
    /// [`Verdict::Append`].
    pub fn record(&mut self, stamp: &ProducerStamp, base_offset: Offset, time_ms: i64) {
        let entry = self.producers.entry(stamp.id.0).or_insert_with(|| ProducerEntry {
            epoch: stamp.epoch,
            last_ms: time_ms,
            batches: Vec::with_capacity(BATCHES_REMEMBERED),
        });
        if entry.epoch != stamp.epoch {
            entry.epoch = stamp.epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == BATCHES_REMEMBERED {
            entry.batches.remove(0);
        }
        entry.last_ms = time_ms;
        let (first_sequence, last_sequence) = (stamp.first_sequence, stamp.last_sequence);
        entry.batches.push(RememberedBatch { first_sequence, last_sequence, base_offset });
        if self.producers.len() > PRODUCERS_MAX {
            self.forget_silent(PRODUCERS_MAX / 16);
        }
    }

    /// Forgets producers whose last batch came in an entry before `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.producers.retain(|_, entry| entry.last_ms >= before_ms);
    }

    /// Producers known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True if no producer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The producers in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.producers.iter().map(|(&id, entry)| (ProducerId(id), entry))
    }

    /// Puts a producer back as it was; for decoding.
    pub(crate) fn insert(&mut self, id: ProducerId, entry: ProducerEntry) {
        self.producers.insert(id.0, entry);
    }

    /// Forgets the `count` producers that were silent longest; equal times by id, so that every replica agrees.
    fn forget_silent(&mut self, count: usize) {
        let mut order: Vec<(i64, u64)> =
            self.producers.iter().map(|(&id, entry)| (entry.last_ms, id)).collect();
        order.sort_unstable();
        for (_, id) in order.into_iter().take(count) {
            self.producers.remove(&id);
        }
    }
}

fn first_of_epoch(stamp: &ProducerStamp) -> Verdict {
    if stamp.first_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder { expected: 0 } }
}

/// Sequences have 31 bits and begin again at 0.
fn following(sequence: u32) -> u32 {
    if sequence >= SEQUENCE_MAX { 0 } else { sequence + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: u16, first_sequence: u32, last_sequence: u32) -> ProducerStamp {
        ProducerStamp { id: ProducerId(7), epoch, first_sequence, last_sequence }
    }

    /// A producer that wrote batches of two records, sequences 0–1, 2–3, …, at offsets 100, 102, ….
    fn wrote(batches: u32) -> ProducerState {
        let mut state = ProducerState::default();
        for n in 0..batches {
            let stamp = stamp(3, 2 * n, 2 * n + 1);
            assert_eq!(state.check(&stamp), Verdict::Append);
            state.record(&stamp, Offset(100 + u64::from(2 * n)), i64::from(n));
        }
        state
    }

    #[test]
    fn an_unknown_producer_must_begin_at_sequence_zero() {
        let state = ProducerState::default();
        assert_eq!(state.check(&stamp(0, 0, 4)), Verdict::Append);
        assert_eq!(state.check(&stamp(9, 0, 4)), Verdict::Append);
        assert_eq!(state.check(&stamp(0, 1, 4)), Verdict::Unknown);
    }

    #[test]
    fn each_of_the_last_five_batches_is_recognised_and_no_older_one() {
        let state = wrote(7);
        for n in 2..7 {
            let base_offset = Offset(100 + u64::from(2 * n));
            assert_eq!(state.check(&stamp(3, 2 * n, 2 * n + 1)), Verdict::Duplicate { base_offset });
        }
        assert_eq!(state.check(&stamp(3, 2, 3)), Verdict::OutOfOrder { expected: 14 });
        assert_eq!(state.check(&stamp(3, 12, 12)), Verdict::OutOfOrder { expected: 14 });
    }

    #[test]
    fn a_gap_is_out_of_order() {
        assert_eq!(wrote(2).check(&stamp(3, 5, 5)), Verdict::OutOfOrder { expected: 4 });
        assert_eq!(wrote(2).check(&stamp(3, 4, 4)), Verdict::Append);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
        let mut state = wrote(2);
        assert_eq!(state.check(&stamp(2, 4, 4)), Verdict::Fenced { current: 3 });
        assert_eq!(state.check(&stamp(4, 4, 4)), Verdict::OutOfOrder { expected: 0 });
        assert_eq!(state.check(&stamp(4, 0, 1)), Verdict::Append);
        state.record(&stamp(4, 0, 1), Offset(200), 9);
        // The same sequences of the old epoch are not duplicates of the new one.
        assert_eq!(state.check(&stamp(4, 2, 3)), Verdict::Append);
        assert_eq!(state.check(&stamp(3, 2, 3)), Verdict::Fenced { current: 4 });
    }

    #[test]
    fn sequences_wrap_after_two_to_the_31_minus_one() {
        let mut state = ProducerState::default();
        state.record(&stamp(0, SEQUENCE_MAX - 1, SEQUENCE_MAX), Offset(1), 0);
        assert_eq!(state.check(&stamp(0, 0, 3)), Verdict::Append);
        let mut state = ProducerState::default();
        state.record(&stamp(0, SEQUENCE_MAX, 1), Offset(1), 0);
        assert_eq!(state.check(&stamp(0, 2, 3)), Verdict::Append);
        assert_eq!(state.check(&stamp(0, 0, 3)), Verdict::OutOfOrder { expected: 2 });
    }

    #[test]
    fn silent_producers_expire() {
        let mut state = wrote(3);
        state.expire(2);
        assert_eq!(state.len(), 1);
        state.expire(3);
        assert!(state.is_empty());
    }

    #[test]
    fn invented_producers_push_out_the_longest_silent_only() {
        let mut state = ProducerState::default();
        let limit = u64::try_from(PRODUCERS_MAX).unwrap();
        for id in 0..=limit {
            let stamp = ProducerStamp { id: ProducerId(id), ..stamp(0, 0, 0) };
            state.record(&stamp, Offset(id), 5);
        }
        assert_eq!(state.len(), PRODUCERS_MAX + 1 - PRODUCERS_MAX / 16);
        assert_eq!(state.iter().next().unwrap().0, ProducerId(limit / 16));
    }
}
