//! The state of a log at one moment, as it stands in state files and snapshots.

use wire::ids::{LeaderEpoch, Offset, ProducerId};

use crate::leader_epochs::{EpochStart, LeaderEpochs};
use crate::producer_state::{BATCHES_REMEMBERED, ProducerEntry, ProducerState, RememberedBatch};

/// Version of the layout that this build writes.
const VERSION: u8 = 1;
const EPOCH_LEN: usize = 12;
const SEGMENT_LEN: usize = 48;
const PRODUCER_LEN_MIN: usize = 19;
const BATCH_LEN: usize = 16;

/// Where the log is cut at recovery: what is above was not synced or not named, and is written again from the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutMark {
    /// First offset of the active segment; the log end if there is none.
    pub segment_base: Offset,
    /// Bytes of it that are durable.
    pub synced_len: u64,
}

/// One segment of a state. All but the last are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// First offset.
    pub base: Offset,
    /// Offset after the last record.
    pub next: Offset,
    /// Bytes of its log file.
    pub len: u64,
    /// Largest record timestamp in ms since 1970; `i64::MIN` if it is empty.
    pub max_timestamp: i64,
    /// CRC-32C of those bytes.
    pub crc: u32,
    /// Entries of its index.
    pub index_entries: u32,
    /// CRC-32C of its offset index.
    pub index_crc: u32,
    /// CRC-32C of its time index.
    pub time_index_crc: u32,
}

/// The state of a log at one moment.
///
/// All integers little endian. The file or frame around it carries the checksum.
///
/// | size | field |
/// |---|---|
/// | 1 | version = 1 |
/// | 8 | log start |
/// | 8 | next offset |
/// | 4 | count of epochs; then each: |
/// | 4 + 8 | epoch, its first offset |
/// | 4 | count of segments; then each: |
/// | 8 + 8 + 8 | first offset, offset after its last record, bytes of its log |
/// | 8 | largest timestamp |
/// | 4 + 4 + 4 + 4 | CRC-32C of the log, index entries, CRC-32C of the offset index, of the time index |
/// | 4 | count of producers, ascending by id; then each: |
/// | 8 + 2 + 8 | id, epoch, time of its last entry |
/// | 1 | count of batches, 1 to 5; then each: |
/// | 4 + 4 + 8 | first sequence, last sequence, base offset |
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateSnapshot {
    /// First offset that is readable.
    pub log_start: Offset,
    /// Offset of the next record.
    pub next_offset: Offset,
    /// Leader epochs.
    pub epochs: LeaderEpochs,
    /// Segments, oldest first, each beginning where the one before ends.
    pub segments: Vec<SegmentInfo>,
    /// Idempotent producers.
    pub producers: ProducerState,
}

/// Why bytes are not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by a newer build.
    #[error("partition state has version {0}, this build reads {VERSION}")]
    Version(u8),
    /// It ends too early.
    #[error("partition state is cut short")]
    Short,
    /// Bytes follow it.
    #[error("bytes follow the partition state")]
    Trailing,
    /// Its parts contradict each other.
    #[error("partition state is inconsistent: {0}")]
    Inconsistent(&'static str),
}

impl StateSnapshot {
    /// The mark that belongs to this state.
    #[must_use]
    pub fn mark(&self) -> CutMark {
        self.segments.last().map_or(CutMark { segment_base: self.next_offset, synced_len: 0 }, |active| {
            CutMark { segment_base: active.base, synced_len: active.len }
        })
    }

