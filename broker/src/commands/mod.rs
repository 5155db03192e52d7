//! The commands of `altair`, one file each.

mod check_config;
mod config_args;
mod demo;
mod dev;
mod health;
mod print;
mod serve;
mod topics;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code of a configuration or command line that is wrong.
const EXIT_USAGE: u8 = 2;

/// A message broker that keeps what it acknowledged.
#[derive(Debug, Parser)]
#[command(name = "altair", version, about, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one broker until it is told to stop (SIGTERM or Ctrl-C; twice = at once).
    Serve(serve::ServeArgs),
    /// Print every config value and where it came from, or everything that is wrong with it.
    CheckConfig(check_config::CheckConfigArgs),
    /// Start brokers on this machine without Docker, with a console to them.
    Dev(dev::DevArgs),
    /// Kill a leader under load and count every record: the whole promise in one command.
    Demo(demo::DemoArgs),
    /// Ask a broker whether it is ready; for container health checks.
    Health(health::HealthArgs),
    /// The client in the same binary: `altair cli topic list` is `altair-cli topic list`.
    #[command(disable_help_flag = true)]
    Cli {
        /// What follows goes to altair-cli.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Runs one command and tells its exit code.
pub(crate) fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Serve(args) => serve::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Dev(args) => in_runtime(dev::run(args)),
        Command::Demo(args) => in_runtime(demo::run(args)),
        Command::Cli { args } => cli::run(std::iter::once(OsString::from("altair cli")).chain(args)),
    }
}

/// Runs a command that only talks to brokers.
fn in_runtime(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(command));
    outcome.unwrap_or_else(|error| {
        report(&error);
        ExitCode::FAILURE
    })
}

/// Prints an error with its causes the way every command does.
fn report(error: &anyhow::Error) {
    use std::io::Write as _;
    // Nothing can be done when even standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
}
