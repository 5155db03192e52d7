//! Raft term → leader epoch: the only place where a term becomes something that clients see.

use wire::ids::LeaderEpoch;

/// The leader epoch of a term. A batch carries it as an `i32`, so terms beyond `i32::MAX` (2^31 elections of one group)
/// stay at the last one that fits; it never goes back.
#[must_use]
pub fn leader_epoch(term: u64) -> LeaderEpoch {
    const LAST: u32 = i32::MAX as u32;
    LeaderEpoch(u32::try_from(term).unwrap_or(LAST).min(LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_the_term_and_never_goes_back() {
        assert_eq!(leader_epoch(7), LeaderEpoch(7));
        assert_eq!(leader_epoch(u64::MAX), leader_epoch(u64::from(u32::MAX)));
        assert!(leader_epoch(u64::MAX) >= leader_epoch(1 << 31));
    }
}