    /// Encodes the state.
    ///
    /// # Panics
    /// If there are 2³² segments, epochs or producers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            64 + self.segments.len() * SEGMENT_LEN
                + self.producers.len() * (PRODUCER_LEN_MIN + BATCH_LEN * BATCHES_REMEMBERED),
        );
        out.push(VERSION);
        out.extend_from_slice(&self.log_start.0.to_le_bytes());
        out.extend_from_slice(&self.next_offset.0.to_le_bytes());
        put_count(&mut out, self.epochs.entries().len());
        for entry in self.epochs.entries() {
            out.extend_from_slice(&entry.epoch.0.to_le_bytes());
            out.extend_from_slice(&entry.start.0.to_le_bytes());
        }
        put_count(&mut out, self.segments.len());
        for segment in &self.segments {
            put_segment(&mut out, segment);
        }
        put_count(&mut out, self.producers.len());
        for (id, producer) in self.producers.iter() {
            put_producer(&mut out, id, producer);
        }
        out
    }

    /// Decodes a state; never allocates for a count whose bytes are not there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut input = Input(bytes);
        let [version] = input.take()?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let (log_start, next_offset) = (input.offset()?, input.offset()?);
        let mut epochs = Vec::new();
        for _ in 0..input.count(EPOCH_LEN)? {
            epochs.push(EpochStart { epoch: LeaderEpoch(input.u32()?), start: input.offset()? });
        }
        let epochs = LeaderEpochs::from_entries(epochs).ok_or(StateError::Inconsistent("epochs go back"))?;
        let mut segments = Vec::new();
        for _ in 0..input.count(SEGMENT_LEN)? {
            segments.push(input.segment()?);
        }
        let mut producers = ProducerState::default();
        let mut last_id = None;
        for _ in 0..input.count(PRODUCER_LEN_MIN)? {
            let (id, producer) = input.producer()?;
            if last_id.is_some_and(|last| last >= id) {
                return Err(StateError::Inconsistent("producers are out of order"));
            }
            last_id = Some(id);
            producers.insert(id, producer);
        }
        if !input.0.is_empty() {
            return Err(StateError::Trailing);
        }
        let state = Self { log_start, next_offset, epochs, segments, producers };
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<(), StateError> {
        let wrong = |what| Err(StateError::Inconsistent(what));
        if self.log_start > self.next_offset {
            return wrong("the log start lies above the log end");
        }
        let Some((first, last)) = self.segments.first().zip(self.segments.last()) else {
            return if self.log_start == self.next_offset { Ok(()) } else { wrong("segments are missing") };
        };
        if first.base > self.log_start {
            return wrong("the first segment lies above the log start");
        }
        if last.next != self.next_offset {
            return wrong("the last segment does not reach the log end");
        }
        if self.segments.iter().any(|segment| segment.base >= segment.next || segment.len == 0) {
            return wrong("a segment is empty");
        }
        let gap = |pair: &[SegmentInfo]| matches!(pair, [a, b] if a.next != b.base);
        if self.segments.windows(2).any(gap) { wrong("segments leave a gap") } else { Ok(()) }
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count);
    assert!(count.is_ok(), "counts in a state have 32 bits");
    out.extend_from_slice(&count.unwrap_or_default().to_le_bytes());
}

fn put_segment(out: &mut Vec<u8>, segment: &SegmentInfo) {
    for wide in [segment.base.0, segment.next.0, segment.len] {
        out.extend_from_slice(&wide.to_le_bytes());
    }
    out.extend_from_slice(&segment.max_timestamp.to_le_bytes());
    for narrow in [segment.crc, segment.index_entries, segment.index_crc, segment.time_index_crc] {
        out.extend_from_slice(&narrow.to_le_bytes());
    }
}

fn put_producer(out: &mut Vec<u8>, id: ProducerId, producer: &ProducerEntry) {
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&producer.epoch.to_le_bytes());
    out.extend_from_slice(&producer.last_ms.to_le_bytes());
    let batches = producer.batches.iter().take(BATCHES_REMEMBERED);
    out.push(u8::try_from(batches.len()).unwrap_or(u8::MAX));
    for batch in batches {
        out.extend_from_slice(&batch.first_sequence.to_le_bytes());
        out.extend_from_slice(&batch.last_sequence.to_le_bytes());
        out.extend_from_slice(&batch.base_offset.0.to_le_bytes());
    }
}

