//! Opens one replica: its log from where the WAL's checkpoint left it, its Raft group, its tasks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use disk::{Disk, DiskError};
use openraft::async_runtime::WatchReceiver;
use partition_log::{CutMark, LogConfig, LogError, PartitionLog, discard_incoming};
use raft_store::{BrokerRef, GroupMark, RecoveredGroup, StoredMembership, layout};
use tokio_util::sync::CancellationToken;
use wire::ids::{Offset, ReplicaId, TopicId};

use super::damage::{self, Retired};
use super::manifest::Manifest;
use super::proposer::Proposer;
use super::queue::Queue;
use super::registry::Shared;
use super::replica::{Core, Replica};
use super::replica_log::{Identity, Inner, LogSeams, ReplicaLog};
use super::snapshot::Door;
use super::state_file::{self, StateFileError};
use super::state_machine::PartitionMachine;
use crate::metadata::image::LocalReplica;
use crate::metadata::topic_config::TopicConfig;
use crate::raft::{OpenGroup, Profile};

/// Tries of a first election, and the pause between them: the other replicas may open a moment later.
const FIRST_ELECTIONS: u32 = 40;
const FIRST_ELECTION_PAUSE: Duration = Duration::from_millis(100);

/// Why a replica was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It lost durable data or votes and must come back as a fresh replica (I4).
    #[error("{0}")]
    Damaged(String),
    /// It may work later.
    #[error("{0}")]
    Failed(String),
}

/// Settings of a partition log from those of its topic.
pub(crate) fn log_config(topic: &TopicConfig, base: LogConfig) -> LogConfig {
    LogConfig {
        segment_bytes: topic.segment_bytes,
        retention_ms: topic.retention_ms,
        retention_bytes: topic.retention_bytes,
        ..base
    }
}

/// Opens a replica and starts its tasks.
///
/// # Errors
/// [`OpenError`].
pub(crate) async fn open(shared: &Arc<Shared>, local: &LocalReplica) -> Result<Arc<Replica>, OpenError> {
    let args = shared.args();
    let (group, id) = (local.partition.group, local.replica.id);
    let mark = mark_of(shared, local).await?;
    let identity = Identity { group, replica: id, dir: layout::group_dir(&args.root, group.0, id.0) };
    let base = shared.log_base();
    let log = {
        let config = log_config(&local.topic.config, base.clone());
        let (disk, fatal) = (args.seams.disk.clone(), args.seams.fatal.clone());
        let (dirty, damaged) = (shared.dirty().clone(), shared.damaged().clone());
        let probe = args.seams.probe.of_replica(group.0, id.0);
        let seams = LogSeams { identity, disk, fatal, dirty, damaged, probe };
        shared.io().run(move || open_log(seams, config, mark)).await?
    };
    let log = Arc::new(log);
    let open = OpenGroup {
        group,
        replica: id,
        profile: Profile::Partition,
        topic: local.topic.id.0,
        partition: local.partition.index.0,
    };
    let door = Arc::new(Door::new(log.clone(), args.seams.io.clone()));
    let machine = PartitionMachine::new(log.clone(), args.wal.clone(), args.seams.io.clone());
    let raft =
        args.groups.open(open, machine, door).await.map_err(|error| OpenError::Failed(error.to_string()))?;
    let core = Arc::new(Core {
        group: raft,
        groups: args.groups.clone(),
        metadata: args.metadata.clone(),
        log,
        io: args.seams.io.clone(),
        clock: args.seams.clock.clone(),
        gate: shared.gate().clone(),
        topic: local.topic.id,
        topic_name: local.topic.name.clone(),
        partition: local.partition.index,
        id,
        broker: shared.broker(),
        config: ArcSwap::from_pointee(local.topic.config.clone()),
        log_base: base,
        in_sync: AtomicUsize::new(1),
        proposed_bytes: AtomicU64::new(0),
        deleted: AtomicBool::new(local.topic.deleted_ms.is_some()),
        led_since: Mutex::new(None),
        stop: shared.tasks().token().child_token(),
    });
    Ok(start(shared, core))
}

