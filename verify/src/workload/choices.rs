//! The choices of one worker, all from the workload's seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A worker's own sequence: adding or removing another worker does not change it.
#[derive(Debug)]
pub(super) struct Choices(StdRng);

impl Choices {
    pub(super) fn new(seed: u64, worker: u32) -> Self {
        // An odd multiplier spreads neighbouring workers over all seeds.
        let spread = u64::from(worker).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(StdRng::seed_from_u64(seed ^ spread))
    }

    /// A number in `0..bound`; 0 for an empty range.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// An element; `None` of nothing.
    pub(super) fn one_of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let at = self.below(list.len() as u64);
        list.get(usize::try_from(at).unwrap_or(0))
    }

    /// A time between half and one and a half of `mean`.
    pub(super) fn around(&mut self, mean: Duration) -> Duration {
        let mean_us = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX / 2);
        Duration::from_micros(mean_us / 2 + self.below(mean_us + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_worker_choose_the_same() {
        let numbers = |seed, worker| {
            let mut choices = Choices::new(seed, worker);
            (0..8).map(|_| choices.below(1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(3, 1), numbers(3, 1));
        assert_ne!(numbers(3, 1), numbers(3, 2));
        assert_ne!(numbers(3, 1), numbers(4, 1));
    }

    #[test]
    fn times_stay_around_their_mean() {
        let mut choices = Choices::new(1, 1);
        let mean = Duration::from_millis(100);
        for _ in 0..1_000 {
            let time = choices.around(mean);
            assert!(time >= mean / 2 && time <= mean * 3 / 2, "{time:?}");
        }
        assert_eq!(choices.around(Duration::ZERO), Duration::ZERO);
        assert_eq!(choices.one_of::<u8>(&[]), None);
    }
}
