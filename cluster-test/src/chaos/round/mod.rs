//! A round: a cluster of its own from its first process to the verdict.

mod load;
mod lone;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use verify::history::{Expectations, Recorder};
use verify::workload::{FinalReadSpec, FinalReads, ProgressWatch, Workload, drain, final_read};
use wire::pb::CreateTopicRequest;

use self::load::TOPIC;
use self::lone::{Alone, Lone, Place};
use super::availability::Trouble;
use super::clock::BrokerClock;
use super::fabric::{Fabric, FabricKind, FabricSpec};
use super::fault::Outcome;
use super::nemesis::{Nemesis, Strike};
use super::plan::{RoundPlan, Step};
use super::reach::Reach;
use super::report::{FaultReport, RoundReport};
use super::scout::Scout;

/// Time for a fresh cluster to form and to have its topic.
const FORM_WITHIN: Duration = Duration::from_secs(60);
/// Time after a heal in which every partition must take writes and every client get on.
const LIVE_WITHIN: Duration = Duration::from_secs(10);
/// Time for replicas to catch up before the final read: one may have to be rebuilt from nothing.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at the clients' progress.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time that a round may take beyond its faults, before it counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(420);
/// Worker number of the first lone client; the workload's own are far below.
const LONE_WORKERS: u32 = 10_000;

/// What a round stands on.
#[derive(Debug, Clone)]
pub struct RoundSpec {
    /// What carries the cluster.
    pub fabric: FabricKind,
    /// What happens.
    pub plan: RoundPlan,
    /// The `altair` binary, or the image in which it is: whichever the fabric starts.
    pub binary: PathBuf,
    /// See there.
    pub image: String,
    /// Empty directory for everything that the round writes.
    pub dir: PathBuf,
    /// Directory of the run that the round belongs to.
    pub run: PathBuf,
}

impl RoundSpec {
    /// The history that the round writes.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.dir.join("history.jsonl")
    }

    /// Brokers' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }
}

/// Runs a round to its verdict. What breaks in the harness itself stands in the report too.
pub async fn run(spec: &RoundSpec) -> RoundReport {
    let mut report = RoundReport::new(&spec.plan);
    let length: Duration = spec.plan.steps.iter().map(|step| step.calm + step.lasts).sum();
    let ran = tokio::time::timeout(length + HUNG_AFTER, play(spec, &mut report)).await;
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => report.broken = Some(format!("{error:#}")),
        Err(_elapsed) => {
            report.broken = Some(format!("the round hung: it took longer than {:?}", length + HUNG_AFTER))
        }
    }
    report
}

async fn play(spec: &RoundSpec, report: &mut RoundReport) -> Result<()> {
    let begun = Instant::now();
    let clock = Arc::new(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let recorder = Recorder::file(clock, &spec.history())?;
    recorder.expect(Expectations { replicas: spec.plan.replicas, ..Expectations::default() });
    let dir = spec.dir.join("cluster");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let clocks = if spec.plan.clocks { clocks(&dir, spec.plan.brokers)? } else { BTreeMap::new() };
    let mut fabric = spec.fabric.build(&fabric_spec(spec, dir, &clocks), spec.plan.seed).await?;
    report.disks = fabric.disks();
    let nemesis = Nemesis::new(spec.plan.brokers, spec.plan.seed, recorder.clone(), clocks);
    let played = act(spec, fabric.as_mut(), (nemesis, recorder), report).await;
    // Whatever happened: the brokers' own words are the first thing that anybody wants to read.
    let logs = spec.logs();
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    fabric.keep_logs(&logs)?;
    let evidence = played?;
    drop(fabric);
    verdict::judge(spec, &evidence, report)
}

/// The round on a fabric that stands.
async fn act(
    spec: &RoundSpec,
    fabric: &mut dyn Fabric,
    (nemesis, recorder): (Nemesis, Recorder),
    report: &mut RoundReport,
) -> Result<Evidence> {
    let mut stage = Stage::set(&spec.plan, fabric, nemesis, recorder).await?;
    let played = stage.play(report).await;
    report.findings.extend(stage.nemesis.findings().iter().cloned());
    played
}

/// What a round leaves for its judge, beside the history.
#[derive(Debug)]
struct Evidence {
    troubles: Vec<Trouble>,
    alone: Vec<Alone>,
    reads: FinalReads,
}

/// A cluster with everything around it.
struct Stage<'a> {
    plan: &'a RoundPlan,
    fabric: &'a mut dyn Fabric,
    recorder: Recorder,
    scout: Scout,
    nemesis: Nemesis,
    troubles: Vec<Trouble>,
    alone: Vec<Alone>,
}

impl<'a> Stage<'a> {
    /// Starts the cluster and waits until it has its topic with every replica in sync.
    async fn set(
        plan: &'a RoundPlan,
        fabric: &'a mut dyn Fabric,
        nemesis: Nemesis,
        recorder: Recorder,
    ) -> Result<Self> {
        for id in 1..=plan.brokers {
            fabric.start(id).await?;
        }
        for id in 1..=plan.brokers {
            fabric.ready(id, FORM_WITHIN).await.context("forming a cluster")?;
        }
        let scout = Scout::new(fabric.client(&Reach::All), TOPIC)?;
        let topic = CreateTopicRequest {
            name: TOPIC.to_owned(),
            partitions: plan.partitions,
            replication_factor: plan.replicas,
            config: [("min_insync_replicas".to_owned(), plan.min_in_sync.to_string())].into(),
            wait_ms: 30_000,
            ..CreateTopicRequest::default()
        };
        scout.client().admin().create_topic(topic).await.context("creating the topic")?;
        scout.settled(FORM_WITHIN).await?;
        let (troubles, alone) = (Vec::new(), Vec::new());
        Ok(Self { plan, fabric, recorder, scout, nemesis, troubles, alone })
    }

