//! The write-ahead log that all Raft groups of a broker share.
//!
//! ```text
//! group logs ──requests──▶ Queue ──▶ WalWriter::step: encode → one write → one fdatasync ──▶ callbacks, in order
//!     ▲                                   │
//!     └── Group: slots (term, place, payload) ◀── places
//! ```
//!
//! **Invariants**
//! - A request is completed only after the `fdatasync` of the write that holds it returned.
//! - Requests are written in the order in which they were submitted; votes and entries share that order.
//! - One error of a write or an fsync ends the WAL: nothing is retried, every waiter and every later request fails.
//! - A file is released only behind the older of the two kept checkpoints.

mod budget;
mod error;
mod files;
pub(crate) mod frame;
pub(crate) mod group;
pub(crate) mod queue;
mod read;
mod recovery;
pub(crate) mod scan;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::mutant::{self, Mutant};
use disk::{Disk, Io};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, GroupMark};
use crate::log_store::GroupLog;
use crate::metrics::WalMetrics;
use crate::observe::{Observer, WalEvent};
use crate::types::{LogPosition, StoreConfig};

pub use budget::{BudgetPermit, ByteBudget};
pub use error::WalError;
pub use recovery::{RecoveredGroup, Recovery, RecoveryReport};
pub use writer::{Step, Wait, WalThread, WalWriter, drive_in_task, drive_in_thread};

use files::WalFiles;
use group::{Group, GroupState};
use queue::{Done, Op, Queue, Request};

/// Smallest WAL file: a few blocks must fit.
const FILE_BYTES_MIN: u64 = 64 << 10;
/// A group whose live entries are larger than this is not relocated: it must be applied and purged instead.
const RELOCATE_BYTES_MAX: u64 = 4 << 20;
/// Groups named by [`WalPressure`].
const OLDEST_GROUPS_MAX: usize = 16;

/// Whether the WAL bypasses the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DirectMode {
    /// Direct I/O where the filesystem offers it.
    #[default]
    Auto,
    /// Through the page cache.
    Never,
}

/// Settings of the WAL.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// Size of each file. Unit: bytes. Default 64 MiB. At least 64 KiB, a multiple of 4 KiB.
    pub file_bytes: u64,
    /// Files kept ready at most. Default 8.
    pub pool_files: usize,
    /// Bytes in files that are not released, at most. Default 1 GiB.
    pub outstanding_max: u64,
    /// Part of `outstanding_max` that only votes and entries of openraft may use. Default 64 MiB.
    pub reserve: u64,
    /// Bytes of one write, about. Default 4 MiB.
    pub write_max: u64,
    /// Wait for the device before anything is acknowledged. Default true.
    pub fsync: bool,
    /// Direct or buffered. Default automatic.
    pub direct: DirectMode,
    /// Bytes of entries kept in memory for replication and apply. Default 64 MiB.
    pub tail_cache_bytes: u64,
    /// A group whose oldest entry lies this many files back is written again at the front. Default 8.
    pub relocate_after_files: u64,
    /// Who is told what happens. Default nobody.
    pub observer: Observer,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            pool_files: 8,
            outstanding_max: 1 << 30,
            reserve: 64 << 20,
            write_max: 4 << 20,
            fsync: true,
            direct: DirectMode::Auto,
            tail_cache_bytes: 64 << 20,
            relocate_after_files: 8,
            observer: Observer::default(),
        }
    }
}

impl WalConfig {
    fn check(&self) -> Result<(), WalError> {
        let problem =
            if self.file_bytes < FILE_BYTES_MIN || !self.file_bytes.is_multiple_of(frame::BLOCK as u64) {
                "file_bytes must be a multiple of 4 KiB and at least 64 KiB"
            } else if self.file_bytes > 1 << 32 {
                "file_bytes must be at most 4 GiB"
            } else if self.reserve >= self.outstanding_max {
                "reserve must be smaller than outstanding_max"
            } else {
                return Ok(());
            };
        Err(WalError::Config { reason: problem })
    }

    /// Longest body of one frame.
    pub(crate) fn body_max(&self) -> u64 {
        (self.file_bytes / 2).min(u64::from(u32::MAX / 2))
    }

