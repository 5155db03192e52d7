use std::collections::BTreeMap;

use super::generate::{Rng, history};
use super::mutate::{MUTATORS, Plant};
use super::*;
use crate::history::{History, Outcome};

/// Clean histories that must pass.
const CLEAN: u64 = 1_000;
/// Histories into which each anomaly is planted; most have a place for it.
const PLANTED: u64 = 40;

fn explain(seed: u64, verdict: &Verdict) -> String {
    let lines: Vec<String> = verdict.findings.iter().take(5).map(ToString::to_string).collect();
    format!("seed {seed}:\n{}", lines.join("\n"))
}

#[test]
fn a_thousand_histories_of_a_correct_cluster_pass() {
    for seed in 0..CLEAN {
        let (history, expectations) = history(seed, 100 + seed % 900);
        let verdict = check(&history, &expectations);
        assert!(verdict.is_clean(), "{}", explain(seed, &verdict));
    }
}

#[test]
fn every_planted_anomaly_is_found_by_its_name() {
    for (name, anomaly, plant) in MUTATORS {
        let mut planted = 0;
        for seed in 0..PLANTED {
            let (mut history, expectations) = history(seed, 600);
            let mut rng = Rng(seed);
            if !plant(&mut Plant { history: &mut history, expectations, rng: &mut rng }) {
                continue;
            }
            planted += 1;
            let verdict = check(&history, &expectations);
            assert!(
                verdict.count(*anomaly) > 0,
                "{name} was not found as {anomaly}; found were {:?}, {}",
                verdict.counts,
                explain(seed, &verdict)
            );
            let finding = verdict.findings.iter().find(|finding| finding.anomaly == *anomaly).unwrap();
            assert!(!finding.evidence.contains('\n'), "{finding}");
            let names_a_call = finding.evidence.contains('#');
            assert!(names_a_call || name.contains("unread"), "{finding}");
        }
        assert!(planted * 3 > PLANTED, "{name} found a place in {planted} of {PLANTED} histories only");
    }
}

#[test]
fn every_anomaly_has_a_mutator_a_name_a_meaning_and_a_row_in_the_docs() {
    let page = include_str!("../../../docs/testing.md");
    let mut names = BTreeMap::new();
    for anomaly in Anomaly::ALL {
        assert!(MUTATORS.iter().any(|(_, planted, _)| planted == anomaly), "nothing plants {anomaly}");
        assert!(names.insert(anomaly.name(), anomaly.meaning()).is_none());
        let row = format!("| `{anomaly}` | {} |", anomaly.meaning());
        assert!(page.contains(&row), "docs/testing.md lacks: {row}");
        assert_eq!(serde_json::to_string(anomaly).unwrap(), format!("\"{anomaly}\""));
    }
}

#[test]
fn the_generator_makes_everything_that_may_happen() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..50 {
        let (history, expectations) = history(seed, 600);
        *seen.entry("retention").or_default() += u64::from(expectations.retention);
        *seen.entry("several files").or_default() += u64::from(history.files.len() > 1);
        for call in &history.calls {
            let outcome = match &call.outcome {
                Outcome::Ok(_) => "ok",
                Outcome::Fail(_) => "fail",
                Outcome::Info(error) if error.is_empty() => "open",
                Outcome::Info(_) => "info",
            };
            *seen.entry(outcome).or_default() += 1;
        }
        let evidence = Evidence::gather(&history);
        let unknown_but_there = evidence.partitions.values().any(|partition| {
            partition.sends.iter().any(|index| {
                let (call, send) = evidence.send(*index).unwrap();
                matches!(call.outcome, Outcome::Info(_)) && partition.offset_of(send.vals[0]).is_some()
            })
        });
        *seen.entry("unknown but there").or_default() += u64::from(unknown_but_there);
        let twice = evidence
            .partitions
            .values()
            .any(|partition| partition.offsets.windows(2).any(|pair| pair[0].0 == pair[1].0));
        *seen.entry("written twice").or_default() += u64::from(twice);
        *seen.entry("retired").or_default() +=
            u64::from(evidence.partitions.values().any(|partition| partition.log_start > 0));
    }
    for what in [
        "retention",
        "several files",
        "ok",
        "fail",
        "open",
        "info",
        "unknown but there",
        "written twice",
        "retired",
    ] {
        assert!(seen.get(what).copied().unwrap_or(0) > 5, "{what}: {seen:?}");
    }
}

#[test]
fn the_same_history_gives_the_same_verdict() {
    let judge = || {
        let (mut history, expectations) = history(5, 600);
        let mut rng = Rng(5);
        for (_, _, plant) in MUTATORS {
            plant(&mut Plant { history: &mut history, expectations, rng: &mut rng });
        }
        check(&history, &expectations)
    };
    assert!(judge().violations() > 10);
    assert_eq!(judge(), judge());
}

#[test]
fn an_empty_history_is_clean_and_one_without_final_reads_says_what_it_cannot_show() {
    assert_eq!(check(&History::default(), &Expectations::default()), Verdict::default());
    let (mut history, _) = history(3, 600);
    history.calls.retain(|call| !matches!(call.op, crate::history::Op::FinalRead(_)));
    let relaxed = Expectations { retention: true, grows: true, ..Expectations::default() };
    let verdict = check(&history, &relaxed);
    assert!(verdict.is_clean(), "{}", explain(3, &verdict));
    assert!(verdict.notes[0].contains("were not read at the end"), "{:?}", verdict.notes);
}

/// Unit: s. Only an optimised build is held to it.
const MILLION_MAX: f64 = 5.0;

#[test]
fn a_million_events_are_judged_in_seconds() {
    let steps = if cfg!(debug_assertions) { 40_000 } else { 2_000_000 };
    let (history, expectations) = history(7, steps);
    let begun = tokio::time::Instant::now();
    let verdict = check(&history, &expectations);
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} events judged in {seconds:.2} s", history.events);
    assert!(verdict.is_clean(), "{}", explain(7, &verdict));
    assert!(cfg!(debug_assertions) || (history.events > 1_000_000 && seconds < MILLION_MAX), "{seconds} s");
}
