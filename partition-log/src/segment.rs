//! One segment: its log file, its indexes, and whether it still grows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use disk::{Disk, DiskError, DiskFile, OpenOptions};
use wire::ids::Offset;

use crate::index::{OFFSET_ENTRY, SegmentIndex, TIME_ENTRY};
use crate::paths::segment_file;
use crate::scan::{BatchScan, Scanned, Wait};
use crate::segment_cache::{OpenSegment, SegmentCache};
use crate::stamped::StampedBatch;
use crate::state::SegmentInfo;
use crate::{LogError, footer};

/// Where the files of a log are and how they are reached.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) cache: SegmentCache,
}

impl Place {
    fn open(&self, base: u64, suffix: &str, options: OpenOptions) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.disk.open(&segment_file(&self.dir, base, suffix), options)
    }
}

/// A segment; readers hold it while they read, and its files stay as long as anyone holds it.
#[derive(Debug)]
pub(crate) struct Segment {
    place: Place,
    base: u64,
    /// Of the cache of open segments.
    key: u64,
    body: Mutex<Body>,
}

#[derive(Debug)]
struct Body {
    next: u64,
    len: u64,
    crc: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The index is in memory: the active segment, and full ones until they are sealed.
    Growing {
        file: Arc<dyn DiskFile>,
        index: SegmentIndex,
        /// Entries that stand in the index files.
        index_written: usize,
        /// Log bytes whose write-back was started.
        written_back: u64,
    },
    /// Index and file are opened when they are read.
    Sealed(SegmentInfo),
}

/// A batch to be noted after it was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) batch: &'a StampedBatch,
    pub(crate) max_timestamp: i64,
    pub(crate) index_interval: u32,
}

impl Segment {
    /// Creates the log file of a new segment. Its name is durable after a sync of the directory.
    pub(crate) fn create(place: Place, base: u64) -> Result<Self, DiskError> {
        let options = OpenOptions { create_new: true, write: true, ..OpenOptions::default() };
        let file = place.open(base, "log", options)?;
        let kind = Kind::Growing { file, index: SegmentIndex::default(), index_written: 0, written_back: 0 };
        let key = place.cache.new_key();
        Ok(Self { place, base, key, body: Mutex::new(Body { next: base, len: 0, crc: 0, kind }) })
    }

    /// A segment whose `.sealed` file agrees with the state.
    pub(crate) fn sealed(place: Place, info: SegmentInfo) -> Self {
        let key = place.cache.new_key();
        let (next, len, crc) = (info.next.0, info.len, info.crc);
        let body = Mutex::new(Body { next, len, crc, kind: Kind::Sealed(info) });
        Self { place, base: info.base.0, key, body }
    }

    /// The active segment of a restored state: cut to its length, index loaded or rebuilt. True if it was rebuilt.
    pub(crate) fn reopen(
        place: Place,
        info: &SegmentInfo,
        index_interval: u32,
    ) -> Result<(Self, bool), LogError> {
        let base = info.base.0;
        let file = place.open(base, "log", OpenOptions { write: true, ..OpenOptions::default() })?;
        if file.len()? > info.len {
            file.set_len(info.len)?;
        }
        let (index, rebuilt) = match load_index(&place, info)? {
            Some(index) => (index, false),
            None => (rebuild_index(file.clone(), info, index_interval)?, true),
        };
        let index_written = if rebuilt { 0 } else { index.len() };
        let kind = Kind::Growing { file, index, index_written, written_back: info.len };
        let body = Mutex::new(Body { next: info.next.0, len: info.len, crc: info.crc, kind });
        let key = place.cache.new_key();
        Ok((Self { place, base, key, body }, rebuilt))
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Offset after the last record.
    pub(crate) fn next(&self) -> u64 {
        self.lock().next
    }

    pub(crate) fn len(&self) -> u64 {
        self.lock().len
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        match &self.lock().kind {
            Kind::Growing { index, .. } => index.max_timestamp(),
            Kind::Sealed(info) => info.max_timestamp,
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.lock().kind, Kind::Sealed(_))
    }

    pub(crate) fn info(&self) -> SegmentInfo {
        let body = self.lock();
        match &body.kind {
            Kind::Sealed(info) => *info,
            Kind::Growing { index, .. } => {
                let (index_crc, time_index_crc) = index.checksums();
                SegmentInfo {
                    base: Offset(self.base),
                    next: Offset(body.next),
                    len: body.len,
                    max_timestamp: index.max_timestamp(),
                    crc: body.crc,
                    index_entries: u32::try_from(index.len()).unwrap_or(u32::MAX),
                    index_crc,
                    time_index_crc,
                }
            }
        }
    }

    /// Writes a batch at the end. Only the log's single writer calls this.
    pub(crate) fn append(&self, written: Written<'_>) -> Result<(), LogError> {
        let Written { batch, max_timestamp, index_interval } = written;
        let (header, rest) = batch.parts();
        let (file, len) = match &*self.lock() {
            Body { kind: Kind::Growing { file, .. }, len, .. } => (file.clone(), *len),
            Body { kind: Kind::Sealed(_), .. } => return Err(LogError::Failed),
        };
        // Outside the lock: readers go on while the page cache takes the bytes.
        file.write_vectored_at(&[&header, rest], len)?;
        let mut body = self.lock();
        let (relative, position) = (u32::try_from(batch.base - self.base), u32::try_from(len));
        if let (Kind::Growing { index, .. }, Ok(relative), Ok(position)) =
            (&mut body.kind, relative, position)
        {
            index.note(relative, position, max_timestamp, index_interval);
        }
        body.next = batch.next;
        body.len += batch.len() as u64;
        body.crc = crc32c::crc32c_append(crc32c::crc32c_append(body.crc, &header), rest);
        Ok(())
    }

    /// Makes the log bytes durable and writes the new index entries, unsynced: they are hints.
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        let (file, from, bytes) = match &*self.lock() {
            Body { kind: Kind::Growing { file, index, index_written, .. }, .. } => {
                (file.clone(), *index_written, index.bytes_from(*index_written))
            }
            Body { kind: Kind::Sealed(_), .. } => return Ok(()),
        };
        file.sync_data()?;
        if bytes.0.is_empty() {
            return Ok(());
        }
        for (suffix, entry, bytes) in [("index", OFFSET_ENTRY, &bytes.0), ("timeindex", TIME_ENTRY, &bytes.1)]
        {
            let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
            self.place.open(self.base, suffix, options)?.write_at(bytes, (from * entry) as u64)?;
        }
        if let Kind::Growing { index_written, .. } = &mut self.lock().kind {
            *index_written = from + bytes.0.len() / OFFSET_ENTRY;
        }
        Ok(())
    }

