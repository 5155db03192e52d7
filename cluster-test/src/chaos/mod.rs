//! Chaos on real processes: a cluster of `altair serve` processes on a fabric that can cut, slow and reset its network;
//! faults drawn from a seed; a workload whose history is checked.
//!
//! A round is a cluster of its own: start, workload, faults, heal, writes again everywhere, final read, verdict. What a
//! fabric cannot do is skipped with the reason, never silently.

pub mod availability;
pub mod clock;
pub mod fabric;
pub mod fault;
pub mod leftovers;
pub mod nemesis;
pub mod plan;
pub mod power;
pub mod reach;
pub mod report;
pub mod round;
pub mod sandbox;
pub mod scout;
pub mod tool;
pub mod workdir;

pub use fabric::{Ability, Disks, End, Fabric, FabricKind, FabricSpec, LinkState, Shape, Unavailable};
pub use fault::{Fault, Outcome, Victim};
pub use plan::Plan;
pub use reach::{OnlyTo, Reach};
pub use report::{RoundReport, RunReport};
