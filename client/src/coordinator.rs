//! Which broker coordinates consumer groups, by the word of the brokers that answered: a group call that goes there need not
//! be passed on. Any other broker answers, too, so nothing depends on this being right.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A coordinator that did not answer is reached through other brokers for this long: they may reach it where this client
/// cannot, or name it before they know that it is gone.
const SHUNNED_FOR: Duration = Duration::from_secs(30);

/// What all members of one client know.
#[derive(Debug, Default)]
pub(crate) struct Coordinator(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<u32>,
    /// Until when which broker is not asked before others.
    shunned: Option<(u32, Instant)>,
}

impl Coordinator {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an answer says; `None` = the broker that answered knows none.
    pub(crate) fn learn(&self, broker: Option<u32>) {
        self.lock().known = broker;
    }

    /// The broker to ask first.
    pub(crate) fn broker(&self, now: Instant) -> Option<u32> {
        let state = self.lock();
        let is_shunned = |id| state.shunned.is_some_and(|(shunned, until)| shunned == id && now < until);
        state.known.filter(|known| !is_shunned(*known))
    }

    /// It did not answer, or should rather be left to others: it is not asked first for a while.
    pub(crate) fn shun(&self, broker: u32, now: Instant) {
        self.lock().shunned = Some((broker, now + SHUNNED_FOR));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_failed_is_left_alone_for_a_while() {
        let coordinator = Coordinator::default();
        let now = Instant::now();
        assert_eq!(coordinator.broker(now), None);
        coordinator.learn(Some(1));
        assert_eq!(coordinator.broker(now), Some(1));
        coordinator.shun(1, now);
        // Another broker does not know yet that it is gone.
        coordinator.learn(Some(1));
        assert_eq!(coordinator.broker(now), None);
        coordinator.learn(Some(2));
        assert_eq!(coordinator.broker(now), Some(2), "its successor is asked at once");
        coordinator.learn(Some(1));
        assert_eq!(coordinator.broker(now), None);
        assert_eq!(coordinator.broker(now + SHUNNED_FOR), Some(1));
        coordinator.learn(None);
        assert_eq!(coordinator.broker(now + SHUNNED_FOR), None);
    }
}
