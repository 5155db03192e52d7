//! The verdict on a round: its history judged as every history is, and what only a harness can know beside it.

use anyhow::{Context, Result};
use verify::check::{Anomaly, check};
use verify::history::History;

use super::{Evidence, RoundSpec};
use crate::chaos::availability::windows;
use crate::chaos::report::RoundReport;

/// Judges a round that was played to its end.
///
/// # Errors
/// If the history cannot be read back.
pub(super) fn judge(spec: &RoundSpec, evidence: &Evidence, report: &mut RoundReport) -> Result<()> {
    let history = History::read(&[spec.history()]).context("reading the history back")?;
    let verdict = check(&history, &history.expectations.unwrap_or_default());
    report.lost = verdict.count(Anomaly::LostWrite);
    report.duplicated = verdict.count(Anomaly::Duplicate);
    report.replicas = evidence.reads.replicas;
    report.records = evidence.reads.records;
    for (anomaly, count) in &verdict.counts {
        let kept = verdict.findings.iter().filter(|finding| finding.anomaly == *anomaly);
        let told = kept.clone().count() as u64;
        report.findings.extend(kept.map(ToString::to_string));
        report.untold += count.saturating_sub(told);
    }
    report.notes.extend(verdict.notes);
    for trouble in &evidence.reads.troubles {
        report.findings.push(format!("final-read: {trouble}"));
    }
    for alone in &evidence.alone {
        let (tried, findings) = alone.judge(&history);
        report.lone_writes += tried;
        report.findings.extend(findings);
    }
    report.windows = windows(&history, &evidence.troubles);
    Ok(())
}
