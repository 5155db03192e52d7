//! Seedable randomness for jitter and first choices; nothing here is secret.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::TryRng;
use rand::rngs::SysRng;

/// A shared sequence of pseudo-random numbers (SplitMix64). The same seed gives the same sequence.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    /// Starts from `seed`, or from the operating system's randomness.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        // Without randomness from the system jitter still spreads calls in time; it just repeats between runs.
        let seed = seed.unwrap_or_else(|| SysRng.try_next_u64().unwrap_or(0x9e37_79b9_7f4a_7c15));
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        let mut z =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 for an empty range.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (a, b) = (Random::new(Some(7)), Random::new(Some(7)));
        let numbers: Vec<u64> = (0..4).map(|_| a.next()).collect();
        assert_eq!(numbers, (0..4).map(|_| b.next()).collect::<Vec<_>>());
        assert_eq!(a.below(0), 0);
    }
}
