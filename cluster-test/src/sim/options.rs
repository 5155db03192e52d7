//! What a run is asked for, and what it says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::FaultKind;
use super::logs::Logs;

/// How seeds are run; equal for all seeds of a sweep.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Length of the safety phase. Unit: simulated.
    pub secs: Duration,
    /// Sizes of cluster among which a seed chooses: 3 and 5.
    pub nodes: Vec<u32>,
    /// Kinds of faults that come in every seed, beside those that it draws.
    pub with: Vec<FaultKind>,
    /// False: nothing happens to the cluster.
    pub faults: bool,
    /// Keeps the lines of the trace for people.
    pub keep_trace: bool,
    /// Where the brokers' logs go, if anywhere.
    pub logs: Logs,
}

/// What became of one seed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// Brokers.
    pub nodes: u32,
    /// Hash of the trace, as 16 hex digits.
    pub hash: String,
    /// Events in the trace.
    pub events: u64,
    /// Simulated milliseconds.
    pub sim_ms: u64,
    /// Milliseconds of a processor that the run took; not part of what must be equal in two runs.
    pub cpu_ms: u64,
    /// Records acked.
    pub acked: u64,
    /// Faults installed.
    pub faults: u64,
    /// What broke an invariant or a check, in words.
    pub violations: Vec<String>,
    /// What did not get going again after the heal, in words.
    pub liveness_failures: Vec<String>,
}

impl SeedReport {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.liveness_failures.is_empty()
    }
}
