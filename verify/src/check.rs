//! Decides whether a history can be the history of a cluster that kept its word.
//!
//! [`check`] is a pure function: the same history and expectations give the same verdict, line for line. It looks at what
//! clients saw and at nothing else, so that a broker cannot talk its way out. What is unknown stays unknown: a send with
//! the outcome `info` may be there or not, early or late; what was seen of it once must stay.
//!
//! What is promised depends on the level of a send's acknowledgement:
//!
//! | `acks` | must be in the final reads | its receipt has an offset | other checks |
//! |---|---|---|---|
//! | `all` | once acknowledged, at the offset of the receipt | yes | all |
//! | `leader` | only once a consumer saw it | no | not lost after it was seen, no duplicate or reorder of an idempotent producer, never seen after `fail` |
//! | `none` | only once a consumer saw it | no | the same |
//!
//! Each family of checks has a file and a row in the table `CHECKS`; a new family (transactions) is a file, a row and its
//! names in [`Anomaly`].

mod evidence;
mod findings;
mod frontier;
mod groups;
mod loss;
mod metadata;
mod offsets;
mod order;
mod polls;
mod realtime;
mod replicas;
mod values;

#[cfg(any(test, feature = "mutants"))]
mod generate;
#[cfg(any(test, feature = "mutants"))]
mod mutate;
#[cfg(any(test, feature = "mutants"))]
pub mod planted;
#[cfg(test)]
mod tests;

use self::evidence::Evidence;
use self::findings::Findings;
use crate::history::History;

pub use self::findings::{Anomaly, Finding, Verdict};
pub use crate::history::Expectations;

/// One family of checks: looks at all the evidence once.
type Check = fn(&Evidence<'_>, &Expectations, &mut Findings);

/// Every check there is. The order is that of the findings' arrival only; a verdict sorts them by name.
const CHECKS: &[Check] = &[
    values::check,
    offsets::check,
    loss::check,
    replicas::check,
    order::check,
    polls::check,
    realtime::check,
    metadata::check,
    groups::check,
];

/// Judges a history. Takes time in proportion to n log n of its lines and records.
pub fn check(history: &History, expectations: &Expectations) -> Verdict {
    let evidence = Evidence::gather(history);
    let mut findings = Findings::default();
    for check in CHECKS {
        check(&evidence, expectations, &mut findings);
    }
    findings.verdict()
}
