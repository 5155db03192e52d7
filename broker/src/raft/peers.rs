//! The peers of this broker: where they are, what they say, and calls to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use uuid::Uuid;
use wire::ids::BrokerId;

use super::error::PeerError;
use super::identity::{Hello, LocalIdentity};
use super::liveness::{Liveness, PeerHealth, Verdict};
use super::port::{Brief, Ports};
use super::transport::carrier::{self, Incoming, Reception, Road};
use super::transport::channel::Channel;
use super::transport::frame::{FRAME_MAX, Frame, HEADER_LEN, Kind};
use super::transport::inbound;
use super::transport::link::{Link, Target};
use crate::runtime::{Listener, Net, Random, Seams, Tasks};

/// Largest body of a call or of its answer. Unit: bytes.
pub const CALL_MAX: usize = FRAME_MAX - HEADER_LEN;
/// Connections of peers that are open at once: two of each broker each way, and strangers that have yet to greet.
const CONNECTIONS_MAX: usize = 1024;
/// A link to a bare address that nobody used for this long is closed.
const SEED_IDLE: Duration = Duration::from_secs(10);
const SEED_RETRY: Duration = Duration::from_millis(50);

/// Timing of the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerConfig {
    /// Time between two beats; `peer.beat_ms`.
    pub beat: Duration,
    /// Silence after which a peer counts as dead; `peer.dead_ms`.
    pub dead: Duration,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self { beat: Duration::from_millis(100), dead: Duration::from_millis(700) }
    }
}

/// Where a broker of the cluster lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port` of its peer listener.
    pub addr: String,
    /// Its data directory.
    pub incarnation: Uuid,
}

