//! What writers were told and what readers saw, and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};

/// Findings that are told one by one; the rest is counted.
const TOLD_MAX: usize = 5;

/// Acks and reads of one run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Partition and offset of each acked value.
    acked: BTreeMap<u64, (u32, u64)>,
    /// Values that were certainly not written.
    failed: BTreeSet<u64>,
    /// What anybody saw at an offset first.
    seen: BTreeMap<(u32, u64), u64>,
    /// Where a value was seen first.
    places: BTreeMap<u64, (u32, u64)>,
    /// What the last look saw, once it has begun.
    last: Option<BTreeSet<(u32, u64)>>,
    findings: Vec<String>,
}

impl Ledger {
    /// A value was acked; without an offset it cannot be looked for.
    pub(super) fn acked(&mut self, value: u64, partition: u32, offset: Option<u64>) {
        match offset {
            Some(offset) => {
                self.acked.insert(value, (partition, offset));
                self.observe(value, partition, offset);
            }
            None => self.findings.push(format!("{value:016x} was acked with acks=all and no offset")),
        }
    }

    /// A value was certainly not written.
    pub(super) fn failed(&mut self, value: u64) {
        self.failed.insert(value);
    }

    /// A record was read.
    pub(super) fn read(&mut self, partition: u32, offset: u64, bytes: Option<&[u8]>) {
        if let Some(last) = &mut self.last {
            last.insert((partition, offset));
        }
        let digits =
            bytes.and_then(|bytes| bytes.get(..16)).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            Some(value) => self.observe(value, partition, offset),
            None => self.findings.push(format!("a foreign record at {partition}/{offset}")),
        }
    }

    fn observe(&mut self, value: u64, partition: u32, offset: u64) {
        let at = (partition, offset);
        let first = *self.seen.entry(at).or_insert(value);
        if first != value {
            self.findings.push(format!("{partition}/{offset} held {first:016x} and {value:016x}"));
        }
        let place = *self.places.entry(value).or_insert(at);
        if place != at {
            let (other, there) = place;
            self.findings.push(format!("{value:016x} stands at {other}/{there} and at {partition}/{offset}"));
        }
    }

    /// From now on reads belong to the last look.
    pub(super) fn begin_last_look(&mut self) {
        self.last = Some(BTreeSet::new());
    }

    /// True if the last look has seen every acked record.
    pub(super) fn is_complete(&self) -> bool {
        self.last.as_ref().is_some_and(|last| self.acked.values().all(|at| last.contains(at)))
    }

    /// Everything that must not be.
    pub(super) fn verdict(&self) -> Vec<String> {
        let mut findings = self.findings.clone();
        for value in self.failed.iter().filter(|value| self.places.contains_key(value)) {
            findings.push(format!("{value:016x} was reported as not written and was seen"));
        }
        if let Some(last) = &self.last {
            for (value, (partition, offset)) in self.acked.iter().filter(|(_, at)| !last.contains(at)) {
                findings.push(format!("{value:016x}, acked at {partition}/{offset}, is lost"));
            }
        }
        let more = findings.len().saturating_sub(TOLD_MAX);
        findings.truncate(TOLD_MAX);
        if more > 0 {
            findings.push(format!("and {more} more"));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    fn text(value: u64) -> Vec<u8> {
        format!("{value:016x}").into_bytes()
    }

    #[test]
    fn an_acked_record_that_the_last_look_does_not_see_is_lost() {
        let mut ledger = Ledger::default();
        ledger.acked(7, 0, Some(0));
        ledger.acked(8, 0, Some(1));
        ledger.read(0, 1, Some(&text(8)));
        ledger.begin_last_look();
        ledger.read(0, 0, Some(&text(7)));
        assert!(!ledger.is_complete());
        assert_eq!(ledger.verdict().len(), 1);
        ledger.read(0, 1, Some(&text(8)));
        assert!(ledger.is_complete() && ledger.verdict().is_empty());
    }

    #[test]
    fn one_offset_with_two_values_and_one_value_at_two_offsets_are_found() {
        let mut ledger = Ledger::default();
        ledger.acked(7, 0, Some(0));
        ledger.read(0, 0, Some(&text(8)));
        ledger.read(0, 1, Some(&text(7)));
        assert_eq!(ledger.verdict().len(), 2);
    }

    #[test]
    fn a_failed_send_that_is_seen_is_found() {
        let mut ledger = Ledger::default();
        ledger.failed(7);
        assert!(ledger.verdict().is_empty());
        ledger.read(0, 0, Some(&text(7)));
        assert_eq!(ledger.verdict().len(), 1);
    }
}
