//! The receiving side of a link: frames of one peer are understood, handed to their groups, and answered.
//!
//! The reader never waits for anything but the peer: votes and beats are answered while appends wait for room in the
//! WAL. What a peer may have under way is bounded by its window; a peer that ignores it loses its link.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use openraft::EntryPayload;
use raft_store::Vote;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::super::identity::Hello;
use super::super::peers::{Room, Switchboard};
use super::super::port::{AppendSession, Brief, GroupPort};
use super::super::snapshot::{RANGE_MAX, RangePuller};
use super::carrier::{Incoming, Road};
use super::channel::Channel;
use super::frame::{Frame, FrameError, HEARTBEAT, Kind, PRE_VOTE, REPLY};
use super::link::{APPEND_WINDOW, WINDOW_UNIT, refusal};
use super::message::{
    self, Append, AppendRefusal, MessageError, Offer, Transfer, VoteAsk, encode_append_reply, encode_vote,
    take_addressee,
};

/// Appends of one peer that may wait here: its window in the smallest pieces, and as much again and again for streams
/// that it gave up and began anew.
const APPENDS_MAX: usize = 4 * APPEND_WINDOW / WINDOW_UNIT;
/// Calls, votes and ranges of one peer that are served at once; more are refused.
const SERVED_AT_ONCE: usize = 16 << 10;
/// Every so manieth beat is answered: often enough for a sender that hears nothing else before it counts as dead.
const ANSWER_BEATS: u32 = 3;
/// A follower whose leader said nothing for this long believes a candidate that the leader is gone.
const LEADER_SILENT: Duration = Duration::from_secs(1);
/// An append stream without traffic for this long is given up, with its memory.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// Why a peer's stream is closed.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("the peer closed the stream")]
    Closed,
    #[error("{0}")]
    Carrier(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("{0}")]
    Stranger(String),
    #[error("the peer has more appends under way than its window allows")]
    Window,
    #[error("a reply came where requests are expected")]
    Reply,
    #[error("the session is older than a verdict of death")]
    Stale,
}

/// One stream of one peer.
pub(crate) struct Session {
    board: Arc<Switchboard>,
    from: Arc<Hello>,
    session: u64,
    answers: Arc<Channel>,
    slots: Arc<Semaphore>,
    beats: AtomicU32,
}

/// Serves a stream until it ends.
pub(crate) async fn serve(
    board: Arc<Switchboard>,
    road: Road,
    from: Arc<Hello>,
    incoming: Incoming,
    answers: Arc<Channel>,
) {
    let session = board.liveness.greeted(&from);
    board.learned(&from);
    let slots = Arc::new(Semaphore::new(SERVED_AT_ONCE));
    let session = Arc::new(Session { board, from, session, answers, slots, beats: AtomicU32::new(0) });
    let (appends, queue) = mpsc::channel(APPENDS_MAX);
    if road == Road::Control {
        let lane = AppendLane::new(session.clone());
        session.board.tasks().spawn("peer-appends", u64::from(session.from.broker_id.0), lane.run(queue));
    }
    let stop = session.board.tasks().token();
    let end = tokio::select! {
        () = stop.cancelled() => StreamEnd::Closed,
        end = session.read(incoming, appends) => end,
    };
    session.answers.close();
    tracing::debug!(broker = %session.from.broker_id, road = ?road, reason = %end, "a peer's stream ended");
}

