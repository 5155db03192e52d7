//! The simulated machines and their network.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use broker::runtime::set_raft_seed;

use super::plan::Plan;
use super::station::{Phase, Station, Surroundings};
use super::trace::{SimClock, Trace};
use super::watch::Watch;

/// Latency of a healthy link. Unit: simulated. At least one millisecond, so that nothing arrives before it was sent:
/// within a tick one machine runs after the other.
const LATENCY_MIN: Duration = Duration::from_millis(1);
const LATENCY_MAX: Duration = Duration::from_millis(5);

/// Segments of a connection that wait to be read: held packets come all at once, and one too many would end the run.
const SEGMENTS_MAX: usize = 1 << 16;

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the page cache lives on.
    Kill,
    /// The power goes; what was not synced may be lost or torn.
    Power,
}

/// All of it. Between two steps nothing runs, so that faults can be installed.
pub struct World {
    sim: turmoil::Sim<'static>,
    /// The machines, by number from 1.
    pub stations: Vec<Arc<Station>>,
    /// Names of the clients' machines.
    pub clients: Vec<String>,
    /// What the seed decided.
    pub plan: Arc<Plan>,
    /// Simulated time.
    pub clock: SimClock,
    /// What happened.
    pub trace: Trace,
    /// What all brokers tell from inside.
    pub watch: Watch,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl World {
    /// Machines with empty disks whose brokers start at the first step.
    #[must_use]
    pub fn new(plan: Plan, keep_trace: bool) -> Self {
        set_raft_seed(plan.derive(0x0AF7, 0));
        let plan = Arc::new(plan);
        let mut sim = turmoil::Builder::new()
            .epoch(SystemTime::UNIX_EPOCH)
            .simulation_duration(Duration::MAX)
            .tick_duration(plan.tick)
            .min_message_latency(LATENCY_MIN)
            .max_message_latency(LATENCY_MAX)
            .rng_seed(plan.derive(0x7EA, 0))
            .tcp_capacity(SEGMENTS_MAX)
            .enable_random_order()
            .build();
        let clock = SimClock::default();
        let trace = Trace::new(clock.clone(), keep_trace);
        let watch = Watch::new(clock.clone(), trace.clone());
        let surroundings = Surroundings {
            plan: plan.clone(),
            clock: clock.clone(),
            trace: trace.clone(),
            watch: watch.clone(),
        };
        let stations: Vec<_> = (1..=plan.nodes).map(|id| Station::new(id, surroundings.clone())).collect();
        for station in &stations {
            let machine = station.clone();
            sim.host(station.name.as_str(), move || machine.clone().live());
        }
        Self { sim, stations, clients: Vec::new(), plan, clock, trace, watch }
    }

    /// Adds a machine without a broker, for clients.
    pub fn add_clients<F>(&mut self, name: &str, software: impl Fn() -> F + 'static)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        self.clients.push(name.to_owned());
        self.sim.host(name, software);
    }

    /// Runs every machine for one tick.
    ///
    /// # Errors
    /// If software of a machine failed or panicked, which is a fault of the harness.
    pub fn step(&mut self) -> Result<()> {
        self.sim.step().map_err(|error| anyhow!("the simulation broke: {error}"))?;
        self.clock.set(self.sim.elapsed());
        Ok(())
    }

    /// Simulated time so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// The machine of a broker.
    #[must_use]
    pub fn station(&self, id: u32) -> Arc<Station> {
        let at = usize::try_from(id.clamp(1, self.plan.nodes) - 1).unwrap_or(0);
        self.stations[at].clone()
    }

    /// Takes a machine down at once.
    pub fn crash(&mut self, station: &Station, how: Crash) {
        self.trace.note(format_args!("{} goes down: {how:?}", station.name));
        // First the disk: what is dropped with the process must not write any more.
        station.disk.power_off();
        let (sim, name) = (&mut self.sim, station.name.as_str());
        self.clock.frozen(|| sim.crash(name));
        match how {
            Crash::Kill => station.disk.kill(),
            Crash::Power => station.disk.crash(),
        }
        station.set_down();
    }

    /// Starts the broker of a machine that is down or whose broker ended.
    pub fn start(&mut self, station: &Station) {
        if station.phase() != Phase::Down {
            self.crash(station, Crash::Kill);
        }
        let (sim, name) = (&mut self.sim, station.name.as_str());
        self.clock.frozen(|| sim.bounce(name));
        station.set_starting();
    }

    /// Drops what `from` sends to `to` from now on, and what is on its way.
    pub fn cut(&self, from: &str, to: &str) {
        self.sim.partition_oneway(from, to);
    }

    /// Ends [`World::cut`].
    pub fn mend(&self, from: &str, to: &str) {
        self.sim.repair_oneway(from, to);
    }

    /// Keeps what two machines send each other, until [`World::release`].
    pub fn hold(&self, a: &str, b: &str) {
        self.sim.hold(a, b);
    }

    /// Delivers what was held and ends the hold.
    pub fn release(&self, a: &str, b: &str) {
        self.sim.release(a, b);
    }

    /// Sets the longest latency of a link; `None`: that of a healthy one.
    pub fn set_latency(&self, a: &str, b: &str, latency: Option<Duration>) {
        self.sim.set_link_max_message_latency(a, b, latency.unwrap_or(LATENCY_MAX));
    }
}
