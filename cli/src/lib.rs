//! Altair's command line. The binary `altair-cli` and the subcommand `altair cli` both end in [`run`].
//!
//! Every command follows the same rules: data on standard output in the form that `-o` asks for, everything said to a
//! person on standard error, errors as code, cause and next step, and an exit code that a script can act on
//! ([`exit`](mod@exit)).

mod args;
mod command;
mod completion;
mod context;
mod convert;
mod escape;
pub mod exit;
mod input;
mod offset;
mod output;
mod terminal;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::Failure;

/// Runs one command line; the first argument is the program's name, as in [`std::env::args_os`].
///
/// Must not be called from within an async runtime: it makes its own.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    match completion::answer_shell(&args) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(failure) => return report(&failure),
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    let outcome = runtime.block_on(command::execute(cli));
    // A thread may still wait for standard input; nothing is lost by leaving it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// Help and version are no errors; everything else that clap says is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe while help is printed is nothing to tell anyone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}

fn report(failure: &Failure) -> ExitCode {
    if let Failure::Api(error) = failure {
        terminal::print_error(error);
    }
    ExitCode::from(failure.exit_code())
}
