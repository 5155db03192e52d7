//! What the demo promises, checked record by record: every acked record is there, at the offset of its receipt, once, and
//! the records of one writer stand in the order it sent them.

use std::collections::{BTreeMap, BTreeSet};

/// Identity of a record: who wrote it, and the how-manieth of that writer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordName {
    pub(super) writer: u32,
    pub(super) number: u64,
}

impl RecordName {
    /// Length of the name at the head of a record's value.
    pub(super) const LEN: usize = 8 + 1 + 16;

    /// The head of the record's value: fixed width, readable.
    pub(super) fn encode(self) -> String {
        format!("{:08x}-{:016x}", self.writer, self.number)
    }

    /// Reads the head of a value.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value.get(..Self::LEN)?).ok()?;
        let (writer, number) = text.split_once('-')?;
        Some(Self {
            writer: u32::from_str_radix(writer, 16).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        })
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) offset: u64,
}

/// What the comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    /// Acked, but not at the offset of the receipt.
    pub(super) lost: u64,
    /// Read more than once.
    pub(super) duplicated: u64,
    /// Read behind a later record of the same writer in the same partition.
    pub(super) reordered: u64,
}

/// Compares the receipts with what was read, in reading order within each partition.
pub(super) fn verify(acked: &[(RecordName, Place)], read: &[(RecordName, Place)]) -> Verdict {
    let mut verdict = Verdict::default();
    let at: BTreeMap<Place, RecordName> = read.iter().map(|(name, place)| (*place, *name)).collect();
    for (name, place) in acked {
        if at.get(place) != Some(name) {
            verdict.lost += 1;
        }
    }
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (name, place) in read {
        if !seen.insert(*name) {
            verdict.duplicated += 1;
            continue;
        }
        let newest = last.entry((place.partition, name.writer)).or_insert(name.number);
        if name.number < *newest {
            verdict.reordered += 1;
        }
        *newest = (*newest).max(name.number);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(writer: u32, number: u64, partition: u32, offset: u64) -> (RecordName, Place) {
        (RecordName { writer, number }, Place { partition, offset })
    }

    #[test]
    fn a_name_survives_its_text() {
        let name = RecordName { writer: 7, number: u64::MAX };
        let text = name.encode();
        assert_eq!(text.len(), RecordName::LEN);
        assert_eq!(RecordName::decode(format!("{text}xxxx").as_bytes()), Some(name));
        assert_eq!(RecordName::decode(b"short"), None);
        assert_eq!(RecordName::decode(&[0xff; 40]), None);
    }

    #[test]
    fn what_was_acked_and_read_in_order_is_clean() {
        let log = [at(1, 0, 0, 0), at(2, 0, 0, 1), at(1, 2, 0, 2), at(1, 1, 1, 0)];
        assert_eq!(verify(&log, &log), Verdict::default());
    }

    #[test]
    fn a_record_of_unknown_outcome_that_is_there_is_no_fault() {
        let log = [at(1, 0, 0, 0), at(1, 1, 0, 1)];
        assert_eq!(verify(&log[..1], &log), Verdict::default());
    }

    #[test]
    fn each_fault_is_found() {
        let acked = [at(1, 0, 0, 0), at(1, 1, 0, 1)];
        assert_eq!(verify(&acked, &acked[..1]).lost, 1, "missing");
        assert_eq!(
            verify(&acked, &[at(1, 1, 0, 0), at(1, 0, 0, 1)]),
            Verdict { lost: 2, duplicated: 0, reordered: 1 }
        );
        let twice = [at(1, 0, 0, 0), at(1, 1, 0, 1), at(1, 0, 0, 2)];
        assert_eq!(verify(&acked, &twice), Verdict { lost: 0, duplicated: 1, reordered: 0 });
    }
}
