//! The wall clock, which gives records their timestamps and decides nothing.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Source of wall-clock time; cheap to clone. Deadlines and waits use `tokio::time` instead.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Simulated(Arc<dyn Fn() -> i64 + Send + Sync>),
}

impl Clock {
    /// The operating system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that a simulation drives: `now` returns milliseconds since the Unix epoch.
    pub fn simulated(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Source::Simulated(Arc::new(now)))
    }

    /// Milliseconds since the Unix epoch; a clock set before 1970 reads 0.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => system_ms(),
            Source::Simulated(now) => now(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock seam itself")]
fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Simulated(_) => "Clock(simulated)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn simulated_clock_reads_what_the_simulation_says() {
        assert_eq!(Clock::simulated(|| 42).now_ms(), 42);
    }

    #[test]
    fn system_clock_is_after_2020() {
        assert!(Clock::system().now_ms() > 1_577_836_800_000);
    }
}