fn start(shared: &Arc<Shared>, core: Arc<Core>) -> Arc<Replica> {
    let (queue, waiting) = Queue::new(shared.broker_room().clone(), shared.wal().budget().clone());
    let shard = core.group_id().0;
    let stop = core.stop.clone();
    shared.tasks().spawn("proposer", shard, Proposer::new(core.clone(), waiting).run(stop.clone()));
    shared.tasks().spawn("leadership", shard, watch_leadership(shared.clone(), core.clone(), stop));
    Arc::new(Replica::new(core, queue))
}

/// Wakes the reports when this replica begins or ceases to lead.
async fn watch_leadership(shared: Arc<Shared>, core: Arc<Core>, stop: CancellationToken) {
    let mut metrics = core.group.server_metrics();
    loop {
        let leads = metrics.borrow_and_update().state.is_leader();
        if core.note_leading(leads) {
            shared.note_leadership();
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

/// Where the replica's log is cut, as the WAL's checkpoint says; `None` for one that has no checkpoint yet.
async fn mark_of(shared: &Arc<Shared>, local: &LocalReplica) -> Result<Option<GroupMark>, OpenError> {
    let (group, id) = (local.partition.group, local.replica.id);
    let found = shared.recovered().get(&group.0).cloned();
    let dir = layout::group_dir(&shared.args().root, group.0, id.0);
    match found {
        Some(found) if found.replica == id.0 && found.damaged => {
            Err(OpenError::Damaged("the WAL lost durable entries of this replica".to_owned()))
        }
        Some(found) if found.replica == id.0 && lacks_entries(&found) => {
            let reason =
                "the newest checkpoint was damaged, and by the older one the files end before the log begins";
            Err(OpenError::Damaged(reason.to_owned()))
        }
        Some(found) if found.replica == id.0 => Ok(found.mark),
        Some(found) if found.replica > id.0 => Err(OpenError::Failed(format!(
            "a newer replica, {}, is here: the metadata is still behind",
            found.replica
        ))),
        Some(found) if !found.damaged && local.partition.removing != Some(ReplicaId(found.replica)) => {
            Err(OpenError::Failed(format!("an older replica, {}, is still here", found.replica)))
        }
        Some(found) => {
            // The damaged one never runs again; its files stay until the image permits their removal.
            let replica = ReplicaId(found.replica);
            damage::tell_unfit(shared, group, replica, "a fresh replica takes its place");
            let removed = shared.groups().delete(group, replica).await;
            removed.map_err(|error| OpenError::Failed(error.to_string()))?;
            shared.recovered().remove(&group.0);
            shared.retired().push(Retired { topic: TopicId(found.topic), group, replica });
            Ok(None)
        }
        None => {
            let disk = shared.args().seams.disk.clone();
            let stale = shared.io().run(move || has_segments(disk.as_ref(), &dir)).await;
            match stale.map_err(|error| OpenError::Failed(error.to_string()))? {
                true => {
                    Err(OpenError::Damaged("its files are here, but the WAL does not know it".to_owned()))
                }
                false => Ok(None),
            }
        }
    }
}

/// True if entries lie between what the replica's files hold and what is left of its log. Nothing is purged before a
/// checkpoint says that the files have it, so only a fall back to an older checkpoint leads here: what a snapshot brought is
/// there, and nobody knows.
fn lacks_entries(found: &RecoveredGroup) -> bool {
    found.purged > found.mark.map(|mark| mark.applied)
}

fn has_segments(disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
    match disk.list(dir) {
        Ok(entries) => Ok(entries.iter().any(|entry| entry.name.ends_with(".snap"))),
        Err(DiskError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_log(seams: LogSeams, config: LogConfig, mark: Option<GroupMark>) -> Result<ReplicaLog, OpenError> {
    let (identity, disk) = (&seams.identity, &seams.disk);
    let failed = |error: DiskError| OpenError::Failed(error.to_string());
    // Up to the data directory: shard and `groups` may be new names as well.
    disk::create_dir_durably(disk.as_ref(), &identity.dir, 3).map_err(failed)?;
    // What was pulled before a restart may stand in the page cache only, if it was a sync that failed (I3).
    discard_incoming(disk.as_ref(), &identity.dir).map_err(log_error)?;
    let restored = mark
        .filter(|mark| mark.state_index > 0)
        .map(|mark| restore(disk.as_ref(), &identity.dir, &mark))
        .transpose()?;
    let (manifest, cut) = restored.unzip();
    let state = manifest.as_ref().map(|manifest: &Arc<Manifest>| manifest.state.clone());
    let (log, report) =
        PartitionLog::open(disk.clone(), &identity.dir, config, state, cut).map_err(log_error)?;
    tracing::debug!(raft_group = %identity.group, ?report, "partition log opened");
    let inner = Inner {
        log,
        applied: manifest.as_ref().and_then(|manifest| manifest.last),
        membership: manifest
            .as_ref()
            .map_or_else(StoredMembership::default, |manifest| manifest.membership.clone()),
        unflushed: false,
    };
    Ok(ReplicaLog::new(seams, inner, manifest))
}

fn restore(disk: &dyn Disk, dir: &Path, mark: &GroupMark) -> Result<(Arc<Manifest>, CutMark), OpenError> {
    // A state file that cannot be read is damage of durable data: nothing is cut and nothing deleted for it (I11).
    let manifest = state_file::read(disk, dir, mark.state_index)
        .map_err(|error: StateFileError| OpenError::Damaged(error.to_string()))?;
    let cut = CutMark { segment_base: Offset(mark.segment_base), synced_len: mark.synced_len };
    Ok((Arc::new(manifest), cut))
}

fn log_error(error: LogError) -> OpenError {
    match error {
        LogError::Unrestorable { .. } | LogError::Corrupt { .. } => OpenError::Damaged(error.to_string()),
        other => OpenError::Failed(other.to_string()),
    }
}

/// Initialises the group if this replica was named to do it and nobody has led yet; every candidate would use the very
/// same members, so two that try do no harm.
pub(crate) async fn initialise(shared: &Arc<Shared>, replica: &Replica, local: &LocalReplica) {
    let partition = &local.partition;
    let mine =
        partition.initializer == replica.id() && partition.leader_epoch.0 == 0 && partition.leader.is_none();
    let core = replica.core();
    if !mine || core.group.is_initialized().await.unwrap_or(true) {
        return;
    }
    let members: BTreeMap<u64, BrokerRef> = partition
        .initial_members
        .iter()
        .map(|member| (member.id.0, BrokerRef { broker: member.broker.0 }))
        .collect();
    if let Err(error) = core.group.initialize(members).await {
        tracing::debug!(partition = %replica.name(), error = %error, "group was not initialised");
        return;
    }
    let (core, stop) = (core.clone(), core.stop.clone());
    let shard = core.group_id().0;
    shared.tasks().spawn("first-election", shard, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = first_election(&core) => {}
        }
    });
}

async fn first_election(core: &Core) {
    for _ in 0..FIRST_ELECTIONS {
        tokio::time::sleep(FIRST_ELECTION_PAUSE).await;
        let led = core.group.metrics().borrow_watched().current_leader.is_some();
        if led || core.group.trigger().elect(true).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_store::LogPosition;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_log_that_begins_behind_the_end_of_the_files_is_damage() {
        let at = |index| LogPosition { term: 2, index };
        let found = |purged: Option<u64>, applied: Option<u64>| RecoveredGroup {
            group: 1,
            replica: 4,
            topic: Uuid::nil(),
            partition: 0,
            mark: applied.map(|applied| GroupMark { applied: at(applied), ..GroupMark::default() }),
            damaged: false,
            last: None,
            purged: purged.map(at),
            committed: None,
            vote: None,
        };
        assert!(!lacks_entries(&found(None, None)), "a new replica");
        assert!(!lacks_entries(&found(Some(7), Some(7))), "a snapshot was installed");
        assert!(!lacks_entries(&found(Some(7), Some(9))));
        assert!(lacks_entries(&found(Some(7), Some(6))));
        assert!(lacks_entries(&found(Some(7), None)), "the older checkpoint knows it as it was created");
    }
}
