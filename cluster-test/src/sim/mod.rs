//! The deterministic simulator: a whole cluster of real brokers and real clients in one thread, on simulated time,
//! network and disks. One seed decides everything; the same seed gives the same run.
//!
//! A run has phases: the cluster forms; faults come for the safety phase; all is healed and every client must get on;
//! the clients end, and every replica is read whole. What clients asked and were told is a history, which
//! [`verify::check`](mod@verify::check) judges. [`run_seed`] runs one seed; `src/bin/sim` runs each in a process of its
//! own.

mod clients;
mod device;
mod fault;
mod load;
mod logs;
mod moment;
mod nemesis;
mod net;
mod operator;
mod options;
mod plan;
mod run;
mod stage;
mod station;
mod tails;
mod trace;
mod watch;
mod world;

pub use fault::FaultKind;
pub use load::{Load, Workers};
pub use logs::Logs;
pub use nemesis::Nemesis;
pub use operator::{Job, Operator};
pub use options::{SeedReport, SimConfig};
pub use plan::{FaultPlan, Plan, Settings};
pub use run::{Outcome, run_seed};
pub use station::{Exit, Phase, Station};
pub use trace::{SimClock, Trace};
pub use watch::Watch;
pub use world::{Crash, World};
