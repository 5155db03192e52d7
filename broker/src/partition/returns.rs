//! Patience with a preferred leader: each time that leadership comes back from it soon, the next try waits twice as long.
//!
//! A replica gives leadership away because its disk is full or its records are damaged; handed back every few seconds, the
//! partition would change its leader for as long as that lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use wire::ids::RaftGroupId;

/// A replica must have led for this long before leadership goes to the preferred one, so that it does not bounce.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// A hand-over this long ago says nothing about the next.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);

/// Hand-overs of this broker to preferred replicas: when the last one of a group was, and how many there were in a row.
#[derive(Debug, Default)]
pub(super) struct Returns(BTreeMap<RaftGroupId, (Instant, u32)>);

impl Returns {
    /// How long this broker leads a group before it hands it to the preferred replica.
    pub(super) fn wait(&self, group: RaftGroupId, now: Instant) -> Duration {
        let times = self.in_a_row(group, now);
        SETTLED_AFTER.saturating_mul(2_u32.saturating_pow(times)).min(WAIT_MAX)
    }

    /// Leadership of a group was handed to the preferred replica, or that was tried.
    pub(super) fn note(&mut self, group: RaftGroupId, now: Instant) {
        self.0.retain(|_, (at, _)| now.saturating_duration_since(*at) < FORGOTTEN_AFTER);
        let times = self.in_a_row(group, now);
        self.0.insert(group, (now, times + 1));
    }

    fn in_a_row(&self, group: RaftGroupId, now: Instant) -> u32 {
        let recent =
            self.0.get(&group).filter(|(at, _)| now.saturating_duration_since(*at) < FORGOTTEN_AFTER);
        recent.map_or(0, |(_, times)| *times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_that_comes_back_waits_longer_each_time_until_that_is_long_ago() {
        let (mut returns, group, mut now) = (Returns::default(), RaftGroupId(7), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            waits.push(returns.wait(group, now).as_secs());
            returns.note(group, now);
            now += Duration::from_secs(5);
        }
        assert_eq!(waits, [3, 6, 12, 24, 48, 96, 192, 384, 600, 600]);
        assert_eq!(returns.wait(RaftGroupId(8), now), SETTLED_AFTER);
        assert_eq!(returns.wait(group, now + FORGOTTEN_AFTER), SETTLED_AFTER);
    }
}
