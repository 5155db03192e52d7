//! Histories of a cluster that keeps its word, and the same broken in one way: what a judge is tested with, here and
//! wherever else histories are read. Only with the feature `mutants`.

use super::generate::{self, Rng};
use super::mutate::{MUTATORS, Plant};
use super::{Anomaly, Expectations};
use crate::history::History;

/// A history in which nothing is wrong, of about `steps` steps, and what may be expected of it. One seed, one history.
#[must_use]
pub fn clean(seed: u64, steps: u64) -> (History, Expectations) {
    generate::history(seed, steps)
}

/// Every way to break a history: in words, and the anomaly by whose name it must be found.
#[must_use]
pub fn ways() -> Vec<(&'static str, Anomaly)> {
    MUTATORS.iter().map(|(name, anomaly, _)| (*name, *anomaly)).collect()
}

/// The history of [`clean`] broken in one of the [`ways`], by its place in that list; `None` if this history has no place
/// for it or there is no such way.
#[must_use]
pub fn broken(way: usize, seed: u64, steps: u64) -> Option<(History, Expectations)> {
    let (_, _, plant) = MUTATORS.get(way)?;
    let (mut history, expectations) = clean(seed, steps);
    let mut rng = Rng(seed);
    plant(&mut Plant { history: &mut history, expectations, rng: &mut rng })
        .then_some((history, expectations))
}
