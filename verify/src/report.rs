//! What a run was and what its check found, for a person in one screen and for a script in one line.
//!
//! ```no_run
//! use verify::history::History;
//! use verify::report::Report;
//!
//! let history = History::read(&["history.jsonl"])?;
//! let report = Report::judge(&history, &history.expectations.unwrap_or_default());
//! println!("{report}\n{}", report.json_line());
//! # Ok::<(), verify::history::HistoryError>(())
//! ```
//!
//! However long the run and however broken the cluster, the report stays short: a few findings of each kind stand there
//! with their evidence, the rest are counted.

mod counts;
mod gaps;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::check::{Anomaly, Finding, Verdict, check};
use crate::history::{Expectations, History};

pub use self::counts::{Calls, FaultCounts, GroupCounts, Reads, Sends, SentRecords};
pub use self::gaps::{Gap, Gaps, WINDOW_MIN_MS, percentile};

/// Findings of one kind that a report shows with their evidence; more are only counted.
const SHOWN_OF_A_KIND: usize = 5;

/// The report of a run. Its JSON has the fields as they stand here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `clean` or `violated`.
    pub verdict: &'static str,
    /// Everything that is wrong, counted.
    pub violations: u64,
    /// Acknowledged records that are lost.
    pub lost: u64,
    /// Records of idempotent producers that stand twice.
    pub duplicated: u64,
    /// How often each anomaly was found; those not found are left out.
    pub findings: BTreeMap<Anomaly, u64>,
    /// The first findings of each anomaly.
    pub evidence: Vec<Finding>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
    /// Files that were merged.
    pub files: usize,
    /// Lines in them.
    pub lines: u64,
    /// From the first line to the last. Unit: ms.
    pub duration_ms: u64,
    /// Topics that were written or read.
    pub topics: usize,
    /// Partitions that were written or read.
    pub partitions: usize,
    /// Records with a receipt, of all levels.
    pub acked: u64,
    /// Records handed to producers, by the level of acknowledgement.
    pub sends: Sends,
    /// What was read.
    pub reads: Reads,
    /// Questions for offsets.
    pub list_offsets: Calls,
    /// Questions for metadata.
    pub metadata: Calls,
    /// What members of consumer groups did.
    pub groups: GroupCounts,
    /// Faults by kind.
    pub faults: BTreeMap<String, FaultCounts>,
    /// Times in which a partition took no write although one was waiting.
    pub without_ack: Gaps,
    /// What was taken for granted.
    pub expectations: Expectations,
}

impl Report {
    /// Checks a history and reports on it.
    #[must_use]
    pub fn judge(history: &History, expectations: &Expectations) -> Self {
        Self::new(history, expectations, check(history, expectations))
    }

    /// Reports on a history and the verdict that [`check`] gave of it.
    #[must_use]
    pub fn new(history: &History, expectations: &Expectations, verdict: Verdict) -> Self {
        let counts = counts::Counts::of(history);
        let mut shown: BTreeMap<Anomaly, usize> = BTreeMap::new();
        let mut evidence = verdict.findings.clone();
        evidence.retain(|finding| {
            let count = shown.entry(finding.anomaly).or_default();
            *count += 1;
            *count <= SHOWN_OF_A_KIND
        });
        let mut notes = verdict.notes.clone();
        if counts.sends.acked() == 0 {
            notes.push("no record was acknowledged: this history proves little".to_owned());
        }
        Self {
            verdict: if verdict.is_clean() { "clean" } else { "violated" },
            violations: verdict.violations(),
            lost: verdict.count(Anomaly::LostWrite),
            duplicated: verdict.count(Anomaly::Duplicate),
            findings: verdict.counts,
            evidence,
            notes,
            files: history.files.len(),
            lines: history.events,
            duration_ms: history.end / 1_000_000,
            topics: counts.topics(),
            partitions: counts.partitions(),
            acked: counts.sends.acked(),
            sends: counts.sends,
            reads: counts.reads,
            list_offsets: counts.list_offsets,
            metadata: counts.metadata,
            groups: counts.groups,
            faults: counts.faults,
            without_ack: Gaps::of(history),
            expectations: *expectations,
        }
    }

    /// True if nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations == 0
    }

    /// The report as one line of JSON, without its line end.
    #[must_use]
    pub fn json_line(&self) -> String {
        // Maps with names as keys and numbers: there is nothing that JSON could not say.
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

#[cfg(test)]
mod tests;
