//! Whether records stand in the order in which they were sent.

use std::collections::BTreeMap;

use super::Expectations;
use super::evidence::{Evidence, Partition, Place, tell_value};
use super::findings::{Anomaly, Findings};
use super::frontier::{Known, Step, falls_behind};
use crate::history::{Answer, Outcome, Send};

pub(super) fn check(evidence: &Evidence<'_>, _: &Expectations, findings: &mut Findings) {
    for (place, partition) in &evidence.partitions {
        real_time(evidence, *place, partition, findings);
        producers(evidence, *place, partition, findings);
    }
}

/// A record sent after another was acknowledged stands behind it, whoever sent it: an offset is given when an entry is
/// applied, and the later one was not yet there.
fn real_time(evidence: &Evidence<'_>, place: Place<'_>, partition: &Partition<'_>, findings: &mut Findings) {
    let mut steps = Vec::new();
    for index in &partition.sends {
        let Some((call, send)) = evidence.send(*index) else { continue };
        if let Some(number) = lowest(partition, send) {
            steps.push((call.invoked, Step::Asked(Known { number, call: *index })));
        }
        if let (Outcome::Ok(Answer::Send(receipt)), Some(at)) = (&call.outcome, call.completed)
            && let Some(number) = receipt.off.iter().copied().max()
        {
            steps.push((at, Step::Told(Known { number, call: *index })));
        }
    }
    for (later, earlier) in falls_behind(steps) {
        findings.add(Anomaly::NonmonotonicSend, &place, || {
            format!(
                "offset {} of {} is below offset {}, which was acknowledged before to {}",
                later.number,
                evidence.tell(later.call),
                earlier.number,
                evidence.tell(earlier.call)
            )
        });
    }
}

/// The lowest offset at which any value of a send was seen.
fn lowest(partition: &Partition<'_>, send: &Send) -> Option<u64> {
    send.vals.iter().filter_map(|value| partition.offset_of(*value)).min()
}

/// Records of an idempotent producer stand in the order in which it was given them. One whose outcome is unknown may
/// have been given up by the producer and written late, behind those that came after it: only what was acknowledged
/// binds the later ones.
fn producers(evidence: &Evidence<'_>, place: Place<'_>, partition: &Partition<'_>, findings: &mut Findings) {
    let mut by_producer: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
    for index in &partition.sends {
        if let Some((_, send)) = evidence.send(*index)
            && send.idem
        {
            by_producer.entry(send.producer).or_default().push((send.seq, *index));
        }
    }
    for (producer, mut sends) in by_producer {
        sends.sort_unstable();
        let mut last: Option<(u64, u64)> = None;
        for (_, index) in sends {
            let Some((call, send)) = evidence.send(index) else { continue };
            let acknowledged = matches!(call.outcome, Outcome::Ok(_));
            let mut own: Option<(u64, u64)> = None;
            for value in &send.vals {
                let Some(offset) = partition.offset_of(*value) else { continue };
                // Within one send the order always holds: it is written as a whole.
                if let Some((earlier, at)) = own.max(last)
                    && offset <= earlier
                {
                    findings.add(Anomaly::ProducerOrder, &place, || {
                        format!(
                            "value {} of producer {producer} is at offset {offset}, but value {}, sent before it, is at offset {earlier} ({})",
                            tell_value(*value),
                            tell_value(at),
                            evidence.tell(index)
                        )
                    });
                }
                own = own.max(Some((offset, *value)));
            }
            if acknowledged {
                last = last.max(own);
            }
        }
    }
}
