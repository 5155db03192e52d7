//! The link to one broker: dials, greets, beats, and dials again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, oneshot};
use wire::ids::BrokerId;

use super::super::error::PeerError;
use super::super::identity::Hello;
use super::super::peers::Switchboard;
use super::carrier::{self, DialError, Incoming, Road};
use super::channel::{Channel, Reply};
use super::frame::{FAILED, Frame, FrameError, Kind, REPLY};

/// Bytes of appends that may be under way to one broker: more than a fast network's bandwidth times delay, little
/// enough to be held by the receiver at once.
pub(crate) const APPEND_WINDOW: usize = 32 << 20;
/// The window is counted in pieces of this size, so that it bounds the number of appends too.
pub(crate) const WINDOW_UNIT: usize = 1 << 10;
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Beats on one control stream without a word from it before the stream is given up. Every third beat is answered, so
/// that this is some six answers missed.
const SILENT_BEATS: u32 = 20;

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A broker of the cluster, wherever it lives now.
    Broker(BrokerId),
    /// Whoever answers at an address: a seed.
    Address(String),
}

/// One directed link.
pub(crate) struct Link {
    target: Target,
    control: Arc<Channel>,
    bulk: Arc<Channel>,
    heard: Heard,
    /// A call on the bulk stream ran out of time and nothing came from that stream meanwhile.
    bulk_silent: Notify,
    pub(crate) window: Arc<Semaphore>,
    /// Why the other side or this one would not have the link, at the last try.
    refusal: Mutex<Option<String>>,
}

/// Messages that came on each stream. The peer's own link keeps it alive in the eyes of this broker whatever becomes of
/// this one: only the stream itself shows that it still works, say after a cut that lost packets of one direction.
#[derive(Default)]
struct Heard {
    control: AtomicU64,
    bulk: AtomicU64,
}

impl Heard {
    fn on(&self, road: Road) -> &AtomicU64 {
        match road {
            Road::Control => &self.control,
            Road::Bulk => &self.bulk,
        }
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("no address is known")]
    NoAddress,
    #[error("connecting to {addr}: {source}")]
    Connect {
        addr: String,
        #[source]
        source: io::Error,
    },
    #[error("{addr}: {source}")]
    Dial {
        addr: String,
        #[source]
        source: DialError,
    },
    #[error("{0}")]
    Stranger(String),
    #[error("the peer closed the stream")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Carrier(String),
    #[error("the peer counts as dead")]
    Dead,
    #[error("the peer is alive, but nothing comes through this connection any more")]
    Silent,
}

