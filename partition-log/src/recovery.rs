//! Opens a log after a stop of any kind: keeps what the restored state names, and nothing above it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use disk::frame::{FrameError, read_framed};
use disk::{Disk, DiskError};
use wire::ids::Offset;

use crate::flush::FLOOR_MAGIC;
use crate::log::{PartitionLog, Shared, View};
use crate::paths::{base_of, floor_file, segment_file};
use crate::segment::{Place, Segment, has_bytes, load_index, rebuild_index};
use crate::state::{CutMark, SegmentInfo, StateSnapshot};
use crate::tail_cache::TailCache;
use crate::{LogConfig, LogError, footer};

/// What opening a log found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Bytes cut from the active segment and from removed ones.
    pub bytes_cut: u64,
    /// Files removed because the restored state does not name them.
    pub files_removed: usize,
    /// Segments whose indexes or `.sealed` file were made anew from the log.
    pub segments_rescanned: usize,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: LogConfig,
    restore: Option<StateSnapshot>,
    mark: Option<CutMark>,
) -> Result<(PartitionLog, OpenReport), LogError> {
    disk::create_dir_durably(&*disk, dir, 1)?;
    let fresh = restore.is_none();
    let mut state = restore.unwrap_or_default();
    if let Some(mark) = mark
        && mark != state.mark()
    {
        let what = "the mark was not taken with the state";
        return Err(LogError::Unrestorable { segment: mark.segment_base, what });
    }
    let floor = if fresh { remove_floor(&*disk, dir)? } else { read_floor(&*disk, dir)? };
    // Below the floor segments were removed by a committed command that this state may not know yet: it is in the WAL
    // and will be applied again.
    state.segments.retain(|segment| segment.next.0 > floor);
    state.log_start = state.log_start.max(Offset(floor)).min(state.next_offset);

    let place = Place { disk, dir: dir.to_path_buf(), cache: config.cache.clone() };
    let mut report = OpenReport::default();
    remove_unnamed(&place, &state, &mut report)?;
    let (segments, active) = open_segments(&place, &state, &config, &mut report)?;
    let view = View {
        segments,
        log_start: state.log_start.0,
        next_offset: state.next_offset.0,
        epochs: Arc::new(state.epochs),
        tail: TailCache::new(config.tail_cache_bytes),
    };
    let log = PartitionLog {
        shared: Arc::new(Shared::new(place, view)),
        config,
        active,
        active_since_ms: None,
        unsealed: Vec::new(),
        producers: state.producers,
    };
    Ok((log, report))
}

fn read_floor(disk: &dyn Disk, dir: &Path) -> Result<u64, LogError> {
    match read_framed(disk, &floor_file(dir), FLOOR_MAGIC) {
        Ok((_, payload)) => Ok(payload.first_chunk().map_or(0, |floor| u64::from_le_bytes(*floor))),
        Err(FrameError::Missing { .. }) => Ok(0),
        // Without a floor a missing segment counts as lost, which is the safe side.
        Err(FrameError::Damaged { path, what }) => {
            tracing::warn!(path = %path.display(), what, "the floor of the log start is damaged");
            Ok(0)
        }
        Err(FrameError::Disk(error)) => Err(error.into()),
    }
}

