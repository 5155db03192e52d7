//! What happens to the cluster: faults drawn from the seed, installed between two ticks, undone when their time is over.
//!
//! Every fault answers whether it took hold, and stands in the history. **Rules:** durable bytes are destroyed on one
//! broker only, the plan's victim; everything else may strike any number. [`Nemesis::heal`] undoes all of it, latencies
//! and planned disk errors included, and starts every broker.

mod aimed;
mod machine;
mod network;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::runtime::Random;
use verify::history::{FaultOutcome, Recorder};

use super::fault::FaultKind;
use super::operator::{Job, Operator};
use super::plan::FaultPlan;
use super::station::{Exit, Phase, Station};
use super::world::{Crash, World};

/// What became of a fault.
#[derive(Debug)]
struct Answer {
    outcome: FaultOutcome,
    target: String,
    detail: String,
}

impl Answer {
    fn installed(target: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { outcome: FaultOutcome::Installed, target: target.into(), detail: detail.into() }
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self { outcome: FaultOutcome::Skipped, target: String::new(), detail: why.into() }
    }
}

/// What ends a fault.
#[derive(Debug)]
enum Undo {
    /// Starts a broker that is down.
    Start(u32),
    /// Mends directed links.
    Mend(Vec<(String, String)>),
    /// Delivers what was held on links.
    Release(Vec<(String, String)>),
    /// Gives links the latency of healthy ones.
    Quicken(Vec<(String, String)>),
    /// Makes a disk as fast as it was.
    FastDisk(u32),
    /// Gives a disk room.
    FreeDisk(u32),
    /// Takes the power from a machine whose disk was to lose it at some operation, whether that came or not.
    PowerCycle(u32),
}

/// Installs and undoes faults.
#[derive(Debug)]
pub struct Nemesis {
    random: Random,
    plan: FaultPlan,
    recorder: Recorder,
    operator: Arc<Operator>,
    next: Duration,
    undo: BTreeMap<(Duration, u64), Undo>,
    undos: u64,
    /// Links are cut or held: one such shape at a time.
    network_busy: bool,
    /// Links are slow.
    links_slow: bool,
    /// Brokers that have an appointed start.
    starting: BTreeSet<u32>,
    /// Set once the victim's bytes were flipped: it may have to be emptied before it starts again.
    rotten: bool,
    installed: u64,
    violations: Vec<String>,
}

impl Nemesis {
    /// A nemesis with the plan of the world's seed.
    #[must_use]
    pub fn new(world: &World, recorder: Recorder, operator: Arc<Operator>) -> Self {
        Self {
            random: Random::from_seed(world.plan.derive(0xBAD, 0)),
            plan: world.plan.faults.clone(),
            recorder,
            operator,
            next: Duration::ZERO,
            undo: BTreeMap::new(),
            undos: 0,
            network_busy: false,
            links_slow: false,
            starting: BTreeSet::new(),
            rotten: false,
            installed: 0,
            violations: Vec::new(),
        }
    }

    /// Faults that took hold so far.
    #[must_use]
    pub fn installed(&self) -> u64 {
        self.installed + self.operator.installed()
    }

    /// Brokers that ended though nothing was done to their disks.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Does what is due: ends faults, starts brokers that ended, installs the next fault.
    pub fn poll(&mut self, world: &mut World) {
        self.tend(world);
        if world.elapsed() < self.next {
            return;
        }
        let mean = u64::try_from(self.plan.mean_gap.as_millis()).unwrap_or(u64::MAX);
        self.next = world.elapsed() + Duration::from_millis(self.random.range(mean / 4..mean * 2));
        let Some(kind) = self.choose() else { return };
        let answer = self.install(world, kind);
        self.record(world, kind.name(), answer);
    }

    /// As [`Nemesis::poll`] without new faults.
    pub fn tend(&mut self, world: &mut World) {
        self.finish_strikes(world);
        while let Some(entry) = self.undo.first_entry() {
            if entry.key().0 > world.elapsed() {
                break;
            }
            let undo = entry.remove();
            self.end(world, undo);
        }
        for station in world.stations.clone() {
            if let Phase::Ended(exit) = station.phase() {
                self.bury(world, &station, &exit);
            }
        }
    }

    /// Ends all faults and starts every broker.
    pub fn heal(&mut self, world: &mut World) {
        world.watch.disarm();
        self.finish_strikes(world);
        while let Some(((_, _), undo)) = self.undo.pop_first() {
            self.end(world, undo);
        }
        for station in world.stations.clone() {
            storage::mend(&station);
            if matches!(station.phase(), Phase::Down | Phase::Ended(_)) {
                self.end(world, Undo::Start(station.id));
            }
        }
        self.record(world, "heal", Answer::installed("all", ""));
    }

    fn choose(&self) -> Option<FaultKind> {
        let total: u64 = self.plan.kinds.values().sum();
        if total == 0 {
            return None;
        }
        let mut at = self.random.range(0..total);
        for (kind, weight) in &self.plan.kinds {
            if at < *weight {
                return Some(*kind);
            }
            at -= weight;
        }
        None
    }

