//! openraft's network: one client per group and member, all of them on the link of the member's broker.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use disk::mutant::{self, Mutant};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{RaftStateMachine, Snapshot};
use raft_store::{BrokerRef, CommittedLeaderId, LogId, Vote};
use tokio::sync::oneshot;
use tokio_util::sync::PollSemaphore;
use wire::ids::BrokerId;

use super::super::error::PeerError;
use super::super::peers::Switchboard;
use super::super::snapshot::SnapshotDoor;
use super::super::types::{GroupKind, Types};
use super::carrier::Road;
use super::channel::Reply;
use super::frame::{Frame, HEARTBEAT, Kind, PRE_VOTE};
use super::link::{Link, permits};
use super::message::{Append, Offer, Transfer, VoteAsk, VoteTell, decode_append_reply, decode_vote};

/// Appends of one group that may be under way to one follower. More gains no throughput and costs many more, smaller
/// requests.
const WINDOW: usize = 16;
/// Bytes of appends of one group that may be under way to one follower; one request may exceed it alone.
const WINDOW_BYTES: usize = 4 << 20;
/// The follower answers an offer once all ranges are there, which may take hours. The link's end ends the wait.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Makes the clients of one group.
pub(crate) struct GroupNetwork<K: GroupKind, SM: RaftStateMachine<Types<K>>> {
    pub(crate) board: Arc<Switchboard>,
    pub(crate) group: u64,
    pub(crate) me: u64,
    pub(crate) door: Arc<dyn SnapshotDoor<K, SM>>,
}

/// Talks to one member of one group.
pub(crate) struct MemberClient<K: GroupKind, SM: RaftStateMachine<Types<K>>> {
    board: Arc<Switchboard>,
    link: Arc<Link>,
    group: u64,
    me: u64,
    target: u64,
    heartbeat: bool,
    door: Arc<dyn SnapshotDoor<K, SM>>,
}

impl<K: GroupKind, SM: RaftStateMachine<Types<K>>> GroupNetwork<K, SM> {
    fn client(&self, target: u64, node: BrokerRef, heartbeat: bool) -> MemberClient<K, SM> {
        MemberClient {
            board: self.board.clone(),
            link: self.board.link(BrokerId(node.broker)),
            group: self.group,
            me: self.me,
            target,
            heartbeat,
            door: self.door.clone(),
        }
    }
}

impl<K: GroupKind, SM: RaftStateMachine<Types<K>>> RaftNetworkFactory<Types<K>> for GroupNetwork<K, SM> {
    type Network = MemberClient<K, SM>;

    async fn new_client(&mut self, target: u64, node: &BrokerRef) -> Self::Network {
        self.client(target, *node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BrokerRef) -> Self::Network {
        self.client(target, *node, true)
    }
}

impl<K: GroupKind, SM: RaftStateMachine<Types<K>>> MemberClient<K, SM> {
    /// A frame for this member. A broker may carry a new replica of the group while the leader still sends to the one
    /// that went with its disk, so requests name the replica that they are meant for.
    fn frame(&self, kind: Kind, body: Vec<Bytes>) -> Frame {
        Frame::to_replica(kind, self.group, self.target, body)
    }

