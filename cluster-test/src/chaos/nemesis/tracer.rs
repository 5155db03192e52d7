//! Failing and slow syncs: `strace` on a running broker.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// Time for the tracer to stop every thread of a broker once.
const ATTACH: Duration = Duration::from_secs(10);
/// Time for it to let them all go.
const DETACH: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Calls that wait for a disk.
const SYNCS: &str = "fdatasync,fsync,sync_file_range";

/// What syncs do while a broker is traced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Syncs {
    /// They fail with EIO.
    Fail,
    /// They take so much longer. Unit: ms.
    Slow(u32),
}

/// `strace` at work. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Tracer {
    child: Child,
    /// What it saw, a line for each call.
    seen: tempfile::NamedTempFile,
}

impl Tracer {
    /// Attaches to all threads of process `pid` and waits until each is traced.
    ///
    /// # Errors
    /// If `strace` does not start or does not get hold of the process.
    pub(super) async fn attach(pid: u32, syncs: Syncs) -> Result<Self> {
        let effect = match syncs {
            Syncs::Fail => "error=EIO".to_owned(),
            Syncs::Slow(ms) => format!("delay_enter={}", u64::from(ms) * 1_000),
        };
        let seen = tempfile::NamedTempFile::new().context("making a file for what strace sees")?;
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", &seen.path().to_string_lossy(), "-e", &format!("trace={SYNCS}")])
            .args(["-e", &format!("inject={SYNCS}:{effect}"), "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting strace")?;
        let mut tracer = Self { child, seen };
        let until = Instant::now() + ATTACH;
        while !traced(pid)? {
            if let Some(status) = tracer.child.try_wait()? {
                bail!("strace gave up: {status}");
            }
            ensure!(Instant::now() < until, "strace does not get hold of process {pid}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(tracer)
    }

    /// Whether any sync has met its fate.
    pub(super) fn has_injected(&self) -> bool {
        // A file that cannot be read says nothing, like one that is empty.
        std::fs::read_to_string(self.seen.path()).is_ok_and(|seen| seen.contains("(INJECTED)"))
    }

    /// Lets the broker go on as before.
    ///
    /// # Errors
    /// If the tracer does not end.
    pub(super) async fn detach(mut self) -> Result<()> {
        // Asked, it takes its hands off each thread in order; killed, a call that it has changed would fail.
        let pid = Pid::from_child(&self.child);
        // It ends by itself with the broker.
        let _ = kill_process(pid, Signal::TERM);
        let until = Instant::now() + DETACH;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "strace does not let go");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether every thread of a process has a tracer.
fn traced(pid: u32) -> Result<bool> {
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    Ok(tasks.flatten().all(|task| has_tracer(&task.path())))
}

fn has_tracer(task: &Path) -> bool {
    // A thread that has just ended needs none.
    let Ok(status) = std::fs::read_to_string(task.join("status")) else { return true };
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}
