//! What a run tells: lines that a person can read, and one line of JSON for scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use verify::report::{WINDOW_MIN_MS, percentile};

use super::availability::Window;
use super::fault::Outcome;
use super::nemesis::Strike;
use super::plan::RoundPlan;

/// Findings of one round that are printed, and of one kind among them; all of them stand in the kept files.
const TOLD_MAX: usize = 12;
const TOLD_OF_A_KIND: usize = 3;

/// What became of one fault.
#[derive(Debug, Clone, Serialize)]
pub struct FaultReport {
    /// Kind.
    pub kind: &'static str,
    /// Whom it hit.
    pub target: String,
    /// `installed`, `skipped` or `indeterminate`.
    pub outcome: &'static str,
    /// Why it was not installed, or what it did.
    pub detail: String,
    /// When it struck. Unit: ms since the round began.
    pub from_ms: u64,
    /// How long until it was taken back. Unit: ms.
    pub ms: u64,
}

impl FaultReport {
    /// A fault that was tried and taken back between two times (ns since the round began).
    #[must_use]
    pub fn new(strike: &Strike, (from_ns, to_ns): (u64, u64)) -> Self {
        let (outcome, detail) = match &strike.outcome {
            Outcome::Installed => ("installed", strike.detail.clone()),
            Outcome::Skipped(why) => ("skipped", why.clone()),
            Outcome::Indeterminate(why) => ("indeterminate", why.clone()),
        };
        let ms = |ns: u64| ns / 1_000_000;
        let (kind, target) = (strike.kind, strike.target.clone());
        Self { kind, target, outcome, detail, from_ms: ms(from_ns), ms: ms(to_ns.saturating_sub(from_ns)) }
    }
}

/// What became of one round.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RoundReport {
    /// Its number, from 1.
    pub number: u32,
    /// What its disks were.
    pub disks: &'static str,
    /// Records acknowledged by all.
    pub acked: u64,
    /// Records of which nobody knows.
    pub unknown: u64,
    /// Records certainly not written.
    pub failed: u64,
    /// Writes tried by clients of a side without a majority.
    pub lone_writes: u64,
    /// Replicas read at the end.
    pub replicas: u32,
    /// Records in them.
    pub records: u64,
    /// Acknowledged records that are gone.
    pub lost: u64,
    /// Records of idempotent producers that stand twice.
    pub duplicated: u64,
    /// Time from the heal until every partition took a write. Unit: ms. `None` if one did not.
    pub writes_again_ms: Option<u64>,
    /// The faults.
    pub faults: Vec<FaultReport>,
    /// Times in which partitions took no writes.
    pub windows: Vec<Window>,
    /// Everything that is wrong, in words.
    pub findings: Vec<String>,
    /// Findings that were only counted.
    pub untold: u64,
    /// What could not be judged.
    pub notes: Vec<String>,
    /// Why the harness could not play the round to its end.
    pub broken: Option<String>,
}

impl RoundReport {
    /// An empty report on a round.
    #[must_use]
    pub fn new(plan: &RoundPlan) -> Self {
        Self { number: plan.number, disks: plan.disks.name(), ..Self::default() }
    }

    /// True if nothing is wrong and the round was played to its end.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations() == 0 && self.broken.is_none()
    }

    /// Everything that is wrong, counted.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.findings.len() as u64 + self.untold
    }

    /// The findings to print: some of each kind, which is their first word.
    fn told(&self) -> Vec<&str> {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let some = self.findings.iter().filter(|finding| {
            let kind = finding.split_whitespace().next().unwrap_or_default();
            let count = kinds.entry(kind).or_default();
            *count += 1;
            *count <= TOLD_OF_A_KIND
        });
        some.take(TOLD_MAX).map(String::as_str).collect()
    }

    /// The round as a paragraph.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let again = self.writes_again_ms.map_or_else(|| "never".to_owned(), |ms| format!("after {ms} ms"));
        let longest = self.windows.iter().map(|window| window.ms).max().unwrap_or(0);
        let verdict = if self.is_clean() { "clean" } else { "FAILED" };
        let _ = writeln!(
            text,
            "round {} ({} disks): {verdict}; {} acked, {} unknown, {} refused; {} windows without acks, longest {longest} ms; \
             writes again everywhere {again}; {} replicas hold {} records",
            self.number,
            self.disks,
            self.acked,
            self.unknown,
            self.failed,
            self.windows.len(),
            self.replicas,
            self.records
        );
        for fault in &self.faults {
            let FaultReport { kind, target, outcome, detail, ms, .. } = fault;
            let _ = writeln!(text, "    {kind:<21} {target:<9} {outcome} {ms} ms {detail}");
        }
        let told = self.told();
        for finding in &told {
            let _ = writeln!(text, "  ! {finding}");
        }
        let more = self.violations().saturating_sub(told.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "  ! and {more} more");
        }
        for note in &self.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        if let Some(why) = &self.broken {
            let _ = writeln!(text, "  ! the harness broke: {why}");
        }
        text
    }
}