/// A part of this broker that answers calls of peers. SEAM: one implementation per service.
pub trait PeerService: Send + Sync + 'static {
    /// Answers one call; `Err` reaches the caller as [`PeerError::Refused`].
    fn handle(&self, from: Arc<Hello>, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// Room in the WAL; dropping it gives it back.
pub(crate) type Room = Box<dyn std::any::Any + Send>;
/// Waits until the WAL has room for so many bytes.
pub(crate) type Budget = Arc<dyn Fn(usize) -> BoxFuture<'static, Room> + Send + Sync>;

/// Everything that links, sessions and elections share.
pub(crate) struct Switchboard {
    seams: Seams,
    tasks: Tasks,
    config: PeerConfig,
    identity: watch::Receiver<Arc<LocalIdentity>>,
    process: u64,
    began: Instant,
    pub(crate) liveness: Liveness,
    pub(crate) ports: Ports,
    pub(crate) budget: Budget,
    services: Mutex<BTreeMap<u8, Arc<dyn PeerService>>>,
    directory: Mutex<Directory>,
    /// Groups whose leader died or restarted, with the term in which it led: see `elections`.
    orphans: Mutex<BTreeMap<u64, u64>>,
    /// Groups in which another voter turned out to have the longer log, and when: that one is to lead.
    outranked: Mutex<BTreeMap<u64, Instant>>,
    /// Groups for the elections to look at.
    nudges: mpsc::Sender<u64>,
}

#[derive(Default)]
struct Directory {
    /// From the metadata image.
    known: BTreeMap<BrokerId, PeerAddress>,
    /// From greetings, before there is an image.
    learned: BTreeMap<BrokerId, String>,
    links: BTreeMap<BrokerId, Arc<Link>>,
    seeds: BTreeMap<String, (Arc<Link>, Instant)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Switchboard {
    pub(crate) fn new(
        seams: Seams,
        identity: watch::Receiver<Arc<LocalIdentity>>,
        config: PeerConfig,
        budget: Budget,
        nudges: mpsc::Sender<u64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tasks: seams.tasks.child("raft"),
            process: seams.random.nonzero_u64(),
            began: Instant::now(),
            liveness: Liveness::new(config.dead),
            seams,
            config,
            identity,
            ports: Ports::default(),
            budget,
            services: Mutex::default(),
            directory: Mutex::default(),
            orphans: Mutex::default(),
            outranked: Mutex::default(),
            nudges,
        })
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn seams(&self) -> &Seams {
        &self.seams
    }

    pub(crate) fn net(&self) -> &dyn Net {
        &*self.seams.net
    }

    pub(crate) fn random(&self) -> &Random {
        &self.seams.random
    }

    pub(crate) fn identity(&self) -> watch::Receiver<Arc<LocalIdentity>> {
        self.identity.clone()
    }

    pub(crate) fn me(&self) -> BrokerId {
        self.identity.borrow().broker_id
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello { identity: self.identity.borrow().as_ref().clone(), process: self.process }
    }

    /// Whether a peer may talk to this broker.
    pub(crate) fn judge(&self, theirs: &Hello) -> Result<(), String> {
        let ours = self.identity.borrow();
        match (ours.cluster_id, theirs.cluster_id) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                return Err(format!(
                    "wrong cluster: this broker belongs to cluster {ours}, the peer to cluster {theirs}"
                ));
            }
            _ => {}
        }
        if ours.broker_id == theirs.broker_id && ours.incarnation != theirs.incarnation {
            return Err(format!(
                "two brokers have node.id {}; give one of them another number",
                ours.broker_id
            ));
        }
        Ok(())
    }

    /// A greeting tells where a broker lives that the image does not know yet.
    pub(crate) fn learned(self: &Arc<Self>, hello: &Hello) {
        if hello.broker_id == self.me() || hello.peer.is_empty() {
            return;
        }
        lock(&self.directory).learned.insert(hello.broker_id, hello.peer.clone());
        // Beats must flow both ways.
        drop(self.link(hello.broker_id));
    }

    pub(crate) fn address(&self, broker: BrokerId) -> Option<String> {
        let directory = lock(&self.directory);
        let known = directory.known.get(&broker).map(|peer| peer.addr.clone());
        known.or_else(|| directory.learned.get(&broker).cloned())
    }

    /// The link to a broker; it is begun if there is none.
    pub(crate) fn link(self: &Arc<Self>, broker: BrokerId) -> Arc<Link> {
        let mut directory = lock(&self.directory);
        if let Some(link) = directory.links.get(&broker) {
            return link.clone();
        }
        let link = Arc::new(Link::new(Target::Broker(broker)));
        directory.links.insert(broker, link.clone());
        drop(directory);
        self.liveness.expect(broker);
        self.tasks.spawn("peer-link", u64::from(broker.0), link.clone().run(self.clone()));
        link
    }

    fn seed(self: &Arc<Self>, addr: &str) -> Arc<Link> {
        let mut directory = lock(&self.directory);
        if let Some((link, used)) = directory.seeds.get_mut(addr) {
            *used = Instant::now();
            return link.clone();
        }
        let link = Arc::new(Link::new(Target::Address(addr.to_owned())));
        directory.seeds.insert(addr.to_owned(), (link.clone(), Instant::now()));
        drop(directory);
        self.tasks.spawn("peer-seed", 0, link.clone().run(self.clone()));
        link
    }

    /// False once a link serves nobody.
    pub(crate) fn needs(&self, target: &Target) -> bool {
        let directory = lock(&self.directory);
        match target {
            Target::Broker(broker) => directory.links.contains_key(broker),
            Target::Address(addr) => {
                directory.seeds.get(addr).is_some_and(|(_, used)| used.elapsed() < SEED_IDLE)
            }
        }
    }

    pub(crate) fn dropped(&self, target: &Target) {
        if let Target::Address(addr) = target {
            lock(&self.directory).seeds.remove(addr);
        }
    }

    pub(crate) async fn serve_call(
        &self,
        service: u64,
        from: &Arc<Hello>,
        body: Bytes,
    ) -> Result<Bytes, String> {
        let handler =
            u8::try_from(service).ok().and_then(|number| lock(&self.services).get(&number).cloned());
        let Some(handler) = handler else {
            return Err(format!("this broker does not offer service {service}"));
        };
        let answer = handler.handle(from.clone(), body).await?;
        if answer.len() > CALL_MAX { Err("the answer is too long".to_owned()) } else { Ok(answer) }
    }

    /// True if this voter may forget the leader that it protects: the leader's broker is dead by its own verdict, or
    /// restarted in the term in which it led.
    pub(crate) fn waives_lease(&self, group: u64, brief: &Brief) -> bool {
        if brief.leading {
            return false;
        }
        let Some((_, broker)) = brief.leader else { return false };
        self.is_dead(broker) || self.is_orphan(group, brief.term)
    }

    pub(crate) fn is_dead(&self, broker: BrokerId) -> bool {
        broker != self.me() && self.liveness.verdict(broker) == Verdict::Dead
    }

    pub(crate) fn is_alive(&self, broker: BrokerId) -> bool {
        broker == self.me() || self.liveness.verdict(broker) == Verdict::Alive
    }

    pub(crate) fn is_orphan(&self, group: u64, term: u64) -> bool {
        lock(&self.orphans).get(&group) == Some(&term)
    }

    pub(crate) fn orphaned(&self, group: u64, term: u64) {
        lock(&self.orphans).insert(group, term);
    }

    pub(crate) fn adopted(&self, group: u64) {
        lock(&self.orphans).remove(&group);
        lock(&self.outranked).remove(&group);
    }

    /// A voter refused this broker's candidacy because its log is longer.
    pub(crate) fn outranked(&self, group: u64) {
        lock(&self.outranked).insert(group, Instant::now());
    }

    /// True if this broker was outranked within the time given.
    pub(crate) fn is_outranked(&self, group: u64, within: Duration) -> bool {
        lock(&self.outranked).get(&group).is_some_and(|at| at.elapsed() < within)
    }

    /// Has the elections look at a group now. A full queue is made good by their sweep.
    pub(crate) fn nudge(&self, group: u64) {
        let _ = self.nudges.try_send(group);
    }

    /// Accepts peers until the scope is cancelled.
    pub(crate) async fn listen(self: Arc<Self>, listener: Box<dyn Listener>) {
        let stop = self.tasks.token();
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.take_connection(stream, from, &places),
                Err(error) => {
                    // Out of descriptors, or a connection that died in the queue: the listener lives on.
                    tracing::warn!(error = %error, "accepting a peer's connection");
                    tokio::time::sleep(SEED_RETRY).await;
                }
            }
        }
    }

    fn take_connection(
        self: &Arc<Self>,
        stream: crate::runtime::BoxStream,
        from: SocketAddr,
        places: &Arc<tokio::sync::Semaphore>,
    ) {
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(from = %from, "too many peer connections; closing the new one");
            return;
        };
        let (reception, tasks) = (self.clone(), self.tasks.clone());
        self.tasks.spawn("peer-serve", 0, async move {
            carrier::serve(stream, reception, tasks).await;
            drop(place);
        });
    }

    /// Ticks at every beat, the first within one. All of a broker tick together, so that an idle one wakes up once a beat
    /// and not once a beat and link.
    pub(crate) fn beats(&self) -> Interval {
        let beat = self.config.beat;
        let into = self.began.elapsed().as_nanos().checked_rem(beat.as_nanos()).unwrap_or_default();
        let left = beat.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or_default()));
        let mut every = tokio::time::interval_at(Instant::now() + left, beat);
        // A late tick is made good by the next one, which keeps the common time.
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        every
    }

    /// Draws conclusions from silence until the scope is cancelled.
    pub(crate) async fn watch_silence(self: Arc<Self>) {
        let stop = self.tasks.token();
        let mut every = self.beats();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => self.liveness.sweep(),
            }
        }
    }
}

