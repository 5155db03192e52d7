//! The simulated network behind the broker's and the client's seams.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use broker::runtime::{BoxStream, Listener, Net};
use client::{ByteStream, Connect};
use futures::FutureExt;
use futures::future::BoxFuture;
use turmoil::net::{TcpListener, TcpStream};

/// Sockets of the simulated host in whose runtime they are used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SimNet;

struct SimListener(TcpListener);

impl Net for SimNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect<'a>(&'a self, addr: &'a str, deadline: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        async move {
            let stream = tokio::time::timeout(deadline, TcpStream::connect(addr))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("connecting to {addr}")))??;
            Ok(Box::new(stream) as BoxStream)
        }
        .boxed()
    }
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        async move {
            let (stream, from) = self.0.accept().await?;
            Ok((Box::new(stream) as BoxStream, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// How SDK clients connect within the simulation.
#[derive(Clone, Copy, Default)]
pub(super) struct SimConnect;

impl fmt::Debug for SimConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimConnect")
    }
}

impl Connect for SimConnect {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        let address = address.to_owned();
        async move { Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn ByteStream>) }.boxed()
    }
}
