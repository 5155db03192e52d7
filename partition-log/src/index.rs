//! Sparse indexes of a segment: where to begin reading for an offset, and for a time.
//!
//! `.index`, 8 bytes an entry, little endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | first offset of a batch − first offset of the segment |
//! | 4 | 4 | position of that batch in the log file |
//!
//! `.timeindex`, 12 bytes an entry, little endian, one for each entry of the other:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | largest timestamp before that batch; `i64::MIN` for the first |
//! | 8 | 4 | first offset of that batch − first offset of the segment |
//!
//! The first batch has an entry, then each that begins at least the index interval after the last entry.

/// Bytes of an entry of the offset index.
pub(crate) const OFFSET_ENTRY: usize = 8;
/// Bytes of an entry of the time index.
pub(crate) const TIME_ENTRY: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) relative: u32,
    pub(crate) position: u32,
    /// Largest timestamp of all batches before this one.
    pub(crate) max_before: i64,
}

impl IndexEntry {
    fn offset_bytes(&self) -> [u8; OFFSET_ENTRY] {
        let mut bytes = [0; OFFSET_ENTRY];
        bytes[..4].copy_from_slice(&self.relative.to_le_bytes());
        bytes[4..].copy_from_slice(&self.position.to_le_bytes());
        bytes
    }

    fn time_bytes(&self) -> [u8; TIME_ENTRY] {
        let mut bytes = [0; TIME_ENTRY];
        bytes[..8].copy_from_slice(&self.max_before.to_le_bytes());
        bytes[8..].copy_from_slice(&self.relative.to_le_bytes());
        bytes
    }
}

/// The index of one segment, with the checksums that its two files would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    entries: Vec<IndexEntry>,
    offset_crc: u32,
    time_crc: u32,
    max_timestamp: i64,
}

impl Default for SegmentIndex {
    fn default() -> Self {
        Self { entries: Vec::new(), offset_crc: 0, time_crc: 0, max_timestamp: i64::MIN }
    }
}

impl SegmentIndex {
    /// Notes a batch. `position` is where it begins in the log file.
    pub(crate) fn note(&mut self, relative: u32, position: u32, max_timestamp: i64, interval: u32) {
        let due = match self.entries.last() {
            Some(last) => position.saturating_sub(last.position) >= interval,
            None => true,
        };
        if due {
            self.push(IndexEntry { relative, position, max_before: self.max_timestamp });
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    fn push(&mut self, entry: IndexEntry) {
        self.offset_crc = crc32c::crc32c_append(self.offset_crc, &entry.offset_bytes());
        self.time_crc = crc32c::crc32c_append(self.time_crc, &entry.time_bytes());
        self.entries.push(entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Largest timestamp noted.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Checksums of the offset index and of the time index.
    pub(crate) fn checksums(&self) -> (u32, u32) {
        (self.offset_crc, self.time_crc)
    }

    /// The last entry at or before an offset.
    pub(crate) fn before_offset(&self, relative: u64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| u64::from(entry.relative) <= relative);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// An entry before which everything is older than `timestamp`.
    pub(crate) fn before_time(&self, timestamp: i64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.max_before < timestamp);
        self.entries.get(after.saturating_sub(1)).copied()
    }

    /// Bytes of both files from entry number `from` on.
    pub(crate) fn bytes_from(&self, from: usize) -> (Vec<u8>, Vec<u8>) {
        let new = self.entries.get(from..).unwrap_or_default();
        let mut offsets = Vec::with_capacity(new.len() * OFFSET_ENTRY);
        let mut times = Vec::with_capacity(new.len() * TIME_ENTRY);
        for entry in new {
            offsets.extend_from_slice(&entry.offset_bytes());
            times.extend_from_slice(&entry.time_bytes());
        }
        (offsets, times)
    }

    /// Rebuilds the index from its files. `None` if they are not what the checksums say or do not rise.
    pub(crate) fn from_bytes(
        offsets: &[u8],
        times: &[u8],
        checksums: (u32, u32),
        max_timestamp: i64,
    ) -> Option<Self> {
        let mut index = Self::default();
        let (offsets, rest) = offsets.as_chunks::<OFFSET_ENTRY>();
        let (times, time_rest) = times.as_chunks::<TIME_ENTRY>();
        if !rest.is_empty() || !time_rest.is_empty() || offsets.len() != times.len() {
            return None;
        }
        for ([r0, r1, r2, r3, position @ ..], [t0, t1, t2, t3, t4, t5, t6, t7, _relative @ ..]) in
            offsets.iter().zip(times)
        {
            index.push(IndexEntry {
                relative: u32::from_le_bytes([*r0, *r1, *r2, *r3]),
                position: u32::from_le_bytes(*position),
                max_before: i64::from_le_bytes([*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7]),
            });
        }
        index.max_timestamp = max_timestamp;
        (index.checksums() == checksums && index.rises()).then_some(index)
    }

    fn rises(&self) -> bool {
        self.entries.is_sorted_by(|a, b| {
            a.relative < b.relative && a.position < b.position && a.max_before <= b.max_before
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten batches of 3 records and 60 bytes, timestamps 0, 10, …; an entry every second batch.
    fn example() -> SegmentIndex {
        let mut index = SegmentIndex::default();
        for n in 0..10 {
            index.note(3 * n, 60 * n, i64::from(10 * n), 100);
        }
        index
    }

    #[test]
    fn lookup_begins_at_or_before_the_offset() {
        let index = example();
        assert_eq!(index.len(), 5);
        let found = [0, 5, 6, 7, 29, 400].map(|offset| index.before_offset(offset).unwrap().position);
        assert_eq!(found, [0, 0, 120, 120, 480, 480]);
        assert_eq!(SegmentIndex::default().before_offset(0), None);
    }

    #[test]
    fn everything_before_the_place_for_a_time_is_older() {
        let index = example();
        let found = [i64::MIN, 0, 10, 11, 30, 31, 999].map(|time| index.before_time(time).unwrap().position);
        assert_eq!(found, [0, 0, 0, 120, 120, 240, 480]);
    }

    #[test]
    fn files_give_the_index_back_and_damage_is_seen() {
        let index = example();
        let (offsets, times) = index.bytes_from(0);
        let back = SegmentIndex::from_bytes(&offsets, &times, index.checksums(), 90);
        assert_eq!(back, Some(index.clone()));
        let mut damaged = times.clone();
        damaged[13] ^= 1;
        assert_eq!(SegmentIndex::from_bytes(&offsets, &damaged, index.checksums(), 90), None);
        assert_eq!(SegmentIndex::from_bytes(&offsets[..8], &times, index.checksums(), 90), None);
        assert_eq!(SegmentIndex::from_bytes(&offsets[..9], &times[..12], index.checksums(), 90), None);
    }

    #[test]
    fn golden_bytes() {
        let mut index = SegmentIndex::default();
        index.note(0, 0, 7, 1);
        index.note(258, 1027, 9, 1);
        let (offsets, times) = index.bytes_from(1);
        assert_eq!(offsets, [2, 1, 0, 0, 3, 4, 0, 0]);
        assert_eq!(times, [7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
    }
}
