//! The deterministic simulator: whole clusters under faults, one seed a process.

mod args;
mod children;
mod determinism;
mod mutants;
mod one;
mod sweep;
mod tell;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Mode};

/// As in the broker; seeds take a tenth less time with it.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something is wrong with the cluster.
const EXIT_FOUND: u8 = 1;
/// Something is wrong with the command.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let mode = match args.mode() {
        Ok(mode) => mode,
        Err(problem) => {
            tell::say(&format!("error: {problem}\n\nFor more information, try '--help'."));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let clean = match mode {
        Mode::One(seed) => one::run(&args, seed, false),
        Mode::Replay(seed) => one::run(&args, seed, true),
        Mode::Determinism(seeds) => determinism::run(&args, seeds),
        Mode::Sweep(seeds) => sweep::run(&args, seeds),
        Mode::Mutants(named) => mutants::run(&args, &named),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FOUND),
        Err(error) => {
            tell::say(&format!("error: {error:#}"));
            ExitCode::from(EXIT_FOUND)
        }
    }
}
