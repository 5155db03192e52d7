//! Connections that carry nothing any more and are not closed either: what is left of a cut that lost packets of one
//! direction for good.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::harness::{Broker, form, introduce, leader, until, write_somewhere};
use super::wal::TestWal;
use crate::raft::Profile;
use crate::runtime::{BoxStream, Listener, Net, TcpNet};

/// A network in which the connections that a broker made so far can be made deaf.
#[derive(Clone, Default)]
struct Deafening {
    made: Arc<AtomicU64>,
    deaf_to: Arc<AtomicU64>,
}

impl Deafening {
    /// Nothing comes any more through any connection made before this call; later ones are well.
    fn deafen(&self) {
        self.deaf_to.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Net for Deafening {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move { TcpNet.listen(addr).await }.boxed()
    }

    fn connect<'a>(&'a self, addr: &'a str, deadline: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        async move {
            let stream = TcpNet.connect(addr, deadline).await?;
            let number = self.made.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Ear { stream, number, deaf_to: self.deaf_to.clone() }) as BoxStream)
        }
        .boxed()
    }
}

struct Ear {
    stream: BoxStream,
    number: u64,
    deaf_to: Arc<AtomicU64>,
}

impl AsyncRead for Ear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let ended = buf.filled().len() == before;
            if ended || self.number >= self.deaf_to.load(Ordering::SeqCst) {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
        }
    }
}

impl AsyncWrite for Ear {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_heard_but_hears_nothing_connects_anew() {
    let nets = [Deafening::default(), Deafening::default(), Deafening::default()];
    let mut brokers = Vec::new();
    for (id, net) in (1..).zip(&nets) {
        brokers.push(Broker::start_on(Arc::new(net.clone()), id, "127.0.0.1:0", TestWal::new()).await);
    }
    introduce(&brokers.iter().collect::<Vec<_>>());
    form(&mut brokers, 7, Profile::Partition).await;
    let lead = leader(&brokers, 7).await.id;
    let all: Vec<&Broker> = brokers.iter().collect();
    write_somewhere(&all, 7, "before").await;

    // Its appends and beats arrive, so nobody stands for election; the answers do not.
    nets.iter().zip(1..).filter(|(_, id)| *id == lead).for_each(|(net, _)| net.deafen());
    write_somewhere(&all, 7, "after").await;
    until("all have both", || all.iter().all(|broker| broker.values(7).len() >= 2)).await;
}
