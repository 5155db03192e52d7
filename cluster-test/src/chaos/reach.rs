//! Clients that can reach some brokers only.

use std::collections::BTreeSet;
use std::io;

use client::{ByteStream, Connect, TcpConnect};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Which brokers a client can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    All,
    /// These ids; connections to others are refused.
    Only(BTreeSet<u32>),
}

impl Reach {
    /// Whether a broker is among them.
    #[must_use]
    pub fn has(&self, id: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&id),
        }
    }
}

/// TCP to these addresses; every other one is refused, as a firewall would.
#[derive(Debug, Clone)]
pub struct OnlyTo {
    addresses: BTreeSet<String>,
}

impl OnlyTo {
    /// Lets these addresses (`host:port`) through.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self { addresses: addresses.into_iter().collect() }
    }
}

impl Connect for OnlyTo {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        if self.addresses.contains(address) {
            return TcpConnect.connect(address);
        }
        async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }.boxed()
    }
}
