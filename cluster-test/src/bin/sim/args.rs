//! The command line.

use std::ops::Range;
use std::path::PathBuf;

use clap::Parser;
use cluster_test::sim::FaultKind;
use disk::mutant::Description;

use super::mutants;

/// What to do for a build that carries deliberate bugs.
pub(crate) const NO_MUTANTS: &str = "this build carries no deliberate bugs: build one that does with\n  cargo run --release -p cluster-test --features mutants --bin sim -- --mutants all";

/// Simulates whole clusters - real brokers, real clients - on simulated time, network and disks, under faults.
///
/// Each seed decides one run: size and settings of the cluster, load, faults. The last line is one JSON object; the exit
/// code is 1 if any seed found anything and 2 if the command makes no sense. Every finding comes with the line that
/// replays it.
#[derive(Debug, Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  sim --seeds 0..100 --secs 30 --jobs 2\n  sim --replay 17 --secs 30 --keep target/sim\n  sim --determinism 0..10 --secs 10\n\nRUST_LOG, as in RUST_LOG=info, shows the brokers' own logs in a replay."
)]
pub(crate) struct Args {
    /// Runs the seeds A to B-1, each in a process of its own.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Runs one seed and prints what happened in it.
    #[arg(long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    replay: Option<u64>,
    /// Runs each of the seeds A to B-1 in two processes and compares their traces.
    #[arg(long, value_name = "A..B", value_parser = range)]
    determinism: Option<Range<u64>>,
    /// Lets each of these deliberate bugs, or all, run through seeds until one finds it. Needs the feature `mutants`.
    #[arg(long, value_name = "all|NAME,…", value_delimiter = ',')]
    mutants: Vec<String>,
    /// Seeds after which a mutant counts as not found.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_seeds: u64,
    /// Replays a seed with a deliberate bug. Needs the feature `mutants`.
    #[arg(long, value_name = "NAME")]
    pub(crate) mutant: Option<String>,
    /// Kinds of faults that come in every seed, beside those that it draws.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = kind)]
    pub(crate) with: Vec<FaultKind>,
    /// Runs one seed in this process and prints its report; what the others are made of.
    #[arg(long, value_name = "SEED", hide = true, value_parser = seed)]
    one: Option<u64>,
    /// Length of the phase with faults. Unit: simulated seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) secs: u64,
    /// Sizes of cluster among which a seed chooses.
    #[arg(long, default_value = "3,5", value_delimiter = ',', value_parser = size)]
    pub(crate) nodes: Vec<u32>,
    /// Seeds that run at the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Leaves the cluster in peace.
    #[arg(long)]
    pub(crate) no_faults: bool,
    /// Writes the history of each seed that found something to DIR/seed-N.jsonl; a replay always writes it.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Wall-clock time after which a seed counts as hung. Unit: seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) patience: u64,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Runs one seed here, for a parent process.
    One(u64),
    /// Runs one seed here, for people.
    Replay(u64),
    /// Runs each seed twice.
    Determinism(Range<u64>),
    /// Runs each seed once.
    Sweep(Range<u64>),
    /// Runs seeds with each of these bugs.
    Mutants(Vec<&'static Description>),
}

impl Args {
    /// The one mode that was asked for.
    pub(crate) fn mode(&self) -> Result<Mode, String> {
        let bugged = !self.mutants.is_empty() || self.mutant.is_some();
        if bugged && !cfg!(feature = "mutants") {
            return Err(NO_MUTANTS.to_owned());
        }
        let hunted = (!self.mutants.is_empty()).then(|| mutants::named(&self.mutants)).transpose()?;
        let modes = [
            hunted.map(Mode::Mutants),
            self.seeds.clone().map(Mode::Sweep),
            self.replay.map(Mode::Replay),
            self.determinism.clone().map(Mode::Determinism),
            self.one.map(Mode::One),
        ];
        let mut modes = modes.into_iter().flatten();
        match (modes.next(), modes.next()) {
            (Some(mode), None) => Ok(mode),
            _ => Err("give one of --seeds A..B, --replay SEED, --determinism A..B, --mutants all".to_owned()),
        }
    }

    /// The sizes as they are given.
    pub(crate) fn nodes_text(&self) -> String {
        self.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Kinds of faults as they are given.
pub(crate) fn names(kinds: &[FaultKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",")
}

fn kind(text: &str) -> Result<FaultKind, String> {
    let found = FaultKind::ALL.iter().find(|kind| kind.name() == text).copied();
    found.ok_or_else(|| format!("no such kind of fault; known are {}", names(FaultKind::ALL)))
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("no such seed: a seed is a whole number from 0 to {}", u64::MAX))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((from, to)) if from < to => Ok(from..to),
        Some(_) => Err("it holds no seed: write A..B with A below B, as 0..100".to_owned()),
        None => Err("not a range of seeds: write A..B, as 0..100".to_owned()),
    }
}

fn size(text: &str) -> Result<u32, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("a simulated cluster has 3 or 5 brokers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &[&str]) -> String {
        let line = std::iter::once("sim").chain(line.iter().copied());
        match Args::try_parse_from(line) {
            Err(error) => {
                assert_eq!(error.exit_code(), 2);
                error.to_string()
            }
            Ok(args) => args.mode().expect_err("it makes no sense"),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (line, reason) in [
            (&["--replay", "-1"][..], "no such seed"),
            (&["--replay", "18446744073709551616"], "no such seed"),
            (&["--replay", "all"], "no such seed"),
            (&["--seeds", "5..5"], "holds no seed"),
            (&["--seeds", "7..3"], "holds no seed"),
            (&["--seeds", "7"], "not a range"),
            (&["--determinism", "a..b"], "not a range"),
            (&["--seeds", "0..1", "--nodes", "3,4"], "3 or 5 brokers"),
            (&["--seeds", "0..1", "--secs", "0"], "0 is not in"),
            (&["--seeds", "0..1", "--jobs", "0"], "0 is not in"),
            (&["--seeds", "0..1", "--replay", "1"], "give one of"),
            (&["--seeds", "0..1", "--with", "rain"], "no such kind of fault; known are kill,"),
            (&[], "give one of"),
        ] {
            let told = refused(line);
            assert!(told.contains(reason), "{line:?}: {told}");
        }
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn a_build_without_mutants_says_how_to_get_one() {
        assert!(refused(&["--mutants", "all"]).contains("--features mutants"));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn an_unknown_mutant_is_refused() {
        assert!(refused(&["--mutants", "skip"]).contains("there is no mutant"));
    }

    #[test]
    fn the_largest_seed_can_be_replayed() {
        let args = Args::try_parse_from(["sim", "--replay", "18446744073709551615", "--nodes", "5"]);
        let args = args.expect("it makes sense");
        assert!(matches!(args.mode(), Ok(Mode::Replay(u64::MAX))));
        assert_eq!(args.nodes_text(), "5");
    }
}