/// A log that begins anew has no floor.
fn remove_floor(disk: &dyn Disk, dir: &Path) -> Result<u64, DiskError> {
    match disk.remove(&floor_file(dir)) {
        Ok(()) => disk.sync_dir(dir)?,
        Err(DiskError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(0)
}

/// Removes files of segments that the state does not name, and the `.sealed` file of its last one, which grows again.
fn remove_unnamed(place: &Place, state: &StateSnapshot, report: &mut OpenReport) -> Result<(), DiskError> {
    let mut removed = false;
    for entry in place.disk.list(&place.dir)? {
        let Some(base) = base_of(&entry.name).filter(|_| !entry.is_dir) else { continue };
        let named = state.segments.binary_search_by_key(&base, |segment| segment.base.0).is_ok();
        let is_active = state.segments.last().is_some_and(|last| last.base.0 == base);
        if named && !(is_active && entry.name.ends_with(".sealed")) {
            continue;
        }
        place.disk.remove(&place.dir.join(&entry.name))?;
        removed = true;
        if !named {
            report.files_removed += 1;
            if entry.name.ends_with(".log") {
                report.bytes_cut += entry.len;
            }
        }
    }
    // Durable before anything is written: a file that came back beside its successor would be taken for one of its time.
    if removed { place.disk.sync_dir(&place.dir) } else { Ok(()) }
}

type Opened = (BTreeMap<u64, Arc<Segment>>, Option<Arc<Segment>>);

fn open_segments(
    place: &Place,
    state: &StateSnapshot,
    config: &LogConfig,
    report: &mut OpenReport,
) -> Result<Opened, LogError> {
    let mut segments = BTreeMap::new();
    let Some((last, sealed)) = state.segments.split_last() else { return Ok((segments, None)) };
    for info in sealed {
        let segment = open_sealed(place, info, config, report)?;
        segments.insert(info.base.0, Arc::new(segment));
    }
    check_bytes(place, last)?;
    let path = segment_file(&place.dir, last.base.0, "log");
    let before = place.disk.open(&path, disk::OpenOptions::default())?.len()?;
    report.bytes_cut += before.saturating_sub(last.len);
    let (active, rebuilt) = Segment::reopen(place.clone(), last, config.index_interval_bytes)?;
    report.segments_rescanned += usize::from(rebuilt);
    let active = Arc::new(active);
    segments.insert(last.base.0, active.clone());
    Ok((segments, Some(active)))
}

/// A segment whose `.sealed` file agrees with the state is taken as it is: reads check what they return. Otherwise the
/// whole segment is read and checked, and its hints are written anew.
fn open_sealed(
    place: &Place,
    info: &SegmentInfo,
    config: &LogConfig,
    report: &mut OpenReport,
) -> Result<Segment, LogError> {
    check_bytes(place, info)?;
    let path = segment_file(&place.dir, info.base.0, "sealed");
    let footer = footer::read(&*place.disk, &path)?;
    if let Some(found) = footer.filter(|found| same_log(found, info)) {
        return Ok(Segment::sealed(place.clone(), found));
    }
    report.segments_rescanned += 1;
    Ok(Segment::sealed(place.clone(), reseal(place, info, config.index_interval_bytes)?))
}

/// Checks a whole segment against its info, cuts what follows it, and writes its indexes and `.sealed` file anew.
pub(crate) fn reseal(
    place: &Place,
    info: &SegmentInfo,
    index_interval: u32,
) -> Result<SegmentInfo, LogError> {
    let write = disk::OpenOptions { create: true, write: true, ..disk::OpenOptions::default() };
    let file = place.disk.open(&segment_file(&place.dir, info.base.0, "log"), write)?;
    let index = rebuild_index(file.clone(), info, index_interval)?;
    if file.len()? > info.len {
        file.set_len(info.len)?;
    }
    file.sync_data()?;
    let (offsets, times) = index.bytes_from(0);
    for (suffix, bytes) in [("index", &offsets), ("timeindex", &times)] {
        let file = place.disk.open(&segment_file(&place.dir, info.base.0, suffix), write)?;
        file.set_len(0)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
    }
    let (index_crc, time_index_crc) = index.checksums();
    let info = SegmentInfo {
        max_timestamp: index.max_timestamp(),
        index_entries: u32::try_from(index.len()).unwrap_or(u32::MAX),
        index_crc,
        time_index_crc,
        ..*info
    };
    footer::write(&*place.disk, &segment_file(&place.dir, info.base.0, "sealed"), &info)?;
    place.disk.sync_dir(&place.dir)?;
    debug_assert!(load_index(place, &info)?.is_some());
    Ok(info)
}

fn check_bytes(place: &Place, info: &SegmentInfo) -> Result<(), LogError> {
    if has_bytes(&*place.disk, &place.dir, info)? {
        return Ok(());
    }
    Err(LogError::Unrestorable { segment: info.base, what: "its log file is missing or too short" })
}

fn same_log(a: &SegmentInfo, b: &SegmentInfo) -> bool {
    (a.base, a.next, a.len, a.crc) == (b.base, b.next, b.len, b.crc)
}
