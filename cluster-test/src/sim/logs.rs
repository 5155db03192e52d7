//! The brokers' own logs with simulated times, to stand between the lines of a trace.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::trace::SimClock;

/// Levels of crates that narrate every step, unless somebody asks for them. The simulator's own spans name the machine.
const QUIET: &str = "openraft=error,h2=warn,hyper=warn,tonic=warn,turmoil=off,turmoil[node]=info";

/// Log lines of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Logs(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    clock: SimClock,
    lines: Vec<(u64, String)>,
}

impl Logs {
    /// Collects the logs of this process from now on. `level` is a level or a filter such as `info,broker::raft=debug`.
    ///
    /// # Errors
    /// If it is no filter, or if somebody else takes the logs.
    pub fn install(level: &str) -> anyhow::Result<Self> {
        let logs = Self::default();
        let filter = EnvFilter::try_new(format!("{QUIET},{level}"))?;
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time();
        lines.with_writer(logs.clone()).try_init().map_err(|error| anyhow::anyhow!(error))?;
        Ok(logs)
    }

    /// Takes the time from this clock.
    pub(super) fn follow(&self, clock: &SimClock) {
        self.lock().clock = clock.clone();
    }

    /// The lines so far, with their times in ns.
    #[must_use]
    pub fn take(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.lock().lines)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one event.
#[derive(Debug)]
pub struct Line(Logs);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut inner = self.0.lock();
        let time = inner.clock.now_ns();
        inner.lines.extend(text.lines().map(|line| (time, line.to_owned())));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.clone())
    }
}
