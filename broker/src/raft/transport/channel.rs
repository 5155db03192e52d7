//! One direction of frames: priority lanes on the way out, calls that wait for their replies on the way back.
//!
//! Order of the lanes: votes, then beats and calls, then appends (fair over the groups), so that no amount of data
//! keeps an election waiting. Nothing here touches a socket; the carrier takes [`Channel::next_chunk`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::sync::oneshot;

use super::super::error::PeerError;
use super::chunk::Chunk;
use super::frame::{Frame, Kind, REPLY};

/// Frames are gathered up to this many bytes for one system call. Nothing overtakes them any more, so it is not much.
const CHUNK_TARGET: usize = 256 << 10;
/// Frames that may wait in one channel. A sender's window of appends (32 MiB in pieces of at least 1 KiB) is the most
/// that a well-behaved broker has in flight; votes of 10,000 groups fit beside it.
const QUEUE_FRAMES_MAX: usize = 64 << 10;

/// What a call came to.
pub(crate) type Reply = Result<Bytes, PeerError>;

/// Outgoing frames and the calls that wait for answers.
#[derive(Default)]
pub(crate) struct Channel(Mutex<State>);

#[derive(Default)]
struct State {
    open: bool,
    /// The peer's greeting was heard and approved: frames may leave.
    greeted: bool,
    carriers: u64,
    next_call: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Reply>>,
    votes: VecDeque<Frame>,
    urgent: VecDeque<Frame>,
    appends: BTreeMap<u64, VecDeque<Frame>>,
    /// Groups with waiting appends, in the order in which they are served.
    turns: VecDeque<u64>,
    frames: usize,
    carrier: Option<Waker>,
}

impl Channel {
    /// A channel that is open at once, for the side that only answers.
    pub(crate) fn opened() -> Self {
        let channel = Self::default();
        channel.open();
        channel.greeted();
        channel
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls are accepted from now on. The carrier passes the returned number to [`Channel::next_chunk`], so that the
    /// remains of an older carrier cannot take frames away from a newer one.
    pub(crate) fn open(&self) -> u64 {
        let mut state = self.state();
        state.open = true;
        state.greeted = false;
        state.carriers += 1;
        state.carriers
    }

    /// The peer is who it should be: what was queued since [`Channel::open`] may leave.
    pub(crate) fn greeted(&self) {
        let mut state = self.state();
        state.greeted = true;
        let carrier = state.carrier.take();
        drop(state);
        carrier.inspect(Waker::wake_by_ref);
    }

    /// Number of the present carrier.
    pub(crate) fn carrier(&self) -> u64 {
        self.state().carriers
    }

    /// The carrier is gone. Calls whose frame never left fail as definite, the others as unknown.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.open = false;
        let unsent: Vec<Frame> = state.drain();
        let mut waiting = std::mem::take(&mut state.waiting);
        let carrier = state.carrier.take();
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        for frame in unsent {
            if let Some(caller) = waiting.remove(&frame.call) {
                let _ =
                    caller.send(Err(PeerError::Unreachable("the link broke before the call left".into())));
            }
        }
        for caller in waiting.into_values() {
            let _ = caller.send(Err(PeerError::Timeout("the link broke before the answer came".into())));
        }
    }

    /// Sends a request; the receiver yields its reply, or an error when the carrier goes.
    pub(crate) fn call(&self, mut frame: Frame) -> Result<oneshot::Receiver<Reply>, PeerError> {
        let (caller, reply) = oneshot::channel();
        let mut state = self.state();
        state.admit()?;
        state.next_call += 1;
        frame.call = state.next_call;
        state.waiting.insert(frame.call, caller);
        let carrier = state.push(frame);
        drop(state);
        carrier.inspect(Waker::wake_by_ref);
        Ok(reply)
    }

    /// Sends a frame that expects no reply, such as a reply.
    pub(crate) fn send(&self, frame: Frame) -> Result<(), PeerError> {
        let mut state = self.state();
        state.admit()?;
        let carrier = state.push(frame);
        drop(state);
        carrier.inspect(Waker::wake_by_ref);
        Ok(())
    }

