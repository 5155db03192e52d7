//! How many clients are connected, over all doors, and what one of them has in progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::metrics::ApiMetrics;

/// What a client is told to wait after a refusal.
const RETRY_AFTER_MS: u32 = 100;

/// The bound on open connections, shared by the doors; cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    places: Arc<Semaphore>,
    metrics: ApiMetrics,
    per_connection: PerConnection,
}

#[derive(Debug, Clone, Copy)]
struct PerConnection {
    requests: usize,
    bytes: u64,
}

impl Connections {
    /// Bounds from the `limits` section.
    pub fn new(limits: &crate::config::LimitsConfig, metrics: ApiMetrics) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(count(limits.connections))),
            metrics,
            per_connection: PerConnection {
                requests: count(limits.in_flight_requests),
                bytes: limits.in_flight_bytes,
            },
        }
    }

    /// A place for one more connection, or `None` when all are taken: the caller closes it.
    pub fn admit(&self) -> Option<Admission> {
        self.metrics.connections.inc();
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.metrics.connection_errors.inc();
            return None;
        };
        self.metrics.active_connections.inc();
        let in_flight = InFlight {
            requests: Arc::new(Semaphore::new(self.per_connection.requests)),
            requests_max: self.per_connection.requests,
            bytes: Arc::new(AtomicU64::new(0)),
            bytes_max: self.per_connection.bytes,
        };
        Some(Admission { _place: place, metrics: self.metrics.clone(), in_flight })
    }

    /// Notes a connection that broke or was closed for misbehaving.
    pub fn note_error(&self) {
        self.metrics.connection_errors.inc();
    }
}

/// One open connection; dropping it makes room for another.
#[derive(Debug)]
pub struct Admission {
    _place: OwnedSemaphorePermit,
    metrics: ApiMetrics,
    in_flight: InFlight,
}

impl Admission {
    /// What this connection has in progress.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.metrics.active_connections.dec();
    }
}

/// Requests and bytes in progress on one connection; cheap to clone.
#[derive(Debug, Clone)]
pub struct InFlight {
    requests: Arc<Semaphore>,
    requests_max: usize,
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
}

impl InFlight {
    /// True if more than half of the places are taken: a call that only waits for news should not wait here.
    pub fn is_crowded(&self) -> bool {
        self.requests.available_permits() < self.requests_max / 2
    }

    /// A place for one more request.
    ///
    /// # Errors
    /// `Overloaded` when the connection has too many in progress.
    pub fn begin(&self) -> Result<RequestGuard, ApiError> {
        let place = self
            .requests
            .clone()
            .try_acquire_owned()
            .map_err(|_| overloaded("too many requests in progress on this connection"))?;
        Ok(RequestGuard {
            _place: place,
            total: self.bytes.clone(),
            bytes_max: self.bytes_max,
            own: AtomicU64::new(0),
        })
    }
}

fn overloaded(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Overloaded, message)
        .reason("limits.in_flight_requests and limits.in_flight_bytes bound what one connection may have in progress")
        .retry_after_ms(RETRY_AFTER_MS)
}

/// One request in progress with the bytes it brought; dropping it gives both back.
#[derive(Debug)]
pub struct RequestGuard {
    _place: OwnedSemaphorePermit,
    total: Arc<AtomicU64>,
    bytes_max: u64,
    own: AtomicU64,
}

impl RequestGuard {
    /// Counts bytes that have arrived.
    ///
    /// # Errors
    /// `Overloaded` when the connection has too many bytes in progress; the request must end.
    pub fn add_bytes(&self, bytes: usize) -> Result<(), ApiError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.own.fetch_add(bytes, Ordering::Relaxed);
        let before = self.total.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.bytes_max {
            return Err(overloaded("too many bytes in progress on this connection"));
        }
        Ok(())
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.total.fetch_sub(self.own.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LimitsConfig;

    fn connections(limits: LimitsConfig) -> Connections {
        Connections::new(&limits, ApiMetrics::new(&mut prometheus_client::registry::Registry::default()))
    }

    #[test]
    fn a_connection_too_many_is_refused_until_another_closes() {
        let doors = connections(LimitsConfig { connections: 1, ..Default::default() });
        let first = doors.admit().expect("the first");
        assert!(doors.admit().is_none());
        drop(first);
        assert!(doors.admit().is_some());
        assert_eq!(doors.metrics.connection_errors.get(), 1);
        assert_eq!(doors.metrics.active_connections.get(), 0);
    }

    #[test]
    fn requests_and_bytes_of_one_connection_are_bounded_and_given_back() {
        let limits = LimitsConfig { in_flight_requests: 2, in_flight_bytes: 100, ..Default::default() };
        let connection = connections(limits).admit().expect("a place").in_flight();
        let first = connection.begin().expect("the first");
        let second = connection.begin().expect("the second");
        assert_eq!(connection.begin().expect_err("a third").code, ErrorCode::Overloaded);
        first.add_bytes(60).expect("60 of 100");
        let refused = second.add_bytes(60).expect_err("120 of 100");
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::Overloaded, RETRY_AFTER_MS));
        drop((first, second));
        connection.begin().expect("room again").add_bytes(100).expect("all bytes back");
    }
}
