//! What one replica has applied: its partition log with the Raft position that it stands for.
//!
//! `apply` is the only writer; the flusher and status readers take the same lock for moments. Readers of records do not
//! take it: they hold a reader of the log.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use disk::Disk;
use partition_log::{LogReader, PartitionLog, ReadOutcome, Verdict};
use raft_store::{LogId, LogPosition, StoredMembership};
use tokio::sync::Notify;
use wire::ids::{Offset, RaftGroupId, ReplicaId};
use wire::record::{BatchHeader, ProducerStamp};

use super::damage::Damage;
use super::high_watermark::HighWatermark;
use super::manifest::Manifest;
use super::reply::BatchOutcome;
use crate::runtime::{Fatal, ProbeEvent, ReplicaProbe};

/// The applied state, under the lock.
#[derive(Debug)]
pub(crate) struct Inner {
    /// The partition log.
    pub log: PartitionLog,
    /// The last applied entry (I7: it stands beside what it covers).
    pub applied: Option<LogId>,
    /// Members as of the last applied entry.
    pub membership: StoredMembership,
    /// True if something was applied since the last flush began.
    pub unflushed: bool,
}

impl Inner {
    /// Why a producer's batch is not stored; `None` if it is to be stored.
    pub(crate) fn refusal(&self, stamp: &ProducerStamp) -> Option<BatchOutcome> {
        match self.log.producers().check(stamp) {
            Verdict::Append => None,
            Verdict::Duplicate { base_offset } => Some(BatchOutcome::Duplicate { base_offset }),
            Verdict::OutOfOrder { expected } => {
                Some(BatchOutcome::OutOfOrder { expected, found: stamp.first_sequence })
            }
            Verdict::Fenced { current } => Some(BatchOutcome::Fenced { current }),
            Verdict::Unknown => Some(BatchOutcome::UnknownProducer),
        }
    }

    /// The state at the last applied entry.
    pub(crate) fn manifest(&self) -> Manifest {
        Manifest { last: self.applied, membership: self.membership.clone(), state: self.log.state() }
    }
}

/// The replica whose log this is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Its Raft group.
    pub group: RaftGroupId,
    /// Its id there.
    pub replica: ReplicaId,
    /// Its directory.
    pub dir: PathBuf,
}

/// What a replica's log reaches beyond itself.
#[derive(Debug)]
pub(crate) struct LogSeams {
    /// Who it is.
    pub identity: Identity,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Stops the broker.
    pub fatal: Fatal,
    /// Applied bytes of the whole broker since its last flush.
    pub dirty: Arc<AtomicU64>,
    /// Rung when stored records turn out to be damaged.
    pub damaged: Arc<Notify>,
    /// Who watches.
    pub probe: ReplicaProbe,
}

/// The log of one replica, shared by `apply`, readers and the flusher.
#[derive(Debug)]
pub(crate) struct ReplicaLog {
    identity: Identity,
    disk: Arc<dyn Disk>,
    fatal: Fatal,
    /// Applied bytes of the whole broker since its last flush.
    dirty: Arc<AtomicU64>,
    probe: ReplicaProbe,
    inner: Mutex<Inner>,
    reader: ArcSwap<LogReader>,
    high_watermark: HighWatermark,
    /// Term of the last applied entry; a leader whose own term was applied knows the true high watermark.
    applied_term: AtomicU64,
    applied_index: AtomicU64,
    damage: Damage,
    /// The newest state that is on disk.
    durable: Mutex<Option<Arc<Manifest>>>,
    /// Held while files and checkpoint of this replica are brought in line.
    files: Arc<tokio::sync::Mutex<()>>,
    /// Raft indexes of the newest state files that checkpoints name, oldest first; at most two.
    state_files: Mutex<Vec<u64>>,
}