    /// Bytes of requests gathered for one write.
    fn gather_max(&self) -> u64 {
        self.write_max.min(self.file_bytes / 2)
    }
}

/// A group to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSpec {
    /// Group.
    pub group: u64,
    /// Replica of the group on this broker.
    pub replica: u64,
    /// Topic; nil for the metadata group.
    pub topic: Uuid,
    /// Partition of the topic.
    pub partition: u32,
}

/// How full the WAL is, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalPressure {
    /// Bytes in files that are not released.
    pub outstanding: u64,
    /// The bound on them for producers.
    pub max: u64,
    /// True while the disk has no room for another WAL file.
    pub disk_full: bool,
    /// Groups with entries in the oldest file.
    pub oldest_groups: Vec<u64>,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Id of the checkpoint.
    pub id: u64,
    /// LSN up to which it holds.
    pub lsn: u64,
    /// WAL files released.
    pub released_files: usize,
    /// Entries written again because they held an old file back.
    pub relocated: u64,
}

/// The kept checkpoints, oldest first: at most two.
#[derive(Debug, Default)]
pub(crate) struct KeptCheckpoints {
    pub(crate) kept: Vec<Checkpoint>,
    pub(crate) next_id: u64,
}

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) io: Io,
    pub(crate) config: WalConfig,
    pub(crate) queue: Queue,
    pub(crate) files: WalFiles,
    pub(crate) budget: ByteBudget,
    pub(crate) metrics: WalMetrics,
    pub(crate) cached: AtomicU64,
    pub(crate) failed: watch::Sender<Option<String>>,
    tickets: AtomicU64,
    groups: Mutex<BTreeMap<u64, Arc<Group>>>,
    checkpoints: tokio::sync::Mutex<KeptCheckpoints>,
    /// Marks of the older kept checkpoint.
    oldest_marks: Mutex<BTreeMap<u64, GroupMark>>,
}

