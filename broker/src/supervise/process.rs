//! One broker process: started, signalled and reaped through a pid file descriptor, so that a signal can never hit
//! another process that got the same number.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

/// What a broker process is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessState {
    /// Not started, or stopped on purpose.
    Stopped,
    /// Alive.
    Running {
        /// Process number.
        pid: u32,
    },
    /// Ended by itself or by a signal.
    Exited {
        /// In words, for example "signal: 9 (SIGKILL)".
        how: String,
        /// Exit code, where it ended by itself.
        code: Option<i32>,
    },
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Running { pid } => write!(f, "running (pid {pid})"),
            Self::Exited { how, .. } => write!(f, "exited ({how})"),
        }
    }
}

/// A started process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct BrokerProcess {
    pid: u32,
    handle: Arc<OwnedFd>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl BrokerProcess {
    /// Starts `command` with both outputs appended to the file at `log`.
    ///
    /// # Errors
    /// The operating system's.
    #[expect(
        clippy::disallowed_types,
        reason = "a child's output needs a descriptor of the operating system"
    )]
    pub(super) fn spawn(command: &mut Command, log: &Path) -> std::io::Result<Self> {
        let out = std::fs::File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        let pid = child.id();
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| std::io::Error::other("the child has no process number"))?;
        let handle = Arc::new(pidfd_open(number, PidfdFlags::empty())?);
        let (sender, ended) = watch::channel(None);
        // Reaping blocks for the life of the child; a thread of its own keeps the runtime's pool free.
        std::thread::Builder::new().name(format!("reap-{pid}")).spawn(move || {
            let status = child.wait();
            if let Ok(status) = status {
                sender.send_replace(Some(status));
            }
        })?;
        Ok(Self { pid, handle, ended })
    }

    /// Sends a signal; one to a process that has ended is no error.
    pub(super) fn signal(&self, signal: Signal) {
        if self.ended.borrow().is_none() {
            // The only failure left is that the process has just ended, which is what the caller would see anyway.
            let _ = pidfd_send_signal(&self.handle, signal);
        }
    }

    /// Waits until the process has ended; false if it did not within `deadline`.
    pub(super) async fn wait_end(&self, deadline: Duration) -> bool {
        let mut ended = self.ended.clone();
        let wait = ended.wait_for(Option::is_some);
        matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(_)))
    }

    /// What the process is doing now.
    pub(super) fn state(&self) -> ProcessState {
        match *self.ended.borrow() {
            None => ProcessState::Running { pid: self.pid },
            Some(status) => ProcessState::Exited { how: status.to_string(), code: status.code() },
        }
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn sleeper(dir: &Path) -> BrokerProcess {
        BrokerProcess::spawn(Command::new("sleep").arg("600"), &dir.join("log")).unwrap()
    }

    #[tokio::test]
    async fn a_killed_process_is_reaped_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        assert!(matches!(process.state(), ProcessState::Running { .. }));
        process.signal(Signal::KILL);
        assert!(process.wait_end(DEADLINE).await);
        let ProcessState::Exited { how, code } = process.state() else { panic!("still there") };
        assert!(how.contains('9'), "{how}");
        assert_eq!(code, None);
    }

    #[tokio::test]
    async fn output_is_appended_to_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        for word in ["one", "two"] {
            let process = BrokerProcess::spawn(Command::new("echo").arg(word), &log).unwrap();
            assert!(process.wait_end(DEADLINE).await);
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\ntwo\n");
    }

    #[tokio::test]
    async fn waiting_for_a_process_that_lives_ends_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        assert!(!process.wait_end(Duration::from_millis(30)).await);
    }
}
