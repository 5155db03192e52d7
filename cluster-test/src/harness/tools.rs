//! Binaries and waiting.

use std::ffi::OsStr;
use std::future::Future;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The server binary of this build.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn altair() -> PathBuf {
    binary("ALTAIR_BIN", "altair")
}

/// The client binary of this build.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn altair_cli() -> PathBuf {
    binary("ALTAIR_CLI_BIN", "altair-cli")
}

/// A binary named by an environment variable, or beside this one in the target directory.
fn binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    beside.unwrap_or_else(|| {
        panic!("{name} is not built: run `cargo build --release --workspace` first, or set {variable}")
    })
}

/// The commit of the tree, if git can tell.
#[must_use]
pub fn commit() -> String {
    let git = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    git.ok().filter(|output| output.status.success()).map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Waits until `condition` gives a value.
///
/// # Errors
/// If it gave none within `deadline`; `what` names it.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut condition: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let until = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if Instant::now() >= until {
            bail!("{what} did not happen within {deadline:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs a program to its end on a thread of its own, so that the test's own tasks go on.
///
/// # Errors
/// If it cannot be started. Its own failure is in the output's status.
pub async fn run<A: AsRef<OsStr>>(
    program: PathBuf,
    args: impl IntoIterator<Item = A>,
    input: Option<PathBuf>,
) -> Result<Output> {
    let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let worked = tokio::task::spawn_blocking(move || -> Result<Output> {
        let mut command = Command::new(&program);
        command.args(&args).stdin(Stdio::null());
        if let Some(path) = input {
            #[expect(
                clippy::disallowed_types,
                reason = "a child's input needs a descriptor of the operating system"
            )]
            command.stdin(std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?);
        }
        command.output().with_context(|| format!("running {}", program.display()))
    });
    worked.await?
}
