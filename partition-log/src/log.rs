//! The writer of a partition log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use disk::Disk;
use disk::mutant::{self, Mutant};
use wire::ids::{LeaderEpoch, Offset};
use wire::record::{BatchHeader, RecordError};

use crate::flush::FlushPlan;
use crate::leader_epochs::LeaderEpochs;
use crate::producer_state::ProducerState;
use crate::reader::LogReader;
use crate::recovery::{self, OpenReport};
use crate::retention;
use crate::segment::{Place, Segment, Written};
use crate::stamped::StampedBatch;
use crate::state::{CutMark, SegmentInfo, StateSnapshot};
use crate::tail_cache::TailCache;
use crate::{LogConfig, LogError};

/// Segments grow to this at most: positions in the index have 32 bits.
const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;

/// A segment is full when the entries in it span this part of the time retention, so that a slow trickle does not keep
/// old records for ever.
const ROLLS_PER_RETENTION: u64 = 8;

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Offset of the next record.
    pub next_offset: Offset,
}

/// The single writer of a partition's log. [`PartitionLog::reader`] makes readers that share it.
#[derive(Debug)]
pub struct PartitionLog {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: LogConfig,
    /// The segment that appends go to; none until the first append after the log was empty.
    pub(crate) active: Option<Arc<Segment>>,
    /// Time of the first entry that went to the active segment in this life.
    pub(crate) active_since_ms: Option<i64>,
    /// Full segments whose `.sealed` file is not written yet.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    pub(crate) producers: ProducerState,
}

/// What the writer and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) place: Place,
    view: Mutex<View>,
    /// Segments below the log start whose files are not removed yet.
    pub(crate) graveyard: Mutex<Vec<Arc<Segment>>>,
    /// Set by a failed write or sync; never cleared.
    pub(crate) failed: AtomicBool,
    /// Files were created whose names are not durable yet.
    pub(crate) names_unsynced: AtomicBool,
}

/// What readers see. Held for lookups only, never while the disk is used.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    pub(crate) log_start: u64,
    pub(crate) next_offset: u64,
    pub(crate) epochs: Arc<LeaderEpochs>,
    pub(crate) tail: TailCache,
}

impl Shared {
    pub(crate) fn new(place: Place, view: View) -> Self {
        Self {
            place,
            view: Mutex::new(view),
            graveyard: Mutex::default(),
            failed: AtomicBool::new(false),
            names_unsynced: AtomicBool::new(false),
        }
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        // Nothing panics while it is held; if something did, the fields are still each whole.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if an earlier write or sync failed.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.failed.load(Ordering::Acquire) { Err(LogError::Failed) } else { Ok(()) }
    }

    /// Marks the log as failed if `result` is an error.
    pub(crate) fn guard<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

impl PartitionLog {
    /// Opens the log in `dir`, or creates it.
    ///
    /// Keeps what `restore` names and removes everything above (architecture, section 14.3); without `restore` the log
    /// begins empty at offset 0. `mark`, if given, must be the one that was taken with `restore`. A state that is newer
    /// than `restore` cannot be restored afterwards.
    ///
    /// # Errors
    /// [`LogError::Unrestorable`] or [`LogError::Corrupt`] if the files are less than `restore` names: the replica must
    /// be rebuilt from its peers. [`LogError::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        restore: Option<StateSnapshot>,
        mark: Option<CutMark>,
    ) -> Result<(Self, OpenReport), LogError> {
        recovery::open(disk, dir, config, restore, mark)
    }

    /// Gives `batch` the next offset and `epoch`, and appends it. Its bytes are shared, not copied.
    ///
    /// `batch` is one whole batch that was validated at the edge. `time_ms` is the time of the entry that carries it.
    /// The bytes are readable at once; they are durable after a flush, and until then in the WAL.
    ///
    /// # Errors
    /// [`LogError::BadBatch`] and [`LogError::StaleEpoch`] leave the log as it was. After any other error the log takes
    /// no more writes.
    pub fn append(&mut self, batch: Bytes, epoch: LeaderEpoch, time_ms: i64) -> Result<Appended, LogError> {
        self.shared.check()?;
        let header = BatchHeader::parse(&batch).map_err(LogError::BadBatch)?;
        if header.total_len() != batch.len() {
            let (needed, have) = (header.total_len(), batch.len());
            return Err(LogError::BadBatch(RecordError::Truncated { needed, have }));
        }
        let base = self.next_offset().0;
        let next = base + u64::from(header.record_count.cast_unsigned());
        let new_epochs = self.epochs_with(epoch, Offset(base))?;
        let stamped = StampedBatch { base, next, epoch, batch };
        let segment = self.segment_for(base, next, stamped.len() as u64, time_ms)?;
        let written = Written {
            batch: &stamped,
            max_timestamp: header.max_timestamp,
            index_interval: self.config.index_interval_bytes,
        };
        self.shared.guard(segment.append(written))?;
        let mut view = self.shared.view();
        if let Some(epochs) = new_epochs {
            view.epochs = Arc::new(epochs);
        }
        view.tail.push(stamped);
        view.next_offset = next;
        drop(view);
        Ok(Appended { base_offset: Offset(base), next_offset: Offset(next) })
    }

    /// What idempotent producers wrote last.
    #[must_use]
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// What idempotent producers wrote last, to be changed by entries.
    pub fn producers_mut(&mut self) -> &mut ProducerState {
        &mut self.producers
    }

    /// The leader epochs.
    #[must_use]
    pub fn epochs(&self) -> Arc<LeaderEpochs> {
        self.shared.view().epochs.clone()
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

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.view().segments.values().map(|segment| segment.len()).sum()
    }

