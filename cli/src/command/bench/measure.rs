//! Counting and timing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::context::Context;
use crate::convert::{count_text, size_text};

/// Longest time that is told apart from longer ones. Unit: µs.
const TIME_MAX_US: u64 = 600_000_000;
/// Digits of a time that are kept.
const DIGITS: u8 = 3;
/// Between two updates of the progress line.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// When it is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Window {
    /// A window that opens after `warmup`.
    pub(super) fn after(warmup: Duration, length: Duration) -> Self {
        let from = Instant::now() + warmup;
        Self { from, to: from + length }
    }

    pub(super) fn holds(&self, at: Instant) -> bool {
        self.from <= at && at < self.to
    }

    pub(super) fn seconds(&self) -> f64 {
        (self.to - self.from).as_secs_f64()
    }
}

/// Times in µs.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let bounded = Histogram::new_with_bounds(1, TIME_MAX_US, DIGITS);
        // Only bounds that contradict each other are refused.
        Self(bounded.unwrap_or_else(|_| unreachable!("1 < {TIME_MAX_US}, {DIGITS} ≤ 5")))
    }
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, which is all that can be wrong.
        let _ = self.0.add(&other.0);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A quantile in ms; 0 if nothing was timed.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    pub(super) fn mean_ms(&self) -> f64 {
        self.0.mean() / 1e3
    }
}

/// What became of records.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Done within the window.
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Certainly not written, whenever.
    pub(super) failed: u64,
    /// Of unknown outcome, whenever.
    pub(super) unknown: u64,
    /// Times of records that began within the window.
    pub(super) times: Times,
}

impl Tally {
    pub(super) fn merge(mut self, other: &Self) -> Self {
        self.records += other.records;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.times.merge(&other.times);
        self
    }
}

/// What people see while they wait.
#[derive(Debug)]
pub(super) struct Meter {
    bar: ProgressBar,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// A meter that shows itself on a terminal unless `hidden`.
    pub(super) fn new(context: &Context, hidden: bool) -> Self {
        let bar = if hidden || !context.out.is_for_people() {
            ProgressBar::hidden()
        } else {
            // Draws on standard error, and on terminals only.
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            style.map_or_else(|_| ProgressBar::new_spinner(), |s| ProgressBar::new_spinner().with_style(s))
        };
        Self { bar, records: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    pub(super) fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Shows the present rate, and goes on until it is dropped. Cancel safe.
    pub(super) async fn show(&self, what: &str) {
        let (mut records, mut bytes, mut at) = (0, 0, Instant::now());
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            let (now_records, now_bytes) = (self.records.load(Ordering::Relaxed), self.bytes());
            let seconds = at.elapsed().as_secs_f64().max(f64::EPSILON);
            at = Instant::now();
            let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round();
            self.bar.set_message(format!(
                "{what}: {} records/s, {}/s",
                count_text(whole(rate(now_records, records))),
                size_text(whole(rate(now_bytes, bytes)))
            ));
            self.bar.tick();
            (records, bytes) = (now_records, now_bytes);
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A figure for people without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate, which no u64 is too small for"
)]
pub(super) fn whole(figure: f64) -> u64 {
    figure.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits_and_never_overflow() {
        let mut times = Times::default();
        for ms in 1..=1_000 {
            times.add(Duration::from_millis(ms));
        }
        assert!((times.quantile_ms(0.5) - 500.0).abs() < 1.0);
        assert!((times.quantile_ms(0.99) - 990.0).abs() < 2.0);
        times.add(Duration::from_secs(86_400));
        assert!((times.max_ms() - 600_000.0).abs() < 1_000.0);
        assert_eq!(times.count(), 1_001);
    }

    #[test]
    fn a_window_holds_its_begin_and_not_its_end() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(2));
        assert!(window.holds(window.from) && !window.holds(window.to));
        assert!(!window.holds(window.from - Duration::from_millis(1)));
        assert!((window.seconds() - 2.0).abs() < 1e-9);
    }
}
