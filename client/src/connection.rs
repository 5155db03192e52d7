//! One connection for each broker address, opened on demand, shared by all calls, opened again after a loss.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::pb::admin_client::AdminClient;
use wire::pb::broker_client::BrokerClient;
use wire::pb::groups_client::GroupsClient;

use crate::config::ClientConfig;
use crate::error::CallFailure;

/// A byte stream to a broker.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Makes connections.
// SEAM: TCP in production; a simulation plugs its own network in.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to `address` (`host:port`).
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>>;
}

/// Connections over TCP, with Nagle's delay off.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnect;

impl Connect for TcpConnect {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        let address = address.to_owned();
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        }
        .boxed()
    }
}

type Opening = Shared<BoxFuture<'static, Result<Channel, ApiError>>>;

struct Slot {
    generation: u64,
    opening: Opening,
}

/// The pool. Bounded by the number of brokers: addresses come from metadata, the bootstrap list, and callers that name one
/// broker.
pub(crate) struct Connections {
    config: ClientConfig,
    slots: Mutex<BTreeMap<String, Slot>>,
    opened: AtomicU64,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// An open connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    address: String,
    generation: u64,
    channel: Channel,
    message_bytes_max: usize,
}

impl Connection {
    pub(crate) fn broker(&self) -> BrokerClient<Channel> {
        BrokerClient::new(self.channel.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }
}

impl Connections {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self { config, slots: Mutex::new(BTreeMap::new()), opened: AtomicU64::new(0) }
    }

    /// The connection to `address`, opened if there is none. Callers that come while it is being opened share the attempt.
    ///
    /// # Cancel safety
    /// Safe: an abandoned attempt is finished by the next caller.
    pub(crate) async fn get(&self, address: &str) -> Result<Connection, CallFailure> {
        let (generation, opening) = {
            let mut slots = self.lock();
            let slot = slots.entry(address.to_owned()).or_insert_with(|| Slot {
                generation: self.opened.fetch_add(1, Ordering::Relaxed),
                opening: open(&self.config, address),
            });
            (slot.generation, slot.opening.clone())
        };
        match opening.await {
            Ok(channel) => Ok(Connection {
                address: address.to_owned(),
                generation,
                channel,
                message_bytes_max: self.config.message_bytes_max as usize,
            }),
            Err(error) => {
                self.remove(address, generation);
                // Nothing was sent, so nothing can have happened.
                Err(CallFailure::definite(error))
            }
        }
    }

    /// Drops a connection that failed; the next call opens another one.
    pub(crate) fn forget(&self, connection: &Connection) {
        self.remove(&connection.address, connection.generation);
    }

    /// Makes one call and tells whether a failure was certain.
    pub(crate) async fn call<T, F, Fut>(
        &self,
        address: &str,
        timeout: Duration,
        call: F,
    ) -> Result<T, CallFailure>
    where
        F: FnOnce(Connection) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let connection = self.get(address).await?;
        match tokio::time::timeout(timeout, call(connection.clone())).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                let failure = failure_of(&status, address);
                if status.details().is_empty() && is_transport(status.code()) {
                    self.forget(&connection);
                }
                Err(failure)
            }
            Err(_elapsed) => {
                // A broker that does not answer may be stopped or cut off: the next attempt proves it.
                self.forget(&connection);
                let message = format!("broker {address} did not answer within {} ms", timeout.as_millis());
                Err(CallFailure::unknown(ApiError::new(ErrorCode::OutcomeUnknown, message)))
            }
        }
    }

    fn remove(&self, address: &str, generation: u64) {
        let mut slots = self.lock();
        if slots.get(address).is_some_and(|slot| slot.generation == generation) {
            slots.remove(address);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a gRPC status says about the call.
pub(crate) fn failure_of(status: &Status, address: &str) -> CallFailure {
    let mut error = ApiError::from_status(status);
    if status.details().is_empty() {
        if is_transport(status.code()) {
            error =
                ApiError::new(ErrorCode::ConnectionLost, format!("lost the connection to broker {address}"))
                    .reason(status.message());
        } else {
            error = error.reason(format!("answered by broker {address}"));
        }
    }
    CallFailure { definite: error.definite(), error }
}

/// Codes that tonic gives when the connection broke under a call.
fn is_transport(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted)
}

fn open(config: &ClientConfig, address: &str) -> Opening {
    let endpoint = endpoint(config, address);
    let connect = Arc::clone(&config.connect);
    let timeout = Duration::from_millis(u64::from(config.connect_timeout_ms));
    let address = address.to_owned();
    async move {
        let endpoint = endpoint.map_err(|reason| {
            ApiError::new(ErrorCode::ConnectionFailed, format!("`{address}` is not an address"))
                .reason(reason)
        })?;
        let target = address.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let opened = connect.connect(&target);
            async move { opened.await.map(TokioIo::new) }
        });
        let failed = |reason: String| {
            ApiError::new(ErrorCode::ConnectionFailed, format!("cannot connect to broker {address}"))
                .reason(reason)
                .hint("check that the broker runs and that the address is its gRPC address")
        };
        match tokio::time::timeout(timeout, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(failed(root_cause(&error))),
            Err(_elapsed) => Err(failed(format!("no answer within {} ms", timeout.as_millis()))),
        }
    }
    .boxed()
    .shared()
}

fn endpoint(config: &ClientConfig, address: &str) -> Result<Endpoint, String> {
    let keep_alive = Duration::from_millis(u64::from(config.keep_alive_ms));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    Ok(endpoint
        .user_agent(config.client_id.clone())
        .map_err(|error| error.to_string())?
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        .keep_alive_while_idle(true)
        // Windows of a few fetch answers: a smaller one stalls a consumer once per round trip.
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        // An answer in a few frames: with the default of 16 KiB each costs two reads of the socket.
        .max_frame_size(FRAME_BYTES)
        .tcp_nodelay(true))
}

/// Largest frame that a broker may send.
const FRAME_BYTES: u32 = 1 << 20;

/// The innermost error says what went wrong ("connection refused"); the outer ones only that something did.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