impl Link {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            control: Arc::default(),
            bulk: Arc::default(),
            heard: Heard::default(),
            bulk_silent: Notify::new(),
            window: Arc::new(Semaphore::new(APPEND_WINDOW / WINDOW_UNIT)),
            refusal: Mutex::default(),
        }
    }

    /// Why the greeting was refused at the last try, by either side; `None` if it was not.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn channel(&self, road: Road) -> &Arc<Channel> {
        match road {
            Road::Control => &self.control,
            Road::Bulk => &self.bulk,
        }
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn begin(&self, road: Road, frame: Frame) -> Result<oneshot::Receiver<Reply>, PeerError> {
        self.channel(road).call(frame)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&self, road: Road, frame: Frame, deadline: Duration) -> Reply {
        let heard = self.heard.on(road).load(Ordering::Relaxed);
        let answer = self.begin(road, frame)?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(PeerError::Timeout("the link ended".into())),
            Err(_) => {
                self.channel(road).forget(oneshot::Sender::is_closed);
                if road == Road::Bulk && self.heard.bulk.load(Ordering::Relaxed) == heard {
                    self.bulk_silent.notify_waiters();
                }
                Err(PeerError::Timeout(format!("no answer within {} ms", deadline.as_millis())))
            }
        }
    }

    /// Keeps the link up until the scope is cancelled, or `abandoned` says that nobody needs it any more.
    pub(crate) async fn run(self: Arc<Self>, board: Arc<Switchboard>) {
        let stop = board.tasks().token();
        let mut backoff = BACKOFF_MIN;
        let mut said = String::new();
        while !stop.is_cancelled() && board.needs(&self.target) {
            let mut reached = false;
            let end = tokio::select! {
                () = stop.cancelled() => break,
                end = Box::pin(self.connect_and_serve(&board, &mut reached)) => end,
            };
            self.control.close();
            self.bulk.close();
            let refusal = match &end {
                LinkEnd::Stranger(why) | LinkEnd::Dial { source: DialError::Refused(why), .. } => {
                    Some(why.clone())
                }
                _ => None,
            };
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
            let why = end.to_string();
            if said != why {
                tracing::info!(peer = ?self.target, reason = %why, "no link to a peer");
                said = why;
            }
            if reached {
                backoff = BACKOFF_MIN;
                self.broker().inspect(|broker| board.liveness.unlinked(*broker));
                // At once: a refusal now tells a dead process from a broken connection.
                continue;
            }
            let jitter = board.random().range(0..1 + u64::try_from(backoff.as_millis()).unwrap_or(0) / 4);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(backoff + Duration::from_millis(jitter)) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.control.close();
        self.bulk.close();
        board.dropped(&self.target);
    }

    fn broker(&self) -> Option<BrokerId> {
        match self.target {
            Target::Broker(broker) => Some(broker),
            Target::Address(_) => None,
        }
    }

    async fn connect_and_serve(&self, board: &Arc<Switchboard>, reached: &mut bool) -> LinkEnd {
        let addr = match self.address(board) {
            Some(addr) => addr,
            None => return LinkEnd::NoAddress,
        };
        self.control.open();
        let (theirs, incoming) = match self.dial(board, &addr, Road::Control).await {
            Ok(opened) => opened,
            Err(end) => {
                if let (Some(broker), LinkEnd::Connect { source, .. }) = (self.broker(), &end)
                    && source.kind() == io::ErrorKind::ConnectionRefused
                {
                    board.liveness.refused(broker);
                }
                return end;
            }
        };
        *reached = true;
        let theirs = Arc::new(theirs);
        let session = board.liveness.greeted(&theirs);
        board.learned(&theirs);
        board.liveness.linked(theirs.broker_id);
        tracing::info!(broker = %theirs.broker_id, addr = %addr, "linked to a peer");
        tokio::select! {
            end = self.read(board, Road::Control, incoming, (theirs.broker_id, session)) => end,
            end = self.beat(board, theirs.broker_id, session) => end,
            never = self.keep_bulk(board, &addr, (theirs.broker_id, session)) => never,
        }
    }

    fn address(&self, board: &Switchboard) -> Option<String> {
        match &self.target {
            Target::Broker(broker) => board.address(*broker),
            Target::Address(addr) => Some(addr.clone()),
        }
    }

    async fn dial(
        &self,
        board: &Arc<Switchboard>,
        addr: &str,
        road: Road,
    ) -> Result<(Hello, Incoming), LinkEnd> {
        let stream = board
            .net()
            .connect(addr, CONNECT_DEADLINE)
            .await
            .map_err(|source| LinkEnd::Connect { addr: addr.to_owned(), source })?;
        let ours = board.hello();
        let (theirs, incoming) =
            carrier::dial(stream, road, &ours, self.channel(road).clone(), board.tasks())
                .await
                .map_err(|source| LinkEnd::Dial { addr: addr.to_owned(), source })?;
        board.judge(&theirs).map_err(LinkEnd::Stranger)?;
        match self.target {
            Target::Broker(expected) if theirs.broker_id != expected => {
                Err(LinkEnd::Stranger(format!("{addr} is broker {}, not {expected}", theirs.broker_id)))
            }
            _ => {
                self.channel(road).greeted();
                Ok((theirs, incoming))
            }
        }
    }

    /// The bulk stream comes and goes on its own connection; the link lives without it.
    async fn keep_bulk(&self, board: &Arc<Switchboard>, addr: &str, peer: (BrokerId, u64)) -> LinkEnd {
        loop {
            self.bulk.open();
            let end = match self.dial(board, addr, Road::Bulk).await {
                Ok((_, incoming)) => tokio::select! {
                    end = self.read(board, Road::Bulk, incoming, peer) => end,
                    () = self.bulk_silent.notified() => LinkEnd::Silent,
                },
                Err(end) => end,
            };
            self.bulk.close();
            tracing::debug!(broker = %peer.0, reason = %end, "no bulk stream to a peer");
            tokio::time::sleep(BACKOFF_MIN * 10).await;
        }
    }

    /// Hands answers to their callers until the stream ends.
    async fn read(
        &self,
        board: &Arc<Switchboard>,
        road: Road,
        mut incoming: Incoming,
        (broker, session): (BrokerId, u64),
    ) -> LinkEnd {
        let channel = self.channel(road);
        loop {
            let mut bytes = match incoming.next().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return LinkEnd::Closed,
                Err(error) => return LinkEnd::Carrier(error.to_string()),
            };
            if !board.liveness.heard(broker, session) {
                return LinkEnd::Dead;
            }
            self.heard.on(road).fetch_add(1, Ordering::Relaxed);
            loop {
                match Frame::decode(&mut bytes) {
                    Ok(Some(frame)) if frame.kind == Kind::Beat => {}
                    Ok(Some(frame)) if frame.kind == Kind::Hello => {
                        if let Err(end) = adopt(board, frame) {
                            return end;
                        }
                    }
                    Ok(Some(frame)) if frame.is(REPLY) => channel.answer(frame.call, reply_of(frame)),
                    Ok(Some(_)) => return LinkEnd::Carrier("a peer asked on the answering side".to_owned()),
                    Ok(None) => break,
                    Err(error) => return error.into(),
                }
            }
        }
    }

    /// Beats, and tells the peer when this broker's own identity changed.
    async fn beat(&self, board: &Arc<Switchboard>, broker: BrokerId, session: u64) -> LinkEnd {
        let mut every = board.beats();
        let mut identity = board.identity();
        identity.mark_unchanged();
        let (mut heard, mut silent) = (self.heard.control.load(Ordering::Relaxed), 0);
        loop {
            tokio::select! {
                _ = every.tick() => {
                    let now = self.heard.control.load(Ordering::Relaxed);
                    silent = if now == heard { silent + 1 } else { 0 };
                    heard = now;
                    if silent >= SILENT_BEATS {
                        return LinkEnd::Silent;
                    }
                    if !board.liveness.current(broker, session) {
                        return LinkEnd::Dead;
                    }
                    if !board.needs(&self.target) {
                        return LinkEnd::Closed;
                    }
                    // A full queue is no reason to end: silence is.
                    let _ = self.control.send(Frame::new(Kind::Beat, 0, vec![]));
                }
                changed = identity.changed() => {
                    if changed.is_err() {
                        return LinkEnd::Closed;
                    }
                    let hello = board.hello().encode();
                    let _ = self.control.send(Frame::new(Kind::Hello, 0, vec![hello]));
                }
            }
        }
    }
}

/// A peer said anew who it is.
fn adopt(board: &Arc<Switchboard>, frame: Frame) -> Result<(), LinkEnd> {
    let hello = Hello::decode(&frame.into_body()).map_err(|error| LinkEnd::Stranger(error.to_string()))?;
    board.judge(&hello).map_err(LinkEnd::Stranger)?;
    board.liveness.greeted(&Arc::new(hello));
    Ok(())
}

fn reply_of(frame: Frame) -> Reply {
    let failed = frame.is(FAILED);
    let body = frame.into_body();
    if failed { Err(PeerError::Refused(String::from_utf8_lossy(&body).into_owned())) } else { Ok(body) }
}

/// Permits of the append window that a frame takes; a frame above the window takes all of it.
pub(crate) fn permits(bytes: usize) -> u32 {
    let all = APPEND_WINDOW / WINDOW_UNIT;
    u32::try_from(bytes.div_ceil(WINDOW_UNIT).clamp(1, all)).unwrap_or(u32::MAX)
}

/// The body of a refusal.
pub(crate) fn refusal(kind: Kind, group: u64, call: u64, why: &str) -> Frame {
    Frame::reply(kind, group, call, vec![Bytes::copy_from_slice(why.as_bytes())]).with_flags(FAILED)
}
