//! What carries the frames: two TCP connections per directed pair of brokers, a greeting each way, then frame after frame.
//!
//! Nothing here dials by itself; the connections run as tasks of the broker and over its own network seam.
//!
//! A greeting, and its answer, are:
//!
//! | offset | bytes | field                                                                    |
//! |-------:|------:|--------------------------------------------------------------------------|
//! |      0 |     8 | `ALTPEER` and the version of this layout, 1                              |
//! |      8 |     1 | greeting: 1 control, 2 bulk; answer: 3 welcome, 4 refused                |
//! |      9 |     3 | reserved, 0                                                              |
//! |     12 |     4 | length of what follows                                                   |
//! |     16 |     … | a [`Hello`]; in a refusal why, as text                                   |
//!
//! Integers are little endian. A stranger's bytes are never read as frames: whoever does not greet is closed.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::super::identity::Hello;
use super::channel::Channel;
use super::frame::{self, FrameError};
use crate::runtime::{BoxStream, Tasks};

const MAGIC: [u8; 8] = *b"ALTPEER\x01";
const WELCOME: u8 = 3;
const REFUSED: u8 = 4;
const GREETING_LEN: usize = 16;
/// Longest greeting after its head.
const GREETING_MAX: usize = 64 << 10;
const GREETING_DEADLINE: Duration = Duration::from_secs(2);
/// Room for a read. Frames are slices of it, so that it lives as long as any of them.
const READ_AHEAD: usize = 64 << 10;
/// Less room is not worth a system call.
const READ_AT_LEAST: usize = 16 << 10;

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Road {
    /// Votes, beats, calls, appends.
    Control = 1,
    /// Snapshots and their ranges.
    Bulk = 2,
}

impl Road {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Control, Self::Bulk].into_iter().find(|road| *road as u8 == byte)
    }
}

/// Why a peer could not be reached over a fresh connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("the peer's greeting is wrong: {0}")]
    Hello(String),
    #[error("the peer did not answer the greeting in time")]
    Deadline,
}

/// Why nothing more comes in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection ended in the middle of a frame")]
    Cut,
    #[error("nothing can be sent on this connection any more")]
    Mute,
}

/// Frames that come in. Dropping it ends the connection.
pub(crate) struct Incoming {
    stream: ReadHalf<BoxStream>,
    buf: BytesMut,
    /// Cancelled by whichever half of the connection ends first.
    ended: CancellationToken,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Incoming {
    /// The next bytes: whole frames, at least one. `None` at the end of the stream.
    ///
    /// # Cancel safety
    /// Safe: what was read stays for the next call.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, IncomingError> {
        loop {
            let (whole, begun) = frame::whole(&self.buf)?;
            if whole > 0 {
                return Ok(Some(self.buf.split_to(whole).freeze()));
            }
            let missing = begun.saturating_sub(self.buf.len());
            let spare = self.buf.capacity() - self.buf.len();
            if spare < missing.max(READ_AT_LEAST) {
                self.buf.reserve(missing.max(READ_AHEAD));
            }
            let read = tokio::select! {
                biased;
                () = self.ended.cancelled() => return Err(IncomingError::Mute),
                read = self.stream.read_buf(&mut self.buf) => read?,
            };
            if read == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err(IncomingError::Cut) };
            }
        }
    }
}

/// Greets over a fresh connection: says who we are, and hears who the peer is.
pub(crate) async fn dial(
    mut stream: BoxStream,
    road: Road,
    hello: &Hello,
    outgoing: Arc<Channel>,
    tasks: &Tasks,
) -> Result<(Hello, Incoming), DialError> {
    let greet = async {
        put_greeting(&mut stream, road as u8, &hello.encode()).await?;
        get_greeting(&mut stream).await
    };
    let greeted = tokio::time::timeout(GREETING_DEADLINE, greet).await;
    let theirs = match greeted.map_err(|_| DialError::Deadline)?? {
        (WELCOME, body) => Hello::decode(&body).map_err(|error| DialError::Hello(error.to_string()))?,
        (REFUSED, body) => return Err(DialError::Refused(String::from_utf8_lossy(&body).into_owned())),
        (other, _) => return Err(DialError::Hello(format!("it begins with {other}"))),
    };
    let (incoming, outlet) = halves(stream);
    tasks.spawn("peer-outlet", 0, outlet.run(outgoing, tasks.token()));
    Ok((theirs, incoming))
}

