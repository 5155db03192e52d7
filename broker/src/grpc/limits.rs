//! What stands around every call: a deadline, and a bound on the requests, and the bytes of them, that one connection may
//! have in progress.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyStream, StreamBody};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;
use wire::api_error::ApiError;

use super::deadline::patience;
use crate::api::{InFlight, RequestGuard};

/// No call takes longer until its answer begins: the longest wait a client may ask for is 60 s.
const CALL_DEADLINE: Duration = Duration::from_secs(150);

/// Calls whose requests are streams count the bytes of each message themselves, as they take it off the stream.
const STREAMED_REQUESTS: [&str; 3] = [
    "/altair.v1.Broker/ProduceStream",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The services as one connection may call them.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    services: Routes,
    in_flight: InFlight,
    from: ClientAddress,
}

/// The connection has many calls in progress: marks requests that should not wait without need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowded;

/// Where a call comes from; every request carries it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(SocketAddr);

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The port says nothing to anyone who looks later.
        self.0.ip().fmt(f)
    }
}

impl Limited {
    pub(super) fn new(services: Routes, in_flight: InFlight, from: SocketAddr) -> Self {
        Self { services, in_flight, from: ClientAddress(from) }
    }
}

type Response = http::Response<Body>;

impl Service<http::Request<hyper::body::Incoming>> for Limited {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.services, cx)
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        let is_crowded = self.in_flight.is_crowded();
        let guard = match self.in_flight.begin() {
            Ok(guard) => Arc::new(guard),
            Err(error) => return refuse(error),
        };
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.from);
        if is_crowded {
            request.extensions_mut().insert(Crowded);
        }
        let counted = if STREAMED_REQUESTS.contains(&request.uri().path()) {
            request
        } else {
            request.map(|body| count_bytes(body, guard.clone()))
        };
        let patience = patience(counted.headers(), CALL_DEADLINE);
        let answered = tokio::time::timeout(patience, self.services.call(counted));
        Box::pin(async move {
            match answered.await {
                Ok(answer) => Ok(answer?.map(|body| hold(body, guard))),
                Err(_elapsed) => {
                    let text = format!("the call was not answered within {} ms", patience.as_millis());
                    Ok(Status::deadline_exceeded(text).into_http())
                }
            }
        })
    }
}

fn refuse(error: ApiError) -> BoxFuture<'static, Result<Response, Infallible>> {
    Box::pin(std::future::ready(Ok(Status::from(error).into_http())))
}

/// Ends the body with an error when the connection has too many bytes in progress.
fn count_bytes(body: Body, guard: Arc<RequestGuard>) -> Body {
    let frames = BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
        guard.add_bytes(bytes).map_err(Status::from)?;
        Ok::<_, Status>(frame)
    });
    Body::new(StreamBody::new(frames))
}

/// Keeps the request counted until its whole answer is sent.
fn hold(body: Body, guard: Arc<RequestGuard>) -> Body {
    let frames = BodyStream::new(body).map(move |frame| {
        let _held = &guard;
        frame
    });
    Body::new(StreamBody::new(frames))
}
