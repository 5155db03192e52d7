//! For how long partitions took no write although one was waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::history::{AckLevel, History, Moment, Op, Outcome};

/// A time without an acknowledgement counts as a window of unavailability from here on. Unit: ms. Above what a slow disk
/// or a busy machine does to a single write, below what people notice.
pub const WINDOW_MIN_MS: u64 = 500;

/// Partitions whose longest gap a report keeps.
const KEPT_PARTITIONS: usize = 20;

/// Times in which a partition acknowledged no `acks=all` record although one was waiting for it.
///
/// A gap begins with the send that waits, or with the ack before it if one was waiting already, and ends with the next
/// ack; sends that fail meanwhile do not end it. Without an ack to the end it lasts to the last outcome of a send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// Gaps of at least [`WINDOW_MIN_MS`], over all partitions.
    pub windows: u64,
    /// Median length of these windows. Unit: ms; 0 without windows.
    pub p50_ms: u64,
    /// Nine of ten of these windows are not longer. Unit: ms.
    pub p90_ms: u64,
    /// 99 of 100 of these windows are not longer. Unit: ms.
    pub p99_ms: u64,
    /// The longest gap of all, a window or not. Unit: ms.
    pub longest_ms: u64,
    /// The longest gap of each partition, the longest first; the first 20.
    pub partitions: Vec<Gap>,
}

/// A gap of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Topic and partition as `topic/3`.
    pub place: String,
    /// Its length. Unit: ms.
    pub ms: u64,
    /// When it began. Unit: ms since the harness began.
    pub from_ms: u64,
    /// False if no ack ended it.
    pub ended: bool,
}

/// What happened to a send.
#[derive(Clone, Copy)]
enum Step {
    Began,
    Acked,
    /// Failed, or unknown.
    GivenUp,
}

#[derive(Clone, Copy, Default)]
struct Length {
    ns: u64,
    from: u64,
    ended: bool,
}

impl Gap {
    /// Every gap of at least [`WINDOW_MIN_MS`], by partition and time.
    #[must_use]
    pub fn windows(history: &History) -> Vec<Self> {
        let mut windows = Vec::new();
        for ((topic, part), steps) in steps(history) {
            let long = lengths(steps).into_iter().filter(|gap| gap.ns >= WINDOW_MIN_MS * NS_PER_MS);
            windows.extend(long.map(|gap| gap.at(&topic, part)));
        }
        windows
    }
}

impl Length {
    fn at(self, topic: &str, part: u32) -> Gap {
        let (ms, from_ms) = (self.ns / NS_PER_MS, self.from / NS_PER_MS);
        Gap { place: format!("{topic}/{part}"), ms, from_ms, ended: self.ended }
    }
}

impl Gaps {
    /// Finds the gaps of a history.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut gaps = Self::default();
        let mut windows = Vec::new();
        for ((topic, part), steps) in steps(history) {
            let mut longest = Length::default();
            for gap in lengths(steps) {
                if gap.ns >= WINDOW_MIN_MS * NS_PER_MS {
                    windows.push(gap.ns / NS_PER_MS);
                }
                if gap.ns > longest.ns {
                    longest = gap;
                }
            }
            gaps.longest_ms = gaps.longest_ms.max(longest.ns / NS_PER_MS);
            gaps.partitions.push(longest.at(&topic, part));
        }
        windows.sort_unstable();
        gaps.windows = windows.len() as u64;
        gaps.p50_ms = percentile(&windows, 50);
        gaps.p90_ms = percentile(&windows, 90);
        gaps.p99_ms = percentile(&windows, 99);
        // Stable: equal gaps stay in the order of their partitions.
        gaps.partitions.sort_by_key(|gap| std::cmp::Reverse(gap.ms));
        gaps.partitions.truncate(KEPT_PARTITIONS);
        gaps
    }
}

const NS_PER_MS: u64 = 1_000_000;

type Steps = Vec<(Moment, Step)>;

/// What happened to the `acks=all` sends of each partition, in the order of time.
fn steps(history: &History) -> BTreeMap<(Arc<str>, u32), Steps> {
    let mut places: BTreeMap<(Arc<str>, u32), Steps> = BTreeMap::new();
    for call in &history.calls {
        let Op::Send(send) = &call.op else { continue };
        if send.acks != AckLevel::All {
            continue;
        }
        let steps = places.entry((Arc::clone(&send.topic), send.part)).or_default();
        steps.push((call.invoked, Step::Began));
        if let Some(at) = call.completed {
            let acked = matches!(call.outcome, Outcome::Ok(_));
            steps.push((at, if acked { Step::Acked } else { Step::GivenUp }));
        }
    }
    for steps in places.values_mut() {
        steps.sort_by_key(|(at, _)| *at);
    }
    places
}

fn lengths(steps: Steps) -> Vec<Length> {
    let mut lengths = Vec::new();
    let mut waiting = 0_u64;
    // When the gap began that no ack has ended yet.
    let mut since = None;
    let mut last = 0;
    for (at, step) in steps {
        last = at.t;
        match step {
            Step::Began => {
                waiting += 1;
                since.get_or_insert(at.t);
            }
            Step::Acked => {
                waiting = waiting.saturating_sub(1);
                let from = since.unwrap_or(at.t);
                lengths.push(Length { ns: at.t - from, from, ended: true });
                since = (waiting > 0).then_some(at.t);
            }
            Step::GivenUp => waiting = waiting.saturating_sub(1),
        }
    }
    if let Some(from) = since {
        lengths.push(Length { ns: last - from, from, ended: false });
    }
    lengths
}

/// The value of a sorted list that `percent` of it are not above; 0 of nothing.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}
