//! What the writers saw: receipts with their times.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::verify::{Place, RecordName};

/// Longest latency that the histogram keeps apart: the delivery deadline, in microseconds.
const LATENCY_MICROS_MAX: u64 = 120_000_000;

/// One receipt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub(super) name: RecordName,
    pub(super) place: Place,
    pub(super) sent: Instant,
    pub(super) acked: Instant,
}

/// Longest time without an ack on any one partition, counted from `from` on. Partitions that never acked are left out:
/// there is nothing that they could have stopped doing.
pub(super) fn longest_gap(acks: &[Ack], from: Instant) -> Duration {
    let mut times: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
    for ack in acks {
        times.entry(ack.place.partition).or_default().push(ack.acked);
    }
    let mut longest = Duration::ZERO;
    for instants in times.values_mut() {
        instants.sort_unstable();
        for pair in instants.windows(2) {
            if let [earlier, later] = pair
                && *later > from
            {
                longest = longest.max(later.saturating_duration_since(*earlier));
            }
        }
    }
    longest
}

/// Median and 99th percentile of the latency of records sent in `[from, until)`, in ms.
pub(super) fn percentiles(acks: &[Ack], from: Instant, until: Instant) -> (f64, f64) {
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LATENCY_MICROS_MAX, 3) else {
        return (0.0, 0.0);
    };
    for ack in acks.iter().filter(|ack| ack.sent >= from && ack.sent < until) {
        let micros = ack.acked.saturating_duration_since(ack.sent).as_micros();
        histogram.saturating_record(u64::try_from(micros).unwrap_or(LATENCY_MICROS_MAX).max(1));
    }
    let ms = |quantile: f64| Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    (round(ms(0.5)), round(ms(0.99)))
}

/// Two decimals: more would be noise.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(partition: u32, number: u64, start: Instant, sent_ms: u64, acked_ms: u64) -> Ack {
        Ack {
            name: RecordName { writer: 0, number },
            place: Place { partition, offset: number },
            sent: start + Duration::from_millis(sent_ms),
            acked: start + Duration::from_millis(acked_ms),
        }
    }

    #[test]
    fn the_longest_gap_is_found_on_the_partition_that_had_it() {
        let start = Instant::now();
        let acks = [
            ack(0, 0, start, 0, 10),
            ack(0, 1, start, 10, 20),
            ack(1, 0, start, 0, 12),
            ack(1, 1, start, 10, 930),
            ack(0, 2, start, 20, 30),
        ];
        assert_eq!(longest_gap(&acks, start), Duration::from_millis(918));
        assert_eq!(
            longest_gap(&acks, start + Duration::from_secs(1)),
            Duration::ZERO,
            "before the time asked for"
        );
    }

    #[test]
    fn percentiles_count_only_their_window() {
        let start = Instant::now();
        let mut acks: Vec<Ack> = (0..100).map(|n| ack(0, n, start, n, n + 2)).collect();
        acks.push(ack(0, 100, start, 200, 5_000));
        let (p50, p99) = percentiles(&acks, start, start + Duration::from_millis(150));
        assert!((1.9..2.1).contains(&p50) && (1.9..2.1).contains(&p99), "{p50} {p99}");
    }
}