    fn install(&mut self, world: &mut World, kind: FaultKind) -> Answer {
        match kind {
            FaultKind::Kill => self.kill(world),
            FaultKind::KillMany => self.kill_many(world),
            FaultKind::PowerOne => self.power_one(world),
            FaultKind::PowerAll => self.power_all(world),
            FaultKind::PowerMidWrite => self.power_mid_write(world),
            FaultKind::Restart => self.restart(world),
            FaultKind::Isolate => self.isolate(world),
            FaultKind::Split => self.split(world),
            FaultKind::CutPair => self.cut_pair(world),
            FaultKind::OneWay => self.one_way(world),
            FaultKind::Hold => self.hold(world),
            FaultKind::SlowLink => self.slow_link(world),
            FaultKind::SlowDisk => self.slow_disk(world),
            FaultKind::ClockJump => self.clock_jump(world),
            FaultKind::FsyncError => self.fsync_error(world),
            FaultKind::WriteError => self.write_error(world),
            FaultKind::DiskFull => self.disk_full(world),
            FaultKind::BitRot => self.bit_rot(world),
            FaultKind::WalRot => self.wal_rot(world),
            FaultKind::Wipe => self.wipe(world),
            FaultKind::Transfer => {
                let to = u32::try_from(self.random.range(1..u64::from(world.plan.nodes) + 1)).unwrap_or(1);
                let partitions = u64::from(world.plan.load.partitions);
                let partition = u32::try_from(self.random.range(0..partitions)).unwrap_or(0);
                self.operator.ask(Job::Transfer { partition, to })
            }
            FaultKind::CreateTopic => self.operator.ask(Job::CreateTopic),
            FaultKind::AtVote
            | FaultKind::AtWrite
            | FaultKind::AtRelease
            | FaultKind::AtInstall
            | FaultKind::AtTransfer
            | FaultKind::AtCreate => self.aim(world, kind),
            FaultKind::AtTruncate => self.strand(world),
        }
        .unwrap_or_else(Answer::skipped)
    }

    fn record(&mut self, world: &World, kind: &str, answer: Answer) {
        let Answer { outcome, target, detail } = answer;
        if outcome == FaultOutcome::Installed && kind != "heal" {
            self.installed += 1;
        }
        world.trace.note(format_args!("fault {kind} {outcome:?} {target} {detail}"));
        self.recorder.fault(kind, target, outcome, detail);
    }

    /// Appoints the end of a fault after `from..to` milliseconds; says when, for people.
    fn later(&mut self, world: &World, ms: std::ops::Range<u64>, undo: Undo) -> String {
        let after = Duration::from_millis(self.random.range(ms));
        if let Undo::Start(id) = undo {
            self.starting.insert(id);
        }
        self.undos += 1;
        self.undo.insert((world.elapsed() + after, self.undos), undo);
        format!("for {after:?}")
    }

    fn end(&mut self, world: &mut World, undo: Undo) {
        match undo {
            Undo::Start(id) => {
                self.starting.remove(&id);
                let station = world.station(id);
                if matches!(station.phase(), Phase::Down | Phase::Ended(_)) {
                    world.start(&station);
                }
            }
            Undo::Mend(links) => {
                links.iter().for_each(|(from, to)| world.mend(from, to));
                self.network_busy = false;
                world.trace.note(format_args!("links mended"));
            }
            Undo::Release(links) => {
                links.iter().for_each(|(a, b)| world.release(a, b));
                self.network_busy = false;
                world.trace.note(format_args!("held packets released"));
            }
            Undo::Quicken(links) => {
                links.iter().for_each(|(a, b)| world.set_latency(a, b, None));
                self.links_slow = false;
                world.trace.note(format_args!("links are fast again"));
            }
            Undo::FastDisk(id) => world.station(id).disk.set_slow(Duration::ZERO),
            Undo::FreeDisk(id) => storage::free(&world.station(id)),
            Undo::PowerCycle(id) => {
                let station = world.station(id);
                if station.phase() != Phase::Down {
                    world.crash(&station, Crash::Power);
                    self.later(world, 100..3_000, Undo::Start(id));
                }
            }
        }
    }

    /// A broker ended by itself: judges it, and has it started again.
    fn bury(&mut self, world: &mut World, station: &Arc<Station>, exit: &Exit) {
        let expected = station.is_broken() || (self.rotten && station.id == self.plan.victim);
        match exit {
            Exit::Fatal(why) | Exit::Refused(why) if !expected => {
                let text = format!("{} ended though its disk was sound: {why}", station.name);
                world.trace.note(format_args!("violation: {text}"));
                self.violations.push(text);
            }
            _ => {}
        }
        // The machine may go with its broker: what the page cache alone holds is then lost.
        let how = if self.random.range(0..3) == 0 { Crash::Power } else { Crash::Kill };
        world.crash(station, how);
        if matches!(exit, Exit::Refused(_)) && self.rotten && station.id == self.plan.victim {
            // What an operator does with a broker whose own files keep it from starting.
            storage::empty(world, station);
            world.trace.note(format_args!("{} gets an empty disk", station.name));
        }
        if !self.starting.contains(&station.id) {
            self.later(world, 100..2_000, Undo::Start(station.id));
        }
    }

    /// One of the brokers that run.
    fn any(&self, world: &World) -> Result<Arc<Station>, String> {
        let running: Vec<&Arc<Station>> =
            world.stations.iter().filter(|station| station.phase() == Phase::Running).collect();
        let at = usize::try_from(self.random.range(0..running.len() as u64)).unwrap_or(0);
        running.get(at).map(|station| Arc::clone(station)).ok_or_else(|| "no broker runs".to_owned())
    }
}
