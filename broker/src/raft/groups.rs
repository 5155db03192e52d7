//! The Raft groups of this broker: opened, closed, asked, moved.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::storage::RaftStateMachine;
use openraft::type_config::alias::WatchReceiverOf;
use raft_store::{GroupSpec, Wal, WalError};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;
use wire::ids::{RaftGroupId, ReplicaId};

use super::cell::GroupCell;
use super::elections::Elections;
use super::error::GroupError;
use super::identity::LocalIdentity;
use super::peers::{PeerConfig, Peers, Room, Switchboard};
use super::port::GroupPort;
use super::snapshot::SnapshotDoor;
use super::status::GroupStatus;
use super::transport::carrier::Road;
use super::transport::frame::{Frame, Kind};
use super::transport::network::GroupNetwork;
use super::types::{Group, GroupKind, Profile, Types};
use crate::runtime::{Listener, ProbeEvent, ReplicaProbe, Seams};

/// Groups that may wait to be looked at by the elections.
const OPENED_MAX: usize = 16 << 10;
/// A hand-over that takes longer is stuck: its target died, and the old leader would refuse writes for ever.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(1);
/// Looks for a word of a remembered leader, and how many in a row find its broker alive and no word before it is given up.
const LOOK_FOR_LEADER: Duration = Duration::from_secs(1);
const SILENT_LOOKS: u32 = 3;
/// A target may lack so many entries when a hand-over begins; it gets them in the course of it.
const TRANSFER_LAG_MAX: u64 = 1_000;
/// A leader that waits longer for a quorum's word is not warmed by waiting.
const WARM_PATIENCE: Duration = Duration::from_millis(500);

/// What to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenGroup {
    /// The group.
    pub group: RaftGroupId,
    /// This broker's replica of it.
    pub replica: ReplicaId,
    /// Its timing.
    pub profile: Profile,
    /// Its topic; nil for the metadata group.
    pub topic: Uuid,
    /// Its partition.
    pub partition: u32,
}

/// All groups of a broker, with what they share: WAL, links, verdicts. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    board: Arc<Switchboard>,
    wal: Wal,
}

impl Groups {
    /// Starts listening for peers, judging their silence, and electing. Groups are opened afterwards.
    #[must_use]
    pub fn start(
        seams: &Seams,
        wal: Wal,
        identity: watch::Receiver<Arc<LocalIdentity>>,
        listener: Box<dyn Listener>,
        config: PeerConfig,
    ) -> Self {
        let budget = wal.budget().clone();
        let room = move |bytes: usize| {
            let budget = budget.clone();
            async move {
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                Box::new(budget.acquire(bytes).await) as Room
            }
            .boxed()
        };
        let (nudges, queue) = mpsc::channel(OPENED_MAX);
        let board = Switchboard::new(seams.clone(), identity, config, Arc::new(room), nudges);
        let tasks = board.tasks();
        tasks.spawn("peer-listener", 0, board.clone().listen(listener));
        tasks.spawn("peer-silence", 0, board.clone().watch_silence());
        tasks.spawn("elections", 0, Elections::new(board.clone(), queue).run());
        tasks.spawn("wal-watch", 0, watch_wal(board.clone(), wal.failed()));
        Self(Arc::new(Inner { board, wal }))
    }

    /// The other brokers.
    #[must_use]
    pub fn peers(&self) -> Peers {
        Peers(self.0.board.clone())
    }

