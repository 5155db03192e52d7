//! The report as a person reads it.

use std::fmt;

use super::counts::{Calls, FaultCounts, SentRecords};
use super::{Gap, Report, WINDOW_MIN_MS};
use crate::check::{Anomaly, Finding};

/// Findings of one kind that stand in the text; the JSON line has some more.
const SHOWN_OF_A_KIND: usize = 3;
/// With more kinds of findings than this one of each is enough: the text stays on one screen.
const KINDS_IN_FULL: usize = 4;
/// Partitions whose longest gap stands in the text.
const SHOWN_GAPS: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_verdict(f)?;
        let [files, topics, partitions] =
            [(self.files, "file"), (self.topics, "topic"), (self.partitions, "partition")]
                .map(|(n, what)| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") });
        let (lines, time) = (number(self.lines), seconds(self.duration_ms));
        writeln!(f, "history      {files}, {lines} lines, {time}; {topics}, {partitions}")?;
        let sends = [("all", &self.sends.all), ("leader", &self.sends.leader), ("none", &self.sends.none)];
        for (level, records) in sends.into_iter().filter(|(_, records)| records.sent > 0) {
            writeln!(f, "acks={level:<7} {}", told_records(records))?;
        }
        let reads = &self.reads;
        let records = number(reads.records);
        writeln!(f, "read         {records} records by polls: {}; {} seeks", told(reads.polls), reads.seeks)?;
        let records = number(reads.final_records);
        writeln!(f, "final reads  {records} records of replicas: {}", told(reads.final_reads))?;
        writeln!(f, "asked        offsets: {}; metadata: {}", told(self.list_offsets), told(self.metadata))?;
        if self.groups.assigned > 0 {
            let (assigned, commits) = (number(self.groups.assigned), told(self.groups.commits));
            writeln!(f, "groups       {assigned} partitions assigned; commits: {commits}")?;
        }
        self.write_faults(f)?;
        self.write_gaps(f)?;
        for note in &self.notes {
            writeln!(f, "note         {note}")?;
        }
        self.write_findings(f)
    }
}

impl Report {
    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return writeln!(f, "verdict      clean: {}", self.promise());
        }
        let kinds: Vec<String> =
            self.findings.iter().map(|(anomaly, count)| format!("{anomaly} {}", number(*count))).collect();
        writeln!(f, "verdict      VIOLATED, {} findings: {}", number(self.violations), kinds.join(", "))
    }

    /// What a clean verdict says, and no more than that.
    fn promise(&self) -> String {
        match self.expectations.replicas {
            0 => "nothing that clients saw contradicts the cluster's promises".to_owned(),
            replicas => format!(
                "nothing acknowledged is lost, nothing stands twice, {replicas} replicas of each partition agree"
            ),
        }
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return writeln!(f, "faults       none");
        }
        let kinds: Vec<String> =
            self.faults.iter().map(|(kind, counts)| format!("{kind} {}", told_faults(counts))).collect();
        writeln!(f, "faults       {}", kinds.join(", "))
    }

    fn write_gaps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gaps = &self.without_ack;
        let least = seconds(WINDOW_MIN_MS);
        if gaps.windows == 0 {
            let longest = gaps.longest_ms;
            return writeln!(f, "without ack  never for {least} while a send waited; longest {longest} ms");
        }
        writeln!(
            f,
            "without ack  {} times for {least} or more: p50 {}, p90 {}, p99 {}, longest {}",
            number(gaps.windows),
            seconds(gaps.p50_ms),
            seconds(gaps.p90_ms),
            seconds(gaps.p99_ms),
            seconds(gaps.longest_ms)
        )?;
        for gap in gaps.partitions.iter().filter(|gap| gap.ms >= WINDOW_MIN_MS).take(SHOWN_GAPS) {
            writeln!(f, "             {}", told_gap(gap))?;
        }
        Ok(())
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.findings.len() > KINDS_IN_FULL { 1 } else { SHOWN_OF_A_KIND };
        for (anomaly, count) in &self.findings {
            writeln!(f, "\n{anomaly}: {}", anomaly.meaning())?;
            for finding in self.of_kind(*anomaly).take(shown) {
                writeln!(f, "  {}: {}", finding.place, finding.evidence)?;
            }
            let more = count.saturating_sub(shown as u64);
            if more > 0 {
                writeln!(f, "  and {} more", number(more))?;
            }
        }
        Ok(())
    }

    fn of_kind(&self, anomaly: Anomaly) -> impl Iterator<Item = &Finding> {
        self.evidence.iter().filter(move |finding| finding.anomaly == anomaly)
    }
}

fn told_records(records: &SentRecords) -> String {
    format!(
        "{} records sent: {} acknowledged, {} failed, {} unknown",
        number(records.sent),
        number(records.acked),
        number(records.failed),
        number(records.unknown)
    )
}

fn told(calls: Calls) -> String {
    format!("{} ok, {} failed, {} unknown", number(calls.ok), number(calls.failed), number(calls.unknown))
}

/// `3 (and 1 skipped)`.
fn told_faults(counts: &FaultCounts) -> String {
    let mut besides = Vec::new();
    for (count, what) in [(counts.skipped, "skipped"), (counts.indeterminate, "indeterminate")] {
        if count > 0 {
            besides.push(format!("{} {what}", number(count)));
        }
    }
    match besides.is_empty() {
        true => number(counts.installed),
        false => format!("{} (and {})", number(counts.installed), besides.join(", ")),
    }
}

fn told_gap(gap: &Gap) -> String {
    let end = if gap.ended { "" } else { ", to the end" };
    format!("{}: {} from {} on{end}", gap.place, seconds(gap.ms), seconds(gap.from_ms))
}

/// `1.2 s`.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// `1,234,567`.
fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