/// The receiving side: decides about a greeting, and takes the connections of a peer.
pub(crate) trait Reception: Send + Sync + 'static {
    /// This broker's own greeting, or why the peer's is refused.
    fn greet(&self, theirs: &Hello) -> Result<Hello, String>;
    /// A connection was opened: frames come in, answers go out through the channel.
    fn accept(self: Arc<Self>, road: Road, theirs: Hello, incoming: Incoming, answers: Arc<Channel>);
}

/// Serves one accepted connection until it ends or the scope is cancelled.
pub(crate) async fn serve(mut stream: BoxStream, reception: Arc<dyn Reception>, tasks: Tasks) {
    let stop = tasks.token();
    let greeted = tokio::select! {
        () = stop.cancelled() => return,
        greeted = tokio::time::timeout(GREETING_DEADLINE, receive(&mut stream, reception.as_ref())) => greeted,
    };
    let (road, theirs) = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(error = %error, "a connection did not greet"),
        Err(_) => return tracing::debug!("a connection did not greet in time"),
    };
    let (incoming, outlet) = halves(stream);
    let answers = Arc::new(Channel::opened());
    reception.accept(road, theirs, incoming, answers.clone());
    outlet.run(answers.clone(), stop).await;
    // Nobody takes answers any more.
    answers.close();
}

/// Hears a greeting and answers it; `None` if it was refused.
async fn receive(stream: &mut BoxStream, reception: &dyn Reception) -> io::Result<Option<(Road, Hello)>> {
    let (road, body) = get_greeting(stream).await?;
    let theirs =
        Road::from_byte(road).ok_or_else(|| format!("a greeting begins with {road}")).and_then(|road| {
            let theirs = Hello::decode(&body).map_err(|error| format!("the greeting is wrong: {error}"))?;
            let ours = reception.greet(&theirs)?;
            Ok((road, theirs, ours))
        });
    match theirs {
        Ok((road, theirs, ours)) => {
            put_greeting(stream, WELCOME, &ours.encode()).await?;
            Ok(Some((road, theirs)))
        }
        Err(why) => {
            put_greeting(stream, REFUSED, why.as_bytes()).await?;
            stream.shutdown().await?;
            Ok(None)
        }
    }
}

async fn put_greeting(stream: &mut BoxStream, what: u8, body: &[u8]) -> io::Result<()> {
    let body = body.get(..GREETING_MAX).unwrap_or(body);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let greeting = [&MAGIC[..], &[what, 0, 0, 0], &len.to_le_bytes(), body].concat();
    stream.write_all(&greeting).await?;
    stream.flush().await
}

async fn get_greeting(stream: &mut BoxStream) -> io::Result<(u8, Vec<u8>)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; GREETING_LEN];
    stream.read_exact(&mut head).await?;
    let [magic @ .., what, 0, 0, 0, a, b, c, d] = head else { return Err(wrong("reserved bytes are not 0")) };
    if magic != MAGIC {
        return Err(wrong("these are not the first bytes of a peer"));
    }
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > GREETING_MAX {
        return Err(wrong("the greeting is too long"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok((what, body))
}

/// The sending half of a connection.
struct Outlet {
    stream: WriteHalf<BoxStream>,
    ended: CancellationToken,
}

fn halves(stream: BoxStream) -> (Incoming, Outlet) {
    let (read, write) = tokio::io::split(stream);
    let ended = CancellationToken::new();
    let incoming = Incoming { stream: read, buf: BytesMut::new(), ended: ended.clone() };
    (incoming, Outlet { stream: write, ended })
}

impl Outlet {
    /// Sends what the channel has until it is closed, the connection breaks, or the other half has ended.
    async fn run(mut self, channel: Arc<Channel>, stop: CancellationToken) {
        let ended = self.ended.clone();
        let sent = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = ended.cancelled() => Ok(()),
            sent = self.send(&channel) => sent,
        };
        if let Err(error) = sent {
            tracing::debug!(error = %error, "a connection to a peer ended");
        }
        ended.cancel();
    }

    async fn send(&mut self, channel: &Channel) -> io::Result<()> {
        let carrier = channel.carrier();
        while let Some(mut bytes) = poll_fn(|cx| channel.next_chunk(carrier, cx)).await {
            self.stream.write_all_buf(&mut bytes).await?;
            self.stream.flush().await?;
        }
        self.stream.shutdown().await
    }
}
