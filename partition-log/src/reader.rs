//! Readers of a partition log. They hold a lock for lookups only, never while the disk is used.

use std::sync::Arc;

use bytes::Bytes;
use wire::ids::Offset;
use wire::limits::INFLATED_BYTES_MAX;
use wire::record::{BatchHeader, decode_records};

use crate::LogError;
use crate::leader_epochs::LeaderEpochs;
use crate::log::{Shared, View};
use crate::scan::{BatchScan, Scanned, Wait};
use crate::segment::Segment;
use crate::stamped::StampedBatch;
use crate::state::SegmentInfo;

/// Write-back of the active segment is started in pieces of at least this, so that a flush finds little left to write
/// and the WAL's own writes are not held up (storage measurements: every 4–8 MiB).
const WRITEBACK_BYTES_MIN: u64 = 4 << 20;
/// Bytes of a segment that are checked at once.
const CHECKED_AT_ONCE: usize = 1 << 20;

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Whole batches in order; the first holds the wanted offset and may begin before it. Empty at the end.
    Data(Vec<Bytes>),
    /// The disk would have to be waited for.
    WouldBlock,
}

/// A reader of a partition log; clones are cheap. It stays usable while the log is appended to, sealed and trimmed.
#[derive(Debug, Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// A read in progress.
struct Read {
    out: Vec<Bytes>,
    at: u64,
    upto: u64,
    room: usize,
    wait: Wait,
}

impl Read {
    fn take(&mut self, batch: Bytes, next: u64) {
        self.room = self.room.saturating_sub(batch.len());
        self.at = next;
        self.out.push(batch);
    }

    fn fits(&self, header: &BatchHeader) -> bool {
        header.next_offset().0 <= self.upto && (self.out.is_empty() || header.total_len() <= self.room)
    }
}

enum Step {
    More,
    Done,
    WouldBlock,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// First readable offset.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        Offset(self.shared.view().log_start)
    }

    /// Offset that the next record gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.shared.view().next_offset)
    }

    /// The leader epochs.
    #[must_use]
    pub fn epochs(&self) -> Arc<LeaderEpochs> {
        self.shared.view().epochs.clone()
    }

    /// Reads whole batches from the one that holds `from`, of those that end at or below `upto`, up to `max_bytes` but
    /// at least one. With `nowait` only what memory holds: [`ReadOutcome::WouldBlock`] if that is nothing.
    ///
    /// What comes from the disk is checked first, at about 0.1 s of a core per GiB.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`], [`LogError::Corrupt`] or [`LogError::Disk`].
    pub fn read(
        &self,
        from: Offset,
        upto: Offset,
        max_bytes: usize,
        nowait: bool,
    ) -> Result<ReadOutcome, LogError> {
        let wait = if nowait { Wait::Never } else { Wait::Allowed };
        let mut read = Read { out: Vec::new(), at: from.0, upto: upto.0, room: max_bytes, wait };
        loop {
            match self.step(&mut read) {
                Ok(Step::More) => {}
                Ok(Step::WouldBlock) if read.out.is_empty() => return Ok(ReadOutcome::WouldBlock),
                Err(error) if read.out.is_empty() => return Err(error),
                // What was read before an error is good; the next read begins at the error.
                Ok(Step::Done | Step::WouldBlock) | Err(_) => return Ok(ReadOutcome::Data(read.out)),
            }
        }
    }

    /// Reads from the tail cache, or from one segment.
    fn step(&self, read: &mut Read) -> Result<Step, LogError> {
        let view = self.shared.view();
        let wanted = Offset(read.at);
        if read.at < view.log_start || read.at > view.next_offset {
            if !read.out.is_empty() {
                // The log start moved past this read; what was read is still right.
                return Ok(Step::Done);
            }
            let (start, end) = (Offset(view.log_start), Offset(view.next_offset));
            return Err(LogError::OffsetOutOfRange { wanted, start, end });
        }
        let full = read.room == 0 && !read.out.is_empty();
        if full || read.at >= read.upto.min(view.next_offset) {
            return Ok(Step::Done);
        }
        if let Some(found) = view.tail.collect(read.at, read.upto, read.room, read.out.is_empty()) {
            // Joined outside the lock.
            drop(view);
            read.out.extend(found.iter().map(StampedBatch::joined));
            return Ok(Step::Done);
        }
        let Some(segment) = segment_of(&view, read.at) else {
            let (segment, what) = (wanted, "no segment holds the offset");
            return Err(LogError::Corrupt { segment, at: wanted, what });
        };
        let epochs = view.epochs.clone();
        drop(view);
        let Some(scan) = segment.scan_for_offset(read.at, read.wait)? else { return Ok(Step::WouldBlock) };
        read_segment(scan, &epochs, read)
    }

    /// The first record with a timestamp of at least `timestamp_ms` below `upto`, and its timestamp. Waits for the disk,
    /// and inflates the batch that holds the record.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] or [`LogError::Disk`].
    pub fn offset_for_time(
        &self,
        timestamp_ms: i64,
        upto: Offset,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let view = self.shared.view();
        let log_start = Offset(view.log_start);
        let candidates: Vec<Arc<Segment>> = view
            .segments
            .values()
            .filter(|segment| segment.base() < upto.0 && segment.max_timestamp() >= timestamp_ms)
            .cloned()
            .collect();
        drop(view);
        for segment in candidates {
            let Some(mut scan) = segment.scan_for_time(timestamp_ms)? else { continue };
            while let Scanned::Batch((header, batch)) = scan.next()? {
                if header.base_offset >= upto.0 {
                    return Ok(None);
                }
                if header.max_timestamp < timestamp_ms || header.next_offset() <= log_start {
                    continue;
                }
                if let Some((offset, time)) = first_since(&header, &batch, timestamp_ms, log_start) {
                    return Ok((offset < upto).then_some((offset, time)));
                }
            }
        }
        Ok(None)
    }

    /// Bytes of a segment's log file as they are, for a replica that catches up: it checks them. Fewer than `len` only at
    /// the end of the segment.
    ///
    /// # Errors
    /// [`LogError::NoSuchRange`] if the segment is gone or shorter than `position`; [`LogError::Disk`].
    pub fn read_segment_range(&self, base: Offset, position: u64, len: usize) -> Result<Bytes, LogError> {
        let segment = self.shared.view().segments.get(&base.0).cloned();
        let found = match segment {
            Some(segment) => segment.read_range(position, len)?,
            None => None,
        };
        found.ok_or(LogError::NoSuchRange { segment: base })
    }

    /// Reads the whole of a segment and compares it with the checksum of what was written, at about 0.1 s of a core per
    /// GiB. Waits for the disk.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if it is damaged; [`LogError::NoSuchRange`] if it is gone; [`LogError::Disk`].
    pub fn check_segment(&self, base: Offset) -> Result<(), LogError> {
        let segment = self.shared.view().segments.get(&base.0).cloned();
        let segment = segment.ok_or(LogError::NoSuchRange { segment: base })?;
        let (written, mut crc, mut position) = (segment.info(), 0, 0);
        while position < written.len {
            let left = usize::try_from(written.len - position).unwrap_or(usize::MAX);
            let bytes = segment.read_range(position, left.min(CHECKED_AT_ONCE))?;
            let bytes = bytes.ok_or(LogError::NoSuchRange { segment: base })?;
            crc = crc32c::crc32c_append(crc, &bytes);
            position += bytes.len() as u64;
        }
        match crc == written.crc {
            true => Ok(()),
            false => {
                Err(LogError::Corrupt { segment: base, at: base, what: "its bytes are not those written" })
            }
        }
    }

    /// True if a segment of exactly this content is here, so that it need not be pulled.
    #[must_use]
    pub fn holds(&self, info: &SegmentInfo) -> bool {
        let held = self.shared.view().segments.get(&info.base.0).map(|segment| segment.info());
        held.is_some_and(|held| (held.next, held.len, held.crc) == (info.next, info.len, info.crc))
    }

    /// True if [`LogReader::start_writeback`] would do anything; memory answers.
    #[must_use]
    pub fn wants_writeback(&self) -> bool {
        let view = self.shared.view();
        view.segments
            .last_key_value()
            .is_some_and(|(_, segment)| segment.wants_writeback(WRITEBACK_BYTES_MIN))
    }

    /// Starts write-back of the active segment, without waiting, if enough was appended since the last time. Call it
    /// every few tens of milliseconds while the log is appended to.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn start_writeback(&self) -> Result<(), LogError> {
        let last = self.shared.view().segments.last_key_value().map(|(_, segment)| segment.clone());
        match last {
            Some(segment) => Ok(segment.start_writeback(WRITEBACK_BYTES_MIN)?),
            None => Ok(()),
        }
    }
}