impl ReplicaLog {
    /// The log of a replica that was opened at `inner`, with `durable` as its newest state on disk.
    pub(crate) fn new(seams: LogSeams, inner: Inner, durable: Option<Arc<Manifest>>) -> Self {
        let LogSeams { identity, disk, fatal, dirty, damaged, probe } = seams;
        let log = Self {
            identity,
            disk,
            fatal,
            dirty,
            probe,
            reader: ArcSwap::from_pointee(inner.log.reader()),
            high_watermark: HighWatermark::new(inner.log.next_offset()),
            applied_term: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            inner: Mutex::new(inner),
            state_files: Mutex::new(
                durable.iter().filter_map(|manifest| Some(manifest.last?.index)).collect(),
            ),
            durable: Mutex::new(durable),
            damage: Damage::none(damaged),
            files: Arc::default(),
        };
        log.tell_opened();
        log.publish();
        log
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock stops the broker (a task panic is fatal), so what a poisoned lock holds is never used
        // for more than stopping.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn group(&self) -> RaftGroupId {
        self.identity.group
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Damage to its stored records.
    pub(crate) fn damage(&self) -> &Damage {
        &self.damage
    }

    pub(crate) fn reader(&self) -> Arc<LogReader> {
        self.reader.load_full()
    }

    pub(crate) fn high_watermark(&self) -> &HighWatermark {
        &self.high_watermark
    }

    pub(crate) fn log_start(&self) -> Offset {
        self.reader.load().log_start()
    }

    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    /// Makes what was applied readable.
    pub(crate) fn publish(&self) {
        let inner = self.lock();
        let end = inner.log.next_offset();
        let (term, index) = inner.applied.map_or((0, 0), |applied| (applied.leader_id.term, applied.index));
        drop(inner);
        self.high_watermark.advance(end);
        self.probe.note(|of| ProbeEvent::Watermark { of, to: self.high_watermark.get().0 });
        self.applied_index.store(index, Ordering::Release);
        self.applied_term.store(term, Ordering::Release);
    }

    /// Who watches this replica.
    pub(crate) fn probe(&self) -> &ReplicaProbe {
        &self.probe
    }

    fn tell_opened(&self) {
        if !self.probe.listens() {
            return;
        }
        let inner = self.lock();
        let (applied, end) = (inner.applied.as_ref().map(LogPosition::of), inner.log.next_offset().0);
        self.probe.note(|of| ProbeEvent::Opened { of, applied, end });
        tell_stored(&self.probe, &inner.log, inner.log.log_start(), true);
    }

    /// Counts bytes that the next flush has to bring to disk.
    pub(crate) fn note_dirty(&self, bytes: usize) {
        self.dirty.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Held while files and checkpoint of this replica are brought in line.
    pub(crate) fn files(&self) -> Arc<tokio::sync::Mutex<()>> {
        self.files.clone()
    }

    /// The newest state that is on disk.
    pub(crate) fn durable(&self) -> Option<Arc<Manifest>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a state is on disk, with all segments that it names.
    pub(crate) fn set_durable(&self, manifest: Arc<Manifest>) {
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(manifest);
    }

    /// Notes the state file of a checkpoint, and returns the files that the two kept checkpoints name.
    pub(crate) fn note_state_file(&self, newest: u64) -> Vec<u64> {
        let mut files = self.state_files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|index| *index != newest);
        files.push(newest);
        let surplus = files.len().saturating_sub(2);
        files.drain(..surplus);
        files.clone()
    }

    /// Shows an installed log to readers. Those that still hold the old one finish on it.
    pub(crate) fn publish_installed(&self, manifest: Arc<Manifest>) {
        self.reader.store(Arc::new(self.lock().log.reader()));
        if let Some(last) = manifest.last {
            self.note_state_file(last.index);
        }
        self.set_durable(manifest);
        self.publish();
    }

    /// Stops the broker.
    pub(crate) fn stop(&self, reason: &str) {
        self.fatal.stop(reason);
    }
}

/// Tells whoever watches which batches stand in the log from an offset on, as a reader gets them.
pub(crate) fn tell_stored(probe: &ReplicaProbe, log: &PartitionLog, from: Offset, read_back: bool) {
    let end = log.next_offset();
    if !probe.listens() || from >= end {
        return;
    }
    // What cannot be read is the readers' business, who are told so.
    let Ok(ReadOutcome::Data(batches)) = log.reader().read(from, end, usize::MAX, false) else { return };
    for batch in batches {
        let Ok(header) = BatchHeader::parse(&batch) else { continue };
        let (base, digest) = (header.base_offset, crc32c::crc32c(&batch));
        let next = base + u64::from(header.record_count.unsigned_abs());
        probe.note(|of| ProbeEvent::Stored { of, base, next, digest, read_back });
    }
}
