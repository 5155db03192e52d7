//! The high watermark of one replica: the end of what it has applied, and those who wait for it to move.
//!
//! **Invariant (I5):** it never goes back, and nothing at or above it is shown to a consumer.

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wire::ids::Offset;

/// The high watermark and its waiters. Cheap to read; moved once per applied run of entries.
#[derive(Debug)]
pub struct HighWatermark {
    value: watch::Sender<u64>,
}

impl HighWatermark {
    /// A watermark that stands at `start`.
    #[must_use]
    pub fn new(start: Offset) -> Self {
        Self { value: watch::Sender::new(start.0) }
    }

    /// First offset that is not yet committed on this replica.
    #[must_use]
    pub fn get(&self) -> Offset {
        Offset(*self.value.borrow())
    }

    /// Moves the watermark forward and wakes all waiters; a value that is not ahead changes nothing.
    pub fn advance(&self, to: Offset) {
        self.value.send_if_modified(|value| {
            let moved = to.0 > *value;
            if moved {
                *value = to.0;
            }
            moved
        });
    }

    /// Waits until the watermark is beyond `offset`; returns at once if it is.
    ///
    /// # Errors
    /// [`WaitElapsed`] once the deadline has passed or the replica is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait_past(&self, offset: Offset, deadline: Instant) -> Result<Offset, WaitElapsed> {
        let mut watching = self.value.subscribe();
        match timeout_at(deadline, watching.wait_for(|value| *value > offset.0)).await {
            Ok(Ok(value)) => Ok(Offset(*value)),
            Ok(Err(_)) | Err(_) => Err(WaitElapsed),
        }
    }
}

/// The watermark did not move past the wanted offset in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the high watermark did not move in time")]
pub struct WaitElapsed;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_never_goes_back() {
        let mark = HighWatermark::new(Offset(5));
        mark.advance(Offset(3));
        assert_eq!(mark.get(), Offset(5));
        mark.advance(Offset(9));
        assert_eq!(mark.get(), Offset(9));
    }

    #[tokio::test]
    async fn a_waiter_wakes_when_the_mark_passes_its_offset() {
        let mark = Arc::new(HighWatermark::new(Offset(5)));
        let deadline = Instant::now() + Duration::from_secs(10);
        let waiting = mark.wait_past(Offset(5), deadline);
        let moving = async { mark.advance(Offset(6)) };
        let (woken, ()) = tokio::join!(waiting, moving);
        assert_eq!(woken, Ok(Offset(6)));
        assert_eq!(mark.wait_past(Offset(2), deadline).await, Ok(Offset(6)));
    }

    #[tokio::test]
    async fn a_waiter_gives_up_at_its_deadline() {
        let mark = HighWatermark::new(Offset(5));
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(mark.wait_past(Offset(5), deadline).await, Err(WaitElapsed));
        assert!(Instant::now() >= deadline);
    }
}
