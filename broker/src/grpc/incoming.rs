//! A client's byte stream that must greet in time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::runtime::BoxStream;

/// A client that has not greeted by then is cut off.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a greeting: the HTTP/2 preface (24) and the head of its first frame (9).
const GREETING_BYTES: usize = 33;

/// One client connection; reading it fails with `TimedOut` if the client does not say HTTP/2's greeting in time.
pub(super) struct Greeted {
    stream: BoxStream,
    /// Set until the client has greeted.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Greeted {
    pub(super) fn new(stream: BoxStream) -> Self {
        Self { stream, greeting: Some((0, Box::pin(tokio::time::sleep(GREETING_DEADLINE)))) }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((seen, patience)) = &mut this.greeting else { return polled };
        *seen += buf.filled().len().saturating_sub(before);
        if *seen >= GREETING_BYTES {
            this.greeting = None;
        } else if polled.is_pending() && patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
