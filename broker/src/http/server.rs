//! Accepts connections and serves HTTP/1.1 on each, within bounds.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::router;
use crate::api::{Admission, Api};
use crate::runtime::{BoxStream, Listener, Tasks};

/// A client that has not sent its whole request head by then is cut off (slow loris).
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Request heads larger than this are refused.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers more than this are refused.
const HEADERS_MAX: usize = 64;
/// A connection is closed after this long whatever it does; scrapers open another.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// Pause after an accept failed (file descriptors ran out), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The HTTP door of a broker.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    tasks: Tasks,
}

impl HttpServer {
    /// Serves `api` on a listener until the scope of `tasks` ends.
    ///
    /// # Errors
    /// As the operating system says about the listener's address.
    pub fn start(listener: Box<dyn Listener>, api: Api, tasks: Tasks) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        tasks.spawn("http-accept", 0, accept_loop(listener, api, tasks.clone()));
        Ok(Self { address, tasks })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests in progress end, and cuts off what is left at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        self.tasks.shutdown(deadline).await;
    }
}

async fn accept_loop(listener: Box<dyn Listener>, api: Api, tasks: Tasks) {
    let stop = tasks.token();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _from)) => {
                let Some(admission) = api.connections().admit() else { continue };
                let serving = serve_connection(stream, api.clone(), admission, stop.clone());
                tasks.spawn("http-connection", 0, serving);
            }
            Err(error) => {
                api.connections().note_error();
                tracing::warn!(%error, "accepting an HTTP connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: BoxStream, api: Api, admission: Admission, stop: CancellationToken) {
    let service = service_fn(|request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(router::answer(&api, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A client that has said all it has to say may still read the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ended(&stop) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = served {
        api.connections().note_error();
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
    drop(admission);
}

/// Waits for the broker's shutdown or for the connection's greatest age.
async fn ended(stop: &CancellationToken) {
    let _ = tokio::time::timeout(CONNECTION_AGE_MAX, stop.cancelled()).await;
}
