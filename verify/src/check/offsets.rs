//! Whether an offset means one value and a value one offset.

use super::Expectations;
use super::evidence::{Evidence, Partition, Place, tell_value};
use super::findings::{Anomaly, Findings};
use crate::history::{AckLevel, Answer, Outcome};

pub(super) fn check(evidence: &Evidence<'_>, _: &Expectations, findings: &mut Findings) {
    for (place, partition) in &evidence.partitions {
        inconsistent_offsets(evidence, *place, partition, findings);
        duplicates(evidence, *place, partition, findings);
        missing_offsets(evidence, *place, partition, findings);
    }
}

fn inconsistent_offsets(
    evidence: &Evidence<'_>,
    place: Place<'_>,
    partition: &Partition<'_>,
    findings: &mut Findings,
) {
    for group in partition.sightings.chunk_by(|a, b| a.offset == b.offset) {
        let (Some(one), Some(other)) = (group.first(), group.last()) else { continue };
        if one.value != other.value {
            findings.add(Anomaly::InconsistentOffset, &place, || {
                let tell = |seen| evidence.tell_sighting(seen);
                format!(
                    "offset {} is value {} ({}) and value {} ({})",
                    one.offset,
                    tell_value(one.value),
                    tell(one),
                    tell_value(other.value),
                    tell(other)
                )
            });
        }
    }
}

/// A producer that is not idempotent may write a record twice when the client library tries again; nobody outside the
/// library knows whether it did.
fn duplicates(evidence: &Evidence<'_>, place: Place<'_>, partition: &Partition<'_>, findings: &mut Findings) {
    for group in partition.offsets.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
        let (Some(&(value, first)), Some(&(_, second))) = (group.first(), group.get(1)) else { continue };
        let Some((call, send)) = evidence.sender(value) else { continue };
        if !send.idem {
            continue;
        }
        findings.add(Anomaly::Duplicate, &place, || {
            let seen = |offset| {
                partition.sighting(offset, value).map_or_else(String::new, |seen| evidence.tell_sighting(seen))
            };
            format!(
                "value {} of idempotent producer {}, sent once by {}, is at offset {first} ({}) and at offset {second} ({})",
                tell_value(value),
                send.producer,
                super::evidence::tell(evidence.history, call),
                seen(first),
                seen(second)
            )
        });
    }
}

fn missing_offsets(
    evidence: &Evidence<'_>,
    place: Place<'_>,
    partition: &Partition<'_>,
    findings: &mut Findings,
) {
    for index in &partition.sends {
        let Some((call, send)) = evidence.send(*index) else { continue };
        let Outcome::Ok(Answer::Send(receipt)) = &call.outcome else { continue };
        if send.acks == AckLevel::All && receipt.off.is_empty() && !send.vals.is_empty() {
            findings.add(Anomaly::MissingOffset, &place, || {
                format!("{} asked for acks=all and its receipt has no offset", evidence.tell(*index))
            });
        }
    }
}
