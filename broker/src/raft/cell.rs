//! One running group, with its kind and state machine, behind the port that the rest sees.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use disk::mutant::{self, Mutant};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{Fatal as RaftFatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ServerState};
use raft_store::{CommittedLeaderId, LogId, Vote};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use wire::ids::{BrokerId, ReplicaId};

use super::port::{APPEND_QUEUE, AppendSession, Brief, GroupPort};
use super::snapshot::{RangePuller, SnapshotDoor};
use super::status::{GroupStatus, Member, Role};
use super::transport::message::{Append, AppendRefusal, Offer, Transfer, VoteAsk, VoteTell};
use super::types::{Group, GroupKind, Types};
use crate::runtime::{ProbeEvent, ReplicaProbe, Tasks};

/// A group that stops takes at most this long.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// A hand-over that takes longer will not end by itself: asking the other voters took its time already.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

pub(crate) struct GroupCell<K: GroupKind, SM: RaftStateMachine<Types<K>>> {
    pub(crate) raft: Group<K, SM>,
    pub(crate) door: Arc<dyn SnapshotDoor<K, SM>>,
    pub(crate) metrics: WatchReceiverOf<Types<K>, RaftMetrics<Types<K>>>,
    pub(crate) tasks: Tasks,
    /// Held while a snapshot is pulled and installed.
    pub(crate) receiving: Arc<tokio::sync::Mutex<()>>,
    pub(crate) probe: ReplicaProbe,
    /// The hand-over that began last.
    pub(crate) handed: Mutex<Option<Handed>>,
}

/// A leader told a successor to stand. From then on openraft refuses all writes in this term and beats no more, also
/// if the successor never stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handed {
    term: u64,
    to: ReplicaId,
    at: Instant,
}

impl<K: GroupKind, SM: RaftStateMachine<Types<K>>> GroupCell<K, SM> {
    fn seen<T>(&self, read: impl FnOnce(&RaftMetrics<Types<K>>) -> T) -> T {
        // Short: a held guard would stop the group.
        read(&self.metrics.borrow_watched())
    }

    fn handed(&self) -> MutexGuard<'_, Option<Handed>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn members<K: GroupKind>(metrics: &RaftMetrics<Types<K>>) -> Vec<(ReplicaId, BrokerId, bool)> {
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(id, node)| (ReplicaId(*id), BrokerId(node.broker), voters.contains(id)))
        .collect()
}

