//! The network seam: listeners and connectors. Nothing else opens a socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A two-way byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, whatever carries it.
pub type BoxStream = Box<dyn Duplex>;

/// Accepts connections on one address.
pub trait Listener: Send + Sync {
    /// Waits for the next connection.
    ///
    /// # Cancel safety
    /// Safe: no connection is lost.
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;

    /// The address that is really listened on (the port is known after binding port 0).
    ///
    /// # Errors
    /// As the operating system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The network of one host. SEAM: sockets in production, a simulated network in the simulator.
pub trait Net: Send + Sync {
    /// Listens on an address.
    ///
    /// # Errors
    /// As the operating system says, for example when the port is taken.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to `host:port` within a deadline.
    ///
    /// # Errors
    /// `TimedOut` after the deadline, else as the operating system says; `ConnectionRefused` means that the host is up
    /// and nobody listens.
    fn connect<'a>(&'a self, addr: &'a str, deadline: Duration) -> BoxFuture<'a, io::Result<BoxStream>>;
}

/// TCP sockets of the operating system, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

impl Net for TcpNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move { Ok(Box::new(TcpListener::bind(addr).await?) as Box<dyn Listener>) }.boxed()
    }

    fn connect<'a>(&'a self, addr: &'a str, deadline: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        async move {
            let stream = tokio::time::timeout(deadline, TcpStream::connect(addr))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("connecting to {addr}")))??;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        }
        .boxed()
    }
}

impl Listener for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        async move {
            let (stream, from) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxStream, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{Net, TcpNet};

    #[tokio::test]
    async fn bytes_cross_a_loopback_connection_and_a_closed_port_refuses() {
        let listener = TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut out = TcpNet.connect(&addr, Duration::from_secs(5)).await.unwrap();
        let (mut inside, _) = listener.accept().await.unwrap();
        out.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        inside.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        drop(listener);
        let refused = TcpNet.connect(&addr, Duration::from_secs(5)).await.err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