fn segment_of(view: &View, offset: u64) -> Option<Arc<Segment>> {
    let (_, segment) = view.segments.range(..=offset).next_back()?;
    Some(segment.clone())
}

/// Takes batches of one segment as long as they fit.
fn read_segment(scan: BatchScan, epochs: &LeaderEpochs, read: &mut Read) -> Result<Step, LogError> {
    let mut scan = scan.chunk_len(read.room);
    match scan.skip_below(read.at)? {
        Scanned::Batch(()) => {}
        Scanned::WouldBlock => return Ok(Step::WouldBlock),
        Scanned::End => return Err(scan.corrupt("the segment ends before the offset")),
    }
    loop {
        match scan.peek()? {
            Scanned::Batch(header) if !read.fits(&header) => return Ok(Step::Done),
            Scanned::Batch(_) => {}
            Scanned::WouldBlock => return Ok(Step::WouldBlock),
            // The next segment begins here, or the log ends.
            Scanned::End => return Ok(Step::More),
        }
        let (header, batch) = match scan.next()? {
            Scanned::Batch(found) => found,
            Scanned::WouldBlock => return Ok(Step::WouldBlock),
            Scanned::End => return Ok(Step::More),
        };
        // The epoch lies outside the checksum. It is compared at the last record: that one is above the log start, so
        // its epoch is still known.
        let known = epochs.epoch_at(header.last_offset());
        if known.is_none_or(|epoch| i64::from(epoch.0) != i64::from(header.leader_epoch)) {
            let (segment, at) = (scan.segment(), Offset(header.base_offset));
            return Err(LogError::Corrupt { segment, at, what: "the batch has another leader epoch" });
        }
        read.take(batch, header.next_offset().0);
    }
}

/// The first record of a batch that is not older than `timestamp_ms`.
fn first_since(
    header: &BatchHeader,
    batch: &Bytes,
    timestamp_ms: i64,
    log_start: Offset,
) -> Option<(Offset, i64)> {
    let whole = Some((Offset(header.base_offset).max(log_start), header.max_timestamp));
    if header.has_append_time() {
        return whole;
    }
    match decode_records(batch, INFLATED_BYTES_MAX) {
        Ok(records) => records
            .into_iter()
            .find(|record| record.timestamp_ms >= timestamp_ms && record.offset >= log_start)
            .map(|record| (record.offset, record.timestamp_ms)),
        // A producer's block that does not inflate is the producer's fault and stays readable as it is.
        Err(_) => whole,
    }
}
