//! Whether each consumer is given every record once and in order.

use std::collections::BTreeMap;

use super::Expectations;
use super::evidence::{Evidence, Partition, Place, tell_value};
use super::findings::{Anomaly, Findings};
use crate::history::{Answer, Op, Outcome, PolledPartition, SeekTo};

/// The next offset each consumer is due in each partition. Not there: any is believed.
type Positions<'h> = BTreeMap<(u64, Place<'h>), u64>;

pub(super) fn check(evidence: &Evidence<'_>, expectations: &Expectations, findings: &mut Findings) {
    let mut positions = Positions::new();
    for index in evidence.by_answer() {
        let call = evidence.call(index);
        match (&call.op, &call.outcome) {
            (Op::Assign(assign), _) => {
                let key = (assign.consumer, Place { topic: &assign.topic, part: assign.part });
                positions.insert(key, assign.from.unwrap_or(0));
            }
            (Op::Seek(seek), Outcome::Ok(_)) => {
                let key = (seek.consumer, Place { topic: &seek.topic, part: seek.part });
                match seek.to {
                    // Offsets below the log start are excused where retention is allowed.
                    SeekTo::Earliest => positions.insert(key, 0),
                    SeekTo::Offset(offset) => positions.insert(key, offset),
                    SeekTo::Latest => positions.remove(&key),
                };
            }
            // Nobody knows where the consumer stands now.
            (Op::Seek(seek), _) => {
                positions.remove(&(seek.consumer, Place { topic: &seek.topic, part: seek.part }));
            }
            (Op::Poll(poll), Outcome::Ok(Answer::Poll(answer))) => {
                for part in &answer.parts {
                    let place = Place { topic: &part.topic, part: part.part };
                    let Some(partition) = evidence.partitions.get(&place) else { continue };
                    let due = positions.get(&(poll.consumer, place)).copied();
                    let judge =
                        Judge { evidence, place, partition, retention: expectations.retention, call: index };
                    if let Some(next) = judge.records(part, due, findings) {
                        positions.insert((poll.consumer, place), next);
                    }
                }
            }
            // The records of an unknown poll may have been taken.
            (Op::Poll(poll), Outcome::Info(_)) => {
                positions.retain(|(consumer, _), _| *consumer != poll.consumer)
            }
            _ => {}
        }
    }
}

/// One partition of one poll.
struct Judge<'a, 'h> {
    evidence: &'a Evidence<'h>,
    place: Place<'h>,
    partition: &'a Partition<'h>,
    retention: bool,
    call: usize,
}

impl Judge<'_, '_> {
    /// Gives the next offset that is due, if any is known.
    fn records(&self, part: &PolledPartition, due: Option<u64>, findings: &mut Findings) -> Option<u64> {
        let mut due = due;
        for (offset, value) in &part.recs {
            if let Some(due) = due {
                if *offset < due {
                    findings.add(Anomaly::NonmonotonicPoll, &self.place, || {
                        format!(
                            "offset {offset} (value {}) came again where offset {due} was due ({})",
                            tell_value(*value),
                            self.evidence.tell(self.call)
                        )
                    });
                } else {
                    self.gap(due, *offset, findings);
                }
            }
            due = Some(offset.saturating_add(1));
        }
        due
    }

    /// Nothing visible lies in `[due, came)`.
    fn gap(&self, due: u64, came: u64, findings: &mut Findings) {
        let from = if self.retention { due.max(self.partition.log_start) } else { due };
        if from >= came {
            return;
        }
        let visible = &self.partition.visible;
        let first = visible.partition_point(|offset| *offset < from);
        let end = visible.partition_point(|offset| *offset < came);
        if first >= end {
            return;
        }
        findings.add(Anomaly::PollSkip, &self.place, || {
            let skipped = visible.get(first).copied().unwrap_or(from);
            let witness = self.partition.sightings.partition_point(|seen| seen.offset < skipped);
            let witness = self.partition.sightings.get(witness);
            format!(
                "offset {came} came where offset {due} was due: {} visible records skipped, the first at offset {skipped} ({}) ({})",
                end - first,
                witness.map_or_else(String::new, |seen| self.evidence.tell_sighting(seen)),
                self.evidence.tell(self.call)
            )
        });
    }
}
