//! Which replicas run here: compares the metadata image with what is open and opens, initialises, configures and
//! removes replicas.
//!
//! **Invariant (I11):** data is removed only when the image permits it by name (`MetadataImage::may_remove`); a replica
//! that the image merely does not know is left alone.
//!
//! **Invariant (I4):** nothing is opened by an image that does not know this broker's disk: it may place replicas here
//! whose votes and entries went with an earlier one, and an empty replica would answer under their ids.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use disk::Io;
use futures::StreamExt;
use partition_log::{LogConfig, SegmentCache};
use raft_store::{RecoveredGroup, Wal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::ids::{BrokerId, PartitionIndex, RaftGroupId, ReplicaId, TopicId};

use super::damage::{self, Retired};
use super::isr::LagLimits;
use super::open;
use super::replica::Replica;
use super::status::ReplicaStatus;
use super::storage_gate::{RoomMarks, StorageGate, Volume};
use super::{flush, isr_report, leader_report, moves, retention};
use crate::config::BrokerConfig;
use crate::metadata::Metadata;
use crate::metadata::image::{LocalReplica, MetadataImage};
use crate::raft::Groups;
use crate::runtime::{Fatal, Seams, Tasks, machine_memory};

/// Bytes that all proposers of this broker hold together.
const BROKER_BYTES_MAX: usize = 256 << 20;
/// Recent batches that one partition keeps in memory: more than a consumer at its tail ever lags behind.
const TAIL_BYTES_MAX: usize = 4 << 20;
/// Leaderships handed over at the same time when the broker stops.
const HAND_OVER_AT_ONCE: usize = 32;
/// Replicas opened at the same time; opening is mostly waiting for the disk.
const OPEN_AT_ONCE: usize = 32;
/// Without a new image, what runs is compared with what should run this often: openings that failed are tried again.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// What the partitions of a broker need.
pub struct PartitionsArgs {
    /// Disk, clock, tasks.
    pub seams: Seams,
    /// The shared WAL.
    pub wal: Wal,
    /// What recovery found, by group; the metadata group's own entry is ignored.
    pub recovered: BTreeMap<u64, RecoveredGroup>,
    /// Raft groups and peers.
    pub groups: Groups,
    /// The metadata group.
    pub metadata: Metadata,
    /// The whole configuration; `storage`, `replica`, `limits` and `node` are read.
    pub config: Arc<BrokerConfig>,
    /// The data directory.
    pub root: PathBuf,
}

/// The open replicas, by both of their names.
#[derive(Default, Clone)]
struct Table {
    by_partition: BTreeMap<(TopicId, PartitionIndex), Arc<Replica>>,
    by_group: BTreeMap<RaftGroupId, Arc<Replica>>,
}

/// What the tasks of this module share.
pub(crate) struct Shared {
    args: PartitionsArgs,
    tasks: Tasks,
    gate: StorageGate,
    broker_room: Arc<Semaphore>,
    cache: SegmentCache,
    table: ArcSwap<Table>,
    recovered: Mutex<BTreeMap<u64, RecoveredGroup>>,
    /// Damaged replicas that a fresh one has replaced in the WAL.
    retired: Mutex<Vec<Retired>>,
    /// Why a replica could not be opened, for people to see.
    failures: Mutex<BTreeMap<RaftGroupId, String>>,
    leadership: Notify,
    /// Rung when stored records of a replica turn out to be damaged.
    damaged: Arc<Notify>,
    /// Bytes applied since the last flush.
    dirty: Arc<AtomicU64>,
    /// True once every replica of the first image was opened or has failed.
    ready: watch::Sender<bool>,
}

/// The partitions of this broker. Cheap to clone.
#[derive(Clone)]
pub struct Partitions(Arc<Shared>);

impl Partitions {
    /// Starts to run what the metadata image says.
    #[must_use]
    pub fn start(args: PartitionsArgs) -> Self {
        let tasks = args.seams.tasks.child("partitions");
        let mut recovered = args.recovered.clone();
        recovered.remove(&RaftGroupId::METADATA.0);
        let shared = Arc::new(Shared {
            tasks: tasks.clone(),
            gate: StorageGate::new(),
            broker_room: Arc::new(Semaphore::new(BROKER_BYTES_MAX)),
            cache: SegmentCache::default(),
            table: ArcSwap::default(),
            recovered: Mutex::new(recovered),
            retired: Mutex::default(),
            failures: Mutex::default(),
            leadership: Notify::new(),
            damaged: Arc::default(),
            dirty: Arc::default(),
            ready: watch::Sender::new(false),
            args,
        });
        shared.watch_disk();
        let stop = tasks.token();
        tasks.spawn("partition-registry", 0, compare_forever(shared.clone(), stop.clone()));
        tasks.spawn("partition-flush", 0, flush::run(shared.clone(), stop.clone()));
        tasks.spawn("leader-report", 0, leader_report::run(shared.clone(), stop.clone()));
        tasks.spawn("isr-report", 0, isr_report::run(shared.clone(), stop.clone()));
        tasks.spawn("partition-moves", 0, moves::run(shared.clone(), stop.clone()));
        tasks.spawn("partition-retention", 0, retention::run(shared.clone(), stop));
        Self(shared)
    }

    /// The replica of a partition on this broker.
    #[must_use]
    pub fn get(&self, topic: TopicId, partition: PartitionIndex) -> Option<Arc<Replica>> {
        self.0.table.load().by_partition.get(&(topic, partition)).cloned()
    }

    /// The replica of a Raft group on this broker.
    #[must_use]
    pub fn by_group(&self, group: RaftGroupId) -> Option<Arc<Replica>> {
        self.0.table.load().by_group.get(&group).cloned()
    }

    /// All replicas that are open here, by topic and partition.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Replica>> {
        self.0.table.load().by_partition.values().cloned().collect()
    }

    /// State of all replicas that are open here.
    #[must_use]
    pub fn statuses(&self) -> Vec<ReplicaStatus> {
        self.all().iter().map(|replica| replica.status()).collect()
    }

    /// Replicas that could not be opened, and why.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<RaftGroupId, String> {
        self.0.failures().clone()
    }

    /// The gate that refuses produces when the disk is almost full.
    #[must_use]
    pub fn gate(&self) -> &StorageGate {
        &self.0.gate
    }

    /// True once every replica of the first image was opened or has failed to.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Waits until [`Partitions::is_ready`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.0.ready.subscribe().wait_for(|ready| *ready).await);
    }

    /// Hands every leadership over to another replica that can take it, until the deadline. Returns how many leaderships
    /// are left here. Part of a graceful stop, and of draining.
    pub async fn hand_over(&self, deadline: Instant) -> usize {
        let shared = &self.0;
        let work = async {
            let led = self.all().into_iter().filter(|replica| replica.is_leader());
            futures::stream::iter(led)
                .for_each_concurrent(HAND_OVER_AT_ONCE, |replica| async move {
                    moves::give_away(shared, &replica).await
                })
                .await;
        };
        drop(tokio::time::timeout_at(deadline, work).await);
        self.all().iter().filter(|replica| replica.is_leader()).count()
    }

    /// Flushes now; with `everything` also lets Raft purge all that is on disk, whether followers have it or not.
    ///
    /// # Errors
    /// What failed; it is fatal to the broker (I3).
    pub async fn flush_now(&self, everything: bool) -> Result<(), String> {
        flush::flush_all(&self.0, everything).await
    }

    /// Flushes everything and stops: a restart then has nothing to apply again.
    ///
    /// # Errors
    /// What the flush said; the data is safe in the WAL all the same.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), String> {
        self.0.tasks.shutdown(deadline).await;
        let flushed = flush::flush_all(&self.0, false).await;
        for replica in self.all() {
            self.0.args.groups.close(replica.group()).await;
        }
        flushed
    }
}