    /// Hands a reply to the call that waits for it; a reply to a call that gave up is dropped.
    pub(crate) fn answer(&self, call: u64, reply: Reply) {
        let caller = self.state().waiting.remove(&call);
        if let Some(caller) = caller {
            let _ = caller.send(reply);
        }
    }

    /// Forgets a call that nobody waits for any more.
    pub(crate) fn forget(&self, is_stale: impl Fn(&oneshot::Sender<Reply>) -> bool) {
        self.state().waiting.retain(|_, caller| !is_stale(caller));
    }

    /// The next bytes for a carrier: some frames of the most urgent lanes. `None` once the channel is closed or has
    /// another carrier.
    pub(crate) fn next_chunk(
        &self,
        carrier: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<impl Buf + Send + use<>>> {
        let mut state = self.state();
        if !state.open || state.carriers != carrier {
            return Poll::Ready(None);
        }
        let mut chunk = Chunk::default();
        while state.greeted
            && let Some(frame) = state.pop(CHUNK_TARGET.saturating_sub(chunk.len()), chunk.is_empty())
        {
            chunk.push(frame);
        }
        if chunk.is_empty() {
            state.carrier = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(chunk.finish()))
    }
}

impl State {
    fn admit(&self) -> Result<(), PeerError> {
        if !self.open {
            return Err(PeerError::Unreachable("no link".into()));
        }
        if self.frames >= QUEUE_FRAMES_MAX {
            return Err(PeerError::Unreachable("the link's queue is full".into()));
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Option<Waker> {
        self.frames += 1;
        match frame.kind {
            Kind::Vote | Kind::Transfer => self.votes.push_back(frame),
            Kind::Append if !frame.is(super::frame::HEARTBEAT) => {
                let lane = self.appends.entry(frame.group).or_default();
                if lane.is_empty() {
                    self.turns.push_back(frame.group);
                }
                lane.push_back(frame);
            }
            _ => self.urgent.push_back(frame),
        }
        self.carrier.take()
    }

    /// The next frame, if it fits into `room` or `first` says that it must go alone.
    fn pop(&mut self, room: usize, first: bool) -> Option<Frame> {
        let fits = |frame: &Frame| first || frame.len() <= room;
        if let Some(next) = self.votes.front() {
            return if fits(next) { self.taken(|state| state.votes.pop_front()) } else { None };
        }
        if let Some(next) = self.urgent.front() {
            return if fits(next) { self.taken(|state| state.urgent.pop_front()) } else { None };
        }
        let group = *self.turns.front()?;
        let next = self.appends.get(&group).and_then(VecDeque::front)?;
        if fits(next) { self.taken(|state| state.pop_append(group)) } else { None }
    }

    fn taken(&mut self, take: impl FnOnce(&mut Self) -> Option<Frame>) -> Option<Frame> {
        let frame = take(self);
        self.frames -= usize::from(frame.is_some());
        frame
    }

    /// One frame of the group whose turn it is; then the others have theirs.
    fn pop_append(&mut self, group: u64) -> Option<Frame> {
        self.turns.pop_front();
        let lane = self.appends.get_mut(&group)?;
        let frame = lane.pop_front();
        if lane.is_empty() {
            self.appends.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        frame
    }

    fn drain(&mut self) -> Vec<Frame> {
        self.frames = 0;
        self.turns.clear();
        let appends = std::mem::take(&mut self.appends).into_values().flatten();
        let all: Vec<Frame> = self.votes.drain(..).chain(self.urgent.drain(..)).chain(appends).collect();
        all.into_iter().filter(|frame| !frame.is(REPLY)).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::task::noop_waker;

    use super::*;

    fn frame(kind: Kind, group: u64) -> Frame {
        Frame::new(kind, group, vec![])
    }

    fn chunk(channel: &Channel) -> Vec<(Kind, u64)> {
        let Poll::Ready(Some(mut chunk)) = channel.next_chunk(1, &mut Context::from_waker(&noop_waker()))
        else {
            return Vec::new();
        };
        let mut bytes = chunk.copy_to_bytes(chunk.remaining());
        std::iter::from_fn(|| Frame::decode(&mut bytes).unwrap().map(|f| (f.kind, f.group))).collect()
    }

    #[test]
    fn votes_overtake_beats_and_beats_overtake_appends() {
        let channel = Channel::opened();
        for kind in [Kind::Append, Kind::Beat, Kind::Vote] {
            channel.send(frame(kind, 1)).unwrap();
        }
        assert_eq!(chunk(&channel), [(Kind::Vote, 1), (Kind::Beat, 1), (Kind::Append, 1)]);
        assert!(chunk(&channel).is_empty());
    }

    #[test]
    fn one_busy_group_does_not_starve_the_others() {
        let channel = Channel::opened();
        for group in [1, 1, 1, 2, 3] {
            channel.send(frame(Kind::Append, group)).unwrap();
        }
        let order: Vec<u64> = chunk(&channel).into_iter().map(|(_, group)| group).collect();
        assert_eq!(order, [1, 2, 3, 1, 1]);
    }

    #[test]
    fn a_large_frame_travels_alone_and_late_votes_overtake_the_rest() {
        let channel = Channel::opened();
        let large = Frame::new(Kind::Append, 1, vec![Bytes::from(vec![0; 400 << 10])]);
        channel.send(large.clone()).unwrap();
        channel.send(large).unwrap();
        assert_eq!(chunk(&channel).len(), 1);
        channel.send(frame(Kind::Vote, 9)).unwrap();
        assert_eq!(chunk(&channel), [(Kind::Vote, 9)]);
        assert_eq!(chunk(&channel).len(), 1);
    }

    #[test]
    fn a_broken_link_tells_definite_from_unknown() {
        let channel = Channel::opened();
        let mut left = channel.call(frame(Kind::Call, 1)).unwrap();
        assert_eq!(chunk(&channel).len(), 1);
        let mut stayed = channel.call(frame(Kind::Call, 1)).unwrap();
        channel.close();
        assert!(matches!((&mut left).now_or_never(), Some(Ok(Err(PeerError::Timeout(_))))));
        assert!(matches!((&mut stayed).now_or_never(), Some(Ok(Err(PeerError::Unreachable(_))))));
        assert!(matches!(channel.call(frame(Kind::Call, 1)), Err(PeerError::Unreachable(_))));
        assert!(matches!(channel.next_chunk(1, &mut Context::from_waker(&noop_waker())), Poll::Ready(None)));
    }

    #[test]
    fn answers_find_their_calls_in_any_order() {
        let channel = Channel::opened();
        let mut first = channel.call(frame(Kind::Call, 1)).unwrap();
        let mut second = channel.call(frame(Kind::Call, 1)).unwrap();
        channel.answer(2, Ok(Bytes::from_static(b"two")));
        channel.answer(1, Ok(Bytes::from_static(b"one")));
        channel.answer(99, Ok(Bytes::new()));
        assert_eq!((&mut first).now_or_never().unwrap().unwrap().unwrap(), "one");
        assert_eq!((&mut second).now_or_never().unwrap().unwrap().unwrap(), "two");
    }

    #[test]
    fn nothing_leaves_before_the_greeting_nor_through_an_older_carrier() {
        let channel = Channel::default();
        let first = channel.open();
        channel.send(frame(Kind::Vote, 1)).unwrap();
        assert!(chunk(&channel).is_empty());
        channel.close();
        let second = channel.open();
        channel.send(frame(Kind::Vote, 2)).unwrap();
        channel.greeted();
        let waker = noop_waker();
        assert!(matches!(channel.next_chunk(first, &mut Context::from_waker(&waker)), Poll::Ready(None)));
        let taken = channel.next_chunk(second, &mut Context::from_waker(&waker));
        assert!(matches!(taken, Poll::Ready(Some(bytes)) if bytes.remaining() == 24));
    }

    #[test]
    fn a_full_queue_refuses_instead_of_growing() {
        let channel = Channel::opened();
        (0..QUEUE_FRAMES_MAX).for_each(|_| channel.send(frame(Kind::Beat, 0)).unwrap());
        assert!(matches!(channel.send(frame(Kind::Beat, 0)), Err(PeerError::Unreachable(_))));
    }
}
