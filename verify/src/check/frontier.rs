//! The most that was known before a moment.

use crate::history::Moment;

/// Keeps the largest number told so far, with who told it; tellers of other files at the very same time do not count
/// yet. Moments given to it never go back.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    /// What was told at times before `now`.
    settled: Option<Known>,
    now: u64,
    /// What was told at the time `now`, the largest of each file.
    fresh: Vec<(u16, Known)>,
}

/// A number, and the call that told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) number: u64,
    pub(super) call: usize,
}

impl Frontier {
    /// At `at`, a call told a number.
    pub(super) fn tell(&mut self, at: Moment, known: Known) {
        self.advance(at.t);
        match self.fresh.iter_mut().find(|(file, _)| *file == at.file) {
            Some((_, most)) => *most = larger(*most, known),
            None => self.fresh.push((at.file, known)),
        }
    }

    /// The largest number that was certainly told before `at`.
    pub(super) fn before(&mut self, at: Moment) -> Option<Known> {
        self.advance(at.t);
        let same_file = self.fresh.iter().find(|(file, _)| *file == at.file).map(|(_, known)| *known);
        match (self.settled, same_file) {
            (Some(one), Some(other)) => Some(larger(one, other)),
            (one, other) => one.or(other),
        }
    }

    fn advance(&mut self, t: u64) {
        if t > self.now {
            self.now = t;
            for (_, known) in self.fresh.drain(..) {
                self.settled = Some(self.settled.map_or(known, |most| larger(most, known)));
            }
        }
    }
}

/// Of two that told the same number, the first is the witness.
fn larger(one: Known, other: Known) -> Known {
    if other.number > one.number { other } else { one }
}

/// Something told, or a question whose answer must not be less than what had been told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// A number is known from here on.
    Told(Known),
    /// A call begins whose own number is this.
    Asked(Known),
}

/// Walks through steps in the order of time and gives, for every call that asked, the largest number told before it
/// began if its own is smaller.
pub(super) fn falls_behind(mut steps: Vec<(Moment, Step)>) -> Vec<(Known, Known)> {
    // Stable: steps of one line stay as they came.
    steps.sort_by_key(|(at, _)| *at);
    let mut frontier = Frontier::default();
    let mut behind = Vec::new();
    for (at, step) in steps {
        match step {
            Step::Told(known) => frontier.tell(at, known),
            Step::Asked(own) => {
                if let Some(most) = frontier.before(at)
                    && own.number < most.number
                {
                    behind.push((own, most));
                }
            }
        }
    }
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(t: u64, file: u16, line: u32) -> Moment {
        Moment { t, file, line }
    }

    fn known(number: u64) -> Known {
        Known { number, call: 0 }
    }

    #[test]
    fn another_file_at_the_same_time_is_not_before() {
        let mut frontier = Frontier::default();
        frontier.tell(at(5, 0, 1), known(10));
        frontier.tell(at(5, 1, 1), known(20));
        assert_eq!(frontier.before(at(5, 0, 2)), Some(known(10)));
        assert_eq!(frontier.before(at(5, 2, 1)), None);
        assert_eq!(frontier.before(at(6, 2, 2)), Some(known(20)));
        frontier.tell(at(7, 0, 3), known(15));
        assert_eq!(frontier.before(at(8, 0, 4)), Some(known(20)), "it never goes back");
    }
}
