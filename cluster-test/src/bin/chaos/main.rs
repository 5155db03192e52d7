//! Chaos on real processes: rounds of faults under load, and a verdict on what clients saw.

mod args;
mod inside;
mod keep;
mod outside;
mod tell;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

/// Something is wrong with the cluster, or the harness broke.
const EXIT_FOUND: u8 = 1;
/// Something is wrong with the command, or this machine cannot do what it asks for.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.inside.clone() {
        Some(dir) => inside::run(&args, &dir),
        None => outside::run(args),
    };
    outcome.unwrap_or_else(|error| {
        tell::say(&format!("chaos: {error:#}"));
        ExitCode::from(EXIT_USAGE)
    })
}
