//! One seed from the first tick to the verdict.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use verify::check::{Expectations, Verdict, check};
use verify::history::{Event, EventKind, History, Recorder};
use verify::workload::FinalReads;
use wire::error_code::ErrorCode;

use super::clients::{Clients, REPLICAS};
use super::load::MACHINES;
use super::nemesis::Nemesis;
use super::operator::Operator;
use super::options::{SeedReport, SimConfig};
use super::plan::Plan;
use super::stage::Stage;
use super::trace::Trace;
use super::world::World;

/// Time for a fresh cluster to form. Unit: simulated.
const FORM_WITHIN: Duration = Duration::from_secs(30);
/// Time after the heal in which every partition must take writes again. Unit: simulated.
const WRITABLE_WITHIN: Duration = Duration::from_secs(10);
/// Time after the heal in which every client must get on. Unit: simulated.
const LIVE_WITHIN: Duration = Duration::from_secs(15);
/// Time for the clients to end, which waits for outcomes. Unit: simulated.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Time for the final read, above all bounds within it. Unit: simulated.
const LOOK_WITHIN: Duration = Duration::from_secs(200);

/// Findings of one anomaly that are told; the rest is counted.
const TOLD_MAX: usize = 3;

/// What a seed leaves behind.
#[derive(Debug)]
pub struct Outcome {
    /// What became of it.
    pub report: SeedReport,
    /// What happened, with the lines of the history if lines were kept.
    pub trace: Trace,
    /// What clients asked and were told, and the faults.
    pub history: Vec<Event>,
}

/// Runs one seed. One seed a process: state of a thread outlives a run and would leak into the next.
///
/// # Errors
/// If the harness itself broke.
pub fn run_seed(seed: u64, config: &SimConfig) -> Result<Outcome> {
    let mut run = Run::new(seed, config);
    run.all(config)?;
    run.finish()
}

struct Run {
    world: World,
    stage: Arc<Stage>,
    nemesis: Nemesis,
    recorder: Recorder,
    report: SeedReport,
}