    /// Number of segments.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.shared.view().segments.len()
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings; the segment cache stays the one of the opening.
    pub fn configure(&mut self, config: LogConfig) {
        self.shared.view().tail.set_bytes_max(config.tail_cache_bytes);
        self.config = LogConfig { cache: self.config.cache.clone(), ..config };
    }

    /// A reader that shares this log.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    /// Moves the log start up to `offset`, at most to the log end; a lower one changes nothing. Segments wholly below
    /// are gone for new readers at once; their files go at a later flush, when no reader holds them.
    ///
    /// # Errors
    /// [`LogError::Failed`].
    pub fn set_log_start(&mut self, offset: Offset) -> Result<(), LogError> {
        self.shared.check()?;
        let mut view = self.shared.view();
        let start = offset.0.min(view.next_offset);
        if start <= view.log_start {
            return Ok(());
        }
        view.log_start = start;
        let mut doomed = Vec::new();
        while let Some(first) = view.segments.first_entry().filter(|first| first.get().next() <= start) {
            doomed.push(first.remove());
        }
        view.tail.drop_below(start);
        let mut epochs = view.epochs.as_ref().clone();
        epochs.trim(Offset(start));
        view.epochs = Arc::new(epochs);
        drop(view);
        let is_doomed = |segment: &Arc<Segment>| segment.next() <= start;
        self.unsealed.retain(|segment| !is_doomed(segment));
        if self.active.as_ref().is_some_and(is_doomed) {
            self.active = None;
        }
        self.shared.graveyard.lock().unwrap_or_else(PoisonError::into_inner).append(&mut doomed);
        Ok(())
    }

    /// The log start that the settings ask for at `now_ms`, if it is above the present one. The leader proposes it.
    #[must_use]
    pub fn retention_target(&self, now_ms: i64) -> Option<Offset> {
        retention::target(&self.segments(), &self.config, now_ms).filter(|&target| target > self.log_start())
    }

    /// Makes everything appended so far durable and returns the mark; waits for the disk.
    /// A caller that guards the log with a lock uses [`PartitionLog::flush_plan`].
    ///
    /// # Errors
    /// Any error is fatal to the broker (I3).
    pub fn flush(&mut self) -> Result<CutMark, LogError> {
        self.flush_plan()?.run()
    }

    /// What a flush has to do for everything appended so far; it runs without the log. Together with a
    /// [`PartitionLog::state`] taken before the next append it is what a state file and its mark need. One plan runs at a
    /// time.
    ///
    /// # Errors
    /// [`LogError::Failed`].
    pub fn flush_plan(&mut self) -> Result<FlushPlan, LogError> {
        self.shared.check()?;
        self.unsealed.retain(|segment| !segment.is_sealed());
        let mark = self.active.as_ref().map_or(
            CutMark { segment_base: self.next_offset(), synced_len: 0 },
            |active| CutMark { segment_base: Offset(active.base()), synced_len: active.len() },
        );
        Ok(FlushPlan::new(self.shared.clone(), self.unsealed.clone(), self.active.clone(), mark))
    }

    /// Starts write-back of the active segment without waiting; see [`LogReader::start_writeback`].
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn start_writeback(&self) -> Result<(), LogError> {
        self.reader().start_writeback()
    }

    /// The state at this moment. It may be restored after the flush that was planned at the same moment.
    #[must_use]
    pub fn state(&self) -> StateSnapshot {
        let view = self.shared.view();
        let producers = match mutant::on(Mutant::ProducersNotInSnapshot) {
            true => ProducerState::default(),
            false => self.producers.clone(),
        };
        StateSnapshot {
            log_start: Offset(view.log_start),
            next_offset: Offset(view.next_offset),
            epochs: view.epochs.as_ref().clone(),
            segments: view.segments.values().map(|segment| segment.info()).collect(),
            producers,
        }
    }

    fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.view().segments.values().map(|segment| segment.info()).collect()
    }

    /// The epochs after an append at `start`, if they change.
    fn epochs_with(&self, epoch: LeaderEpoch, start: Offset) -> Result<Option<LeaderEpochs>, LogError> {
        let current = self.epochs();
        if current.latest() == Some(epoch) {
            return Ok(None);
        }
        let mut epochs = current.as_ref().clone();
        epochs.assign(epoch, start)?;
        Ok(Some(epochs))
    }

    /// The segment that takes a batch; a new one if the active one is full or there is none.
    fn segment_for(
        &mut self,
        base: u64,
        next: u64,
        len: u64,
        time_ms: i64,
    ) -> Result<Arc<Segment>, LogError> {
        let since = *self.active_since_ms.get_or_insert(time_ms);
        if let Some(active) = &self.active {
            if !self.is_full(active, next, len, time_ms.saturating_sub(since)) {
                return Ok(active.clone());
            }
            self.unsealed.push(active.clone());
        }
        // The flag goes up first: a flush that runs now syncs the directory at worst once too often.
        self.shared.names_unsynced.store(true, Ordering::Release);
        let created = Segment::create(self.shared.place.clone(), base).map_err(LogError::from);
        let segment = Arc::new(self.shared.guard(created)?);
        self.shared.names_unsynced.store(true, Ordering::Release);
        self.shared.view().segments.insert(base, segment.clone());
        self.active = Some(segment.clone());
        self.active_since_ms = Some(time_ms);
        Ok(segment)
    }

    fn is_full(&self, active: &Segment, next: u64, len: u64, age_ms: i64) -> bool {
        let old = self.config.retention_ms.is_some_and(|retention| {
            let span = (retention / ROLLS_PER_RETENTION).max(1);
            u64::try_from(age_ms).is_ok_and(|age| age >= span)
        });
        let large = active.len().saturating_add(len) > self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        let many = next - active.base() > u64::from(u32::MAX);
        active.len() > 0 && (old || large || many)
    }
}