impl Session {
    async fn read(self: &Arc<Self>, mut incoming: Incoming, appends: mpsc::Sender<Asked>) -> StreamEnd {
        loop {
            let mut bytes = match incoming.next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return StreamEnd::Closed,
                Err(error) => return StreamEnd::Carrier(error.to_string()),
            };
            if !self.board.liveness.heard(self.from.broker_id, self.session) {
                return StreamEnd::Stale;
            }
            loop {
                let end = match Frame::decode(&mut bytes) {
                    Ok(None) => break,
                    Ok(Some(frame)) => self.take(frame, &appends).err(),
                    Err(error) => Some(error.into()),
                };
                if let Some(end) = end {
                    tracing::warn!(broker = %self.from.broker_id, reason = %end, "closing a peer's stream");
                    return end;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, frame: Frame, appends: &mpsc::Sender<Asked>) -> Result<(), StreamEnd> {
        if frame.is(REPLY) {
            return Err(StreamEnd::Reply);
        }
        match frame.kind {
            Kind::Beat => {
                // This broker itself may have joined another cluster since.
                self.board.judge(&self.from).map_err(StreamEnd::Stranger)?;
                // A peer that holds its own link here hears this broker's beats; the answer is for one that does not
                // yet, and half of what an idle broker costs.
                if self.beats.fetch_add(1, Ordering::Relaxed).is_multiple_of(ANSWER_BEATS) {
                    self.answer(Frame::reply(Kind::Beat, 0, 0, vec![]));
                }
            }
            Kind::Hello => return self.renamed(&frame.into_body()),
            Kind::Append if !frame.is(HEARTBEAT) => {
                let (group, call) = (frame.group, frame.call);
                let mut body = frame.into_body();
                let to = take_addressee(&mut body)?;
                let append = Append::decode(body)?;
                return appends.try_send(Asked { group, call, to, append }).map_err(|_| StreamEnd::Window);
            }
            Kind::Vote | Kind::Append | Kind::Transfer | Kind::Snapshot | Kind::Range | Kind::Call => {
                self.serve_apart(frame);
            }
        }
        Ok(())
    }

    fn answer(&self, frame: Frame) {
        // The peer is gone, or does not read its answers: either way its calls fail on its side.
        let _ = self.answers.send(frame);
    }

    fn renamed(&self, body: &Bytes) -> Result<(), StreamEnd> {
        let hello = Hello::decode(body).map_err(|error| StreamEnd::Stranger(error.to_string()))?;
        self.board.judge(&hello).map_err(StreamEnd::Stranger)?;
        if hello.broker_id != self.from.broker_id {
            return Err(StreamEnd::Stranger("a peer changed its broker id".to_owned()));
        }
        self.board.liveness.greeted(&Arc::new(hello));
        self.answer(Frame::reply(Kind::Hello, 0, 0, vec![self.board.hello().encode()]));
        Ok(())
    }

    /// Serves a request that need not keep its place in a row.
    fn serve_apart(self: &Arc<Self>, frame: Frame) {
        let (kind, group, call) = (frame.kind, frame.group, frame.call);
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return self.answer(refusal(kind, group, call, "too many requests are being served"));
        };
        let session = self.clone();
        self.board.tasks().spawn("peer-request", group, async move {
            let _slot = slot;
            let answer = match session.respond(frame).await {
                Ok(body) => Frame::reply(kind, group, call, vec![body]),
                Err(why) => refusal(kind, group, call, &why),
            };
            session.answer(answer);
        });
    }

    async fn respond(self: &Arc<Self>, frame: Frame) -> Result<Bytes, String> {
        let (kind, group, pre) = (frame.kind, frame.group, frame.is(PRE_VOTE));
        if kind == Kind::Call {
            return self.board.serve_call(group, &self.from, frame.into_body()).await;
        }
        let port =
            self.board.ports.get(group).ok_or_else(|| format!("raft group {group} does not run here"))?;
        let mut body = frame.into_body();
        let malformed = |error: MessageError| error.to_string();
        if kind.names_replica() {
            let to = take_addressee(&mut body).map_err(malformed)?;
            if to != port.me() {
                return Err(not_me(group, port.me(), to));
            }
        }
        match kind {
            Kind::Vote => {
                let mut ask = VoteAsk::decode(body).map_err(malformed)?;
                let brief = port.brief();
                if leads_no_more(&brief, &ask.vote) {
                    self.board.orphaned(group, brief.term);
                }
                ask.transfer |= self.board.waives_lease(group, &brief);
                let last = ask.last;
                let tell = port.vote(ask, pre).await?;
                if !tell.granted && tell.last > last {
                    // A candidate with too short a log cannot win; this voter perhaps can. That its leader's broker lives
                    // says nothing: the leader may have gone with its disk.
                    if !brief.leading && port.leader_silence().await >= LEADER_SILENT {
                        self.board.orphaned(group, brief.term);
                    }
                    self.board.nudge(group);
                }
                Ok(tell.encode())
            }
            Kind::Append => {
                let append = Append::decode(body).map_err(malformed)?;
                Ok(encode_append_reply(&port.append_once(append).await?))
            }
            Kind::Transfer => {
                let transfer = Transfer::decode(body).map_err(malformed)?;
                let accepted = port.take_over(transfer).await?;
                Ok(Bytes::from_static(if accepted { &[0] } else { &[1] }))
            }
            Kind::Snapshot => {
                let offer = Offer::decode(body).map_err(malformed)?;
                let from = self.from.broker_id;
                let pull = RangePuller {
                    board: self.board.clone(),
                    from,
                    group,
                    replica: offer.vote.leader_id.voted_for,
                };
                Ok(encode_vote(&port.receive_snapshot(from, offer, pull).await?))
            }
            Kind::Range => {
                let range = port.read_range(body).await.map_err(|error| error.to_string())?;
                if range.len() > RANGE_MAX { Err("the range is too long".to_owned()) } else { Ok(range) }
            }
            Kind::Hello | Kind::Beat | Kind::Call => Err("not a request of a group".to_owned()),
        }
    }
}

/// An append that waits for its turn.
struct Asked {
    group: u64,
    call: u64,
    /// The replica that it is meant for.
    to: u64,
    append: Append,
}

fn not_me(group: u64, me: u64, to: u64) -> String {
    format!("this broker carries replica {me} of raft group {group}, not {to}")
}

/// What comes out of a group's append stream: its answers, and `None` at its end.
type Answer = (u64, u64, Option<Result<Result<(), AppendRefusal>, String>>);

/// A group's stream of appends from this peer.
struct GroupStream {
    number: u64,
    /// The replica that answers.
    me: u64,
    requests: mpsc::Sender<Append>,
    /// Calls in the order in which their answers will come, with the room in the WAL that they hold.
    calls: VecDeque<(u64, Option<Room>)>,
    used: Instant,
}

/// Keeps each group's appends in order and pipelined.
struct AppendLane {
    session: Arc<Session>,
    groups: BTreeMap<u64, GroupStream>,
    answers: SelectAll<BoxStream<'static, Answer>>,
    opened: u64,
}

impl AppendLane {
    fn new(session: Arc<Session>) -> Self {
        Self { session, groups: BTreeMap::new(), answers: SelectAll::new(), opened: 0 }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Asked>) {
        let mut idle = tokio::time::interval(IDLE_AFTER / 3);
        loop {
            tokio::select! {
                biased;
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.answered(answer),
                next = queue.recv() => match next {
                    Some(asked) => {
                        let room = self.admit(&asked.append).await;
                        self.start(asked, room);
                    }
                    None => return,
                },
                _ = idle.tick() => self.close_idle(),
            }
        }
    }