/// A reception that keeps the switchboard's own reference.
impl Reception for Switchboard {
    fn greet(&self, theirs: &Hello) -> Result<Hello, String> {
        self.judge(theirs).inspect_err(|why| {
            tracing::warn!(broker = %theirs.broker_id, reason = %why, "a peer was refused");
        })?;
        Ok(self.hello())
    }

    fn accept(self: Arc<Self>, road: Road, theirs: Hello, incoming: Incoming, answers: Arc<Channel>) {
        let theirs = Arc::new(theirs);
        let shard = u64::from(theirs.broker_id.0);
        let tasks = self.tasks.clone();
        tasks.spawn("peer-session", shard, inbound::serve(self, road, theirs, incoming, answers));
    }
}

/// The other brokers, as the parts above see them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(pub(crate) Arc<Switchboard>);

impl Peers {
    /// Sets where the brokers of the cluster live, from the metadata image. Links to brokers that left are closed.
    pub fn set_directory(&self, brokers: BTreeMap<BrokerId, PeerAddress>) {
        let board = &self.0;
        let mut directory = lock(&board.directory);
        let gone: Vec<BrokerId> =
            directory.known.keys().filter(|broker| !brokers.contains_key(broker)).copied().collect();
        for broker in &gone {
            directory.links.remove(broker);
            directory.learned.remove(broker);
        }
        directory.known = brokers.clone();
        drop(directory);
        gone.iter().for_each(|broker| board.liveness.forget(*broker));
        let me = board.me();
        brokers.keys().filter(|broker| **broker != me).for_each(|broker| drop(board.link(*broker)));
    }

