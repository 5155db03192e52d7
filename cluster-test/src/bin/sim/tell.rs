//! What people are told.

use std::io::Write as _;

use cluster_test::harness::commit;
use cluster_test::sim::SeedReport;

use super::args::{Args, names};

/// Says what a seed found, and how to see it again.
pub(crate) fn tell(args: &Args, report: &SeedReport) {
    if report.is_clean() {
        return;
    }
    for finding in report.violations.iter().chain(&report.liveness_failures) {
        say(&format!("seed {}, commit {}: {finding}", report.seed, commit()));
    }
    let mut more = if args.no_faults { " --no-faults".to_owned() } else { String::new() };
    if !args.with.is_empty() {
        more.push_str(&format!(" --with {}", names(&args.with)));
    }
    let mut feature = "";
    if let Some(mutant) = &args.mutant {
        feature = " --features mutants";
        more.push_str(&format!(" --mutant {mutant}"));
    }
    say(&format!(
        "replay: cargo run --release -p cluster-test{feature} --bin sim -- --replay {} --secs {} --nodes {}{more}",
        report.seed,
        args.secs,
        args.nodes_text()
    ));
}

// A closed pipe is no reason to fail.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
