//! What must hold inside a cluster at every moment, checked while it runs from what its brokers tell
//! ([`broker::runtime::ProbeEvent`]).
//!
//! One file each. A check is pure: it sees each event with the logs as they were before it (`Logs`) and says what is
//! wrong. It knows every replica at once, which no broker does, and so finds what clients would see much later or never.

mod applied;
mod committed;
mod election_safety;
mod identical;
mod identity;
mod in_sync;
mod kept;
mod leader_completeness;
mod leases;
mod log_matching;
mod logs;
mod quorum;
#[cfg(test)]
mod story;
mod wal_cover;
mod watermark;

use std::time::Duration;

use broker::runtime::ProbeEvent;

pub use in_sync::LAG_MAX;
use logs::Logs;

/// One event, and where it happened.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// The broker.
    pub broker: u32,
    /// Its life: one more at each start.
    pub life: u64,
    /// Simulated time.
    pub at: Duration,
    /// False once durable bytes of its disk were destroyed.
    pub sound: bool,
    /// What happened.
    pub event: &'a ProbeEvent,
}

/// Something that must always hold.
trait Invariant: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Looks at one event, which `logs` do not show yet; the error says what is wrong.
    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String>;
}

/// All invariants with the logs of all replicas.
pub struct Invariants {
    logs: Logs,
    all: Vec<Box<dyn Invariant>>,
}

impl Default for Invariants {
    fn default() -> Self {
        let all: Vec<Box<dyn Invariant>> = vec![
            Box::new(election_safety::ElectionSafety::default()),
            Box::new(log_matching::LogMatching::default()),
            Box::new(leader_completeness::LeaderCompleteness),
            Box::new(committed::CommittedImmutable),
            Box::new(quorum::CommittedByQuorum),
            Box::new(applied::AppliedCommitted::default()),
            Box::new(watermark::WatermarkMonotonic::default()),
            Box::new(identical::ReplicasIdentical::default()),
            Box::new(kept::DurableKept::default()),
            Box::new(wal_cover::WalCovered),
            Box::new(identity::ReplicaIdentity),
            Box::new(in_sync::InSyncNear::default()),
            Box::new(leases::LeasesKept::default()),
        ];
        Self { logs: Logs::default(), all }
    }
}

impl std::fmt::Debug for Invariants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Invariants({})", self.all.len())
    }
}

impl Invariants {
    /// Takes an event in. `Err` says which invariants it breaks, and how; what is told after that is not reliable.
    pub fn see(&mut self, seen: &Sighting<'_>) -> Result<(), String> {
        let mut broken = Vec::new();
        for invariant in &mut self.all {
            if let Err(what) = invariant.see(&self.logs, seen) {
                broken.push(format!("{}: broker {}: {what}", invariant.name(), seen.broker));
            }
        }
        self.logs.take(seen);
        if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
    }

    /// A broker lost everything that its disk held.
    pub fn wiped(&mut self, broker: u32) {
        self.logs.wiped(broker);
    }
}