/// Handle to the WAL. Cheap to clone.
#[derive(Clone)]
pub struct Wal {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the WAL of a data directory, recovers what it holds, and begins a new file. Blocks.
    ///
    /// The caller holds the directory's lock and drives the [`WalWriter`]; until it does, nothing is written.
    ///
    /// # Errors
    /// [`WalError::Unrecoverable`] if votes would be lost, [`WalError::Config`], or [`WalError::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        io: Io,
        root: &Path,
        config: WalConfig,
        random: impl FnMut() -> u64 + Send + 'static,
    ) -> Result<(Self, WalWriter, Recovery), WalError> {
        config.check()?;
        let recovered = recovery::recover(&disk, root, &config)?;
        let files = WalFiles::new(Arc::clone(&disk), root.to_path_buf(), &config);
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            disk,
            io,
            queue: Queue::default(),
            files,
            budget: ByteBudget::new(config.outstanding_max - config.reserve),
            metrics: WalMetrics::default(),
            cached: AtomicU64::new(0),
            failed: watch::Sender::new(None),
            tickets: AtomicU64::new(recovered.next_ticket),
            groups: Mutex::new(recovered.groups),
            oldest_marks: Mutex::new(oldest_marks(&recovered.checkpoints)),
            checkpoints: tokio::sync::Mutex::new(recovered.checkpoints),
            config,
        });
        shared.note_recovered();
        let recovery = Recovery::of(&shared.lock_groups(), recovered.report);
        let writer = WalWriter::start(&shared, recovered.tail, Box::new(random))?;
        shared.make_files();
        Ok((Self { shared }, writer, recovery))
    }

    /// Creates a group's log, durably. Fine if this replica has it.
    ///
    /// # Errors
    /// [`WalError::OtherReplica`], [`WalError::Damaged`], or that the WAL failed.
    pub async fn create_group(&self, spec: GroupSpec) -> Result<(), WalError> {
        let group = {
            let mut groups = self.shared.lock_groups();
            if let Some(group) = groups.get(&spec.group) {
                return check_replica(group, spec.replica).map(|_| ());
            }
            let state = GroupState::default();
            let group = Arc::new(Group::new(spec.group, spec.replica, spec.topic, spec.partition, state));
            groups.insert(spec.group, Arc::clone(&group));
            group
        };
        self.shared.submit_and_wait(Op::Create { group }).await
    }

    /// Deletes a group's log, durably. Fine if it is not there. The caller removes the replica's directory afterwards.
    ///
    /// # Errors
    /// [`WalError::OtherReplica`], or that the WAL failed.
    pub async fn delete_group(&self, group: u64, replica: u64) -> Result<(), WalError> {
        let removed = {
            let mut groups = self.shared.lock_groups();
            let Some(found) = groups.get(&group) else { return Ok(()) };
            // A group whose creation was lost has no replica: whoever asks may delete it.
            if found.replica != replica && found.replica != 0 {
                return Err(WalError::OtherReplica { group, replica: found.replica });
            }
            groups.remove(&group)
        };
        let Some(removed) = removed else { return Ok(()) };
        let freed = {
            let mut state = removed.lock();
            state.deleted = true;
            state.clear()
        };
        self.shared.uncache(freed);
        self.shared.submit_and_wait(Op::Delete { group: removed }).await
    }

    /// The log of a group, for openraft.
    ///
    /// # Errors
    /// [`WalError::UnknownGroup`], [`WalError::OtherReplica`] or [`WalError::Damaged`].
    pub fn log<C: StoreConfig>(&self, group: u64, replica: u64) -> Result<GroupLog<C>, WalError> {
        let groups = self.shared.lock_groups();
        let found = groups.get(&group).ok_or(WalError::UnknownGroup { group })?;
        let found = check_replica(found, replica)?;
        Ok(GroupLog::new(Arc::clone(&self.shared), Arc::clone(found)))
    }

    /// The bound on outstanding bytes.
    #[must_use]
    pub fn budget(&self) -> &ByteBudget {
        &self.shared.budget
    }

    /// How full the WAL is.
    #[must_use]
    pub fn pressure(&self) -> WalPressure {
        let oldest = self.shared.files.oldest();
        let groups = self.shared.lock_groups();
        let holds = |group: &&Arc<Group>| {
            let file = group.lock().oldest_file();
            file.is_some() && file <= oldest
        };
        let oldest_groups = groups.values().filter(holds).map(|group| group.group);
        WalPressure {
            outstanding: self.shared.budget.outstanding(),
            max: self.shared.config.outstanding_max - self.shared.config.reserve,
            disk_full: self.shared.files.counts().full,
            oldest_groups: oldest_groups.take(OLDEST_GROUPS_MAX).collect(),
        }
    }

    /// Asks the disk once more for files if it had no room for them at the last attempt. Checkpoints ask too, but while
    /// nothing can be brought in there may be nothing to write one for.
    pub fn ask_for_files(&self) {
        if self.shared.files.counts().full {
            self.shared.make_files();
        }
    }

    /// The WAL's metrics.
    #[must_use]
    pub fn metrics(&self) -> WalMetrics {
        self.shared.metrics.clone()
    }

    /// Set to the reason when the WAL fails for good; the broker must stop then.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// Mark of a group in the older kept checkpoint: state files before its `state_index` are not needed.
    #[must_use]
    pub fn oldest_mark(&self, group: u64) -> Option<GroupMark> {
        self.shared.oldest_marks.lock().unwrap_or_else(PoisonError::into_inner).get(&group).copied()
    }

    /// Ends the WAL: what was submitted is still written, later requests fail.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// Writes a checkpoint that holds these marks besides the ones it had, and releases files that neither of the two
    /// kept checkpoints needs.
    ///
    /// The caller has fsynced what the marks name. Marks of groups that are gone are ignored.
    ///
    /// # Errors
    /// That the WAL failed: an error of a checkpoint's write is fatal like any other.
    pub async fn checkpoint(&self, marks: Vec<GroupMark>) -> Result<CheckpointReport, WalError> {
        let shared = &self.shared;
        let mut kept = shared.checkpoints.lock().await;
        shared.take_marks(marks);
        let relocated = shared.relocate_stragglers().await?;
        let id = kept.next_id;
        let (reply, snapshot) = oneshot::channel();
        shared.queue.push([Request { op: Op::Snapshot { id, reply }, done: Done::Nobody }])?;
        let checkpoint = snapshot.await.map_err(|_| shared.failure())?;
        let lsn = checkpoint.lsn;
        shared.save_checkpoint(&mut kept, checkpoint).await?;
        let released_files = shared.release_files(&kept).await?;
        shared.make_files();
        shared.metrics.checkpoints.inc();
        Ok(CheckpointReport { id, lsn, released_files, relocated })
    }
}

