//! Damage: how a replica learns that it lost something, and how a fresh replica takes its place.
//!
//! A replica that lost votes or entries is found when it is opened and never runs again. One whose stored records turn
//! out to be damaged still votes and takes entries, so it runs on until a majority of others is in sync: only then is
//! its copy given up, and the fresh replica pulls a whole one.
//!
//! **Invariant (I4):** the fresh replica has an id of its own. **Invariant (I11):** a copy that may be the last good one is
//! never given up; the files go when the image permits it by name.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use partition_log::LogError;
use tokio::sync::Notify;
use wire::ids::{RaftGroupId, ReplicaId, TopicId};

use super::moves;
use super::registry::Shared;
use super::replica::Replica;
use crate::metadata::command::Command;
use crate::metadata::image::{LocalReplica, MetadataImage, Partition};
use crate::runtime::ProbeEvent;

/// Time for one proposal to the metadata group.
const PROPOSE_WITHIN: Duration = Duration::from_secs(3);

/// What is known of damage to one replica's stored records.
#[derive(Debug)]
pub(crate) struct Damage {
    found: Mutex<Option<String>>,
    /// Wakes the registry.
    bell: Arc<Notify>,
}

impl Damage {
    /// No damage; `bell` is rung when the first is found.
    pub(crate) fn none(bell: Arc<Notify>) -> Self {
        Self { found: Mutex::default(), bell }
    }

    /// Takes note if an error of a read means damage.
    pub(crate) fn note(&self, error: &LogError) {
        if !matches!(error, LogError::Corrupt { .. }) {
            return;
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_none() {
            *found = Some(error.to_string());
            self.bell.notify_one();
        }
    }

    /// What was found first.
    pub(crate) fn found(&self) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A replica whose place a fresh one took on this broker; its files stay until the image permits their removal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retired {
    pub topic: TopicId,
    pub group: RaftGroupId,
    pub replica: ReplicaId,
}

/// True if the replicas in sync are a majority without this one: every committed entry is safe with them.
pub(crate) fn others_suffice(partition: &Partition, without: ReplicaId) -> bool {
    let others = partition.replicas.iter().filter(|other| other.id != without);
    let in_sync = others.filter(|other| partition.isr.contains(&other.id)).count();
    in_sync > partition.replicas.len() / 2
}

/// Asks for a fresh replica in the place of one that runs here and has damaged records.
pub(crate) async fn heal(shared: &Shared, image: &MetadataImage, replica: &Replica) {
    let Some(reason) = replica.core().log.damage().found() else { return };
    let Some((_, partition)) = image.group(replica.group()) else { return };
    if others_suffice(partition, replica.id()) {
        shared.note_failure(replica.group(), &reason);
        ask_for_replacement(shared, partition, replica.id()).await;
    } else {
        let why = "too few other replicas are in sync to give this one up; it goes on and refuses what it cannot read";
        shared.note_failure(replica.group(), &format!("{reason}; {why}"));
    }
}

/// What to do about a replica that could not be opened for its damage.
pub(crate) async fn replace_unopened(shared: &Shared, local: &LocalReplica, reason: &str) {
    let (partition, id) = (&local.partition, local.replica.id);
    if partition.replicas.len() == 1 {
        let why = "it is the only replica, so its files are left as they are; restore them from a backup, or delete the topic";
        shared.note_failure(partition.group, &format!("{reason}; {why}"));
        return;
    }
    shared.note_failure(partition.group, reason);
    tell_unfit(shared, partition.group, id, reason);
    // What the WAL could not know: the fresh replica may take the place of this one.
    if let Some(found) = shared.recovered().get_mut(&partition.group.0).filter(|found| found.replica == id.0)
    {
        found.damaged = true;
    }
    ask_for_replacement(shared, partition, id).await;
}

/// A damaged replica comes back under a fresh id, which the metadata group gives (I4).
async fn ask_for_replacement(shared: &Shared, partition: &Partition, old: ReplicaId) {
    if partition.adding.is_some_and(|adding| adding.id != old) {
        return;
    }
    let command = Command::ReplaceReplica { group: partition.group, old, to: shared.broker() };
    match shared.metadata().propose(command, PROPOSE_WITHIN).await {
        Ok(_) => tracing::warn!(raft_group = %partition.group, "a damaged replica is being replaced"),
        Err(error) => {
            tracing::warn!(raft_group = %partition.group, error = %error, "replacement not asked for yet")
        }
    }
}

/// Tells whoever watches that a replica does not go on.
pub(crate) fn tell_unfit(shared: &Shared, group: RaftGroupId, replica: ReplicaId, reason: &str) {
    let probe = shared.args().seams.probe.of_replica(group.0, replica.0);
    probe.note(|of| ProbeEvent::Unfit { of, reason: reason.to_owned() });
}

/// Of two replicas of a group on this broker, whether the older one is to be given up now, so that the newer can run.
pub(crate) fn may_give_up(shared: &Shared, older: &LocalReplica) -> bool {
    let (group, id) = (older.partition.group, older.replica.id);
    let recovered =
        shared.recovered().get(&group.0).is_some_and(|found| found.replica == id.0 && !found.damaged);
    let can_run = recovered || shared.open_replica(group).is_some_and(|open| open.id() == id);
    !can_run || others_suffice(&older.partition, id)
}

/// Ends a replica that runs here and is to be followed by a newer one: it gives its leadership away first. Nothing
/// happens as long as nobody can take it.
pub(crate) async fn give_up(shared: &Shared, replica: &Replica) {
    if replica.is_leader() {
        moves::give_away(shared, replica).await;
        if replica.is_leader() {
            return;
        }
    }
    let (group, id) = (replica.group(), replica.id());
    tell_unfit(shared, group, id, &replica.core().log.damage().found().unwrap_or_default());
    shared.close(replica).await;
    if let Err(error) = shared.groups().delete(group, id).await {
        tracing::warn!(raft_group = %group, error = %error, "a damaged replica is still in the WAL");
        return;
    }
    shared.recovered().remove(&group.0);
    shared.retired().push(Retired { topic: replica.core().topic, group, replica: id });
    tracing::warn!(raft_group = %group, replica = %id, "a damaged replica was given up");
}
