//! The commands, one file a noun.

pub(crate) mod bench;
mod broker;
mod cluster;
mod consume;
mod error;
pub(crate) mod group;
mod log;
mod partition;
mod produce;
mod produce_report;
mod shown;
mod topic;
pub(crate) mod verify;
mod version;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::exit::Failure;

/// Runs a parsed command line.
pub(crate) async fn execute(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Topic(command) => topic::run(&context, command).await,
        Command::Partition(command) => partition::run(&context, command).await,
        Command::Produce(command) => produce::run(&context, &command).await,
        Command::Consume(command) => consume::run(&context, &command).await,
        Command::Group(command) => group::run(&context, command).await,
        Command::Broker(command) => broker::run(&context, command).await,
        Command::Cluster(command) => cluster::run(&context, command).await,
        Command::Bench(bench) => bench::run(&context, bench).await,
        Command::Verify(command) => verify::run(&context, command).await,
        Command::Log(command) => log::run(&context, command),
        Command::Error { code } => error::run(&context, code.as_deref()),
        Command::Completion { shell } => version::completion(&shell),
        Command::Version => version::run(&context),
    }
}