impl Shared {
    pub(crate) fn lock_groups(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the observer of an event.
    pub(crate) fn note(&self, event: impl FnOnce() -> WalEvent) {
        self.config.observer.note(event);
    }

    fn note_recovered(&self) {
        for group in self.lock_groups().values() {
            self.note(|| group.recovered());
        }
        self.note(|| WalEvent::Opened);
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn uncache(&self, bytes: u64) {
        let left = self.cached.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        self.metrics.cached_bytes.set(left);
    }

    pub(crate) async fn submit_and_wait(&self, op: Op) -> Result<(), WalError> {
        let (sender, receiver) = oneshot::channel();
        self.queue.push([Request { op, done: Done::Signal(sender) }])?;
        receiver.await.unwrap_or_else(|_| Err(self.failure()))
    }

    /// Why a request got no answer.
    fn failure(&self) -> WalError {
        match &*self.failed.borrow() {
            Some(reason) => WalError::Failed { reason: reason.clone() },
            None => WalError::Closed,
        }
    }

    /// Ends the WAL because of an error. The first reason stays.
    pub(crate) fn fail(&self, error: &dyn std::error::Error) -> WalError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(reason, "write-ahead log failed");
                *failed = Some(reason.clone());
            }
            first
        });
        let failure = self.failure();
        self.queue.fail(&failure);
        failure
    }

    fn take_marks(&self, marks: Vec<GroupMark>) {
        let groups = self.lock_groups();
        for mark in marks {
            if let Some(group) = groups.get(&mark.group).filter(|group| group.replica == mark.replica) {
                group.lock().mark = Some(mark);
            }
        }
    }

    async fn save_checkpoint(
        &self,
        kept: &mut KeptCheckpoints,
        checkpoint: Checkpoint,
    ) -> Result<(), WalError> {
        let (disk, root) = (Arc::clone(&self.disk), self.root.clone());
        let surplus: Vec<u64> = match kept.kept.len() {
            0 | 1 => Vec::new(),
            _ => kept.kept.iter().take(kept.kept.len() - 1).map(|old| old.id).collect(),
        };
        let removed = surplus.clone();
        let saved = self.io.run(move || {
            checkpoint.save(&*disk, &root)?;
            for id in surplus {
                match disk.remove(&crate::layout::checkpoint_file(&root, id)) {
                    Err(disk::DiskError::NotFound { .. }) | Ok(()) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(checkpoint)
        });
        let checkpoint = saved.await.map_err(|error| self.fail(&error))?;
        kept.next_id = checkpoint.id + 1;
        kept.kept.retain(|old| !removed.contains(&old.id));
        self.note(|| checkpoint.event());
        kept.kept.push(checkpoint);
        *self.oldest_marks.lock().unwrap_or_else(PoisonError::into_inner) = oldest_marks(kept);
        Ok(())
    }

    async fn release_files(self: &Arc<Self>, kept: &KeptCheckpoints) -> Result<usize, WalError> {
        // With one checkpoint only, its loss would leave nothing to begin from.
        if kept.kept.len() < 2 {
            return Ok(0);
        }
        let mut floor = kept.kept.iter().map(|checkpoint| checkpoint.floor_file).min().unwrap_or(0);
        if mutant::on(Mutant::WalReleasedEarly) {
            floor = (floor + 1).min(self.files.newest());
        }
        let shared = Arc::clone(self);
        let (count, bytes) =
            self.io.run(move || shared.files.release(floor)).await.map_err(|error| self.fail(&error))?;
        self.budget.released(bytes);
        self.update_levels();
        Ok(count)
    }

    /// Writes live entries of groups that hold old files back again at the front, and waits until they are durable. In a
    /// WAL that is half full every file but the newest is old: a bound of a few files must not be held by one entry.
    async fn relocate_stragglers(self: &Arc<Self>) -> Result<u64, WalError> {
        let newest = self.files.newest();
        let most = self.config.outstanding_max - self.config.reserve;
        let patience = match self.budget.outstanding() > most / 2 {
            true => 1,
            false => self.config.relocate_after_files,
        };
        let behind = |group: &Arc<Group>| {
            let mut state = group.lock();
            let old = state.oldest_file().is_some_and(|file| newest - file >= patience);
            old && state.live_bytes() <= RELOCATE_BYTES_MAX
        };
        let groups: Vec<_> = self.lock_groups().values().filter(|group| behind(group)).cloned().collect();
        let mut moved = 0;
        for group in groups {
            moved += self.relocate(&group).await?;
        }
        Ok(moved)
    }

    async fn relocate(self: &Arc<Self>, group: &Arc<Group>) -> Result<u64, WalError> {
        let (start, end) = {
            let state = group.lock();
            (state.first, state.next_index().unwrap_or(state.first))
        };
        let mut requests = Vec::new();
        for entry in self.read(group, start, end, u64::MAX).await? {
            let position = LogPosition::of(&entry.log_id);
            let (kind, body) = group::body_of(&entry.payload);
            let state = group.lock();
            let Some(slot) = state.slot(position.index).filter(|slot| slot.term == position.term) else {
                continue;
            };
            requests.push(Request {
                op: Op::Entry {
                    group: Arc::clone(group),
                    index: position.index,
                    term: position.term,
                    kind,
                    ticket: slot.ticket,
                    body,
                    crc: slot.body_crc,
                    relocated: true,
                },
                done: Done::Nobody,
            });
        }
        let moved = requests.len() as u64;
        let (sender, receiver) = oneshot::channel();
        if let Some(last) = requests.last_mut() {
            last.done = Done::Signal(sender);
            self.queue.push(requests)?;
            receiver.await.unwrap_or_else(|_| Err(self.failure()))?;
        }
        self.metrics.relocated.inc_by(moved);
        Ok(moved)
    }

    /// Has waiting files made in the background until there are enough. One attempt each: a disk that refuses now is
    /// asked again at the next checkpoint.
    pub(crate) fn make_files(self: &Arc<Self>) {
        for _ in 0..files::READY_MIN {
            let Some(number) = self.files.want_file() else { break };
            let shared = Arc::clone(self);
            let made = self.io.run(move || {
                if let Err(error) = shared.files.make_file(number) {
                    tracing::warn!(%error, "no new WAL file can be made");
                }
                shared.update_levels();
            });
            // The first poll hands the job over; nobody waits for its end.
            let _ = made.now_or_never();
        }
    }

    /// Brings metrics and the budget's bound in line with the files that there are.
    pub(crate) fn update_levels(&self) {
        let counts = self.files.counts();
        let outstanding = self.budget.outstanding();
        self.metrics.files.set(counts.used as u64);
        self.metrics.pool_files.set(counts.ready as u64);
        self.metrics.outstanding_bytes.set(outstanding);
        let most = self.config.outstanding_max - self.config.reserve;
        let limit = if counts.full {
            // No more files can be made: what waits is all there is, and one of them is kept for votes.
            let room = counts.ready as u64 * self.config.file_bytes;
            (outstanding + room).saturating_sub(self.config.file_bytes).min(most)
        } else {
            most
        };
        self.budget.set_limit(limit);
    }
}

fn oldest_marks(kept: &KeptCheckpoints) -> BTreeMap<u64, GroupMark> {
    let groups = kept.kept.first().map(|checkpoint| &checkpoint.groups);
    groups.into_iter().flatten().filter_map(|(group, at)| at.mark.map(|mark| (*group, mark))).collect()
}

fn check_replica(group: &Arc<Group>, replica: u64) -> Result<&Arc<Group>, WalError> {
    if group.lock().damaged {
        return Err(WalError::Damaged { group: group.group });
    }
    if group.replica != replica {
        return Err(WalError::OtherReplica { group: group.group, replica: group.replica });
    }
    Ok(group)
}
