//! The handle to the cluster's metadata that the rest of the broker holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft_store::{KeyedState, MemoryState, NodeIdentity, SledState, Wal, layout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::KeyedKind;
use super::bells::{self, Bells};
use super::command::{Command, CommandReply};
use super::core::{Core, MetadataConfig, SERVICE};
use super::image::MetadataImage;
use super::keyed::Keyed;
use super::machine::{MetadataDoor, MetadataMachine};
use super::proposer::{self, Done, Lane, Pending, no_quorum};
use super::service::Service;
use super::snapshot::{SnapshotError, SnapshotFiles};
use super::touches::{self, Touch};
use super::{bootstrap, controller, coordinator, flush};
use crate::raft::{GroupError, GroupStatus, Groups, LocalIdentity, OpenGroup, Profile};
use crate::runtime::Seams;

mod groups;

/// Bytes of commits that may wait: half of what one call to the metadata leader may carry.
const COMMIT_ROOM: usize = 8 << 20;

/// Everything that metadata is built from.
pub struct MetadataParts {
    /// Doors to the world.
    pub seams: Seams,
    /// The broker's WAL, for checkpoints.
    pub wal: Wal,
    /// Raft groups and peers.
    pub groups: Groups,
    /// Settings.
    pub config: MetadataConfig,
    /// The data directory.
    pub root: PathBuf,
    /// Whose data directory it is.
    pub node: NodeIdentity,
    /// Who this broker is, as the peer links say it; the cluster id is filled in when there is one.
    pub identity: watch::Sender<Arc<LocalIdentity>>,
}

/// Why metadata could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The snapshots on disk cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state in the data directory is of another cluster than the directory.
    #[error(
        "the data directory belongs to cluster {directory}, the metadata in it to cluster {state}; it was mixed up"
    )]
    WrongCluster {
        /// Of `meta.properties`.
        directory: Uuid,
        /// Of the state.
        state: Uuid,
    },
    /// The metadata group could not be opened.
    #[error("opening the metadata group")]
    Group(#[from] GroupError),
}

/// The cluster's metadata; cheap to clone.
#[derive(Clone)]
pub struct Metadata {
    core: Arc<Core>,
}

impl Metadata {
    /// Restores the state, opens the metadata group, and begins to found, join or come back to a cluster. Returns at
    /// once; [`Metadata::joined`] tells when the broker is part of its cluster.
    ///
    /// # Errors
    /// [`MetadataError`] if the data directory cannot be used. What shows only later (another cluster, a broker id in
    /// use) stops the broker through its [`crate::runtime::Fatal`].
    pub async fn start(parts: MetadataParts) -> Result<Self, MetadataError> {
        let MetadataParts { seams, wal, groups, config, root, node, identity } = parts;
        let files = SnapshotFiles::new(seams.disk.clone(), seams.io.clone(), &root);
        let keyed = open_keyed(&seams, &root, config.keyed).await;
        let probe = seams.probe.of_replica(RaftGroupId::METADATA.0, node.metadata_replica);
        let (machine, shared) = MetadataMachine::open(files, keyed, seams.fatal.clone(), probe)?;
        let image = MetadataMachine::watch(&shared);
        let state = image.borrow().cluster_id;
        if let Some(directory) = node.cluster_id.filter(|id| !state.is_nil() && *id != state) {
            return Err(MetadataError::WrongCluster { directory, state });
        }
        let open = OpenGroup {
            group: RaftGroupId::METADATA,
            replica: ReplicaId(node.metadata_replica),
            profile: Profile::Metadata,
            topic: Uuid::nil(),
            partition: 0,
        };
        let group = groups.open(open, machine, Arc::new(MetadataDoor(shared.clone()))).await?;
        let (queue, commands) = mpsc::channel(proposer::QUEUE);
        let (commits, committed) = mpsc::channel(proposer::QUEUE);
        let (touches, touched) = mpsc::channel(touches::QUEUE);
        let core = Arc::new(Core {
            seams,
            wal,
            groups,
            group,
            shared,
            image,
            config,
            queue,
            commits,
            commit_room: Arc::new(Semaphore::new(COMMIT_ROOM)),
            touches,
            bells: Bells::default(),
            sessions: std::sync::Mutex::default(),
            root,
            identity,
            node: tokio::sync::Mutex::new(node),
            met: std::sync::Mutex::default(),
            arrived: watch::Sender::new(false),
        });
        core.publish_directory();
        core.groups.peers().serve(SERVICE, Arc::new(Service(core.clone())));
        spawn(&core, Queues { commands, commits: committed, touches: touched });
        Ok(Self { core })
    }

