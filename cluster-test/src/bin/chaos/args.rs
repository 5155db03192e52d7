//! The command line.

use std::path::PathBuf;

use clap::Parser;
use cluster_test::chaos::FabricKind;
use cluster_test::chaos::plan::families;

/// Runs clusters of real `altair` processes through faults, and judges what their clients saw.
///
/// Each round is a cluster of its own: start, load, faults, heal, writes again everywhere, a final read of every replica, the
/// verdict. The seed decides everything that is drawn. The last line is one JSON object; the exit code is 1 if anything is
/// wrong with the cluster, 2 if the command cannot be done.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Examples:\n  chaos --fabric netns --nodes 3 --rounds 10 --secs 30\n  chaos --fabric proxy --rounds 5 --faults kill,pause\n  chaos --fabric docker --nodes 5 --rounds 2\n  chaos --fabric netns --seed 17 --round 4\n\nEvery failure prints the line that replays its round."
)]
pub(crate) struct Args {
    /// What carries the cluster: network namespaces (netns; root), TCP proxies (proxy; anybody), or containers (docker).
    #[arg(long, default_value = "netns", value_parser = fabric)]
    pub(crate) fabric: FabricKind,
    /// Brokers of each cluster: 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = size)]
    pub(crate) nodes: u32,
    /// Rounds to play.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: u32,
    /// Time of each round in which things go wrong. Unit: s.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) secs: u64,
    /// Decides everything that is drawn. Default: another one each time.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Plays this round of the seed only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) round: Option<u32>,
    /// Draws from these families of faults only; `--faults help` names them.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = family)]
    pub(crate) faults: Vec<String>,
    /// Keeps histories, logs and reports of all rounds here. Those of failed rounds are always kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The `altair` binary. Default: that of this build.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// The image of fabric docker. Default: altair:chaos, built first, if cargo runs this program; else altair:dev.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// Removes what killed runs left on this machine, says what it was, and plays nothing.
    #[arg(long)]
    pub(crate) clean: bool,
    /// Plays in this directory of the process that waits for this one.
    #[arg(long, hide = true, value_name = "DIR")]
    pub(crate) inside: Option<PathBuf>,
}

impl Args {
    /// Flags that decide what a round of the run is.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut words = vec!["--fabric".to_owned(), self.fabric.name().to_owned()];
        let numbers = [
            ("--nodes", u64::from(self.nodes)),
            ("--secs", self.secs),
            ("--seed", self.seed.unwrap_or_default()),
        ];
        words.extend(numbers.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]));
        if !self.faults.is_empty() {
            words.extend(["--faults".to_owned(), self.faults.join(",")]);
        }
        words
    }
}

fn fabric(text: &str) -> Result<FabricKind, String> {
    let names: Vec<&str> = FabricKind::ALL.iter().map(|kind| kind.name()).collect();
    let found = FabricKind::ALL.iter().find(|kind| kind.name() == text).copied();
    found.ok_or_else(|| format!("fabrics are {}", names.join(", ")))
}

fn size(text: &str) -> Result<u32, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(format!("a cluster has 3 or 5 brokers, not {text}")),
    }
}

fn family(text: &str) -> Result<String, String> {
    let names: Vec<&str> = families().collect();
    match names.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("families are {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (line, reason) in [
            (&["--fabric", "cloud"][..], "fabrics are netns, proxy, docker"),
            (&["--nodes", "4"], "3 or 5 brokers, not 4"),
            (&["--rounds", "0"], "0 is not in"),
            (&["--secs", "0"], "0 is not in"),
            (&["--round", "0"], "0 is not in"),
            (&["--seed", "-1"], "unexpected argument"),
            (&["--faults", "kill,flood"], "families are kill, "),
        ] {
            let line = std::iter::once("chaos").chain(line.iter().copied());
            let error = Args::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_replay_is_told_by_what_decides_its_rounds() {
        let line = ["chaos", "--fabric", "proxy", "--seed", "7", "--faults", "kill,pause", "--keep", "d"];
        let args = Args::try_parse_from(line).unwrap();
        let words = "--fabric proxy --nodes 3 --secs 30 --seed 7 --faults kill,pause";
        assert_eq!(args.flags().join(" "), words);
    }
}