    /// The WAL under all groups.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.0.wal
    }

    /// Opens a group; its log is created in the WAL if it is new. The group is not initialised.
    ///
    /// # Errors
    /// [`GroupError::Open`] if it runs already, [`GroupError::Wal`] if the WAL has no good log for this replica,
    /// [`GroupError::Stopped`] if openraft cannot start on what it finds.
    pub async fn open<K, SM>(
        &self,
        spec: OpenGroup,
        state_machine: SM,
        door: Arc<dyn SnapshotDoor<K, SM>>,
    ) -> Result<Group<K, SM>, GroupError>
    where
        K: GroupKind,
        SM: RaftStateMachine<Types<K>>,
    {
        let OpenGroup { group, replica, profile, topic, partition } = spec;
        if self.0.board.ports.get(group.0).is_some() {
            return Err(GroupError::Open(group));
        }
        let wal_error = |source| GroupError::Wal { group, source };
        let log = match self.0.wal.log::<Types<K>>(group.0, replica.0) {
            Err(WalError::UnknownGroup { .. }) => {
                let spec = GroupSpec { group: group.0, replica: replica.0, topic, partition };
                self.0.wal.create_group(spec).await.map_err(wal_error)?;
                self.0.wal.log::<Types<K>>(group.0, replica.0).map_err(wal_error)?
            }
            found => found.map_err(wal_error)?,
        };
        let stopped = |reason: String| GroupError::Stopped { group, reason };
        let config = profile.config().map_err(|error| stopped(error.to_string()))?;
        let board = self.0.board.clone();
        let network = GroupNetwork { board, group: group.0, me: replica.0, door: door.clone() };
        let tasks = self.0.board.tasks().child("group");
        let raft = tasks
            .owning(openraft::Raft::new(replica.0, config, network, log, state_machine))
            .await
            .map_err(|fatal| stopped(fatal.to_string()))?;
        let metrics = raft.metrics();
        let probe = self.0.board.seams().probe.of_replica(group.0, replica.0);
        if probe.listens() {
            tasks.spawn("leads", group.0, tell_leading(raft.server_metrics(), probe.clone()));
        }
        let port = Arc::new(GroupCell {
            raft: raft.clone(),
            door,
            metrics,
            tasks: tasks.clone(),
            receiving: Arc::default(),
            probe,
            handed: Mutex::default(),
        });
        if !self.0.board.ports.insert(group.0, port.clone()) {
            port.stop().await;
            return Err(GroupError::Open(group));
        }
        tasks.spawn("group-birth", group.0, announce(group.0, port, self.0.board.clone()));
        Ok(raft)
    }

    /// Stops a group and forgets it; its log stays. Fine if it does not run.
    pub async fn close(&self, group: RaftGroupId) {
        if let Some(port) = self.0.board.ports.remove(group.0) {
            self.0.board.adopted(group.0);
            port.stop().await;
        }
    }

    /// Stops a group and deletes its log, durably. The caller removes the replica's directory.
    ///
    /// # Errors
    /// [`GroupError::Wal`], if the WAL holds another replica's log or failed.
    pub async fn delete(&self, group: RaftGroupId, replica: ReplicaId) -> Result<(), GroupError> {
        self.close(group).await;
        let deleted = self.0.wal.delete_group(group.0, replica.0).await;
        deleted.map_err(|source| GroupError::Wal { group, source })
    }

    /// State of a group; `None` if it does not run here.
    #[must_use]
    pub fn status(&self, group: RaftGroupId) -> Option<GroupStatus> {
        self.0.board.ports.get(group.0).map(|port| port.status())
    }

    /// The groups that run here.
    #[must_use]
    pub fn ids(&self) -> Vec<RaftGroupId> {
        self.0.board.ports.ids()
    }

    pub(super) fn port(&self, group: RaftGroupId) -> Result<Arc<dyn GroupPort>, GroupError> {
        self.0.board.ports.get(group.0).ok_or(GroupError::NotHere(group))
    }

    /// Makes sure that this leader's lease is fresh before a write: an idle leader is not told that it still leads.
    /// Costs nothing if a quorum acknowledged it lately, else one round trip.
    ///
    /// # Errors
    /// [`GroupError::NotHere`], [`GroupError::NotLeader`], or [`GroupError::Timeout`] if no quorum answers.
    pub async fn ensure_warm(&self, group: RaftGroupId, profile: Profile) -> Result<(), GroupError> {
        let port = self.port(group)?;
        let fresh =
            |port: &Arc<dyn GroupPort>| port.quorum_age_ms().is_some_and(|age| age < profile.lease_ms() / 2);
        if fresh(&port) {
            return Ok(());
        }
        let brief = port.brief();
        if !brief.leading {
            return Err(GroupError::NotLeader(group));
        }
        if brief.voters().count() == 1 {
            return Ok(());
        }
        port.beat().await;
        let warm = wait_for(&port, WARM_PATIENCE, || fresh(&port)).await;
        if warm { Ok(()) } else { Err(GroupError::Timeout(group)) }
    }

    /// Hands leadership to another voter that is alive and has nearly the whole log. If that gets stuck, any other
    /// live voter is asked to lead instead, because a leader that waits for a dead successor refuses writes for ever.
    ///
    /// # Errors
    /// [`GroupError::NotHere`], [`GroupError::NotLeader`], [`GroupError::Unfit`], or [`GroupError::Timeout`] if the
    /// deadline passed first.
    pub async fn transfer(
        &self,
        group: RaftGroupId,
        to: ReplicaId,
        deadline: Duration,
    ) -> Result<(), GroupError> {
        let port = self.port(group)?;
        self.check_fit(group, &port.status(), to)?;
        let until = Instant::now() + deadline;
        let probe = self.0.board.seams().probe.of_replica(group.0, port.me());
        probe.note(|of| ProbeEvent::TransferBegun { of, to: to.0 });
        port.hand_over(to).await;
        let led_by_other = || !port.brief().leading;
        if wait_for(&port, TRANSFER_PATIENCE.min(deadline), led_by_other).await {
            let arrived = || port.brief().leader.is_some_and(|(leader, _)| leader == to);
            let left = until.saturating_duration_since(Instant::now());
            return if wait_for(&port, left, arrived).await {
                probe.note(|of| ProbeEvent::TransferDone { of, to: to.0 });
                Ok(())
            } else {
                Err(GroupError::Timeout(group))
            };
        }
        tracing::warn!(group = %group, to = %to, "a hand-over of leadership is stuck; asking the other voters");
        self.rescue(group, &port, to).await;
        Err(GroupError::Timeout(group))
    }

    fn check_fit(&self, group: RaftGroupId, status: &GroupStatus, to: ReplicaId) -> Result<(), GroupError> {
        if !status.is_leader() {
            return Err(GroupError::NotLeader(group));
        }
        let unfit = |reason: &str| GroupError::Unfit { group, to, reason: reason.to_owned() };
        let member = status.members.iter().find(|member| member.replica == to && member.votes);
        let member = member.ok_or_else(|| unfit("it is no voter"))?;
        if to == status.replica {
            return Err(unfit("it leads already"));
        }
        if !self.0.board.is_alive(member.broker) {
            return Err(unfit("its broker is not alive"));
        }
        let matched = status.matched.get(&to).copied().flatten();
        let lag = status.last_index.unwrap_or(0).saturating_sub(matched.unwrap_or(0));
        if lag > TRANSFER_LAG_MAX { Err(unfit("it lacks too many entries")) } else { Ok(()) }
    }

    /// Ends a stuck hand-over: the next live voter is told to take over, until one does.
    async fn rescue(&self, group: RaftGroupId, port: &Arc<dyn GroupPort>, failed: ReplicaId) {
        let status = port.status();
        let others = status.members.iter().filter(|member| {
            member.votes
                && member.replica != failed
                && member.replica != status.replica
                && self.0.board.is_alive(member.broker)
        });
        for member in others {
            let Some(request) = port.transfer_request(member.replica) else { return };
            let frame = Frame::to_replica(Kind::Transfer, group.0, request.to, vec![request.encode()]);
            let link = self.0.board.link(member.broker);
            let asked = link.call(Road::Control, frame, TRANSFER_PATIENCE).await;
            if asked.is_ok() && wait_for(port, TRANSFER_PATIENCE, || !port.brief().leading).await {
                return;
            }
        }
    }

    /// Stops all groups, then the links.
    pub async fn shutdown(&self, deadline: Duration) {
        let stops = self.ids().into_iter().map(|group| self.close(group));
        let _ = tokio::time::timeout(deadline, futures::future::join_all(stops)).await;
        self.0.board.tasks().shutdown(deadline).await;
    }
}

