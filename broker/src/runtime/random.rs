//! Seeded randomness: ids, jitter, election timeouts.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, RngExt, SeedableRng};
use uuid::Uuid;

/// Source of random numbers; clones draw from the same stream, so that one seed fixes a whole broker.
#[derive(Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// A stream that this seed alone decides.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A stream seeded by the operating system.
    ///
    /// # Errors
    /// If the operating system gives no entropy.
    pub fn from_os() -> std::io::Result<Self> {
        let rng = StdRng::try_from_rng(&mut SysRng).map_err(std::io::Error::other)?;
        Ok(Self(Arc::new(Mutex::new(rng))))
    }

    fn rng(&self) -> MutexGuard<'_, StdRng> {
        // A generator is valid after any panic of another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A uniform number.
    #[must_use]
    pub fn u64(&self) -> u64 {
        self.rng().next_u64()
    }

    /// A uniform number that is not 0.
    #[must_use]
    pub fn nonzero_u64(&self) -> u64 {
        loop {
            let drawn = self.u64();
            if drawn != 0 {
                return drawn;
            }
        }
    }

    /// A uniform number of the range; its start if the range is empty.
    #[must_use]
    pub fn range(&self, range: Range<u64>) -> u64 {
        if range.is_empty() { range.start } else { self.rng().random_range(range) }
    }

    /// A random (version 4) UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0_u8; 16];
        self.rng().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn one_seed_gives_one_stream() {
        let (a, b) = (Random::from_seed(7), Random::from_seed(7));
        assert_eq!(a.u64(), b.u64());
        assert_eq!(a.uuid(), b.uuid());
        assert_ne!(Random::from_seed(8).u64(), Random::from_seed(7).u64());
    }

    #[test]
    fn range_stays_inside_and_accepts_an_empty_one() {
        let random = Random::from_os().unwrap();
        assert!((0..100).all(|_| (3..5).contains(&random.range(3..5))));
        assert_eq!(random.range(9..9), 9);
        assert_ne!(random.nonzero_u64(), 0);
    }
}