impl Run {
    fn new(seed: u64, config: &SimConfig) -> Self {
        let mut world = World::new(Plan::draw(seed, config), config.keep_trace);
        config.logs.follow(&world.clock);
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
            recorder: recorder.clone(),
        };
        for machine in 0..MACHINES {
            let clients = clients.clone();
            world.add_clients(&format!("clients-{machine}"), move || clients.clone().run(machine));
        }
        let report = SeedReport { seed, nodes: world.plan.nodes, ..SeedReport::default() };
        Self { world, stage, nemesis, recorder, report }
    }

    fn all(&mut self, config: &SimConfig) -> Result<()> {
        let stage = self.stage.clone();
        if !self.until(FORM_WITHIN, || stage.ready.is_cancelled())? {
            self.fails(format!("no cluster formed within {FORM_WITHIN:?}"));
            return Ok(());
        }
        let end = self.world.elapsed() + config.secs;
        while self.world.elapsed() < end && !self.is_broken() {
            self.nemesis.poll(&mut self.world);
            self.world.step()?;
        }
        if self.is_broken() {
            return Ok(());
        }
        self.nemesis.heal(&mut self.world);
        self.live()?;
        if self.is_broken() {
            return Ok(());
        }
        stage.stop.cancel();
        if !self.until(END_WITHIN, || stage.ended.load(Ordering::Relaxed) == MACHINES)? {
            self.fails("the clients do not end".to_owned());
            return Ok(());
        }
        stage.last_look.cancel();
        if !self.until(LOOK_WITHIN, || stage.final_reads().is_some())? {
            self.fails("the final read does not end".to_owned());
        }
        Ok(())
    }

    /// Every partition takes writes, and every client gets on.
    fn live(&mut self) -> Result<()> {
        let (stage, before) = (self.stage.clone(), self.stage.progress());
        let healed = self.world.elapsed();
        let unwritten = || stage.progress().idle_partitions(&before);
        if !self.until(WRITABLE_WITHIN, || unwritten().is_empty())? {
            let partitions = unwritten().join(" ");
            self.fails(format!("{partitions}: no write was acked within {WRITABLE_WITHIN:?} after the heal"));
        }
        let left = LIVE_WITHIN.saturating_sub(self.world.elapsed() - healed);
        if !self.until(left, || stage.progress().idle_workers(&before).is_empty())? {
            for worker in stage.progress().idle_workers(&before) {
                self.fails(format!("worker got nowhere within {LIVE_WITHIN:?} after the heal: {worker:?}"));
            }
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
            if self.is_broken() {
                // The seed has failed: nothing more is to be waited for.
                return Ok(true);
            }
            self.nemesis.tend(&mut self.world);
            self.world.step()?;
        }
        Ok(true)
    }

    /// True once an invariant was broken.
    fn is_broken(&self) -> bool {
        self.world.watch.broken().is_some()
    }

    fn fails(&mut self, what: String) {
        self.world.trace.note(format_args!("liveness failure: {what}"));
        self.report.liveness_failures.push(what);
    }

    /// Every replica was read, to the end that a quorum proves.
    fn judge_final_reads(&mut self) -> Option<FinalReads> {
        match self.stage.final_reads()? {
            Ok(reads) => {
                for trouble in &reads.troubles {
                    self.fails(format!("final read: {trouble}"));
                }
                Some(reads)
            }
            Err(error) => {
                self.fails(format!("final read: {error}"));
                None
            }
        }
    }

    fn finish(mut self) -> Result<Outcome> {
        let broken = self.world.watch.broken();
        let read = if broken.is_some() { None } else { self.judge_final_reads() };
        let Self { world, stage, nemesis, recorder, mut report } = self;
        recorder.finish()?;
        let history = recorder.take_events();
        for event in &history {
            world.trace.note_at(event.t, serde_json::to_string(event)?);
        }
        report.violations = nemesis.violations().to_vec();
        report.violations.extend(broken.clone());
        // Without a final read there is a liveness failure already; what clients saw is judged all the same.
        let replicas = if read.is_some() { REPLICAS } else { 0 };
        let expectations = Expectations { replicas, ..Expectations::default() };
        let joined = History::from_events(vec![(format!("seed-{}", report.seed), history.clone())])?;
        // A run that ended in the middle of everything proves nothing more.
        if broken.is_none() {
            report.violations.extend(told(&check(&joined, &expectations)));
            report.violations.extend(out_of_range(&history));
        }
        for violation in &report.violations {
            world.trace.note(format_args!("violation: {violation}"));
        }
        report.acked = stage.progress().acked();
        report.faults = nemesis.installed();
        report.hash = format!("{:016x}", world.trace.hash());
        report.events = world.trace.events();
        report.sim_ms = u64::try_from(world.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.cpu_ms = cpu_ms();
        Ok(Outcome { report, trace: world.trace, history })
    }
}

/// The first findings of each anomaly, and how many more there are.
fn told(verdict: &Verdict) -> Vec<String> {
    let mut told = Vec::new();
    for (anomaly, count) in &verdict.counts {
        let of_it = verdict.findings.iter().filter(|finding| finding.anomaly == *anomaly);
        told.extend(of_it.take(TOLD_MAX).map(ToString::to_string));
        let more = count.saturating_sub(TOLD_MAX as u64);
        if more > 0 {
            told.push(format!("{anomaly}: {more} more"));
        }
    }
    told
}

/// Nothing is ever removed here, and nobody asks for more than somebody has read: no offset is out of range.
fn out_of_range(history: &[Event]) -> Option<String> {
    let lie = history.iter().find(|event| match &event.kind {
        EventKind::Fail { err, .. } => *err == ErrorCode::OffsetOutOfRange.name(),
        _ => false,
    })?;
    let at = Duration::from_nanos(lie.t);
    Some(format!("false-out-of-range: worker {} was told so at {at:?}, of an offset that is there", lie.w))
}

/// Time of a processor that this process has used.
fn cpu_ms() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let used = Duration::try_from(used).unwrap_or_default();
    u64::try_from(used.as_millis()).unwrap_or(u64::MAX)
}
