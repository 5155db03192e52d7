//! How a lagging or new replica takes over the segments of a peer.
//!
//! The pulled segments are collected in `incoming/`, each checked as a whole when it is complete, so that a pull can
//! stop and go on. Then they take their places and the log is opened with the peer's state. If the broker dies in
//! between, the state of before may not be restorable any more; the replica then counts as damaged and is built again,
//! it never serves a mixture: [`PartitionLog::open`] checks what it opens against the state that it is given.

use std::path::Path;
use std::sync::Arc;

use disk::{Disk, DiskError, DiskFile, OpenOptions};
use wire::ids::Offset;

use crate::paths::{SUFFIXES, incoming, segment_file};
use crate::recovery::{self, OpenReport, reseal};
use crate::segment::{Place, has_bytes};
use crate::state::{SegmentInfo, StateSnapshot};
use crate::{LogConfig, LogError, PartitionLog, SegmentCache};

/// Interval of the indexes that are made for pulled segments.
const INDEX_INTERVAL: u32 = 4096;

/// Collects the bytes of one segment from a peer.
#[derive(Debug)]
pub struct SegmentWriter {
    place: Place,
    base: Offset,
    file: Arc<dyn DiskFile>,
}

impl SegmentWriter {
    /// Opens or goes on with the segment that begins at `base`, for the log in `dir`.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, base: Offset) -> Result<Self, LogError> {
        let dir = incoming(dir);
        disk.create_dir_all(&dir)?;
        let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
        let file = disk.open(&segment_file(&dir, base.0, "log"), options)?;
        Ok(Self { place: Place { disk, dir, cache: SegmentCache::new(1) }, base, file })
    }

    /// Bytes collected: where to go on after an interruption. They are checked at the end only.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn collected(&self) -> Result<u64, LogError> {
        Ok(self.file.len()?)
    }

    /// Writes bytes of the peer's log file at their position.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), LogError> {
        Ok(self.file.write_at(bytes, position)?)
    }

    /// Checks the whole segment against the peer's info, makes it durable, and writes its indexes.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if it is not what the peer named; the collected bytes are then removed, to be pulled again.
    /// [`LogError::Disk`].
    pub fn finish(self, info: &SegmentInfo) -> Result<(), LogError> {
        if info.base != self.base {
            return Err(LogError::NoSuchRange { segment: info.base });
        }
        let checked = reseal(&self.place, info, INDEX_INTERVAL);
        if let Err(LogError::Corrupt { .. }) = &checked {
            self.place.disk.remove(&segment_file(&self.place.dir, self.base.0, "log"))?;
        }
        checked.map(drop)
    }
}

/// Forgets what was collected for the log in `dir`.
///
/// # Errors
/// [`LogError::Disk`].
pub fn discard_incoming(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let incoming = incoming(dir);
    if disk.exists(&incoming) {
        disk.remove_dir_all(&incoming)?;
        disk.sync_dir(dir)?;
    }
    Ok(())
}

impl PartitionLog {
    /// Puts the collected segments in their places and opens the log with the peer's state. The caller has closed the
    /// log of before; segments that it holds already ([`crate::LogReader::holds`]) need not be collected.
    ///
    /// # Errors
    /// [`LogError::Unrestorable`] if a segment of the state was neither collected nor held; nothing is changed then.
    /// Otherwise as [`PartitionLog::open`].
    pub fn install(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        state: StateSnapshot,
    ) -> Result<(Self, OpenReport), LogError> {
        let from = incoming(dir);
        let mut collected = Vec::new();
        for info in &state.segments {
            if has_bytes(&*disk, &from, info)? {
                collected.push(info.base);
            } else if !has_bytes(&*disk, dir, info)? {
                let what = "it was neither collected nor held";
                return Err(LogError::Unrestorable { segment: info.base, what });
            }
        }
        for base in collected {
            for suffix in SUFFIXES {
                match disk.rename(&segment_file(&from, base.0, suffix), &segment_file(dir, base.0, suffix)) {
                    Ok(()) | Err(DiskError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        disk.sync_dir(dir)?;
        discard_incoming(&*disk, dir)?;
        recovery::open(disk, dir, config, Some(state), None)
    }
}