    /// The present image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.core.image()
    }

    /// Every new image that differs in more than consumer groups; images may be skipped, never reordered.
    pub fn watch_topology(&self) -> watch::Receiver<Arc<MetadataImage>> {
        MetadataMachine::watch_topology(&self.core.shared)
    }

    /// Every new image that differs in consumer groups, but not only in their offsets, or in topics.
    pub fn watch_groups(&self) -> watch::Receiver<Arc<MetadataImage>> {
        MetadataMachine::watch_groups(&self.core.shared)
    }

    /// Every new image, commits included; images may be skipped, never reordered.
    pub fn watch(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.core.image.clone()
    }

    /// Makes a change of the cluster's state, here or through the metadata leader, and waits until this broker's image
    /// shows it.
    ///
    /// # Errors
    /// The refusal of the state machine (definite), `NoQuorum` if no leader was found in time (definite), or
    /// `OutcomeUnknown` if the change may have been made.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the command back.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<CommandReply, ApiError> {
        let until = Instant::now() + deadline;
        Ok(self.send(&self.core.queue, command, until, None).await?.reply)
    }

    /// Sends a command on its way and waits until this broker's image shows what it did.
    async fn send(
        &self,
        queue: &mpsc::Sender<Pending>,
        command: Command,
        until: Instant,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<Done, ApiError> {
        let (mut pending, reply) = Pending::new(command, until);
        if let Some(room) = room {
            pending = pending.holding(room);
        }
        match tokio::time::timeout_at(until, queue.send(pending)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(stopping(ErrorCode::ShuttingDown)),
            Err(_) => return Err(no_quorum()),
        }
        // The proposer answers at the deadline by itself, with what it knows about the outcome.
        let done = reply.await.map_err(|_| stopping(ErrorCode::OutcomeUnknown))??;
        // Late is not wrong: the change is made, this broker only does not show it yet.
        let _ = self.shows(done.index, until).await;
        Ok(done)
    }

    /// State of the metadata group on this broker.
    pub fn status(&self) -> Option<GroupStatus> {
        self.core.status()
    }

    /// The metadata leader's broker, as far as this one knows.
    pub fn controller(&self) -> Option<BrokerId> {
        self.core.leader()
    }

    /// This broker.
    pub fn me(&self) -> BrokerId {
        self.core.me()
    }

    /// True if an image knows the disk that this broker runs on. An older image may place replicas here that an earlier
    /// disk had: a broker that starts on an empty one applies the whole history again, and passes through such images.
    pub fn knows_own_disk(&self, image: &MetadataImage) -> bool {
        let identity = self.core.identity.borrow();
        image.broker(identity.broker_id).is_some_and(|known| known.incarnation == identity.incarnation)
    }

    /// True once this start of the broker is part of its cluster: the metadata leader has registered it, and the image
    /// is at least as new as that. An image from the disk alone does not count.
    pub fn is_joined(&self) -> bool {
        *self.core.arrived.borrow()
    }

    /// Waits until [`Metadata::is_joined`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn joined(&self) {
        let mut arrived = self.core.arrived.subscribe();
        if arrived.wait_for(|arrived| *arrived).await.is_err() {
            // Unreachable while this handle holds the sender.
            std::future::pending::<()>().await;
        }
    }

    /// Hands the leadership of the metadata group to another voter that is alive and caught up, if this broker has it.
    pub async fn hand_over(&self, deadline: Duration) {
        let Some(status) = self.core.status().filter(GroupStatus::is_leader) else { return };
        let peers = self.core.groups.peers();
        let mut others: Vec<_> = status
            .members
            .iter()
            .filter(|member| member.votes && member.replica != status.replica)
            .filter(|member| peers.verdict(member.broker) == crate::raft::Verdict::Alive)
            .map(|member| (status.matched.get(&member.replica).copied().flatten(), member.replica))
            .collect();
        others.sort_unstable();
        if let Some((_, best)) = others.pop()
            && let Err(error) = self.core.groups.transfer(RaftGroupId::METADATA, best, deadline).await
        {
            tracing::info!(error = %error, "the metadata leadership was not handed over");
        }
    }
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metadata(image {})", self.core.image.borrow().version)
    }
}

fn stopping(code: ErrorCode) -> ApiError {
    ApiError::new(code, "the broker is shutting down").reason("it takes no more changes of the cluster")
}

/// The keyed store; one that cannot be opened is done without, for the snapshot and the log have everything.
async fn open_keyed(seams: &Seams, root: &Path, kind: KeyedKind) -> Keyed {
    if kind == KeyedKind::Memory {
        return Keyed::new(Box::new(MemoryState::default()));
    }
    let (disk, dir) = (seams.disk.clone(), layout::keyed_dir(root));
    match seams.io.run(move || SledState::open(disk, &dir)).await {
        Ok(store) => Keyed::new(Box::new(store) as Box<dyn KeyedState>),
        Err(error) => {
            tracing::error!(error = %error, "keyed state cannot be opened; starts take longer without it");
            Keyed::without()
        }
    }
}

/// What the tasks behind the handle take from.
struct Queues {
    commands: mpsc::Receiver<Pending>,
    commits: mpsc::Receiver<Pending>,
    touches: mpsc::Receiver<Touch>,
}

/// The tasks behind the handle.
fn spawn(core: &Arc<Core>, queues: Queues) {
    let tasks = core.seams.tasks.child("metadata");
    let token = tasks.token();
    let Queues { commands, commits, touches } = queues;
    tasks.spawn("metadata-proposer", 0, proposer::run(core.clone(), Lane::CHANGES, commands, token.clone()));
    tasks.spawn("metadata-commits", 0, proposer::run(core.clone(), Lane::COMMITS, commits, token.clone()));
    tasks.spawn("metadata-touches", 0, touches::run(core.clone(), touches, token.clone()));
    tasks.spawn("metadata-coordinator", 0, coordinator::run(core.clone(), token.clone()));
    tasks.spawn("metadata-bells", 0, bells::run(core.clone(), token.clone()));
    tasks.spawn("metadata-bootstrap", 0, bootstrap::run(core.clone(), token.clone()));
    tasks.spawn("metadata-controller", 0, controller::run(core.clone(), token.clone()));
    tasks.spawn("metadata-flush", 0, flush::run(core.clone(), token.clone()));
    let core = core.clone();
    tasks.spawn("metadata-directory", 0, async move {
        let mut image = MetadataMachine::watch_topology(&core.shared);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                changed = image.changed() => if changed.is_err() { return },
            }
            core.publish_directory();
        }
    });
}
