//! Whether what was acknowledged or seen is still there at the end, on every replica.

use std::fmt::Write as _;

use super::Expectations;
use super::evidence::{Evidence, Final, Partition, Place, Sighting, Source, tell_value};
use super::findings::{Anomaly, Findings};
use crate::history::FinalRecord;

pub(super) fn check(evidence: &Evidence<'_>, expectations: &Expectations, findings: &mut Findings) {
    let mut unread = 0;
    for (place, partition) in &evidence.partitions {
        if partition.finals.is_empty() {
            unread += usize::from(!partition.sends.is_empty());
        } else {
            stored(evidence, expectations, (*place, partition), findings);
        }
        replicas_read(expectations, *place, partition, findings);
    }
    if unread > 0 && expectations.replicas == 0 {
        findings.note(format!(
            "{unread} partitions were not read at the end: a record lost without anyone having read past it cannot be seen"
        ));
    }
}

/// Each replica of a partition with sends was read at the end.
fn replicas_read(
    expectations: &Expectations,
    place: Place<'_>,
    partition: &Partition<'_>,
    findings: &mut Findings,
) {
    let read = partition.finals.len();
    let wanted = usize::try_from(expectations.replicas).unwrap_or(usize::MAX);
    if read < wanted && !partition.sends.is_empty() {
        findings.add(Anomaly::Unseen, &place, || {
            let replicas: Vec<_> = partition.finals.keys().collect();
            format!("{read} of {wanted} replicas were read at the end: {replicas:?}")
        });
    }
}

/// What a replica has at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Same,
    Other(u64),
    Nothing,
    /// The offset is below its log start, and retention is allowed.
    Retired,
    /// The offset is at or above its high watermark.
    Beyond,
}

/// One replica's final read, walked along with the sightings.
struct Walk<'h> {
    replica: u32,
    read: Final<'h>,
    next: usize,
    held: Held,
}

impl Walk<'_> {
    /// What is at `offset`; offsets asked for never go back.
    fn look(&mut self, offset: u64, value: u64, retention: bool) {
        let answer = self.read.answer;
        let rest: &[FinalRecord] = answer.recs.get(self.next..).unwrap_or_default();
        self.next += rest.iter().take_while(|record| record.off < offset).count();
        let here = answer.recs.get(self.next).filter(|record| record.off == offset);
        self.held = match here {
            Some(record) if record.val == value => Held::Same,
            Some(record) => Held::Other(record.val),
            None if offset < answer.start && retention => Held::Retired,
            None if offset >= answer.hw => Held::Beyond,
            None => Held::Nothing,
        };
    }
}

/// Every record that was acknowledged with an offset or seen by a consumer is in every final read.
fn stored(
    evidence: &Evidence<'_>,
    expectations: &Expectations,
    (place, partition): (Place<'_>, &Partition<'_>),
    findings: &mut Findings,
) {
    let mut walks: Vec<Walk<'_>> = partition
        .finals
        .iter()
        .map(|(replica, read)| Walk { replica: *replica, read: *read, next: 0, held: Held::Same })
        .collect();
    for group in partition.sightings.chunk_by(|a, b| (a.offset, a.value) == (b.offset, b.value)) {
        let Some(seen) = group.iter().find(|seen| seen.source != Source::Final) else { continue };
        for walk in &mut walks {
            walk.look(seen.offset, seen.value, expectations.retention);
        }
        // Another value at an offset that a consumer saw is an inconsistent offset; one that was promised is lost as well.
        let promised = seen.source == Source::Ack;
        let lost = |walk: &Walk<'_>| match walk.held {
            Held::Nothing => true,
            Held::Other(_) => promised,
            Held::Same | Held::Retired | Held::Beyond => false,
        };
        let beyond = walks.iter().filter(|walk| walk.held == Held::Beyond).count();
        if walks.iter().any(lost) || beyond == walks.len() {
            findings.add(Anomaly::LostWrite, &place, || tell(evidence, seen, &walks));
        } else if beyond > 0 {
            findings.add(Anomaly::Unseen, &place, || tell(evidence, seen, &walks));
        }
    }
}

fn tell(evidence: &Evidence<'_>, seen: &Sighting, walks: &[Walk<'_>]) -> String {
    let mut text = format!(
        "value {} at offset {} was {}",
        tell_value(seen.value),
        seen.offset,
        evidence.tell_sighting(seen)
    );
    for walk in walks {
        let answer = walk.read.answer;
        let what = match walk.held {
            Held::Same => "has it".to_owned(),
            Held::Other(value) => format!("has value {} there", tell_value(value)),
            Held::Nothing if seen.offset < answer.start => format!("begins at {}", answer.start),
            Held::Nothing => "has nothing there".to_owned(),
            Held::Retired => format!("retired it, its log starts at {}", answer.start),
            Held::Beyond => format!("ends at {}", answer.hw),
        };
        let call = evidence.history.call_name(evidence.call(walk.read.call));
        // Writing to a string cannot fail.
        let _ = write!(text, "; replica {} {what} (final read {call})", walk.replica);
    }
    text
}