    fn failed(&self, error: PeerError, action: RPCTypes, waited: Duration) -> RPCError<Types<K>> {
        match error {
            PeerError::Timeout(_) => {
                RPCError::Timeout(Timeout { action, id: self.me, target: self.target, timeout: waited })
            }
            // A group that does not run there yet will: back off rather than spin.
            PeerError::Unreachable(_) | PeerError::Refused(_) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }

    async fn ask(
        &self,
        frame: Frame,
        action: RPCTypes,
        option: &RPCOption,
    ) -> Result<Bytes, RPCError<Types<K>>> {
        let waited = option.soft_ttl();
        let answer = self.link.call(Road::Control, frame, waited).await;
        answer.map_err(|error| self.failed(error, action, waited))
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<Types<K>>,
        flags: u8,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<K>>, RPCError<Types<K>>> {
        let ask =
            VoteAsk { vote: request.vote, last: request.last_log_id, transfer: request.leadership_transfer };
        let frame = self.frame(Kind::Vote, vec![ask.encode()]).with_flags(flags);
        let body = self.ask(frame, RPCTypes::Vote, &option).await?;
        let tell = VoteTell::decode(body).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        if !tell.granted && tell.last > ask.last {
            self.board.outranked(self.group);
        }
        Ok(VoteResponse::new(tell.vote, tell.last, tell.granted))
    }
}

impl<K: GroupKind, SM: RaftStateMachine<Types<K>>> RaftNetworkV2<Types<K>> for MemberClient<K, SM> {
    type SnapshotData = SM::SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<K>>, RPCError<Types<K>>> {
        let body = message_of(request).encode();
        let flags = if self.heartbeat { HEARTBEAT } else { 0 };
        let frame = self.frame(Kind::Append, body).with_flags(flags);
        let body = self.ask(frame, RPCTypes::AppendEntries, &option).await?;
        decode_append_reply(body).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types<K>>, RPCError<Types<K>>>>, RPCError<Types<K>>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types<K>>> + OptionalSend + Unpin + 'static,
    {
        let window = PollSemaphore::new(self.link.window.clone());
        let pipeline = Pipeline {
            client: self,
            input: Some(input),
            staged: None,
            window,
            flying: VecDeque::new(),
            bytes: 0,
            broken: None,
            ended: false,
            patience: option.soft_ttl(),
        };
        async move { Ok(pipeline.boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<K>>, RPCError<Types<K>>> {
        self.ask_vote(request, 0, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<K>>, RPCError<Types<K>>> {
        self.ask_vote(request, PRE_VOTE, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderId, u64, BrokerRef, SM::SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<K>>, StreamingError<Types<K>>> {
        let offer = Offer { vote, meta: snapshot.meta, offer: self.door.offer(&snapshot.snapshot) };
        let frame = self.frame(Kind::Snapshot, offer.encode());
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = self.link.call(Road::Bulk, frame, SNAPSHOT_DEADLINE) => answer,
        };
        let body = answer.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let vote = decode_vote(body).map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<K>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<K>>, RPCError<Types<K>>> {
        let from = *request.from_leader();
        let transfer = Transfer { from, to: *request.to_node_id(), last: request.last_log_id().copied() };
        let frame = self.frame(Kind::Transfer, vec![transfer.encode()]);
        let body = self.ask(frame, RPCTypes::TransferLeader, &option).await?;
        if body.as_ref() == [0] {
            return Ok(Ok(()));
        }
        // Which of its reasons it was changes nothing for the leader.
        Ok(Err(TransferLeaderError::LogNotFlushed { expected: transfer.last, actual: None }))
    }
}

fn message_of<K: GroupKind>(request: AppendEntriesRequest<Types<K>>) -> Append {
    Append {
        vote: request.vote,
        prev: request.prev_log_id,
        commit: request.leader_commit,
        entries: request.entries,
    }
}

/// One request that waits for its answer.
struct Flying {
    answer: oneshot::Receiver<Reply>,
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
    _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// A request that waits for room in the windows.
struct Staged {
    frame: Frame,
    prev: Option<LogId>,
    last: Option<LogId>,
}

/// Requests go out while there is room, answers come back in order; no task is needed.
struct Pipeline<'s, K: GroupKind, SM: RaftStateMachine<Types<K>>, S> {
    client: &'s MemberClient<K, SM>,
    input: Option<S>,
    staged: Option<Staged>,
    window: PollSemaphore,
    flying: VecDeque<Flying>,
    bytes: usize,
    /// Why no more can be sent; told once what is under way has landed.
    broken: Option<PeerError>,
    ended: bool,
    patience: Duration,
}

impl<K, SM, S> Unpin for Pipeline<'_, K, SM, S>
where
    K: GroupKind,
    SM: RaftStateMachine<Types<K>>,
{
}

impl<K, SM, S> Pipeline<'_, K, SM, S>
where
    K: GroupKind,
    SM: RaftStateMachine<Types<K>>,
    S: Stream<Item = AppendEntriesRequest<Types<K>>> + Unpin,
{
    /// Sends while there are requests and room.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), PeerError> {
        while self.flying.len() < WINDOW && (self.flying.is_empty() || self.bytes < WINDOW_BYTES) {
            if self.staged.is_none() && !self.stage(cx) {
                return Ok(());
            }
            let Some(bytes) = self.staged.as_ref().map(|staged| staged.frame.len()) else { return Ok(()) };
            let room = match self.room(cx, bytes) {
                Poll::Ready(room) => room,
                Poll::Pending => return Ok(()),
            };
            let Some(Staged { frame, prev, last }) = self.staged.take() else { return Ok(()) };
            let answer = self.client.link.begin(Road::Control, frame)?;
            self.bytes += bytes;
            self.flying.push_back(Flying { answer, prev, last, bytes, _room: room });
        }
        Ok(())
    }

    /// Takes the next request from openraft; false if there is none yet.
    fn stage(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(input) = self.input.as_mut() else { return false };
        match input.poll_next_unpin(cx) {
            Poll::Pending => false,
            Poll::Ready(None) => {
                self.input = None;
                false
            }
            Poll::Ready(Some(request)) => {
                let append = message_of(request);
                let (prev, last) = (append.prev, append.last());
                let flags = if self.client.heartbeat { HEARTBEAT } else { 0 };
                let frame = self.client.frame(Kind::Append, append.encode()).with_flags(flags);
                self.staged = Some(Staged { frame, prev, last });
                true
            }
        }
    }

    /// Room in the link's window; heartbeats need none.
    fn room(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Option<tokio::sync::OwnedSemaphorePermit>> {
        if self.client.heartbeat {
            return Poll::Ready(None);
        }
        self.window.poll_acquire_many(cx, permits(bytes))
    }

    fn landed(&mut self, reply: Reply) -> Result<StreamAppendResult<Types<K>>, RPCError<Types<K>>> {
        let flight = self.flying.pop_front();
        let (prev, last) = flight.map_or((None, None), |flight| {
            self.bytes = self.bytes.saturating_sub(flight.bytes);
            (flight.prev, flight.last)
        });
        let body =
            reply.map_err(|error| self.client.failed(error, RPCTypes::AppendEntries, self.patience))?;
        let answer =
            decode_append_reply::<K>(body).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        if answer.is_conflict() && prev.is_none() {
            let why = "a follower reports a conflict before the first entry";
            return Err(RPCError::Network(NetworkError::from_string(why)));
        }
        Ok(answer.into_stream_result(prev, last))
    }
}

impl<K, SM, S> Stream for Pipeline<'_, K, SM, S>
where
    K: GroupKind,
    SM: RaftStateMachine<Types<K>>,
    S: Stream<Item = AppendEntriesRequest<Types<K>>> + Unpin,
{
    type Item = Result<StreamAppendResult<Types<K>>, RPCError<Types<K>>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.broken.is_none() {
            self.broken = self.fill(cx).err();
        }
        let Some(first) = self.flying.front_mut() else {
            return match self.broken.take() {
                Some(error) => {
                    self.ended = true;
                    let failed = self.client.failed(error, RPCTypes::AppendEntries, self.patience);
                    Poll::Ready(Some(Err(failed)))
                }
                None if self.input.is_none() && self.staged.is_none() => Poll::Ready(None),
                None => Poll::Pending,
            };
        };
        let reply = match first.answer.poll_unpin(cx) {
            Poll::Pending if mutant::on(Mutant::HighWatermarkFromAppend) => Ok(Bytes::from_static(&[0])),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(reply)) => reply,
            Poll::Ready(Err(_)) => Err(PeerError::Timeout("the link ended".into())),
        };
        let item = self.landed(reply);
        // After a refusal openraft begins a new stream; what is still under way is void.
        self.ended = !matches!(item, Ok(Ok(_)));
        Poll::Ready(Some(item))
    }
}
