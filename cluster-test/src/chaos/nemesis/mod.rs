//! Does what the plan says to a cluster, takes it back, and keeps watch over brokers that nobody has told to end.
//!
//! Every fault gets one of three answers: it struck, it was skipped and why, or nobody knows and why. A broker that ends
//! without cause is a finding like any of the history's.

mod acts;
mod earlier;
mod links;
mod revive;
mod storage;
mod tracer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use broker::runtime::Random;
use verify::history::{FaultOutcome, Recorder};

use self::earlier::Earlier;
use self::links::Link;
use self::tracer::Tracer;
use super::clock::BrokerClock;
use super::fabric::Fabric;
use super::fault::{Fault, Outcome};
use super::scout::Layout;

/// A fault that was tried.
#[derive(Debug)]
pub struct Strike {
    /// Name of its kind.
    pub kind: &'static str,
    /// Whom it hit, or was to hit.
    pub target: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What else a person wants to know; may be empty.
    pub detail: String,
    /// Brokers that it keeps from a majority while clients reach them.
    pub lonely: BTreeSet<u32>,
    undo: Undo,
}

/// How a fault is taken back.
#[derive(Debug, Default)]
enum Undo {
    /// It was over when it had struck, or never was.
    #[default]
    Nothing,
    Start(Vec<u32>),
    Resume(u32),
    Mend(Vec<Link>),
    Plug(u32),
    Detach(Tracer),
    Remove(u32, PathBuf),
    SetClock(u32),
    SetBack(Earlier),
}

/// What an act came to: a detail and the way back, or why not.
type Struck = Result<(String, Undo), Missed>;

/// Why a fault did not strike for certain.
enum Missed {
    /// Nothing was done.
    Skipped(String),
    /// Something may have been done, and so must be taken back.
    Indeterminate(String, Undo),
}

impl Missed {
    fn indeterminate(error: &anyhow::Error, undo: Undo) -> Self {
        Self::Indeterminate(format!("{error:#}"), undo)
    }
}

/// The hand behind the faults of one round.
#[derive(Debug)]
pub struct Nemesis {
    brokers: u32,
    random: Random,
    recorder: Recorder,
    /// Clocks that can be set apart; none in rounds without such faults.
    clocks: BTreeMap<u32, BrokerClock>,
    /// Brokers that do not run because a fault ended them.
    down: BTreeSet<u32>,
    /// Brokers whose disk fails or is full: they may end by themselves.
    excused: BTreeSet<u32>,
    /// The one broker whose files were damaged. No other may be: the others hold what this one lost.
    rotten: Option<u32>,
    findings: Vec<String>,
}

impl Nemesis {
    /// For a cluster of so many brokers that all run. Every fault goes to the recorder too.
    #[must_use]
    pub fn new(brokers: u32, seed: u64, recorder: Recorder, clocks: BTreeMap<u32, BrokerClock>) -> Self {
        Self {
            brokers,
            random: Random::from_seed(seed),
            recorder,
            clocks,
            down: BTreeSet::new(),
            excused: BTreeSet::new(),
            rotten: None,
            findings: Vec::new(),
        }
    }

    /// Brokers that did what they must not: ended by themselves, or did not come back.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Strikes once. The layout is what the cluster looked like right before.
    pub async fn strike(&mut self, fabric: &mut dyn Fabric, layout: &Layout, fault: &Fault) -> Strike {
        let victim = fault.victim().map(|victim| layout.find(victim)).transpose();
        let able = fault.needs().into_iter().try_for_each(|ability| fabric.can(ability));
        let (target, struck) = match (able, victim) {
            (Err(why), _) | (Ok(()), Err(why)) => (String::new(), Err(Missed::Skipped(why))),
            (Ok(()), Ok(None)) => ("all".to_owned(), self.act_on_all(fabric, fault).await),
            (Ok(()), Ok(Some(id))) => (format!("broker {id}"), self.act(fabric, layout, (fault, id)).await),
        };
        let (outcome, detail, undo) = match struck {
            Ok((detail, undo)) => (Outcome::Installed, detail, undo),
            Err(Missed::Skipped(why)) => (Outcome::Skipped(why), String::new(), Undo::Nothing),
            Err(Missed::Indeterminate(why, undo)) => (Outcome::Indeterminate(why), String::new(), undo),
        };
        let lonely = match (&outcome, fault.victim().map(|victim| layout.find(victim))) {
            (Outcome::Installed, Some(Ok(id))) => links::lonely(fault, id, self.brokers),
            _ => BTreeSet::new(),
        };
        let strike = Strike { kind: fault.kind(), target, outcome, detail, lonely, undo };
        self.record(&strike);
        strike
    }

    fn record(&self, strike: &Strike) {
        let (outcome, why) = match &strike.outcome {
            Outcome::Installed => (FaultOutcome::Installed, &strike.detail),
            Outcome::Skipped(why) => (FaultOutcome::Skipped, why),
            Outcome::Indeterminate(why) => (FaultOutcome::Indeterminate, why),
        };
        self.recorder.fault(strike.kind, strike.target.as_str(), outcome, why.as_str());
    }

    /// Takes a fault back.
    ///
    /// # Errors
    /// If the harness cannot: then nothing that follows means anything.
    pub async fn lift(&mut self, fabric: &mut dyn Fabric, strike: &mut Strike) -> Result<()> {
        if matches!(strike.undo, Undo::Nothing) {
            return Ok(());
        }
        self.recorder.fault("lift", strike.target.as_str(), FaultOutcome::Installed, strike.kind);
        let note = self.undo(fabric, std::mem::take(&mut strike.undo)).await?;
        if !note.is_empty() {
            strike.detail = format!("{} {note}", strike.detail).trim_start().to_owned();
        }
        Ok(())
    }

    /// Takes back whatever may still be broken, so that all brokers run on a whole network.
    ///
    /// # Errors
    /// If the harness cannot.
    pub async fn heal(&mut self, fabric: &mut dyn Fabric) -> Result<()> {
        fabric.heal().await?;
        self.watch(fabric)?;
        let down: Vec<u32> = self.down.iter().copied().collect();
        self.bring_up(fabric, &down).await?;
        self.recorder.fault("heal", "all", FaultOutcome::Installed, "");
        Ok(())
    }
}
