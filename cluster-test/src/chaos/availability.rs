//! How long partitions took no writes: read off the acks of a history.

use std::collections::BTreeMap;

use serde::Serialize;
use verify::history::{AckLevel, History, Op, Outcome};

/// Shortest time without an ack that counts. Writers send to each partition many times as often; what is shorter is the noise
/// of a loaded machine. Unit: ms.
pub const WINDOW_MIN_MS: u64 = 250;
const NS_PER_MS: u64 = 1_000_000;

/// A time in which a partition acknowledged nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The partition.
    pub partition: u32,
    /// Its beginning: the last ack before, or the beginning of the workload. Unit: ms since the round began.
    pub from_ms: u64,
    /// Its length. Unit: ms.
    pub ms: u64,
    /// Kind of the fault that was there when it began, or struck while it lasted; `None` if there was none.
    pub during: Option<&'static str>,
    /// Whether all along a majority was there to go on.
    pub quorum: bool,
}

/// A time in which something was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Kind of the fault.
    pub kind: &'static str,
    /// Whether a majority of brokers stayed.
    pub quorum: bool,
    /// When it struck. Unit: ns since the round began.
    pub from_ns: u64,
    /// When it was over. Unit: ns since the round began.
    pub to_ns: u64,
}

/// Windows of at least [`WINDOW_MIN_MS`] between two acks of `all` of one partition, from the beginning to the end of the
/// workload (ns since the round began).
#[must_use]
pub fn windows(
    history: &History,
    partitions: u32,
    (begin, end): (u64, u64),
    troubles: &[Trouble],
) -> Vec<Window> {
    let mut acks: BTreeMap<u32, Vec<u64>> = (0..partitions).map(|part| (part, vec![begin])).collect();
    for call in &history.calls {
        if let (Op::Send(send), Outcome::Ok(_), Some(done)) = (&call.op, &call.outcome, call.completed)
            && send.acks == AckLevel::All
            && (begin..=end).contains(&done.t)
        {
            acks.entry(send.part).or_default().push(done.t);
        }
    }
    let mut windows = Vec::new();
    for (partition, mut times) in acks {
        times.push(end);
        times.sort_unstable();
        let pairs = times.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?)));
        for (from, to) in pairs.filter(|(from, to)| to - from >= WINDOW_MIN_MS * NS_PER_MS) {
            let met = troubles.iter().filter(|trouble| trouble.from_ns < to && trouble.to_ns > from);
            let (mut during, mut quorum) = (None, true);
            for trouble in met {
                during = during.or(Some(trouble.kind));
                quorum &= trouble.quorum;
            }
            let (from_ms, ms) = (from / NS_PER_MS, (to - from) / NS_PER_MS);
            windows.push(Window { partition, from_ms, ms, during, quorum });
        }
    }
    windows.sort_by_key(|window| (window.from_ms, window.partition));
    windows
}

/// The value that this share of all values does not exceed; 0 of nothing. Unit of `percent`: 0 to 100.
#[must_use]
pub fn percentile(values: impl IntoIterator<Item = u64>, percent: u64) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    let rank = (values.len() as u64 * percent).div_ceil(100).max(1) - 1;
    usize::try_from(rank).ok().and_then(|rank| values.get(rank)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use verify::history::{Answer, Recorder, Send, SendAnswer, value};

    use super::*;

    /// Acks of partitions at times in ms.
    fn history(acks: &[(u32, u64)], level: AckLevel) -> History {
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let recorder = Recorder::memory(Arc::new(move || clock.load(Ordering::Relaxed)));
        for (number, (part, at)) in (0..).zip(acks) {
            now.store(at * NS_PER_MS, Ordering::Relaxed);
            let send = Send {
                topic: "t".into(),
                part: *part,
                producer: 1,
                idem: true,
                acks: level,
                seq: number,
                vals: vec![value(1, number)],
            };
            let call = recorder.invoke(1, Op::Send(send));
            recorder.ok(call, Answer::Send(SendAnswer { off: vec![number], ..SendAnswer::default() }));
        }
        recorder.history().unwrap()
    }

    fn ms(from: u64, to: u64) -> (u64, u64) {
        (from * NS_PER_MS, to * NS_PER_MS)
    }

    #[test]
    fn gaps_of_each_partition_are_found_with_what_was_wrong_then() {
        let acks = [(0, 100), (1, 100), (0, 200), (1, 300), (0, 1_400), (1, 1_500)];
        let trouble = |kind, quorum, (from_ns, to_ns)| Trouble { kind, quorum, from_ns, to_ns };
        let troubles = [trouble("kill", true, ms(150, 900)), trouble("kill-all", false, ms(1_450, 1_490))];
        let found = windows(&history(&acks, AckLevel::All), 2, ms(0, 1_550), &troubles);
        let window =
            |partition, from_ms, ms, quorum| Window { partition, from_ms, ms, during: Some("kill"), quorum };
        assert_eq!(found, [window(0, 200, 1_200, true), window(1, 300, 1_200, false)]);
    }

    #[test]
    fn a_partition_without_any_ack_was_away_all_the_time() {
        let found = windows(&history(&[(0, 10)], AckLevel::All), 2, ms(5, 255), &[]);
        let whole = Window { partition: 1, from_ms: 5, ms: 250, during: None, quorum: true };
        assert_eq!(found, [whole]);
    }

    #[test]
    fn weaker_acks_say_nothing() {
        assert_eq!(windows(&history(&[(0, 300)], AckLevel::Leader), 1, ms(0, 600), &[]).len(), 1);
        assert_eq!(windows(&history(&[(0, 300)], AckLevel::All), 1, ms(0, 500), &[]).len(), 1);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile([], 99), 0);
        assert_eq!(percentile([7], 50), 7);
        assert_eq!(percentile(1..=100, 50), 50);
        assert_eq!(percentile(1..=100, 99), 99);
        assert_eq!(percentile([9, 1, 5], 99), 9);
    }
}
