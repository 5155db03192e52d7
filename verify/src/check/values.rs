//! Whether everything that was seen had been sent: phantoms, and values whose send certainly failed.

use super::Expectations;
use super::evidence::{Evidence, Partition, Place, Source, tell_value};
use super::findings::{Anomaly, Findings};
use crate::history::Outcome;

pub(super) fn check(evidence: &Evidence<'_>, _: &Expectations, findings: &mut Findings) {
    for (place, partition) in &evidence.partitions {
        check_partition(evidence, *place, partition, findings);
    }
}

fn check_partition(
    evidence: &Evidence<'_>,
    place: Place<'_>,
    partition: &Partition<'_>,
    findings: &mut Findings,
) {
    for group in partition.sightings.chunk_by(|a, b| (a.offset, a.value) == (b.offset, b.value)) {
        // A receipt is no sighting of its own: it says nothing about the value that its sender did not say.
        let Some(seen) = group.iter().find(|seen| seen.source != Source::Ack) else { continue };
        let told = || {
            let value = tell_value(seen.value);
            format!("value {value} at offset {} was {}", seen.offset, evidence.tell_sighting(seen))
        };
        let Some((call, send)) = evidence.sender(seen.value) else {
            findings.add(Anomaly::Phantom, &place, || format!("{}, and nobody sent it", told()));
            continue;
        };
        let sent = || super::evidence::tell(evidence.history, call);
        if *send.topic != *place.topic || send.part != place.part {
            findings.add(Anomaly::Phantom, &place, || {
                format!("{}, but it was sent to {}/{} by {}", told(), send.topic, send.part, sent())
            });
            continue;
        }
        if let Outcome::Fail(error) = &call.outcome {
            findings.add(Anomaly::FailedRead, &place, || {
                format!("{}, but {} certainly failed ({error})", told(), sent())
            });
        }
        let too_early = |seen: &&super::evidence::Sighting| {
            seen.source != Source::Ack
                && evidence.call(seen.call).completed.is_some_and(|at| at.before(call.invoked))
        };
        if let Some(early) = group.iter().find(too_early) {
            findings.add(Anomaly::Phantom, &place, || {
                let value = tell_value(early.value);
                let who = evidence.tell_sighting(early);
                format!("value {value} at offset {} was {who}, before {} sent it", early.offset, sent())
            });
        }
    }
}
