//! Workloads, histories and the checks that decide whether a cluster kept its word.
//!
//! The simulator, the chaos harness and `altair-cli verify` drive the same workload, write the same history and read the
//! same verdict: [`history`] is what was asked and answered, [`check`](mod@check) decides,
//! [`report`] tells a person.

pub mod check;
pub mod history;
pub mod report;
pub mod workload;
