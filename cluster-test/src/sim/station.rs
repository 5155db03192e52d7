//! One simulated machine with its broker: what outlives a crash, and one life of the broker after another.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::config::BrokerConfig;
use broker::node::Node;
use broker::runtime::{Clock, Fatal, KeyedKind, Random, Seams, Tasks, WalDriver};
use disk::faulty::FaultyDisk;
use tokio_util::sync::CancellationToken;

use super::device;
use super::net::SimNet;
use super::plan::Plan;
use super::trace::{SimClock, Trace};
use super::watch::Watch;

/// Wall clock of a machine without skew at the begin of the simulation. Unit: ms since the Unix epoch.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Ports of every broker; each has an address of its own.
const GRPC_PORT: u16 = 7400;
const HTTP_PORT: u16 = 8080;
const PEER_PORT: u16 = 7500;
/// Time for an orderly stop. Unit: simulated.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How a life ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The broker pulled [`Fatal`].
    Fatal(String),
    /// It refused to start.
    Refused(String),
    /// It was asked to stop and did.
    Stopped,
}

/// Where a broker stands in its present life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The machine is down, or nobody started the broker.
    Down,
    /// Recovery runs.
    Starting,
    /// It listens.
    Running,
    /// It ended by itself.
    Ended(Exit),
}

#[derive(Debug)]
struct Life {
    number: u64,
    phase: Phase,
    /// The simulation broke the disk under this life: a fatal end is expected.
    broken: bool,
    /// The disk is full, whatever life it is.
    full: bool,
    stop: CancellationToken,
}

/// One machine; shared by the world and by the host's software.
#[derive(Debug)]
pub struct Station {
    /// Number of the broker, from 1.
    pub id: u32,
    /// Name in the simulated network.
    pub name: String,
    /// The machine's disk.
    pub disk: FaultyDisk,
    skew_ms: Arc<AtomicI64>,
    life: Mutex<Life>,
    around: Surroundings,
}

/// What all machines share.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) plan: Arc<Plan>,
    pub(super) clock: SimClock,
    pub(super) trace: Trace,
    pub(super) watch: Watch,
}

/// Name of a broker in the simulated network.
#[must_use]
pub(super) fn name_of(id: u32) -> String {
    format!("broker-{id}")
}

/// Address that clients use for a broker.
#[must_use]
pub(super) fn grpc_address(id: u32) -> String {
    format!("{}:{GRPC_PORT}", name_of(id))
}

/// Wall clock of a machine without skew. Unit: ms since the Unix epoch.
pub(super) fn wall_ms(clock: &SimClock) -> i64 {
    EPOCH_MS + i64::try_from(clock.now_ns() / 1_000_000).unwrap_or(i64::MAX - EPOCH_MS)
}

impl Station {
    pub(super) fn new(id: u32, around: Surroundings) -> Arc<Self> {
        let seed = around.plan.derive(0xD15C, u64::from(id));
        let life = Life {
            number: 0,
            phase: Phase::Down,
            broken: false,
            full: false,
            stop: CancellationToken::new(),
        };
        Arc::new(Self {
            id,
            name: name_of(id),
            disk: FaultyDisk::new(seed),
            skew_ms: Arc::default(),
            life: Mutex::new(life),
            around,
        })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the broker stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.life().phase.clone()
    }

    /// True if the simulation broke the disk under the present life.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let life = self.life();
        life.broken || life.full
    }

    /// Says whether the disk is full. When it has room again, what its present life does is excused all the same.
    pub(super) fn set_full(&self, full: bool) {
        let mut life = self.life();
        life.broken |= life.full;
        life.full = full;
    }

    /// Says that a fatal end of the present life is expected.
    pub(super) fn set_broken(&self) {
        self.life().broken = true;
    }

    /// The machine went down.
    pub(super) fn set_down(&self) {
        self.life().phase = Phase::Down;
    }

    /// The broker was started; its software runs at the next step.
    pub(super) fn set_starting(&self) {
        self.life().phase = Phase::Starting;
    }

    /// Asks the broker to stop in order.
    pub(super) fn ask_stop(&self) {
        self.life().stop.cancel();
    }

    /// Moves the wall clock of this machine.
    pub(super) fn set_skew(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    fn wall_clock(&self) -> Clock {
        let (clock, skew) = (self.around.clock.clone(), self.skew_ms.clone());
        Clock::simulated(move || wall_ms(&clock) + skew.load(Ordering::Relaxed))
    }

    fn config(&self) -> BrokerConfig {
        let mut config = BrokerConfig::default();
        config.node.id = self.id;
        config.cluster.seeds =
            (1..=self.around.plan.nodes).map(|id| format!("{}:{PEER_PORT}", name_of(id))).collect();
        config.cluster.bootstrap_expect = Some(self.around.plan.nodes);
        config.cluster.metadata_voters = self.around.plan.metadata_voters;
        let listen = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        config.grpc.addr = listen(GRPC_PORT);
        config.http.addr = listen(HTTP_PORT);
        config.peer.addr = listen(PEER_PORT);
        config.grpc.advertise = grpc_address(self.id);
        config.http.advertise = format!("{}:{HTTP_PORT}", self.name);
        config.peer.advertise = format!("{}:{PEER_PORT}", self.name);
        config.storage.data_dir = "/data".into();
        self.around.plan.settings.apply(&mut config);
        config
    }

    /// One life of the broker: the software of the simulated host.
    pub(super) async fn live(self: Arc<Self>) -> turmoil::Result {
        let (number, stop) = {
            let mut life = self.life();
            life.number += 1;
            life.phase = Phase::Starting;
            life.broken = false;
            life.stop = CancellationToken::new();
            (life.number, life.stop.clone())
        };
        self.around.trace.note(format_args!("{} starts, life {number}", self.name));
        let exit = self.run(number, stop).await;
        self.around.trace.note(format_args!("{} ends: {exit:?}", self.name));
        self.life().phase = Phase::Ended(exit);
        Ok(())
    }

    async fn run(&self, number: u64, stop: CancellationToken) -> Exit {
        let fatal = Fatal::new();
        let seed = self.around.plan.derive(u64::from(self.id), number);
        let device = Tasks::root(fatal.clone());
        let latency = Random::from_seed(seed ^ 0x10);
        let seams = Seams {
            disk: Arc::new(self.disk.clone()),
            io: device::io(device, self.disk.clone(), latency, self.around.plan.device_ms),
            net: Arc::new(SimNet),
            clock: self.wall_clock(),
            random: Random::from_seed(seed),
            tasks: Tasks::root(fatal.clone()),
            fatal: fatal.clone(),
            wal: WalDriver::Task,
            keyed: KeyedKind::Memory,
            probe: self.around.watch.probe(self.id, number, self.disk.clone()),
        };
        let node = tokio::select! {
            biased;
            reason = fatal.stopped() => return Exit::Fatal(reason),
            started = Box::pin(Node::start(self.config(), seams)) => match started {
                Ok(node) => node,
                Err(error) => return Exit::Refused(chain(&error)),
            },
        };
        self.life().phase = Phase::Running;
        self.around.trace.note(format_args!("{} listens", self.name));
        tokio::select! {
            biased;
            reason = fatal.stopped() => return Exit::Fatal(reason),
            () = stop.cancelled() => {}
        }
        node.shutdown(STOP_WITHIN).await;
        fatal.reason().map_or(Exit::Stopped, Exit::Fatal)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
