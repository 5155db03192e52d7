//! One seed from the first tick to the verdict.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use verify::history::Recorder;

use super::clients::{Clients, MACHINES, Stage};
use super::nemesis::Nemesis;
use super::operator::Operator;
use super::options::{SeedReport, SimConfig};
use super::plan::Plan;
use super::trace::Trace;
use super::world::World;

/// Time for a fresh cluster to form. Unit: simulated.
const FORM_WITHIN: Duration = Duration::from_secs(30);
/// Time after the heal in which every client must get on. Unit: simulated.
const LIVE_WITHIN: Duration = Duration::from_secs(15);
/// Time for the clients to end, and for the last look. Unit: simulated.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Runs one seed. One seed a process: state of a thread outlives a run and would leak into the next.
///
/// # Errors
/// If the harness itself broke.
pub fn run_seed(seed: u64, config: &SimConfig) -> Result<(SeedReport, Trace)> {
    let mut run = Run::new(seed, config);
    run.all(config)?;
    Ok(run.finish())
}

struct Run {
    world: World,
    stage: Arc<Stage>,
    nemesis: Nemesis,
    report: SeedReport,
}

impl Run {
    fn new(seed: u64, config: &SimConfig) -> Self {
        let mut world = World::new(Plan::draw(seed, config), config.keep_trace);
        let clock = world.clock.clone();
        let recorder = Recorder::memory(Arc::new(move || clock.now_ns()));
        let (stage, operator) = (Arc::new(Stage::default()), Arc::new(Operator::default()));
        let nemesis = Nemesis::new(&world, recorder.clone(), operator.clone());
        let clients = Clients {
            plan: world.plan.clone(),
            clock: world.clock.clone(),
            trace: world.trace.clone(),
            stage: stage.clone(),
            operator,
            recorder,
        };
        for machine in 0..MACHINES {
            let clients = clients.clone();
            world.add_clients(&format!("clients-{machine}"), move || clients.clone().run(machine));
        }
        let report = SeedReport { seed, nodes: world.plan.nodes, ..SeedReport::default() };
        Self { world, stage, nemesis, report }
    }

    fn all(&mut self, config: &SimConfig) -> Result<()> {
        let stage = self.stage.clone();
        if !self.until(FORM_WITHIN, || stage.ready.is_cancelled())? {
            self.fails(format!("no cluster formed within {FORM_WITHIN:?}"));
            return Ok(());
        }
        let end = self.world.elapsed() + config.secs;
        while self.world.elapsed() < end {
            self.nemesis.poll(&mut self.world);
            self.world.step()?;
        }
        self.nemesis.heal(&mut self.world);
        self.live()?;
        stage.stop.cancel();
        if !self.until(END_WITHIN, || stage.ended.load(Ordering::Relaxed) == MACHINES)? {
            self.fails("the clients do not end".to_owned());
            return Ok(());
        }
        stage.last_look.cancel();
        if !self.until(END_WITHIN, || stage.done.load(Ordering::Relaxed))? {
            self.fails("the last look does not end".to_owned());
        }
        Ok(())
    }

    /// Every client must get on.
    fn live(&mut self) -> Result<()> {
        let (stage, before) = (self.stage.clone(), self.stage.progress());
        let idle = || -> Vec<u32> {
            let now = stage.progress();
            let all = 1..=MACHINES * 3;
            all.filter(|worker| now.get(worker) <= before.get(worker)).collect()
        };
        if !self.until(LIVE_WITHIN, || idle().is_empty())? {
            self.fails(format!("workers {:?} got nowhere within {LIVE_WITHIN:?} after the heal", idle()));
        }
        Ok(())
    }

    /// Steps until something holds; false if it does not within the time.
    fn until(&mut self, within: Duration, holds: impl Fn() -> bool) -> Result<bool> {
        let end = self.world.elapsed() + within;
        while !holds() {
            if self.world.elapsed() >= end {
                return Ok(false);
            }
            self.nemesis.tend(&mut self.world);
            self.world.step()?;
        }
        Ok(true)
    }

    fn fails(&mut self, what: String) {
        self.world.trace.note(format_args!("liveness failure: {what}"));
        self.report.liveness_failures.push(what);
    }

    fn finish(self) -> (SeedReport, Trace) {
        let Self { world, stage, nemesis, mut report } = self;
        report.violations = nemesis.violations().to_vec();
        report.violations.extend(stage.ledger().verdict());
        for violation in &report.violations {
            world.trace.note(format_args!("violation: {violation}"));
        }
        report.acked = stage.acked.load(Ordering::Relaxed);
        report.faults = nemesis.installed();
        report.hash = format!("{:016x}", world.trace.hash());
        report.events = world.trace.events();
        report.sim_ms = u64::try_from(world.elapsed().as_millis()).unwrap_or(u64::MAX);
        (report, world.trace)
    }
}
