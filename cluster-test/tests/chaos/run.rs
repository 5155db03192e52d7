//! Runs of the program.

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use cluster_test::chaos::fabric::docker;
use cluster_test::chaos::sandbox;

/// One run at a time: two cores carry one cluster.
static TURN: Mutex<()> = Mutex::new(());

/// The right to run clusters, and a directory of this test's own for everything that its runs put down.
pub(crate) struct Turn {
    pub(crate) dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    pub(crate) fn take() -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("altair-test-").tempdir()?;
        Ok(Self { dir, _turn: turn })
    }

    /// The program with these arguments, separated by spaces. It is not run by cargo as far as it can tell: what it needs is
    /// built.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
        command
            .args(line.split_whitespace())
            .args(if line.contains("--clean") { &[][..] } else { &["--keep"] })
            .args((!line.contains("--clean")).then(|| self.dir.path().join("kept")))
            .env("TMPDIR", self.dir.path())
            .env_remove("CARGO")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Result<Output> {
        self.command(line).output().context("running chaos")
    }

    pub(crate) fn start(&self, line: &str) -> Result<Child> {
        let mut command = self.command(line);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting chaos")
    }
}

/// What a run printed, for people who look at a failed test.
pub(crate) fn told(output: &Output) -> String {
    let [out, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}{errors}", output.status)
}

/// The last line.
pub(crate) fn line(output: &Output) -> Result<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().context("nothing was printed")?;
    serde_json::from_str(last).with_context(|| format!("reading {last}"))
}

/// Why a fabric cannot be had here; such a test is skipped and says so.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn missing(fabric: &str) -> bool {
    let why = match fabric {
        "netns" => sandbox::check().err().map(|error| error.to_string()),
        "docker" => docker::check().err().map(|error| error.to_string()).or_else(|| {
            (!docker::has_image("altair:dev"))
                .then(|| "there is no image altair:dev (deploy/image.sh)".to_owned())
        }),
        _ => None,
    };
    why.inspect(|why| eprintln!("skipped: {why}")).is_some()
}
