//! Calls that any broker answers, and which is asked first.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Response, Status};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use crate::ClientCore;
use crate::connection::Connection;
use crate::error::{CallFailure, ClientError};
use crate::retry::{Repeat, retry};

/// Time for one attempt and for all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) attempt: Duration,
    pub(crate) whole: Duration,
}

/// Which broker the first attempt goes to. Later ones go to any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Any,
    /// The one that coordinates consumer groups, as far as it is known.
    Coordinator,
}

impl ClientCore {
    /// The broker that coordinates consumer groups, with its address, if it is known and worth asking.
    pub(crate) fn coordinator(&self) -> Option<(u32, String)> {
        let id = self.coordinator.broker(Instant::now())?;
        Some((id, self.metadata.view().brokers.get(&id)?.address.clone()))
    }

    /// A call to the coordinator failed: others are asked for a while.
    pub(crate) fn shun_coordinator(&self, broker: u32) {
        self.coordinator.shun(broker, Instant::now());
    }

    /// Asks one broker, the next attempt another one. `wait` is time that the broker itself may take.
    pub(crate) async fn any_broker<Q, T, F, Fut>(
        &self,
        repeat: Repeat,
        wait: Duration,
        call: F,
        request: Q,
    ) -> Result<T, ClientError>
    where
        Q: Clone,
        F: Fn(Connection, Q) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = Duration::from_millis(u64::from(self.config.request_timeout_ms)) + wait;
        let patience = Patience { attempt, whole: attempt * 3 };
        let call = |connection| call(connection, request.clone());
        self.any_broker_within(patience, repeat, First::Any, call).await
    }

    /// The same with bounds of its own.
    pub(crate) async fn any_broker_within<T, F, Fut>(
        &self,
        patience: Patience,
        repeat: Repeat,
        first: First,
        call: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let call = &call;
        let attempt = |number: u32| async move {
            if let Some((id, address)) =
                self.coordinator().filter(|_| first == First::Coordinator && number == 0)
            {
                let answer = self.connections.call(&address, patience.attempt, call).await;
                if answer.as_ref().is_err_and(|failure| failure.error.retriable()) {
                    self.shun_coordinator(id);
                }
                return answer;
            }
            // In random order, so another attempt most likely asks another broker.
            let addresses = self.metadata.addresses();
            let Some(address) = addresses.first() else { return Err(CallFailure::definite(no_address())) };
            self.connections.call(address, patience.attempt, call).await
        };
        let deadline = Instant::now() + patience.whole;
        Ok(retry(&self.config.retry, &self.random, deadline, repeat, attempt).await?)
    }
}

pub(crate) fn no_address() -> ApiError {
    ApiError::new(ErrorCode::ConnectionFailed, "no broker address is known")
}
