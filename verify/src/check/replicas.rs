//! Whether all replicas hold the same, and each of them a log without holes.

use super::Expectations;
use super::evidence::{Evidence, Final, Place, tell_value};
use super::findings::{Anomaly, Findings};
use crate::history::FinalRecord;

pub(super) fn check(evidence: &Evidence<'_>, expectations: &Expectations, findings: &mut Findings) {
    for (place, partition) in &evidence.partitions {
        for (replica, read) in &partition.finals {
            in_order(evidence, *place, (*replica, *read), findings);
            if expectations.dense {
                without_holes(evidence, *place, (*replica, *read), findings);
            }
        }
        // The replica with the longest log is the yardstick: everything any other has can be compared with it.
        let longest = partition.finals.iter().max_by_key(|(_, read)| read.answer.hw);
        let Some((yardstick, one)) = longest else { continue };
        for (replica, other) in partition.finals.iter().filter(|(replica, _)| *replica != yardstick) {
            same(evidence, *place, [(*yardstick, *one), (*replica, *other)], findings);
        }
    }
}

fn in_order(evidence: &Evidence<'_>, place: Place<'_>, (_, read): (u32, Final<'_>), findings: &mut Findings) {
    for pair in read.answer.recs.windows(2) {
        let [one, next] = pair else { continue };
        if next.off <= one.off {
            findings.add(Anomaly::NonmonotonicPoll, &place, || {
                format!("{} returned offset {} after offset {}", evidence.tell(read.call), next.off, one.off)
            });
        }
    }
}

/// Reports the first hole of a replica and counts the offsets in all of them.
fn without_holes(
    evidence: &Evidence<'_>,
    place: Place<'_>,
    (replica, read): (u32, Final<'_>),
    findings: &mut Findings,
) {
    let answer = read.answer;
    let mut expected = answer.start;
    let mut first = None;
    let mut missing = 0;
    for offset in answer.recs.iter().map(|record| record.off).chain([answer.hw]) {
        if offset > expected {
            first = first.or(Some(expected));
            missing += offset - expected;
        }
        expected = expected.max(offset.saturating_add(1));
    }
    if let Some(first) = first {
        findings.add(Anomaly::OffsetHole, &place, || {
            format!(
                "replica {replica} holds [{}, {}) and has no record at offset {first}, {missing} such offsets in all ({})",
                answer.start,
                answer.hw,
                evidence.tell(read.call)
            )
        });
    }
}

/// Two replicas agree wherever both have committed records.
fn same(evidence: &Evidence<'_>, place: Place<'_>, pair: [(u32, Final<'_>); 2], findings: &mut Findings) {
    let [(one, a), (other, b)] = pair;
    let from = a.answer.start.max(b.answer.start);
    let to = a.answer.hw.min(b.answer.hw);
    let within = |record: &&FinalRecord| (from..to).contains(&record.off);
    let mut left = a.answer.recs.iter().filter(within).peekable();
    let mut right = b.answer.recs.iter().filter(within).peekable();
    let mut first = None;
    let mut differing = 0_u64;
    while let Some(offset) = left.peek().into_iter().chain(right.peek()).map(|record| record.off).min() {
        let at_left = left.next_if(|record| record.off == offset);
        let at_right = right.next_if(|record| record.off == offset);
        if !agree(at_left, at_right) {
            differing += 1;
            first.get_or_insert((offset, at_left, at_right));
        }
    }
    let Some((offset, at_left, at_right)) = first else { return };
    findings.add(Anomaly::ReplicaDivergence, &place, || {
        format!(
            "offset {offset} is {} on replica {one} and {} on replica {other}, {differing} offsets of [{from}, {to}) differ ({}; {})",
            tell(at_left),
            tell(at_right),
            evidence.tell(a.call),
            evidence.tell(b.call)
        )
    });
}

/// Epochs and checksums that are not known prove nothing.
fn agree(one: Option<&FinalRecord>, other: Option<&FinalRecord>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let equal = |a: u32, b: u32| a == b || a == 0 || b == 0;
    one.val == other.val && equal(one.epoch, other.epoch) && equal(one.sum, other.sum)
}

fn tell(record: Option<&FinalRecord>) -> String {
    record.map_or_else(
        || "nothing".to_owned(),
        |record| {
            let value = tell_value(record.val);
            format!("value {value} (leader epoch {}, checksum {:08x})", record.epoch, record.sum)
        },
    )
}
