//! The one way to stop a broker that must not go on.

use std::sync::Arc;

use tokio::sync::watch;

/// Handle that any part of the broker can pull when going on would be wrong: a failed fsync, a panic, a state machine
/// that disagrees with itself. A stopped replica is repaired, a wrong one spreads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fatal(Arc<watch::Sender<Option<String>>>);

impl Default for Fatal {
    fn default() -> Self {
        Self::new()
    }
}

impl Fatal {
    /// A handle that nobody has pulled.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Asks the broker to stop; only the first reason is kept, since the others follow from it.
    pub fn stop(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.send_if_modified(|slot| {
            if slot.is_some() {
                return false;
            }
            tracing::error!(reason = %reason, "the broker must stop");
            *slot = Some(reason);
            true
        });
    }

    /// The reason, once there is one.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until someone asks the broker to stop, and returns the reason.
    ///
    /// # Cancel safety
    /// Safe: the reason stays readable.
    pub async fn stopped(&self) -> String {
        let mut seen = self.0.subscribe();
        loop {
            if let Some(reason) = seen.borrow_and_update().clone() {
                return reason;
            }
            if seen.changed().await.is_err() {
                // Unreachable while `self` lives, because it owns the sender.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Fatal;

    #[tokio::test]
    async fn first_reason_is_kept_and_seen_by_late_waiters() {
        let fatal = Fatal::new();
        assert_eq!(fatal.reason(), None);
        fatal.stop("disk");
        fatal.stop("later");
        assert_eq!(fatal.stopped().await, "disk");
        assert_eq!(fatal.reason().as_deref(), Some("disk"));
    }
}
