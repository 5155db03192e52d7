//! The background tasks of one owner: they end when the owner is dropped.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Tasks of one client, producer or consumer. Dropping it cancels the token and aborts what still runs.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts a task that ends by itself or with the owner.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished tasks keep their result until someone asks for it.
        while let Some(ended) = set.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "client task panicked");
            }
        }
        set.spawn(task);
    }

    /// Cancelled when the owner stops.
    pub(crate) fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks all tasks to end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until then; for ever without a time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