    /// Faults under load, then peace, then the last look.
    async fn play(&mut self, report: &mut RoundReport) -> Result<Evidence> {
        let client = self.fabric.client(&Reach::All);
        let workload = Workload::new(load::workload(self.plan, client.clone()), self.recorder.clone())?;
        let (progress, stop) = (workload.progress(), CancellationToken::new());
        let ended = stop.clone();
        let story = async {
            let told = self.tell(&progress, report).await;
            ended.cancel();
            told
        };
        let (counts, told) = tokio::join!(workload.run(stop), story);
        told?;
        report.acked = counts.partitions.values().map(|partition| partition.acked).sum();
        report.unknown = counts.total(|worker| worker.unknown);
        report.failed = counts.total(|worker| worker.failed);
        if let Err(late) = drain(&load::drain(self.plan, client.clone()), &self.recorder).await {
            report.findings.push(format!("not-drained: {late}"));
        }
        let topics = vec![load::topic(self.plan)];
        let spec = FinalReadSpec { catch_up: CATCH_UP_WITHIN, ..FinalReadSpec::new(client, topics) };
        let reads = final_read(&spec, &self.recorder).await.context("reading every replica")?;
        self.nemesis.watch(self.fabric)?;
        self.recorder.finish()?;
        let (troubles, alone) = (std::mem::take(&mut self.troubles), std::mem::take(&mut self.alone));
        Ok(Evidence { troubles, alone, reads })
    }

    async fn tell(&mut self, progress: &ProgressWatch, report: &mut RoundReport) -> Result<()> {
        for step in &self.plan.steps {
            tokio::time::sleep(step.calm).await;
            self.nemesis.watch(self.fabric)?;
            let told = self.step(step).await?;
            report.faults.push(told);
        }
        self.nemesis.heal(self.fabric).await.context("healing")?;
        self.recover(progress, report).await;
        Ok(())
    }

    /// One fault from its strike to its end.
    async fn step(&mut self, step: &Step) -> Result<FaultReport> {
        // A cluster in trouble may not say who leads; whoever has a number can still be hit.
        let layout = self.scout.look().await.unwrap_or_default();
        let from_ns = self.recorder.now();
        let mut strike = self.nemesis.strike(self.fabric, &layout, &step.fault).await;
        let skipped = matches!(strike.outcome, Outcome::Skipped(_));
        let parts = layout.without_majority(&strike.lonely);
        let mut lone = if strike.lonely.is_empty() || parts.is_empty() {
            None
        } else {
            Some(self.lone(&strike, parts)?)
        };
        if !skipped {
            tokio::time::sleep(step.lasts).await;
        }
        if let Some(lone) = &mut lone {
            lone.mended(self.recorder.now());
        }
        self.nemesis
            .lift(self.fabric, &mut strike)
            .await
            .with_context(|| format!("lifting {}", strike.kind))?;
        let to_ns = self.recorder.now();
        if !skipped {
            let quorum = step.fault.leaves_a_quorum();
            self.troubles.push(Trouble { kind: strike.kind, quorum, from_ns, to_ns });
        }
        if let Some(lone) = lone {
            self.alone.push(lone.finish().await);
        }
        Ok(FaultReport::new(&strike, (from_ns, to_ns)))
    }

    fn lone(&self, strike: &Strike, parts: std::collections::BTreeSet<u32>) -> Result<Lone> {
        let client = self.fabric.client(&Reach::Only(strike.lonely.clone()));
        let topic = load::topic(self.plan);
        let first = self.alone.last().map_or(LONE_WORKERS, Alone::next_worker);
        let place = Place { client, topic: &topic, side: &strike.lonely, parts };
        Lone::start(place, first, self.recorder.clone())
    }

    /// Waits until every partition takes writes and every client gets on.
    async fn recover(&self, progress: &ProgressWatch, report: &mut RoundReport) {
        let (before, begun) = (progress.snapshot(), Instant::now());
        loop {
            let now = progress.snapshot();
            let partitions = now.idle_partitions(&before);
            let workers = now.idle_workers(&before);
            if partitions.is_empty() && report.writes_again_ms.is_none() {
                report.writes_again_ms = u64::try_from(begun.elapsed().as_millis()).ok();
            }
            if partitions.is_empty() && workers.is_empty() {
                return;
            }
            if begun.elapsed() >= LIVE_WITHIN {
                let names = partitions.iter().map(|(_, part)| format!("partition {part} took no write"));
                let idle =
                    workers.iter().map(|worker| format!("{:?} {} got nowhere", worker.role, worker.worker));
                let what = names
                    .chain(idle)
                    .map(|what| format!("not-live: {what} within {LIVE_WITHIN:?} after the heal"));
                report.findings.extend(what);
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn clocks(dir: &Path, brokers: u32) -> Result<BTreeMap<u32, BrokerClock>> {
    (1..=brokers).map(|id| Ok((id, BrokerClock::make(dir, id)?))).collect()
}

fn fabric_spec(spec: &RoundSpec, dir: PathBuf, clocks: &BTreeMap<u32, BrokerClock>) -> FabricSpec {
    FabricSpec {
        brokers: spec.plan.brokers,
        dir,
        run: spec.run.clone(),
        binary: spec.binary.clone(),
        image: spec.image.clone(),
        settings: spec.plan.settings.clone(),
        environment: clocks.iter().map(|(id, clock)| (*id, clock.environment())).collect(),
        disks: spec.plan.disks,
    }
}