    /// Waits for room in the WAL, answering meanwhile what was begun before.
    async fn admit(&mut self, append: &Append) -> Option<Room> {
        let bytes = body_bytes(append);
        if bytes == 0 {
            return None;
        }
        let session = self.session.clone();
        let mut room = (session.board.budget)(bytes);
        if let Some(room) = (&mut room).now_or_never() {
            return Some(room);
        }
        loop {
            tokio::select! {
                biased;
                room = &mut room => return Some(room),
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.answered(answer),
            }
        }
    }

    fn start(&mut self, asked: Asked, room: Option<Room>) {
        let Asked { group, call, to, append } = asked;
        let stream = match self.stream_to(group, to) {
            Ok(stream) => stream,
            Err(why) => return self.session.answer(refusal(Kind::Append, group, call, &why)),
        };
        stream.used = Instant::now();
        match stream.requests.try_send(append) {
            Ok(()) => stream.calls.push_back((call, room)),
            // Full: the leader ignores its window. Closed: the stream ended at a refusal, whose answer is on its way.
            Err(_) => self.session.answer(refusal(Kind::Append, group, call, "the append stream ended")),
        }
    }

    /// The stream to a replica, begun if need be. A stream to another replica of the group ends when that one is not
    /// here any more: nothing else would end it while nobody writes to it.
    fn stream_to(&mut self, group: u64, to: u64) -> Result<&mut GroupStream, String> {
        if self.groups.get(&group).is_none_or(|stream| stream.me != to) {
            let port = self.session.board.ports.get(group);
            let port = port.ok_or_else(|| format!("raft group {group} does not run here"))?;
            if port.me() != to {
                return Err(not_me(group, port.me(), to));
            }
            self.end_stream(group, "another replica took the place of this one");
            self.open_stream(group, port.as_ref());
        }
        self.groups.get_mut(&group).ok_or_else(|| "the append stream ended".to_owned())
    }

