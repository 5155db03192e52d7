//! Doors: one listener per host that can be dialled, and a conduct per directed pair.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::End;
use super::conduct::Conduct;
use super::connection::carry;

/// Time to reach a target on this machine; more means that its queue of connections is full.
const DIAL: Duration = Duration::from_secs(2);

/// Says who opened a connection: (address that dialled, address of the door). `None` if it cannot be known any
/// more; such a connection is reset.
pub type Dialler = Arc<dyn Fn(SocketAddr, SocketAddr) -> Option<End> + Send + Sync>;

type Pair = (End, End);

#[derive(Default)]
struct Shared {
    conducts: Mutex<BTreeMap<Pair, watch::Sender<Conduct>>>,
    /// Where each door leads, by its address.
    targets: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
    /// Connections that were carried, to seed the jitter of each.
    carried: AtomicU64,
    /// Connections whose dialler could not be told.
    unknown: AtomicU64,
}

/// All doors of one run. Dropping it closes them and every connection.
pub struct Doors {
    shared: Arc<Shared>,
    seed: u64,
    dialler: Dialler,
    listening: JoinSet<()>,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("open", &self.listening.len()).finish_non_exhaustive()
    }
}

impl Doors {
    /// No doors yet. The seed decides the jitter.
    #[must_use]
    pub fn new(seed: u64, dialler: Dialler) -> Self {
        Self { shared: Arc::default(), seed, dialler, listening: JoinSet::new() }
    }

    /// Opens a door to `host` on a free loopback port and returns its address. Connections are reset until
    /// [`Doors::lead`] says where it leads.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn open(&mut self, host: End) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening a proxy's port")?;
        let address = listener.local_addr()?;
        let door = Door {
            shared: self.shared.clone(),
            dialler: self.dialler.clone(),
            seed: self.seed,
            host,
            address,
        };
        self.listening.spawn(door.serve(listener));
        Ok(address)
    }

    /// Says where the door at `address` leads.
    pub fn lead(&self, address: SocketAddr, target: SocketAddr) {
        let mut targets = self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.insert(address, target);
    }

    /// Changes the conduct of a pair, for connections that exist and that will.
    pub fn set(&self, from: End, to: End, conduct: Conduct) {
        self.shared.with((from, to), |pair| pair.send_replace(conduct));
    }

    /// The conduct of a pair now.
    #[must_use]
    pub fn get(&self, from: End, to: End) -> Conduct {
        self.shared.with((from, to), |pair| *pair.borrow())
    }

    /// Every pair behaves as if there were no proxy.
    pub fn heal(&self) {
        let conducts = self.shared.conducts.lock().unwrap_or_else(PoisonError::into_inner);
        for pair in conducts.values() {
            pair.send_if_modified(|now| std::mem::replace(now, Conduct::OPEN) != Conduct::OPEN);
        }
    }

    /// Connections that were carried, and those that were reset because nobody could say who opened them.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.unknown.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn target(&self, door: SocketAddr) -> Option<SocketAddr> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).get(&door).copied()
    }

    fn with<T>(&self, pair: Pair, use_it: impl FnOnce(&watch::Sender<Conduct>) -> T) -> T {
        let mut conducts = self.conducts.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(conducts.entry(pair).or_insert_with(|| watch::Sender::new(Conduct::OPEN)))
    }
}

/// One listener.
struct Door {
    shared: Arc<Shared>,
    dialler: Dialler,
    seed: u64,
    host: End,
    address: SocketAddr,
}

impl Door {
    async fn serve(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, from, &mut open),
                    // Out of descriptors, or a connection that died in the queue: the door stays open.
                    Err(error) => tracing::warn!(error = %error, "a proxy could not accept a connection"),
                },
                Some(_) = open.join_next() => {}
            }
        }
    }

    fn admit(&self, stream: TcpStream, from: SocketAddr, open: &mut JoinSet<()>) {
        let Some(target) = self.shared.target(self.address) else { return reset(&stream) };
        let Some(host) = (self.dialler)(from, self.address) else {
            self.shared.unknown.fetch_add(1, Ordering::Relaxed);
            return reset(&stream);
        };
        let conduct = self.shared.with((host, self.host), watch::Sender::subscribe);
        if conduct.borrow().reset {
            return reset(&stream);
        }
        let number = self.shared.carried.fetch_add(1, Ordering::Relaxed);
        let chance = self.seed ^ (number << 1);
        open.spawn(async move {
            match tokio::time::timeout(DIAL, TcpStream::connect(target)).await {
                Ok(Ok(onward)) => carry(stream, onward, conduct, chance).await,
                // Nobody listens there: the dialler learns it as it would without a proxy, by a reset.
                Ok(Err(_)) | Err(_) => reset(&stream),
            }
        });
    }
}

/// What the dialler then reads is a reset, not an orderly end.
fn reset(stream: &TcpStream) {
    // A socket that is closed already needs no reset.
    let _ = stream.set_zero_linger();
}
