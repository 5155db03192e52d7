//! What happened, in order, with simulated times: a hash that two runs of a seed must share, and lines for people.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Simulated time of the whole world. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<Ticks>);

#[derive(Debug, Default)]
struct Ticks {
    /// Time at the last border between two ticks. Unit: ns.
    border: AtomicU64,
    /// Set while hosts are torn down: their own clocks are gone then.
    frozen: AtomicBool,
}

impl SimClock {
    /// Nanoseconds since the simulation began: within a tick on the host that asks, else at the border.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        let border = self.0.border.load(Ordering::Relaxed);
        if self.0.frozen.load(Ordering::Relaxed) {
            return border;
        }
        turmoil::sim_elapsed().map_or(border, nanos)
    }

    pub(super) fn set(&self, elapsed: Duration) {
        self.0.border.store(nanos(elapsed), Ordering::Relaxed);
    }

    /// Runs something that ends hosts.
    pub(super) fn frozen<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.frozen.store(true, Ordering::Relaxed);
        let result = work();
        self.0.frozen.store(false, Ordering::Relaxed);
        result
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01B3;

/// The trace of one seed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: SimClock,
    keep: bool,
    sum: Mutex<Sum>,
}

#[derive(Debug)]
struct Sum {
    hash: u64,
    events: u64,
    /// Times in ns and texts, only if they are kept.
    lines: Vec<(u64, String)>,
}

impl Trace {
    /// An empty trace; `keep` keeps the events as lines too.
    #[must_use]
    pub fn new(clock: SimClock, keep: bool) -> Self {
        let sum = Sum { hash: FNV_OFFSET, events: 0, lines: Vec::new() };
        Self(Arc::new(Inner { clock, keep, sum: Mutex::new(sum) }))
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event at the present time.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        self.note_at(self.0.clock.now_ns(), event.to_string());
    }

    /// Adds an event of another recording. Unit of `time`: ns.
    pub(super) fn note_at(&self, time: u64, text: String) {
        self.mix(&time.to_le_bytes());
        self.mix(text.as_bytes());
        let mut sum = self.sum();
        sum.events += 1;
        if self.0.keep {
            sum.lines.push((time, text));
        }
    }

    /// Mixes what has no line of its own into the hash.
    pub fn mix(&self, bytes: &[u8]) {
        let mut sum = self.sum();
        for byte in bytes {
            sum.hash = (sum.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    /// FNV-1a over all events with their times (<http://www.isthe.com/chongo/tech/comp/fnv/>).
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.sum().hash
    }

    /// Number of events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.sum().events
    }

    /// The lines that were kept and those of the logs, by time.
    #[must_use]
    pub fn lines(&self, logs: Vec<(u64, String)>) -> Vec<String> {
        let mut lines = self.sum().lines.clone();
        lines.extend(logs);
        // Stable: what happened at one time stays in the order in which it was noted.
        lines.sort_by_key(|(time, _)| *time);
        let show = |(time, text): (u64, String)| {
            format!("{:>12.6} {text}", Duration::from_nanos(time).as_secs_f64())
        };
        lines.into_iter().map(show).collect()
    }
}
