//! Runs many seeds and sums up.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use cluster_test::sim::SeedReport;
use serde::Serialize;
use tokio::time::Instant;

use super::args::Args;
use super::children::{Task, apart, each};
use super::tell::{print, say, tell};

/// Between two lines about how far a sweep is.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// The last line of a sweep.
#[derive(Debug, Default, Serialize)]
struct Sum {
    seeds: u64,
    violations: u64,
    liveness_failures: u64,
    acked: u64,
    faults: u64,
    sim_secs: f64,
    cpu_secs: f64,
    /// Simulated seconds for each second of a processor.
    sim_per_cpu: f64,
    failed_seeds: Vec<u64>,
}

impl Sum {
    fn add(&mut self, report: &SeedReport) {
        self.seeds += 1;
        self.violations += report.violations.len() as u64;
        self.liveness_failures += report.liveness_failures.len() as u64;
        self.acked += report.acked;
        self.faults += report.faults;
        self.sim_secs += Duration::from_millis(report.sim_ms).as_secs_f64();
        self.cpu_secs += Duration::from_millis(report.cpu_ms).as_secs_f64();
        self.sim_per_cpu = if self.cpu_secs > 0.0 { self.sim_secs / self.cpu_secs } else { 0.0 };
        if !report.is_clean() {
            self.failed_seeds.push(report.seed);
        }
    }

    fn rounded(mut self) -> Self {
        for figure in [&mut self.sim_secs, &mut self.cpu_secs, &mut self.sim_per_cpu] {
            *figure = (*figure * 10.0).round() / 10.0;
        }
        self.failed_seeds.sort_unstable();
        self
    }
}

/// Tells now and then how far a sweep is.
struct Teller {
    begun: Instant,
    told: Instant,
    seeds: u64,
}

impl Teller {
    fn new(seeds: u64) -> Self {
        let now = Instant::now();
        Self { begun: now, told: now, seeds }
    }

    fn tell(&mut self, sum: &Sum) {
        if self.told.elapsed() < TELL_EVERY || sum.seeds == self.seeds {
            return;
        }
        self.told = Instant::now();
        let (done, left) = (sum.seeds, self.seeds.saturating_sub(sum.seeds));
        let rest = self.begun.elapsed().mul_f64(left as f64 / done.max(1) as f64);
        say(&format!(
            "{done} of {} seeds, {} found something, {:.1} simulated s per CPU s, about {} s to go",
            self.seeds,
            sum.failed_seeds.len(),
            sum.sim_per_cpu,
            rest.as_secs()
        ));
    }
}

/// Runs each seed once; true if nothing was found.
pub(crate) fn run(args: &Args, seeds: Range<u64>) -> Result<bool> {
    let state = Mutex::new((Sum::default(), Teller::new(seeds.end - seeds.start)));
    each(args, seeds, |seed| {
        let outcome = apart(args, &Task { seed, mutant: None, with: &args.with });
        let report = outcome.unwrap_or_else(|error| SeedReport {
            seed,
            violations: vec![format!("{error:#}")],
            ..SeedReport::default()
        });
        tell(args, &report);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (sum, teller) = &mut *state;
        sum.add(&report);
        teller.tell(sum);
    });
    let (sum, _) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let sum = sum.rounded();
    print(&serde_json::to_string(&sum)?);
    Ok(sum.failed_seeds.is_empty())
}
