//! Requests on their way to the writer.
//!
//! The queue itself has no bound of its own: what enters it is bounded before, bytes of producers and peers by the
//! [`ByteBudget`](super::ByteBudget), everything else by openraft, which waits for its votes and holds a bounded number
//! of appends per group.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::error::WalError;
use super::group::Group;
use crate::checkpoint::Checkpoint;
use crate::types::{DurableToken, LogPosition, Vote};

/// One thing to write or to do between writes.
pub(crate) enum Op {
    Entry {
        group: Arc<Group>,
        index: u64,
        term: u64,
        kind: u8,
        ticket: u64,
        body: Bytes,
        crc: u32,
        relocated: bool,
    },
    Vote {
        group: Arc<Group>,
        vote: Vote,
    },
    Truncate {
        group: Arc<Group>,
        from: u64,
    },
    Purge {
        group: Arc<Group>,
        upto: LogPosition,
    },
    Create {
        group: Arc<Group>,
    },
    Delete {
        group: Arc<Group>,
    },
    /// What a checkpoint at the present LSN has to say. Not written.
    Snapshot {
        id: u64,
        reply: oneshot::Sender<Checkpoint>,
    },
}

/// Called with the outcome of an append.
pub(crate) type Callback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Who is told when the request is durable.
pub(crate) enum Done {
    Nobody,
    Append { group: u64, coalesce: bool, callback: Callback, tokens: Vec<(LogPosition, Arc<DurableToken>)> },
    Signal(oneshot::Sender<Result<(), WalError>>),
}

/// A request.
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) done: Done,
}

impl Done {
    pub(crate) fn complete(self, outcome: Result<(), &WalError>) {
        match self {
            Self::Nobody => {}
            Self::Append { callback, tokens, .. } => {
                if outcome.is_ok() {
                    for (position, token) in tokens {
                        token.fire(position);
                    }
                }
                callback(outcome.map_err(|error| io::Error::from(error.again())));
            }
            Self::Signal(sender) => {
                let _ = sender.send(outcome.map_err(WalError::again));
            }
        }
    }
}

impl WalError {
    /// The same error for the next waiter.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Closed => Self::Closed,
            Self::Failed { reason } => Self::Failed { reason: reason.clone() },
            other => Self::Failed { reason: other.to_string() },
        }
    }
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    closed: bool,
    failed: Option<String>,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    notify: Notify,
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Work,
    Timeout,
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends requests in order, all or none.
    ///
    /// # Errors
    /// [`WalError::Failed`] or [`WalError::Closed`]; the requests are then completed with it.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = Request>) -> Result<(), WalError> {
        let mut state = self.lock();
        let refused = match (&state.failed, state.closed) {
            (Some(reason), _) => Some(WalError::Failed { reason: reason.clone() }),
            (None, true) => Some(WalError::Closed),
            (None, false) => None,
        };
        if let Some(error) = refused {
            drop(state);
            for request in requests {
                request.done.complete(Err(&error));
            }
            return Err(error);
        }
        let was_empty = state.requests.is_empty();
        state.requests.extend(requests);
        drop(state);
        if was_empty {
            self.ready.notify_one();
            self.notify.notify_one();
        }
        Ok(())
    }

    /// Takes requests from the front while `take` says so.
    pub(crate) fn take_while(&self, mut take: impl FnMut(&Request) -> bool) -> Vec<Request> {
        let mut state = self.lock();
        let count = state.requests.iter().take_while(|request| take(request)).count();
        state.requests.drain(..count).collect()
    }

    /// Blocks the thread until there is work, for at most `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Waited {
        let state = self.lock();
        let idle = |state: &mut State| state.requests.is_empty() && !state.closed;
        let state = match timeout {
            Some(timeout) => {
                let waited = self.ready.wait_timeout_while(state, timeout, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.ready.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
        };
        Self::waited(&state)
    }

    /// Waits for work without blocking a thread, for at most `timeout`.
    pub(crate) async fn wait_async(&self, timeout: Option<Duration>) -> Waited {
        let work = async {
            loop {
                let waited = Self::waited(&self.lock());
                if waited != Waited::Timeout {
                    return waited;
                }
                self.notify.notified().await;
            }
        };
        match timeout {
            Some(timeout) => tokio::time::timeout(timeout, work).await.unwrap_or(Waited::Timeout),
            None => work.await,
        }
    }

    fn waited(state: &State) -> Waited {
        match (state.requests.is_empty(), state.closed) {
            (false, _) => Waited::Work,
            (true, true) => Waited::Closed,
            (true, false) => Waited::Timeout,
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
        self.notify.notify_one();
    }

    /// Fails every request that waits or comes.
    pub(crate) fn fail(&self, error: &WalError) {
        let requests = {
            let mut state = self.lock();
            state.failed = Some(match error {
                WalError::Failed { reason } => reason.clone(),
                other => other.to_string(),
            });
            std::mem::take(&mut state.requests)
        };
        for request in requests {
            request.done.complete(Err(error));
        }
    }
}