    /// Flushes a segment that grows no more and writes its `.sealed` file. Names need a sync of the directory.
    pub(crate) fn seal(&self) -> Result<(), LogError> {
        if matches!(self.lock().kind, Kind::Sealed(_)) {
            return Ok(());
        }
        self.flush()?;
        let info = self.info();
        for (suffix, entry) in [("index", OFFSET_ENTRY), ("timeindex", TIME_ENTRY)] {
            let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
            let file = self.place.open(self.base, suffix, options)?;
            file.set_len(u64::from(info.index_entries) * entry as u64)?;
            file.sync_data()?;
        }
        footer::write(&*self.place.disk, &segment_file(&self.place.dir, self.base, "sealed"), &info)?;
        let mut body = self.lock();
        if let Kind::Growing { file, index, .. } = std::mem::replace(&mut body.kind, Kind::Sealed(info)) {
            self.place.cache.put(self.key, Arc::new(OpenSegment { file, index }));
        }
        Ok(())
    }

    /// True if at least `least` bytes came since write-back was last started.
    pub(crate) fn wants_writeback(&self, least: u64) -> bool {
        let body = self.lock();
        matches!(body.kind, Kind::Growing { written_back, .. } if body.len - written_back >= least)
    }

    /// Starts write-back of what came since the last start, if that is at least `least` bytes.
    pub(crate) fn start_writeback(&self, least: u64) -> Result<(), DiskError> {
        let (file, from, len) = match &mut *self.lock() {
            Body { kind: Kind::Growing { file, written_back, .. }, len, .. }
                if *len - *written_back >= least =>
            {
                (file.clone(), std::mem::replace(written_back, *len), *len)
            }
            _ => return Ok(()),
        };
        file.start_writeback(from, len - from)
    }

