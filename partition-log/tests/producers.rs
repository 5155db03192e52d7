//! What is remembered of idempotent producers, against a table that forgets nothing, and against a network that holds,
//! repeats and loses packets.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::{BTreeMap, VecDeque};

use partition_log::{BATCHES_REMEMBERED, ProducerState, StateSnapshot, Verdict};
use proptest::prelude::*;
use wire::ids::{Offset, ProducerId};
use wire::record::ProducerStamp;

/// Everything that a producer ever wrote in its newest epoch: first and last sequence, base offset.
#[derive(Debug, Default)]
struct Known {
    epoch: u16,
    batches: Vec<(u32, u32, u64)>,
    last_ms: i64,
}

/// The naive table.
#[derive(Debug, Default)]
struct Table(BTreeMap<u64, Known>);

impl Table {
    fn verdict(&self, stamp: &ProducerStamp) -> Verdict {
        let begins = stamp.first_sequence == 0;
        let Some(known) = self.0.get(&stamp.id.0) else {
            return if begins { Verdict::Append } else { Verdict::Unknown };
        };
        if stamp.epoch < known.epoch {
            return Verdict::Fenced { current: known.epoch };
        }
        if stamp.epoch > known.epoch {
            return if begins { Verdict::Append } else { Verdict::OutOfOrder { expected: 0 } };
        }
        let of_last_five = known.batches.iter().rev().take(BATCHES_REMEMBERED);
        let same =
            |batch: &&(u32, u32, u64)| (batch.0, batch.1) == (stamp.first_sequence, stamp.last_sequence);
        if let Some(batch) = of_last_five.clone().find(same) {
            return Verdict::Duplicate { base_offset: Offset(batch.2) };
        }
        let expected = known.batches.last().unwrap().1 + 1;
        if stamp.first_sequence == expected { Verdict::Append } else { Verdict::OutOfOrder { expected } }
    }

    fn record(&mut self, stamp: &ProducerStamp, offset: u64, now_ms: i64) {
        let known = self.0.entry(stamp.id.0).or_default();
        if known.epoch != stamp.epoch {
            *known = Known { epoch: stamp.epoch, ..Known::default() };
        }
        known.batches.push((stamp.first_sequence, stamp.last_sequence, offset));
        known.last_ms = now_ms;
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A batch of some producer: of its present epoch or near it, at the next sequence or near it.
    Batch { id: u64, epoch: i32, at: i64, len: u32 },
    /// One of its latest batches again.
    Again { id: u64, back: usize },
    /// Silence for so long, then a look for producers to forget.
    Expire { silence_ms: i64 },
    /// The state goes through a snapshot: a restart, or an install on another replica.
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4_u64, prop_oneof![10 => Just(0), 1 => Just(-1), 1 => Just(1)], prop_oneof![6 => Just(0_i64), 1 => -12..12_i64], 1..4_u32)
            .prop_map(|(id, epoch, at, len)| Step::Batch { id, epoch, at, len }),
        4 => (0..4_u64, 0..8_usize).prop_map(|(id, back)| Step::Again { id, back }),
        1 => (0..2_000_i64).prop_map(|silence_ms| Step::Expire { silence_ms }),
        1 => Just(Step::Snapshot),
    ]
}

fn stamp_of(table: &Table, step: &Step) -> Option<ProducerStamp> {
    match step {
        Step::Batch { id, epoch, at, len } => {
            let known = table.0.get(id);
            let epoch = i32::from(known.map_or(3, |known| known.epoch)) + epoch;
            let is_same = known.is_some_and(|known| i32::from(known.epoch) == epoch);
            let next =
                known.filter(|_| is_same).and_then(|known| known.batches.last()).map_or(0, |last| last.1 + 1);
            let first_sequence = u32::try_from(i64::from(next) + at).ok()?;
            let epoch = u16::try_from(epoch).ok()?;
            let last_sequence = first_sequence + len - 1;
            Some(ProducerStamp { id: ProducerId(*id), epoch, first_sequence, last_sequence })
        }
        Step::Again { id, back } => {
            let known = table.0.get(id)?;
            let (first_sequence, last_sequence, _) = *known.batches.iter().rev().nth(*back)?;
            Some(ProducerStamp { id: ProducerId(*id), epoch: known.epoch, first_sequence, last_sequence })
        }
        Step::Expire { .. } | Step::Snapshot => None,
    }
}

