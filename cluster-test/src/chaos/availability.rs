//! How long partitions took no writes, and what was wrong then.

use serde::Serialize;
use verify::history::History;
use verify::report::Gap;

const NS_PER_MS: u64 = 1_000_000;

/// A time in which a partition acknowledged nothing although a write was waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The partition, as `topic/3`.
    pub place: String,
    /// Its beginning. Unit: ms since the round began.
    pub from_ms: u64,
    /// Its length. Unit: ms.
    pub ms: u64,
    /// Kind of the first fault that was there at any time of it; `None` if there was none.
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

/// The windows of a history, by time, each with the trouble that it met.
#[must_use]
pub fn windows(history: &History, troubles: &[Trouble]) -> Vec<Window> {
    let mut windows: Vec<Window> =
        Gap::windows(history).into_iter().map(|gap| blamed(gap, troubles)).collect();
    windows.sort_by(|a, b| (a.from_ms, &a.place).cmp(&(b.from_ms, &b.place)));
    windows
}

fn blamed(gap: Gap, troubles: &[Trouble]) -> Window {
    let Gap { place, ms, from_ms, .. } = gap;
    let (from, to) = (from_ms * NS_PER_MS, (from_ms + ms) * NS_PER_MS);
    let met = || troubles.iter().filter(|trouble| trouble.from_ns < to && trouble.to_ns > from);
    let during = met().next().map(|trouble| trouble.kind);
    Window { place, from_ms, ms, during, quorum: met().all(|trouble| trouble.quorum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from_ms: u64, ms: u64) -> Gap {
        Gap { place: "t/0".to_owned(), ms, from_ms, ended: true }
    }

    #[test]
    fn a_window_is_blamed_on_the_first_fault_that_it_met() {
        let trouble = |kind, quorum, from: u64, to: u64| Trouble {
            kind,
            quorum,
            from_ns: from * NS_PER_MS,
            to_ns: to * NS_PER_MS,
        };
        let troubles = [trouble("kill", true, 150, 900), trouble("kill-all", false, 1_450, 1_490)];
        let told = |from, ms| {
            let window = blamed(gap(from, ms), &troubles);
            (window.during, window.quorum)
        };
        assert_eq!(told(200, 1_200), (Some("kill"), true));
        assert_eq!(told(300, 1_200), (Some("kill"), false));
        assert_eq!(told(950, 540), (Some("kill-all"), false));
        assert_eq!(told(900, 500), (None, true), "it was over when the window began");
    }
}