    /// Bytes of the log file from `position` on, at most `len`; `None` if the segment is shorter than `position`.
    pub(crate) fn read_range(&self, position: u64, len: usize) -> Result<Option<Bytes>, LogError> {
        let body = self.lock();
        let limit = body.len;
        let growing = match &body.kind {
            Kind::Growing { file, .. } => Some(file.clone()),
            Kind::Sealed(_) => None,
        };
        drop(body);
        let opened = if growing.is_none() { self.open_sealed(Wait::Allowed)? } else { None };
        let file = growing.or_else(|| opened.map(|open| open.file.clone()));
        let (Some(file), Some(left)) = (file, limit.checked_sub(position)) else { return Ok(None) };
        let mut buf = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(len)];
        file.read_exact_at(&mut buf, position)?;
        Ok(Some(Bytes::from(buf)))
    }

    /// A scan that begins at or before `offset`. `None` if that would mean waiting.
    pub(crate) fn scan_for_offset(&self, offset: u64, wait: Wait) -> Result<Option<BatchScan>, LogError> {
        let relative = offset - self.base;
        self.scan(wait, |index| index.before_offset(relative).map(|entry| (entry.relative, entry.position)))
    }

    /// A scan before which everything is older than `timestamp`.
    pub(crate) fn scan_for_time(&self, timestamp: i64) -> Result<Option<BatchScan>, LogError> {
        self.scan(Wait::Allowed, |index| {
            index.before_time(timestamp).map(|entry| (entry.relative, entry.position))
        })
    }

    fn scan(
        &self,
        wait: Wait,
        look_up: impl Fn(&SegmentIndex) -> Option<(u32, u32)>,
    ) -> Result<Option<BatchScan>, LogError> {
        let body = self.lock();
        let limit = body.len;
        let found = match &body.kind {
            Kind::Growing { file, index, .. } => Some((file.clone(), look_up(index))),
            Kind::Sealed(_) => None,
        };
        drop(body);
        let (file, entry) = match found {
            Some(found) => found,
            None => match self.open_sealed(wait)? {
                Some(open) => (open.file.clone(), look_up(&open.index)),
                None => return Ok(None),
            },
        };
        let (relative, position) = entry.unwrap_or((0, 0));
        let expected = self.base + u64::from(relative);
        Ok(Some(BatchScan::new(file, self.base, expected, u64::from(position), limit).wait(wait)))
    }

    fn open_sealed(&self, wait: Wait) -> Result<Option<Arc<OpenSegment>>, LogError> {
        if let Some(open) = self.place.cache.get(self.key) {
            return Ok(Some(open));
        }
        if wait == Wait::Never {
            return Ok(None);
        }
        let info = self.info();
        let file = self.place.open(self.base, "log", OpenOptions::default())?;
        let index = match load_index(&self.place, &info)? {
            Some(index) => index,
            None => {
                tracing::warn!(segment = self.base, "index fails its check and is rebuilt from the log");
                rebuild_index(file.clone(), &info, REBUILD_INTERVAL)?
            }
        };
        let open = Arc::new(OpenSegment { file, index });
        self.place.cache.put(self.key, open.clone());
        Ok(Some(open))
    }

    fn lock(&self) -> MutexGuard<'_, Body> {
        // Nothing panics while it is held; if something did, the fields are still each whole.
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.place.cache.remove(self.key);
    }
}

/// Interval of an index that is rebuilt for reads only.
const REBUILD_INTERVAL: u32 = 4096;

/// The index files of a segment, if they are what its info says.
pub(crate) fn load_index(place: &Place, info: &SegmentInfo) -> Result<Option<SegmentIndex>, DiskError> {
    let entries = usize::try_from(info.index_entries).unwrap_or(usize::MAX);
    let read = |suffix, entry: usize| {
        let file = match place.open(info.base.0, suffix, OpenOptions::default()) {
            Err(DiskError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        let wanted = entries.saturating_mul(entry);
        if file.len()? < wanted as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; wanted];
        let whole = file.read_at(&mut bytes, 0)? == wanted;
        Ok(whole.then_some(bytes))
    };
    let Some(offsets) = read("index", OFFSET_ENTRY)? else { return Ok(None) };
    let Some(times) = read("timeindex", TIME_ENTRY)? else { return Ok(None) };
    let checksums = (info.index_crc, info.time_index_crc);
    Ok(SegmentIndex::from_bytes(&offsets, &times, checksums, info.max_timestamp))
}

/// Reads the whole segment, checks it against its info, and makes a new index.
pub(crate) fn rebuild_index(
    file: Arc<dyn DiskFile>,
    info: &SegmentInfo,
    interval: u32,
) -> Result<SegmentIndex, LogError> {
    let base = info.base.0;
    let mut scan = BatchScan::new(file, base, base, 0, info.len);
    let mut index = SegmentIndex::default();
    let mut crc = 0;
    loop {
        let position = scan.position();
        match scan.next()? {
            Scanned::Batch((header, batch)) => {
                crc = crc32c::crc32c_append(crc, &batch);
                let relative = u32::try_from(header.base_offset - base);
                let (Ok(relative), Ok(position)) = (relative, u32::try_from(position)) else {
                    return Err(scan.corrupt("the segment is too large"));
                };
                index.note(relative, position, header.max_timestamp, interval);
            }
            Scanned::End | Scanned::WouldBlock => break,
        }
    }
    if scan.offset() != info.next.0 || crc != info.crc {
        return Err(scan.corrupt("the segment is not the one that the state names"));
    }
    Ok(index)
}

/// True if the log file of a segment is there with at least the bytes that its info names.
pub(crate) fn has_bytes(disk: &dyn Disk, dir: &Path, info: &SegmentInfo) -> Result<bool, DiskError> {
    match disk.open(&segment_file(dir, info.base.0, "log"), OpenOptions::default()) {
        Err(DiskError::NotFound { .. }) => Ok(false),
        other => Ok(other?.len()? >= info.len),
    }
}
