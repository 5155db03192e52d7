//! Lets each deliberate bug run through seeds until one finds it: the simulator's own test.
//!
//! A seed counts only if the same seed without the bug is clean, run by the same build.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use cluster_test::sim::{FaultKind, SeedReport};
use disk::mutant::{ALL, Description, Mutant};
use serde::Serialize;
use tokio::time::Instant;

use super::args::Args;
use super::children::{Task, apart, each};
use super::tell::{print, say};

/// Characters of a finding in the table.
const FINDING_CHARS: usize = 96;

/// The last line.
#[derive(Debug, Default, Serialize)]
struct Sum {
    mutants: usize,
    killed: usize,
    survived: Vec<&'static str>,
}

/// What became of one mutant.
struct Fate {
    mutant: &'static Description,
    /// The seed that found it, and what it said; `None` if it survived.
    killed: Option<(SeedReport, String)>,
    seeds: u64,
    took: Duration,
}

/// The mutants of these names, or all; the error says which name is wrong.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Description>, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        let found = ALL.iter().find(|known| known.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = ALL.iter().map(|known| known.name).collect();
            format!("there is no mutant {name:?}; known are: all, {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Kinds of faults without which a mutant has no occasion; they come in each of its seeds beside what the seed draws.
fn occasions(mutant: Mutant) -> Vec<FaultKind> {
    match mutant {
        Mutant::AckBeforeFsync | Mutant::SkipFsync => {
            vec![FaultKind::PowerOne, FaultKind::PowerAll, FaultKind::AtWrite]
        }
        Mutant::VoteNotPersisted | Mutant::ResumeAsLeader => vec![FaultKind::Kill, FaultKind::AtVote],
        Mutant::TruncateNotPersisted => vec![FaultKind::AtTruncate],
        Mutant::BadCrcAccepted | Mutant::DamageAsTornTail => vec![FaultKind::WalRot],
        Mutant::FsyncErrorRetried => vec![FaultKind::FsyncError],
        Mutant::InstallWithoutCheckpoint => vec![FaultKind::Wipe, FaultKind::AtInstall],
        Mutant::ReplicaIdReused => vec![FaultKind::Wipe],
        Mutant::StaleLeaderReads => vec![FaultKind::Isolate, FaultKind::AtVote],
        Mutant::IsrIgnoresLag => vec![FaultKind::Isolate, FaultKind::Hold],
        Mutant::HighWatermarkFromAppend => vec![FaultKind::AtWrite, FaultKind::Isolate],
        Mutant::UnknownToldAsFailure => vec![FaultKind::OneWay, FaultKind::SlowLink, FaultKind::Hold],
        Mutant::DuplicatesAfterFailover | Mutant::SequenceGapAccepted => {
            vec![FaultKind::AtWrite, FaultKind::Isolate, FaultKind::Kill]
        }
        Mutant::CommitNotAwaited => vec![FaultKind::Isolate, FaultKind::Kill, FaultKind::PowerAll],
        Mutant::OrphanDeleted => vec![FaultKind::AtCreate, FaultKind::CreateTopic],
        _ => vec![FaultKind::Kill, FaultKind::PowerOne],
    }
}

/// Runs mutants; true if every one was found.
pub(crate) fn run(args: &Args, mutants: &[&'static Description]) -> Result<bool> {
    let fates = Mutex::new(Vec::new());
    each(args, 0..mutants.len() as u64, |at| {
        let Some(mutant) = usize::try_from(at).ok().and_then(|at| mutants.get(at)) else { return };
        let fate = hunt(args, mutant);
        say(&row(&fate));
        fates.lock().unwrap_or_else(PoisonError::into_inner).push(fate);
    });
    let mut fates = fates.into_inner().unwrap_or_else(PoisonError::into_inner);
    fates.sort_by_key(|fate| fate.mutant.mutant);
    print("| mutant | seed | seeds tried | simulated s | took | found by |\n|---|---|---|---|---|---|");
    fates.iter().for_each(|fate| print(&row(fate)));
    let survived: Vec<_> =
        fates.iter().filter(|fate| fate.killed.is_none()).map(|fate| fate.mutant.name).collect();
    let sum = Sum { mutants: fates.len(), killed: fates.len() - survived.len(), survived };
    print(&serde_json::to_string(&sum)?);
    Ok(sum.survived.is_empty())
}

/// Runs seeds until one finds the mutant.
fn hunt(args: &Args, mutant: &'static Description) -> Fate {
    let begun = Instant::now();
    let with = occasions(mutant.mutant);
    let mut seeds = 0;
    for seed in 0..args.max_seeds {
        seeds = seed + 1;
        let bugged = Task { seed, mutant: Some(mutant.name), with: &with };
        let Some(killed) = found(args, &bugged) else { continue };
        // Without the bug the seed must be clean, or it proves nothing.
        if found(args, &Task { mutant: None, ..bugged }).is_none() {
            return Fate { mutant, killed: Some(killed), seeds, took: begun.elapsed() };
        }
        say(&format!("{}: seed {seed} finds something without it as well: {}", mutant.name, killed.1));
    }
    Fate { mutant, killed: None, seeds, took: begun.elapsed() }
}

/// What a seed finds; `None` if it is clean.
fn found(args: &Args, task: &Task<'_>) -> Option<(SeedReport, String)> {
    match apart(args, task) {
        Ok(report) => {
            let first = report.violations.iter().chain(&report.liveness_failures).next().cloned()?;
            Some((report, first))
        }
        Err(error) => Some((SeedReport { seed: task.seed, ..SeedReport::default() }, format!("{error:#}"))),
    }
}

fn row(fate: &Fate) -> String {
    let Fate { mutant, killed, seeds, took } = fate;
    let took = took.as_secs();
    match killed {
        Some((report, what)) => {
            let sim = Duration::from_millis(report.sim_ms).as_secs_f64();
            let what: String =
                what.chars().take(FINDING_CHARS).map(|c| if c == '|' { '/' } else { c }).collect();
            format!("| {} | {} | {seeds} | {sim:.1} | {took} s | {what} |", mutant.name, report.seed)
        }
        None => format!("| {} | none | {seeds} | | {took} s | survived |", mutant.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(named(&["all".to_owned()]).map(|all| all.len()), Ok(ALL.len()));
        let two = named(&["skip-fsync".to_owned(), "bad-crc-accepted".to_owned()]).expect("known");
        assert_eq!(
            two.iter().map(|one| one.mutant).collect::<Vec<_>>(),
            [Mutant::SkipFsync, Mutant::BadCrcAccepted]
        );
        assert!(named(&["skip".to_owned()]).is_err_and(|told| told.contains("skip-fsync")));
    }
}
