//! `altair-cli`: everything is in the library, so that `altair cli …` is the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