fn leader<K: GroupKind>(
    metrics: &RaftMetrics<Types<K>>,
    members: &[(ReplicaId, BrokerId, bool)],
) -> Option<(ReplicaId, BrokerId)> {
    // Term 0 is the initial membership, which nobody was elected to write.
    let leader = metrics.current_leader.filter(|_| metrics.current_term > 0)?;
    // After a restart a replica remembers its own vote, not that it leads (I9).
    if leader == metrics.id && metrics.state != ServerState::Leader {
        return None;
    }
    members.iter().find(|(replica, _, _)| replica.0 == leader).map(|(replica, broker, _)| (*replica, *broker))
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn quorum_age<K: GroupKind>(metrics: &RaftMetrics<Types<K>>) -> Option<u64> {
    use openraft::Instant;
    let acked = metrics.last_quorum_acked.as_ref()?;
    u64::try_from(acked.elapsed().as_millis()).ok()
}

fn status<K: GroupKind>(metrics: &RaftMetrics<Types<K>>) -> GroupStatus {
    let members = members(metrics);
    let config = &metrics.membership_config;
    let matched = metrics.replication.iter().flatten();
    GroupStatus {
        replica: ReplicaId(metrics.id),
        role: role(metrics.state),
        term: metrics.current_term,
        leader: leader(metrics, &members),
        last_index: metrics.last_log_index,
        committed: metrics.local_committed.as_ref().map(|id| id.index),
        applied: metrics.last_applied.as_ref().map(|id| id.index),
        snapshot: metrics.snapshot.as_ref().map(|id| id.index),
        purged: metrics.purged.as_ref().map(|id| id.index),
        changing: config.membership().get_joint_config().len() > 1
            || metrics.committed_membership_config != *config,
        membership_index: config.log_id().as_ref().map(|id| id.index),
        members: members
            .iter()
            .map(|(replica, broker, votes)| Member { replica: *replica, broker: *broker, votes: *votes })
            .collect(),
        running: metrics.running_state.clone().map_err(|fatal| fatal.to_string()),
        matched: matched
            .map(|(id, log_id)| (ReplicaId(*id), log_id.as_ref().map(|id| id.index)))
            .collect::<BTreeMap<_, _>>(),
        quorum_age_ms: quorum_age(metrics),
    }
}

fn refused<K: GroupKind>(
    answer: Result<AppendEntriesResponse<Types<K>>, RaftError<Types<K>>>,
) -> Result<Result<(), AppendRefusal>, String> {
    Ok(match answer.map_err(|error| error.to_string())? {
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => Ok(()),
        AppendEntriesResponse::Conflict => Err(AppendRefusal::Conflict),
        AppendEntriesResponse::HigherVote(vote) => Err(AppendRefusal::HigherVote(vote)),
    })
}

fn request<K: GroupKind>(append: Append) -> AppendEntriesRequest<Types<K>> {
    let commit = if mutant::on(Mutant::ApplyBeforeCommit) { append.last() } else { append.commit };
    AppendEntriesRequest {
        vote: append.vote,
        prev_log_id: append.prev,
        entries: append.entries,
        leader_commit: commit,
    }
}

impl<K: GroupKind, SM: RaftStateMachine<Types<K>>> GroupPort for GroupCell<K, SM> {
    fn brief(&self) -> Brief {
        let handed = *self.handed();
        self.seen(|metrics| {
            let members = members(metrics);
            Brief {
                me: ReplicaId(metrics.id),
                term: metrics.current_term,
                leader: leader(metrics, &members),
                leading: metrics.state == ServerState::Leader,
                stuck: metrics.state == ServerState::Leader
                    && handed.is_some_and(|handed| {
                        handed.term == metrics.current_term && handed.at.elapsed() >= HAND_OVER_MAX
                    }),
                members,
                last_index: metrics.last_log_index,
                fatal: match &metrics.running_state {
                    Ok(()) | Err(RaftFatal::Stopped) => None,
                    Err(fatal) => Some(fatal.to_string()),
                },
            }
        })
    }

    fn me(&self) -> u64 {
        *self.raft.node_id()
    }

    fn status(&self) -> GroupStatus {
        self.seen(status)
    }

    fn vote(&self, ask: VoteAsk, pre: bool) -> BoxFuture<'static, Result<VoteTell, String>> {
        let (raft, probe) = (self.raft.clone(), self.probe.clone());
        async move {
            let mut request = VoteRequest::new(ask.vote, ask.last);
            request.leadership_transfer = ask.transfer;
            let told = if pre { raft.pre_vote(request).await } else { raft.vote(request).await };
            let told = told.map_err(|error| error.to_string())?;
            if told.vote_granted && !pre {
                probe.note(|of| ProbeEvent::Voted { of, vote: ask.vote });
            }
            Ok(VoteTell { vote: told.vote, last: told.last_log_id, granted: told.vote_granted })
        }
        .boxed()
    }

    fn append_once(&self, append: Append) -> BoxFuture<'static, Result<Result<(), AppendRefusal>, String>> {
        let raft = self.raft.clone();
        async move { refused(raft.append_entries(request(append)).await) }.boxed()
    }

    fn append_session(&self) -> AppendSession {
        let (requests, queue) = mpsc::channel(APPEND_QUEUE);
        let stream = self.raft.stream_append(ReceiverStream::new(queue).map(request::<K>));
        let answers = stream
            .map(|answer| match answer {
                Ok(appended) => Ok(appended.map(|_| ()).map_err(AppendRefusal::from)),
                Err(fatal) => Err(fatal.to_string()),
            })
            .boxed();
        AppendSession { requests, answers }
    }

    fn take_over(&self, transfer: Transfer) -> BoxFuture<'static, Result<bool, String>> {
        let raft = self.raft.clone();
        async move {
            let request = TransferLeaderRequest::new(transfer.from, transfer.to, transfer.last);
            let answer = raft.handle_transfer_leader(request).await.map_err(|fatal| fatal.to_string())?;
            Ok(answer.is_ok())
        }
        .boxed()
    }

    fn receive_snapshot(
        &self,
        from: BrokerId,
        offer: Offer,
        pull: RangePuller,
    ) -> BoxFuture<'static, Result<Vote, String>> {
        let (raft, door, receiving) = (self.raft.clone(), self.door.clone(), self.receiving.clone());
        async move {
            // Two would write the same files, and the install of one would take them away from the other. A leader that
            // offers again meets the end of the first soon: its pulls have deadlines and end with their link.
            let Ok(_one) = receiving.try_lock() else {
                return Err("an earlier snapshot is still being received".to_owned());
            };
            let received = door.receive(from, offer.meta.clone(), offer.offer, pull).await;
            let snapshot = received.map_err(|error| error.to_string())?;
            let snapshot = Snapshot { meta: offer.meta, snapshot };
            let answer = raft.install_full_snapshot(offer.vote, snapshot).await;
            answer.map(|response| response.vote).map_err(|fatal| fatal.to_string())
        }
        .boxed()
    }

    fn read_range(&self, request: Bytes) -> BoxFuture<'static, std::io::Result<Bytes>> {
        self.door.read_range(request)
    }

    fn elect(&self, pre: bool) -> BoxFuture<'static, ()> {
        let raft = self.raft.clone();
        // A stopped group is found by the sweep.
        async move { drop(raft.trigger().elect(pre).await) }.boxed()
    }

    fn beat(&self) -> BoxFuture<'static, ()> {
        let raft = self.raft.clone();
        async move { drop(raft.trigger().heartbeat().await) }.boxed()
    }

    fn reset_backoff(&self, members: Vec<u64>) -> BoxFuture<'static, ()> {
        let raft = self.raft.clone();
        async move { drop(raft.trigger().reset_backoff(members).await) }.boxed()
    }

    fn hand_over(&self, to: ReplicaId) -> BoxFuture<'static, ()> {
        let (raft, term) = (self.raft.clone(), self.seen(|metrics| metrics.current_term));
        *self.handed() = Some(Handed { term, to, at: Instant::now() });
        async move { drop(raft.trigger().transfer_leader(to.0).await) }.boxed()
    }

    fn step_down(&self) -> BoxFuture<'static, ()> {
        let (raft, probe, handed) = (self.raft.clone(), self.probe.clone(), *self.handed());
        async move {
            let Some(Handed { term, to, .. }) = handed else { return };
            // Any vote of the next term ends this leader; if that term has begun, it is refused and not needed. The
            // successor was chosen for its log, so its log counts as long enough.
            let vote = Vote::new(term + 1, to.0);
            let last = LogId::new(CommittedLeaderId { term: term + 1 }, u64::MAX);
            let mut request = VoteRequest::new(vote, Some(last));
            request.leadership_transfer = true;
            if raft.vote(request).await.is_ok_and(|told| told.vote_granted) {
                probe.note(|of| ProbeEvent::Voted { of, vote });
            }
        }
        .boxed()
    }

    fn changed(&self) -> BoxFuture<'static, bool> {
        let mut metrics = self.metrics.clone();
        // What stands there now is old; the caller looks at it after this.
        drop(metrics.borrow_and_update());
        async move { metrics.changed().await.is_ok() }.boxed()
    }

    fn quorum_age_ms(&self) -> Option<u64> {
        self.seen(quorum_age)
    }

    fn transfer_request(&self, to: ReplicaId) -> Option<Transfer> {
        self.seen(|metrics| {
            // The target was chosen for its log; the vote itself decides whether that is good enough.
            let leading = metrics.state == ServerState::Leader;
            leading.then_some(Transfer { from: metrics.vote, to: to.0, last: None })
        })
    }

    fn leader_silence(&self) -> BoxFuture<'static, Duration> {
        use openraft::Instant;
        let raft = self.raft.clone();
        async move {
            let heard = raft.with_raft_state(|state| state.vote_last_modified()).await;
            heard.ok().flatten().map_or(Duration::MAX, |heard| heard.elapsed())
        }
        .boxed()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        let (raft, tasks) = (self.raft.clone(), self.tasks.clone());
        async move {
            let _ = tokio::time::timeout(STOP_DEADLINE, raft.shutdown()).await;
            tasks.shutdown(Duration::from_millis(100)).await;
        }
        .boxed()
    }
}