/// Snapshots carry the producers and nothing of the log that they wrote: retention may have taken all of it.
fn through_a_snapshot(producers: ProducerState, next: u64) -> ProducerState {
    let empty = StateSnapshot {
        log_start: Offset(next),
        next_offset: Offset(next),
        producers,
        ..StateSnapshot::default()
    };
    StateSnapshot::decode(&empty.encode()).unwrap().producers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn verdicts_are_those_of_a_table_that_forgets_nothing(steps in prop::collection::vec(step(), 1..120)) {
        let (mut state, mut table) = (ProducerState::default(), Table::default());
        let (mut next, mut now_ms) = (0_u64, 0_i64);
        for step in steps {
            now_ms += 100;
            match &step {
                Step::Expire { silence_ms } => {
                    let before = now_ms - silence_ms;
                    state.expire(before);
                    table.0.retain(|_, known| known.last_ms >= before);
                }
                Step::Snapshot => state = through_a_snapshot(state, next),
                Step::Batch { .. } | Step::Again { .. } => {
                    let Some(stamp) = stamp_of(&table, &step) else { continue };
                    let verdict = state.check(&stamp);
                    prop_assert_eq!(verdict, table.verdict(&stamp), "{:?}", stamp);
                    if verdict == Verdict::Append {
                        state.record(&stamp, Offset(next), now_ms);
                        table.record(&stamp, next, now_ms);
                        next += u64::from(stamp.last_sequence - stamp.first_sequence) + 1;
                    }
                }
            }
            prop_assert_eq!(state.len(), table.0.len());
        }
    }

    /// A producer keeps up to five batches on their way and sends each again, with the same sequence, until it hears of it. The
    /// network delivers copies in any order, late ones long after they were answered.
    #[test]
    fn held_packets_neither_duplicate_nor_reorder_nor_leave_a_hole(
        choices in prop::collection::vec((0..6_u8, any::<prop::sample::Index>()), 50..400),
    ) {
        let mut state = ProducerState::default();
        let mut log: Vec<u32> = Vec::new();
        let mut window: VecDeque<u32> = VecDeque::new();
        let mut held: Vec<u32> = Vec::new();
        let mut sent = 0;
        for (choice, index) in choices {
            match choice {
                // Something new is sent, if there is room.
                0 | 1 if window.len() < BATCHES_REMEMBERED => {
                    window.push_back(sent);
                    held.push(sent);
                    sent += 1;
                }
                // Something unanswered is sent again.
                2 if !window.is_empty() => held.push(window[index.index(window.len())]),
                // A copy arrives; another may still be held.
                3..=5 if !held.is_empty() => {
                    let at = index.index(held.len());
                    let number = if choice == 5 { held[at] } else { held.swap_remove(at) };
                    let sequence = number * 2;
                    let stamp = ProducerStamp {
                        id: ProducerId(7), epoch: 0, first_sequence: sequence, last_sequence: sequence + 1,
                    };
                    match state.check(&stamp) {
                        Verdict::Append => {
                            state.record(&stamp, Offset(u64::from(number) * 2), 0);
                            log.push(number);
                            window.retain(|waiting| *waiting != number);
                        }
                        Verdict::Duplicate { base_offset } => {
                            prop_assert_eq!(base_offset, Offset(u64::from(number) * 2));
                            window.retain(|waiting| *waiting != number);
                        }
                        // Before its turn, or so late that its answer was heard long ago.
                        Verdict::OutOfOrder { .. } | Verdict::Unknown => {}
                        Verdict::Fenced { current } => panic!("fenced by epoch {current}, which nobody has"),
                    }
                }
                _ => {}
            }
        }
        prop_assert!(log.iter().copied().eq(0..u32::try_from(log.len()).unwrap()), "{:?}", log);
        prop_assert!(window.iter().all(|waiting| !log.contains(waiting)), "answered and still waiting");
    }
}