impl Shared {
    pub(crate) fn args(&self) -> &PartitionsArgs {
        &self.args
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.args.groups
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.args.metadata
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.args.wal
    }

    pub(crate) fn io(&self) -> &Io {
        &self.args.seams.io
    }

    pub(crate) fn fatal(&self) -> &Fatal {
        &self.args.seams.fatal
    }

    pub(crate) fn gate(&self) -> &StorageGate {
        &self.gate
    }

    /// Log settings that do not come from a topic.
    pub(crate) fn log_base(&self) -> LogConfig {
        let limit = match self.args.config.limits.tail_cache_bytes {
            0 => machine_memory() / 10,
            bytes => bytes,
        };
        let image = self.args.metadata.image();
        let me = self.broker();
        let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
        let carried = partitions.filter(|one| one.all_replicas().any(|replica| replica.broker == me)).count();
        let carried = u64::try_from(carried).unwrap_or(u64::MAX).max(1);
        let share = usize::try_from(limit / carried).unwrap_or(usize::MAX).min(TAIL_BYTES_MAX);
        LogConfig { cache: self.cache.clone(), tail_cache_bytes: share, ..LogConfig::default() }
    }

    pub(crate) fn broker_room(&self) -> &Arc<Semaphore> {
        &self.broker_room
    }

