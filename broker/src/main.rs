//! The server binary `altair`: flags in, exit code out. What each command does stands in `commands`.

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::run(commands::Args::parse())
}