/// What became of a run.
#[derive(Debug, Clone, Default)]
pub struct RunReport {
    /// The rounds.
    pub rounds: Vec<RoundReport>,
}

/// The last line of a run.
#[derive(Debug, Clone, Serialize)]
struct Line {
    rounds: usize,
    acked: u64,
    lost: u64,
    duplicated: u64,
    violations: u64,
    unavailable_ms_p50: u64,
    unavailable_ms_p99: u64,
    /// The longest window of all.
    unavailable_ms_max: u64,
    /// As the percentile above, of the windows in which a majority was there all along.
    quorum_unavailable_ms_p99: u64,
    windows: usize,
    unknown: u64,
    lone_writes: u64,
    /// Faults that struck, by kind.
    faults: BTreeMap<&'static str, usize>,
    installed: usize,
    skipped: usize,
    indeterminate: usize,
    broken: usize,
    seed: u64,
    commit: String,
    failed_rounds: Vec<u32>,
}

impl RunReport {
    /// True if every round is clean, and there was one.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(RoundReport::is_clean)
    }

    fn sum(&self, count: impl Fn(&RoundReport) -> u64) -> u64 {
        self.rounds.iter().map(count).sum()
    }

    /// Lengths of the windows that are meant, sorted. Unit: ms.
    fn lengths(&self, meant: impl Fn(&Window) -> bool) -> Vec<u64> {
        let windows = self.rounds.iter().flat_map(|round| &round.windows);
        let mut lengths: Vec<u64> = windows.filter(|window| meant(window)).map(|window| window.ms).collect();
        lengths.sort_unstable();
        lengths
    }

    fn faults(&self, outcome: &str) -> impl Iterator<Item = &FaultReport> {
        self.rounds.iter().flat_map(|round| &round.faults).filter(move |fault| fault.outcome == outcome)
    }

    /// Everything that is wrong in any round, counted.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.sum(RoundReport::violations)
    }

    /// The summary for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{} rounds, {} acked, {} lost, {} duplicated, {} violations, {} writes tried on the lonely side of a cut\n\n",
            self.rounds.len(),
            self.sum(|round| round.acked),
            self.sum(|round| round.lost),
            self.sum(|round| round.duplicated),
            self.violations(),
            self.sum(|round| round.lone_writes),
        );
        text.push_str(&self.table());
        let reasons: BTreeMap<(&str, &str), usize> =
            self.faults("skipped").fold(BTreeMap::new(), |mut reasons, fault| {
                *reasons.entry((fault.kind, fault.detail.as_str())).or_default() += 1;
                reasons
            });
        for ((kind, why), count) in reasons {
            let _ = writeln!(text, "  {kind} skipped {count} times: {why}");
        }
        let broken = self.rounds.iter().filter(|round| round.broken.is_some()).count();
        let verdict = match (self.violations(), broken) {
            (0, 0) if self.rounds.is_empty() => "no round was played".to_owned(),
            (0, 0) => "every acknowledged record is there, once, on every replica".to_owned(),
            (0, _) => format!("{broken} rounds could not be played to their end"),
            (count, _) => format!("{count} violations"),
        };
        let _ = writeln!(text, "\nverdict: {verdict}");
        text
    }

    /// Faults by kind with the windows that began or ended in them.
    fn table(&self) -> String {
        let head = ["fault", "installed", "skipped", "unclear", "windows", "p50 ms", "p99 ms", "max ms"];
        let [kind, installed, skipped, unclear, windows, p50, p99, max] = head;
        let mut text = format!(
            "  {kind:<21}{installed:>10}{skipped:>9}{unclear:>9}{windows:>9}{p50:>9}{p99:>9}{max:>9}\n"
        );
        let mut kinds: Vec<&str> =
            self.rounds.iter().flat_map(|round| &round.faults).map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut row = |name: &str, counts: [usize; 3], lengths: Vec<u64>| {
            let [installed, skipped, unclear] = counts;
            let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&lengths, percent));
            let windows = lengths.len();
            let _ = writeln!(
                text,
                "  {name:<21}{installed:>10}{skipped:>9}{unclear:>9}{windows:>9}{p50:>9}{p99:>9}{max:>9}"
            );
        };
        let count = |kind, outcome| self.faults(outcome).filter(|fault| fault.kind == kind).count();
        for kind in kinds {
            let during = self.lengths(|window| window.during == Some(kind));
            row(kind, ["installed", "skipped", "indeterminate"].map(|outcome| count(kind, outcome)), during);
        }
        row("(no fault)", [0; 3], self.lengths(|window| window.during.is_none()));
        let all = ["installed", "skipped", "indeterminate"].map(|outcome| self.faults(outcome).count());
        row("all", all, self.lengths(|_| true));
        let _ = writeln!(
            text,
            "  (windows: times of {WINDOW_MIN_MS} ms or more in which a partition acknowledged nothing)"
        );
        text
    }

    /// The last line: one JSON object.
    ///
    /// # Errors
    /// Never in practice: every value has a JSON form.
    pub fn line(&self, seed: u64, commit: &str) -> serde_json::Result<String> {
        let (lengths, quorum) = (self.lengths(|_| true), self.lengths(|window| window.quorum));
        serde_json::to_string(&Line {
            rounds: self.rounds.len(),
            acked: self.sum(|round| round.acked),
            lost: self.sum(|round| round.lost),
            duplicated: self.sum(|round| round.duplicated),
            violations: self.violations(),
            unavailable_ms_p50: percentile(&lengths, 50),
            unavailable_ms_p99: percentile(&lengths, 99),
            unavailable_ms_max: percentile(&lengths, 100),
            quorum_unavailable_ms_p99: percentile(&quorum, 99),
            windows: lengths.len(),
            unknown: self.sum(|round| round.unknown),
            lone_writes: self.sum(|round| round.lone_writes),
            faults: self.faults("installed").fold(BTreeMap::new(), |mut kinds, fault| {
                *kinds.entry(fault.kind).or_default() += 1;
                kinds
            }),
            installed: self.faults("installed").count(),
            skipped: self.faults("skipped").count(),
            indeterminate: self.faults("indeterminate").count(),
            broken: self.rounds.iter().filter(|round| round.broken.is_some()).count(),
            seed,
            commit: commit.to_owned(),
            failed_rounds: self
                .rounds
                .iter()
                .filter(|round| !round.is_clean())
                .map(|round| round.number)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ms: u64, during: Option<&'static str>, quorum: bool) -> Window {
        Window { place: "t/0".to_owned(), from_ms: 0, ms, during, quorum }
    }

    fn fault(kind: &'static str, outcome: &'static str, detail: &str) -> FaultReport {
        let (target, detail) = ("broker 1".to_owned(), detail.to_owned());
        FaultReport { kind, target, outcome, detail, from_ms: 0, ms: 1_000 }
    }

    fn run() -> RunReport {
        let clean = RoundReport {
            number: 1,
            acked: 100,
            faults: vec![fault("kill", "installed", ""), fault("loss", "skipped", "no packets")],
            windows: vec![window(300, Some("kill"), true), window(5_000, Some("kill-all"), false)],
            ..RoundReport::default()
        };
        RunReport { rounds: vec![clean] }
    }

    #[test]
    fn the_last_line_has_the_keys_that_scripts_read() {
        let line = run().line(7, "abc").unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (key, wanted) in [
            ("rounds", 1),
            ("acked", 100),
            ("lost", 0),
            ("duplicated", 0),
            ("violations", 0),
            ("unavailable_ms_p50", 300),
            ("unavailable_ms_p99", 5_000),
            ("quorum_unavailable_ms_p99", 300),
        ] {
            assert_eq!(value[key], wanted, "{key} in {line}");
        }
        assert_eq!(value["faults"], serde_json::json!({ "kill": 1 }), "what was skipped did not strike");
    }

    #[test]
    fn a_finding_a_broken_round_and_no_round_at_all_are_no_success() {
        assert!(run().is_clean());
        let mut found = run();
        found.rounds[0].findings.push("lost-write".to_owned());
        assert!(!found.is_clean() && found.text().contains("1 violations"), "{}", found.text());
        let mut broken = run();
        broken.rounds[0].broken = Some("mount".to_owned());
        assert!(!broken.is_clean());
        assert_eq!(broken.violations(), 0);
        assert!(!RunReport::default().is_clean());
    }

    #[test]
    fn a_finding_that_comes_often_does_not_hide_the_others() {
        let mut round = run().rounds.remove(0);
        round.findings = vec!["phantom t/0".to_owned(); 50];
        round.findings.push("lost-write t/0".to_owned());
        let text = round.text();
        assert_eq!(
            (text.matches("! phantom").count(), text.matches("! lost-write").count()),
            (3, 1),
            "{text}"
        );
        assert!(text.contains("and 47 more"), "{text}");
    }

    #[test]
    fn people_are_told_what_was_skipped_and_why() {
        let text = run().text();
        assert!(text.contains("loss skipped 1 times: no packets"), "{text}");
        assert!(text.contains("every acknowledged record is there"), "{text}");
    }
}
