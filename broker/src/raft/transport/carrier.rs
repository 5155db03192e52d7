//! What carries the frames today: two gRPC streams per directed pair of brokers, each on an HTTP/2 connection of its
//! own. The greeting travels in the headers of the call, so that a stranger's bytes are never read as frames.
//!
//! The connections run as tasks of the broker and over its own network seam; nothing here dials or spawns by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Request, Response, Status, Streaming};
use wire::internal::Frames;
use wire::internal::peer_client::PeerClient;
use wire::internal::peer_server::{Peer, PeerServer};

use super::super::identity::Hello;
use super::channel::Channel;
use super::frame::FRAME_MAX;
use crate::runtime::{BoxStream, HttpExecutor, Tasks};

/// Header that carries a [`Hello`].
const HELLO_HEADER: &str = "altair-hello-bin";
/// A message holds at most one frame of the largest size; the rest is the carrier's own envelope.
const MESSAGE_MAX: usize = FRAME_MAX + 1024;
/// Bytes of headers before a greeting was understood.
const HEADERS_MAX: u32 = 64 << 10;
/// Flow-control window of a stream: what may be under way towards a receiver that reads all the time.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes that a sender may hold ready below the lanes, where nothing overtakes any more.
const SEND_BUFFER: usize = 256 << 10;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Road {
    /// Votes, beats, calls, appends.
    Control,
    /// Snapshots and their ranges.
    Bulk,
}

/// The frames of a channel as the body of a call.
struct Outgoing {
    channel: Arc<Channel>,
    carrier: u64,
}

impl Outgoing {
    fn of(channel: Arc<Channel>) -> Self {
        let carrier = channel.carrier();
        Self { channel, carrier }
    }
}

impl Stream for Outgoing {
    type Item = Frames;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        self.channel.next_chunk(self.carrier, cx).map(|chunk| chunk.map(|data| Frames { data }))
    }
}

/// As [`Outgoing`], in the type that a server answers with.
pub(crate) struct Answers(Outgoing);

impl Stream for Answers {
    type Item = Result<Frames, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|frames| frames.map(Ok))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // The call was given up by the peer or by HTTP/2: nobody takes answers any more.
        self.0.channel.close();
    }
}

/// Frames that come in.
pub(crate) struct Incoming(Streaming<Frames>);

impl Incoming {
    /// The next bytes, whole frames by contract; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        Ok(self.0.message().await?.map(|frames| frames.data))
    }
}

/// hyper's sender as the service that tonic's client wants.
#[derive(Clone)]
struct Sender(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Sender {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Why a peer could not be reached over a fresh connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("the peer's greeting is wrong: {0}")]
    Hello(String),
    #[error("the peer did not answer the greeting in time")]
    Deadline,
}

/// Opens one stream over a fresh connection: says who we are, and hears who the peer is.
pub(crate) async fn dial(
    stream: BoxStream,
    road: Road,
    hello: &Hello,
    outgoing: Arc<Channel>,
    tasks: &Tasks,
) -> Result<(Hello, Incoming), DialError> {
    let deadline = Duration::from_secs(2);
    tokio::time::timeout(deadline, Box::pin(greet(stream, road, hello, outgoing, tasks)))
        .await
        .map_err(|_| DialError::Deadline)?
}

async fn greet(
    stream: BoxStream,
    road: Road,
    hello: &Hello,
    outgoing: Arc<Channel>,
    tasks: &Tasks,
) -> Result<(Hello, Incoming), DialError> {
    let (sender, connection) =
        hyper::client::conn::http2::Builder::new(HttpExecutor::new(tasks.clone(), "peer-http2"))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
    let stop = tasks.token();
    tasks.spawn("peer-connection", 0, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            ended = connection => if let Err(error) = ended {
                tracing::debug!(error = %error, "a connection to a peer ended");
            },
        }
    });
    let origin = http::Uri::from_static("http://peer.altair");
    let mut client = PeerClient::with_origin(Sender(sender), origin)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let mut request = Request::new(Outgoing::of(outgoing));
    put_hello(request.metadata_mut(), hello);
    let answer = match road {
        Road::Control => client.control(request).await,
        Road::Bulk => client.bulk(request).await,
    };
    let response = answer.map_err(|status| DialError::Refused(status.message().to_owned()))?;
    let theirs = get_hello(response.metadata()).map_err(DialError::Hello)?;
    Ok((theirs, Incoming(response.into_inner())))
}

fn put_hello(metadata: &mut MetadataMap, hello: &Hello) {
    metadata.insert_bin(HELLO_HEADER, BinaryMetadataValue::from_bytes(&hello.encode()));
}

fn get_hello(metadata: &MetadataMap) -> Result<Hello, String> {
    let value = metadata.get_bin(HELLO_HEADER).ok_or("there is none")?;
    let bytes = value.to_bytes().map_err(|_| "its header is not base64")?;
    Hello::decode(&bytes).map_err(|error| error.to_string())
}

/// The receiving side: decides about a greeting, and takes the streams of a peer.
pub(crate) trait Reception: Send + Sync + 'static {
    /// This broker's own greeting, or why the peer's is refused.
    fn greet(&self, theirs: &Hello) -> Result<Hello, String>;
    /// A stream was opened: frames come in, answers go out through the channel.
    fn accept(self: Arc<Self>, road: Road, theirs: Hello, incoming: Incoming, answers: Arc<Channel>);
}

struct Service(Arc<dyn Reception>);

impl Service {
    fn open(&self, road: Road, request: Request<Streaming<Frames>>) -> Result<Response<Answers>, Status> {
        let theirs = get_hello(request.metadata())
            .map_err(|why| Status::invalid_argument(format!("the greeting is wrong: {why}")))?;
        let ours = self.0.greet(&theirs).map_err(Status::failed_precondition)?;
        let answers = Arc::new(Channel::opened());
        self.0.clone().accept(road, theirs, Incoming(request.into_inner()), answers.clone());
        let mut response = Response::new(Answers(Outgoing::of(answers)));
        put_hello(response.metadata_mut(), &ours);
        Ok(response)
    }
}

#[tonic::async_trait]
impl Peer for Service {
    type ControlStream = Answers;
    type BulkStream = Answers;

    async fn control(&self, request: Request<Streaming<Frames>>) -> Result<Response<Answers>, Status> {
        self.open(Road::Control, request)
    }

    async fn bulk(&self, request: Request<Streaming<Frames>>) -> Result<Response<Answers>, Status> {
        self.open(Road::Bulk, request)
    }
}

/// Serves one accepted connection until it ends or the scope is cancelled.
pub(crate) async fn serve(stream: BoxStream, reception: Arc<dyn Reception>, tasks: Tasks) {
    let service = PeerServer::new(Service(reception))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let connection = hyper::server::conn::http2::Builder::new(HttpExecutor::new(tasks.clone(), "peer-http2"))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        // One stream a connection, and room for a second while the first one ends.
        .max_concurrent_streams(4)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let stop = tasks.token();
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(error = %error, "a peer's connection ended");
        },
    }
}