    pub(crate) fn broker(&self) -> BrokerId {
        BrokerId(self.args.config.node.id)
    }

    pub(crate) fn lag_limits(&self) -> LagLimits {
        isr_report::limits(&self.args.config.replica)
    }

    pub(crate) fn flush_interval_ms(&self) -> u64 {
        self.args.config.storage.flush_interval_ms
    }

    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.table.load().by_group.values().cloned().collect()
    }

    /// Rung when stored records of a replica turn out to be damaged.
    pub(crate) fn damaged(&self) -> &Arc<Notify> {
        &self.damaged
    }

    pub(crate) fn open_replica(&self, group: RaftGroupId) -> Option<Arc<Replica>> {
        self.table.load().by_group.get(&group).cloned()
    }

    /// Somebody's leadership may have changed.
    pub(crate) fn note_leadership(&self) {
        self.leadership.notify_one();
    }

    pub(crate) async fn leadership_changed(&self) {
        self.leadership.notified().await;
    }

    /// Bytes applied since the last flush, counted by every replica.
    pub(crate) fn dirty(&self) -> &Arc<AtomicU64> {
        &self.dirty
    }

    pub(crate) fn recovered(&self) -> MutexGuard<'_, BTreeMap<u64, RecoveredGroup>> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn retired(&self) -> MutexGuard<'_, Vec<Retired>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<RaftGroupId, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps why a replica cannot serve, and says so once.
    pub(crate) fn note_failure(&self, group: RaftGroupId, reason: &str) {
        let new = self.failures().insert(group, reason.to_owned()).as_deref() != Some(reason);
        if new {
            tracing::error!(raft_group = %group, reason, "a replica cannot serve");
        }
    }

    /// Stops a replica that is open here.
    pub(crate) async fn close(&self, replica: &Replica) {
        self.remove(replica);
        replica.core().stop.cancel();
        self.groups().close(replica.group()).await;
    }

    fn watch_disk(&self) {
        let storage = &self.args.config.storage;
        let marks = RoomMarks {
            reject_bytes: storage.reject_free_bytes,
            reject_percent: u64::from(storage.reject_free_percent),
        };
        let volume = Volume {
            disk: self.args.seams.disk.clone(),
            io: self.args.seams.io.clone(),
            path: self.args.root.clone(),
        };
        self.gate.watch(&self.tasks, volume, marks);
    }

    fn insert(&self, replica: Arc<Replica>) {
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            table.by_partition.insert((replica.core().topic, replica.core().partition), replica.clone());
            table.by_group.insert(replica.group(), replica.clone());
            table
        });
    }

    fn remove(&self, replica: &Replica) {
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            table.by_partition.remove(&(replica.core().topic, replica.core().partition));
            table.by_group.remove(&replica.group());
            table
        });
    }
}

async fn compare_forever(shared: Arc<Shared>, stop: CancellationToken) {
    let mut images = shared.metadata().watch_topology();
    loop {
        let image = images.borrow_and_update().clone();
        if image.is_formed() && shared.metadata().knows_own_disk(&image) {
            compare(&shared, &image).await;
            shared.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
            () = shared.damaged.notified() => {}
            () = tokio::time::sleep(COMPARE_EVERY) => {}
        }
    }
}

/// Brings what runs in line with the image.
async fn compare(shared: &Arc<Shared>, image: &Arc<MetadataImage>) {
    for replica in shared.replicas() {
        damage::heal(shared, image, &replica).await;
    }
    let wanted = wanted(shared, image);
    remove_unwanted(shared, image, &wanted).await;
    remove_retired(shared, image).await;
    let open = shared.table.load_full();
    let mut missing = Vec::new();
    for (group, local) in &wanted {
        match open.by_group.get(group) {
            Some(replica) => configure(replica, local),
            None => missing.push(local.clone()),
        }
    }
    let mut opening = futures::stream::iter(missing.into_iter().map(|local| open_one(shared, local)))
        .buffer_unordered(OPEN_AT_ONCE);
    while opening.next().await.is_some() {}
    for (group, local) in &wanted {
        if let Some(replica) = shared.table.load().by_group.get(group).cloned() {
            open::initialise(shared, &replica, local).await;
        }
    }
}