/// Waits until a condition on a group's metrics holds; false after the patience ran out or the group stopped.
async fn wait_for(port: &Arc<dyn GroupPort>, patience: Duration, holds: impl Fn() -> bool) -> bool {
    let waiting = async {
        loop {
            // Subscribed before the look, so that no change falls between.
            let changed = port.changed();
            if holds() {
                return true;
            }
            if !changed.await {
                return false;
            }
        }
    };
    tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| holds())
}

/// Tells the elections about a group once it has members: a new replica has none until its leader or its initialiser
/// speaks. Then waits for the leader that the replica remembers from before it opened.
async fn announce(group: u64, port: Arc<dyn GroupPort>, board: Arc<Switchboard>) {
    loop {
        let changed = port.changed();
        if port.brief().voters().next().is_some() {
            break;
        }
        if !changed.await {
            return;
        }
    }
    board.nudge(group);
    await_leader(group, port, board).await;
}

/// A leader speaks as soon as it has a link. One that lives on as a broker and says nothing leads no more: its disk was
/// emptied, say, while this broker was away. Whoever believed in it would wait for it for ever.
async fn await_leader(group: u64, port: Arc<dyn GroupPort>, board: Arc<Switchboard>) {
    let (opened, remembered) = (Instant::now(), port.brief());
    let Some((_, broker)) = remembered.leader else { return };
    let mut silent = 0;
    while silent < SILENT_LOOKS {
        tokio::time::sleep(LOOK_FOR_LEADER).await;
        let brief = port.brief();
        if (brief.leader, brief.term) != (remembered.leader, remembered.term) || brief.fatal.is_some() {
            return;
        }
        if port.leader_silence().await < opened.elapsed() {
            return;
        }
        silent = if board.is_alive(broker) { silent + 1 } else { 0 };
    }
    tracing::info!(group, broker = %broker, "the leader of before says nothing; the group needs another one");
    board.orphaned(group, remembered.term);
    board.nudge(group);
}

/// Tells whenever this replica begins to lead.
async fn tell_leading<K: GroupKind>(
    mut metrics: WatchReceiverOf<Types<K>, RaftServerMetrics<Types<K>>>,
    probe: ReplicaProbe,
) {
    let mut told = None;
    loop {
        let (leads, term) = {
            let now = metrics.borrow_and_update();
            (now.state.is_leader(), now.vote.leader_id.term)
        };
        if leads && told != Some(term) {
            probe.note(|of| ProbeEvent::Leads { of, term });
        }
        told = leads.then_some(term);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// A WAL that failed stops the broker (I3).
async fn watch_wal(board: Arc<Switchboard>, mut failed: watch::Receiver<Option<String>>) {
    let stop = board.tasks().token();
    tokio::select! {
        () = stop.cancelled() => {}
        Ok(reason) = failed.wait_for(Option::is_some) => {
            let reason = reason.clone().unwrap_or_default();
            board.seams().fatal.stop(format!("the write-ahead log failed: {reason}"));
        }
    }
}