/// Bytes still to be decoded.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(StateError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.take().map(u64::from_le_bytes)
    }

    fn offset(&mut self) -> Result<Offset, StateError> {
        self.u64().map(Offset)
    }

    /// A count of things of at least `each` bytes, all of which must be there.
    fn count(&mut self, each: usize) -> Result<usize, StateError> {
        let count = usize::try_from(self.u32()?).map_err(|_| StateError::Short)?;
        if count > self.0.len() / each { Err(StateError::Short) } else { Ok(count) }
    }

    fn segment(&mut self) -> Result<SegmentInfo, StateError> {
        Ok(SegmentInfo {
            base: self.offset()?,
            next: self.offset()?,
            len: self.u64()?,
            max_timestamp: i64::from_le_bytes(self.take()?),
            crc: self.u32()?,
            index_entries: self.u32()?,
            index_crc: self.u32()?,
            time_index_crc: self.u32()?,
        })
    }

    fn producer(&mut self) -> Result<(ProducerId, ProducerEntry), StateError> {
        let id = ProducerId(self.u64()?);
        let epoch = u16::from_le_bytes(self.take()?);
        let last_ms = i64::from_le_bytes(self.take()?);
        let [count] = self.take()?;
        let count = usize::from(count);
        if count == 0 || count > BATCHES_REMEMBERED {
            return Err(StateError::Inconsistent("a producer has no batch or too many"));
        }
        let mut batches = Vec::with_capacity(BATCHES_REMEMBERED);
        for _ in 0..count {
            let (first_sequence, last_sequence) = (self.u32()?, self.u32()?);
            batches.push(RememberedBatch { first_sequence, last_sequence, base_offset: self.offset()? });
        }
        Ok((id, ProducerEntry { epoch, last_ms, batches }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::record::ProducerStamp;

    use super::*;

    fn example() -> StateSnapshot {
        let start = |epoch, start| EpochStart { epoch: LeaderEpoch(epoch), start: Offset(start) };
        let mut producers = ProducerState::default();
        let stamp = ProducerStamp { id: ProducerId(9), epoch: 1, first_sequence: 0, last_sequence: 2 };
        producers.record(&stamp, Offset(4), 77);
        StateSnapshot {
            log_start: Offset(3),
            next_offset: Offset(7),
            epochs: LeaderEpochs::from_entries(vec![start(1, 2), start(4, 5)]).unwrap(),
            segments: vec![SegmentInfo {
                base: Offset(2),
                next: Offset(7),
                len: 500,
                max_timestamp: -1,
                crc: 0x0102_0304,
                index_entries: 1,
                index_crc: 5,
                time_index_crc: 6,
            }],
            producers,
        }
    }

    #[test]
    fn golden_bytes() {
        #[rustfmt::skip]
        let wanted = [
            &[1][..],
            &[3, 0, 0, 0, 0, 0, 0, 0], &[7, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[1, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0], &[7, 0, 0, 0, 0, 0, 0, 0], &[244, 1, 0, 0, 0, 0, 0, 0],
            &[255; 8], &[4, 3, 2, 1], &[1, 0, 0, 0], &[5, 0, 0, 0], &[6, 0, 0, 0],
            &[1, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0], &[1, 0], &[77, 0, 0, 0, 0, 0, 0, 0], &[1],
            &[0, 0, 0, 0], &[2, 0, 0, 0], &[4, 0, 0, 0, 0, 0, 0, 0],
        ].concat();
        assert_eq!(example().encode(), wanted);
        assert_eq!(StateSnapshot::decode(&wanted), Ok(example()));
    }

    #[test]
    fn a_cut_or_longer_state_is_refused() {
        let bytes = example().encode();
        for cut in 0..bytes.len() {
            assert_eq!(StateSnapshot::decode(&bytes[..cut]), Err(StateError::Short), "cut at {cut}");
        }
        assert_eq!(StateSnapshot::decode(&[&bytes[..], &[0]].concat()), Err(StateError::Trailing));
        assert_eq!(StateSnapshot::decode(&[2]), Err(StateError::Version(2)));
    }

    #[test]
    fn a_state_that_contradicts_itself_is_refused() {
        let spoil: [fn(&mut StateSnapshot); 4] = [
            |state| state.log_start = Offset(8),
            |state| state.log_start = Offset(1),
            |state| state.next_offset = Offset(9),
            |state| state.segments.clear(),
        ];
        for change in spoil {
            let mut state = example();
            change(&mut state);
            assert!(matches!(StateSnapshot::decode(&state.encode()), Err(StateError::Inconsistent(_))));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = StateSnapshot::decode(&bytes);
        }

        #[test]
        fn flipped_bytes_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = example().encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = StateSnapshot::decode(&bytes);
        }
    }
}