/// The replicas to run, one a group: of two on this broker the newer takes the place of the older as soon as it may.
fn wanted(shared: &Shared, image: &MetadataImage) -> BTreeMap<RaftGroupId, LocalReplica> {
    let mut wanted: BTreeMap<RaftGroupId, LocalReplica> = BTreeMap::new();
    for local in image.local_replicas(shared.broker()) {
        let group = local.partition.group;
        let run = match wanted.remove(&group) {
            Some(other) => {
                let (older, newer) =
                    if other.replica.id < local.replica.id { (other, local) } else { (local, other) };
                if damage::may_give_up(shared, &older) { newer } else { older }
            }
            None => local,
        };
        wanted.insert(group, run);
    }
    wanted
}

fn configure(replica: &Replica, local: &LocalReplica) {
    let core = replica.core();
    core.deleted.store(local.topic.deleted_ms.is_some(), Ordering::Relaxed);
    if **core.config.load() != local.topic.config {
        core.log.lock().log.configure(open::log_config(&local.topic.config, core.log_base.clone()));
        core.config.store(Arc::new(local.topic.config.clone()));
        tracing::info!(partition = %replica.name(), "settings changed");
    }
}

async fn open_one(shared: &Arc<Shared>, local: LocalReplica) {
    let group = local.partition.group;
    match open::open(shared, &local).await {
        Ok(replica) => {
            shared.failures().remove(&group);
            shared.insert(replica);
        }
        Err(open::OpenError::Damaged(reason)) => damage::replace_unopened(shared, &local, &reason).await,
        Err(error) => shared.note_failure(group, &error.to_string()),
    }
}

/// Closes and deletes what the image permits to remove: open replicas, and leftovers that recovery found.
async fn remove_unwanted(
    shared: &Arc<Shared>,
    image: &MetadataImage,
    wanted: &BTreeMap<RaftGroupId, LocalReplica>,
) {
    for replica in shared.replicas() {
        let follower = wanted.get(&replica.group()).map(|local| local.replica.id);
        if follower == Some(replica.id()) {
            continue;
        }
        if image.may_remove(replica.core().topic, replica.group(), replica.id()) {
            shared.close(&replica).await;
            delete(shared, replica.group(), replica.id()).await;
        } else if follower.is_some() {
            damage::give_up(shared, &replica).await;
        }
    }
    let leftovers: Vec<RecoveredGroup> = shared.recovered().values().cloned().collect();
    for found in leftovers {
        let (group, replica) = (RaftGroupId(found.group), ReplicaId(found.replica));
        if image.may_remove(TopicId(found.topic), group, replica)
            && !shared.table.load().by_group.contains_key(&group)
        {
            delete(shared, group, replica).await;
            shared.recovered().remove(&found.group);
        }
    }
}

/// Removes the files of damaged replicas that were replaced here.
async fn remove_retired(shared: &Arc<Shared>, image: &MetadataImage) {
    let free = |old: &Retired| image.may_remove(old.topic, old.group, old.replica);
    let gone: Vec<Retired> = shared.retired().extract_if(.., |old| free(old)).collect();
    for old in gone {
        remove_files(shared, old.group, old.replica).await;
    }
}

/// Deletes a replica's WAL entries and files; the WAL's word comes first, so that a crash between leaves only files.
async fn delete(shared: &Arc<Shared>, group: RaftGroupId, replica: ReplicaId) {
    if let Err(error) = shared.groups().delete(group, replica).await {
        tracing::warn!(raft_group = %group, error = %error, "replica was not deleted from the WAL");
        return;
    }
    remove_files(shared, group, replica).await;
}

async fn remove_files(shared: &Shared, group: RaftGroupId, replica: ReplicaId) {
    let dir = raft_store::layout::group_dir(&shared.args.root, group.0, replica.0);
    let disk = shared.args.seams.disk.clone();
    match shared.io().run(move || disk.remove_dir_all(&dir)).await {
        Ok(()) => tracing::info!(raft_group = %group, replica = %replica, "replica removed"),
        Err(error) => {
            tracing::warn!(raft_group = %group, error = %error, "files of a removed replica are left")
        }
    }
}