    /// Calls a service of a broker of the cluster. A call to a broker without a link fails at once.
    ///
    /// # Errors
    /// [`PeerError`]; only [`PeerError::Timeout`] leaves open whether the call was served.
    pub async fn call(
        &self,
        broker: BrokerId,
        service: u8,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, PeerError> {
        let frame = call_frame(service, body)?;
        self.0.link(broker).call(Road::Control, frame, deadline).await
    }

    /// Calls a service of whoever answers at `host:port`, connecting first if need be: a seed.
    ///
    /// # Errors
    /// As [`Peers::call`].
    pub async fn call_addr(
        &self,
        addr: &str,
        service: u8,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, PeerError> {
        let until = Instant::now() + deadline;
        let frame = call_frame(service, body)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.0.seed(addr).call(Road::Control, frame.clone(), left).await {
                Err(PeerError::Unreachable(_)) if left > SEED_RETRY => tokio::time::sleep(SEED_RETRY).await,
                Err(PeerError::Unreachable(why)) => {
                    // A refused greeting is an answer: the caller may have to give up for good.
                    let refusal = self.0.seed(addr).refusal();
                    return Err(refusal.map_or(PeerError::Unreachable(why), PeerError::Refused));
                }
                answer => return answer,
            }
        }
    }

    /// Offers a service to the peers; a second handler of the same number replaces the first.
    pub fn serve(&self, service: u8, handler: Arc<dyn PeerService>) {
        lock(&self.0.services).insert(service, handler);
    }

    /// What this broker thinks of another one. Of itself it thinks well.
    #[must_use]
    pub fn verdict(&self, broker: BrokerId) -> Verdict {
        if broker == self.0.me() { Verdict::Alive } else { self.0.liveness.verdict(broker) }
    }

    /// What is known of every peer.
    #[must_use]
    pub fn health(&self) -> BTreeMap<BrokerId, PeerHealth> {
        self.0.liveness.all()
    }

    /// The last greeting of a broker.
    #[must_use]
    pub fn hello(&self, broker: BrokerId) -> Option<Arc<Hello>> {
        self.0.liveness.hello(broker)
    }

    /// A number that rises whenever a verdict, a process or a link changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.liveness.subscribe()
    }

    /// This broker as its peers see it.
    #[must_use]
    pub fn own_hello(&self) -> Hello {
        self.0.hello()
    }
}

fn call_frame(service: u8, body: Bytes) -> Result<Frame, PeerError> {
    if body.len() > CALL_MAX {
        return Err(PeerError::Unreachable(format!("a call of {} bytes is too long", body.len())));
    }
    Ok(Frame::new(Kind::Call, u64::from(service), vec![body]))
}