    fn open_stream(&mut self, group: u64, port: &dyn GroupPort) {
        self.opened += 1;
        let number = self.opened;
        let AppendSession { requests, answers } = port.append_session();
        let tagged = answers.map(move |answer| (group, number, Some(answer)));
        let end = futures::stream::once(async move { (group, number, None) });
        self.answers.push(tagged.chain(end).boxed());
        let (me, calls, used) = (port.me(), VecDeque::new(), Instant::now());
        self.groups.insert(group, GroupStream { number, me, requests, calls, used });
    }

    fn answered(&mut self, (group, number, answer): Answer) {
        let Some(stream) = self.groups.get_mut(&group).filter(|stream| stream.number == number) else {
            return;
        };
        match answer {
            Some(Ok(reply)) => {
                if let Some((call, _)) = stream.calls.pop_front() {
                    let body = encode_append_reply(&reply);
                    self.session.answer(Frame::reply(Kind::Append, group, call, vec![body]));
                }
            }
            Some(Err(why)) => self.end_stream(group, &why),
            None => self.end_stream(group, "the append stream ended"),
        }
    }

    fn end_stream(&mut self, group: u64, why: &str) {
        let Some(stream) = self.groups.remove(&group) else { return };
        for (call, _) in stream.calls {
            self.session.answer(refusal(Kind::Append, group, call, why));
        }
    }

    fn close_idle(&mut self) {
        let now = Instant::now();
        self.groups.retain(|_, stream| {
            !stream.calls.is_empty() || now.saturating_duration_since(stream.used) < IDLE_AFTER
        });
    }
}

/// True if the candidate is the very replica that this one follows. A leader does not stand for election, so it lost its
/// leadership, say in a power cut of all brokers; whoever follows it still would else wait for it for ever, even if its
/// log became too short to win.
fn leads_no_more(voter: &Brief, candidate: &Vote) -> bool {
    let follows = voter.leader.is_some_and(|(leader, _)| leader.0 == candidate.leader_id.voted_for);
    !voter.leading && follows && candidate.leader_id.term > voter.term
}

/// Bytes that an append adds to the WAL.
fn body_bytes(append: &Append) -> usize {
    let body = |payload: &message::Payload| match payload {
        EntryPayload::Normal(data) => data.body.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    append.entries.iter().map(|entry| body(&entry.payload)).sum()
}

#[cfg(test)]
mod tests {
    use raft_store::LeaderId;
    use wire::ids::{BrokerId, ReplicaId};

    use super::*;

    #[test]
    fn a_leader_that_stands_for_election_leads_no_more() {
        let follower = |leader: Option<u64>| Brief {
            me: ReplicaId(1),
            term: 7,
            leader: leader.map(|id| (ReplicaId(id), BrokerId(2))),
            leading: false,
            stuck: false,
            members: Vec::new(),
            last_index: None,
            fatal: None,
        };
        let asks =
            |id: u64, term: u64| Vote { leader_id: LeaderId { term, voted_for: id }, committed: false };
        assert!(leads_no_more(&follower(Some(2)), &asks(2, 8)));
        assert!(!leads_no_more(&follower(Some(2)), &asks(2, 7)), "that is how it came to lead");
        assert!(!leads_no_more(&follower(Some(2)), &asks(3, 8)), "somebody else is no news of the leader");
        assert!(!leads_no_more(&follower(None), &asks(2, 8)));
    }
}
