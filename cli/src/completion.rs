//! Shell completion, with names from the cluster.
//!
//! The script that `altair-cli completion bash` prints calls this program back with `COMPLETE=bash` for every Tab;
//! topic names are then asked from the cluster, within a budget that nobody notices.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate};
use client::{Client, ClientConfig};
use wire::pb;

use crate::args::Cli;
use crate::exit::Failure;

/// The variable by which a shell asks for candidates.
const VARIABLE: &str = "COMPLETE";
/// Longer than this and typing feels stuck; then there are no candidates.
const BUDGET: Duration = Duration::from_millis(300);
/// Answers the shell if it asks; true if it did.
pub(crate) fn answer_shell(args: &[OsString]) -> Result<bool, Failure> {
    if args.is_empty() {
        return Ok(false);
    }
    let directory = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .try_complete(args.to_vec(), directory.as_deref())
        .map_err(|error| Failure::usage(format!("cannot complete: {error}"), "altair-cli completion --help"))
}

/// The script for a shell.
pub(crate) fn script(shell: &str) -> Result<Vec<u8>, Failure> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or_else(|| {
        Failure::usage(format!("no completion for {shell}"), "bash, zsh, fish or powershell")
    })?;
    let name = "altair-cli";
    let program = std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned));
    let mut script = Vec::new();
    // The script asks this very program, found by its path if it is not in the search path.
    let program = match program {
        Some(path) if path.ends_with(name) => path,
        _ => name.to_owned(),
    };
    completer.write_registration(VARIABLE, "altair_cli", name, &program, &mut script)?;
    script.flush()?;
    Ok(script)
}

/// Names of topics that begin with `current`.
pub(crate) fn topics(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |client| {
        let metadata = client.admin().metadata(Vec::new()).await.ok()?;
        Some(metadata.topics.into_iter().map(|topic| topic.name).collect())
    })
}

/// Ids of consumer groups that begin with `current`.
pub(crate) fn groups(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, async |client| {
        let found = client.groups().list_groups(pb::ListGroupsRequest::default()).await.ok()?;
        Some(found.groups.into_iter().map(|group| group.group_id).collect())
    })
}

/// Names from the cluster, or none if it does not answer within the budget.
fn candidates(
    current: &OsStr,
    names: impl AsyncFnOnce(Client) -> Option<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let Some(prefix) = current.to_str() else { return Vec::new() };
    let addresses = std::env::var("ALTAIR_ADDR").unwrap_or_else(|_| "127.0.0.1:7400".to_owned());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let asked = async {
        let client = Client::start(ClientConfig::new(addresses.split(',').map(str::trim))).ok()?;
        names(client).await
    };
    let names = runtime.block_on(async { tokio::time::timeout(BUDGET, asked).await });
    let names = names.ok().flatten().unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with(prefix)).map(CompletionCandidate::new).collect()
}
