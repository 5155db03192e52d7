//! The cluster behind the doors: brokers advertise doors, so every connection between two of them, and of every client,
//! goes through one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use broker::supervise::{BrokerSpec, ProcessState};
use client::ClientConfig;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::local::LocalBrokers;
use super::super::{Ability, End, Fabric, FabricSpec, LinkState, Shape};
use super::conduct::{Conduct, Flow, Pace};
use super::dialler::owner;
use super::doors::{Dialler, Doors};
use crate::chaos::reach::{OnlyTo, Reach};

/// Why links lose no packets here.
const NO_PACKETS: &str = "proxies carry streams, of which no packet can get lost";

/// Why there is nothing to unplug here.
const NO_CABLES: &str = "brokers on loopback have no cables";

/// Process numbers of the brokers that run, by id; the doors to peers ask them who dials.
type Pids = Arc<Mutex<BTreeMap<u32, u32>>>;

/// Brokers on loopback with proxies between them. Dropping it kills them.
#[derive(Debug)]
pub struct ProxyFabric {
    brokers: LocalBrokers,
    /// Doors of brokers' peer listeners; who dials is found out by the socket's owner.
    peers: Doors,
    /// Doors of brokers' gRPC listeners, for clients alone.
    clients: Doors,
    grpc: BTreeMap<u32, SocketAddr>,
    pids: Pids,
}

impl ProxyFabric {
    /// Makes doors, directories and configs; starts nothing. The seed decides the jitter of slow links.
    ///
    /// # Errors
    /// If the machine refuses ports, files or the disks asked for.
    pub async fn prepare(spec: &FabricSpec, seed: u64) -> Result<Self> {
        let pids = Pids::default();
        let mut peers = Doors::new(seed, by_socket_owner(pids.clone()));
        let mut clients = Doors::new(seed, Arc::new(|_, _| Some(End::Clients)));
        let mut doors = BTreeMap::new();
        for id in 1..=spec.brokers {
            let host = End::Broker(id);
            doors.insert(id, (peers.open(host).await?, clients.open(host).await?));
        }
        let seeds: Vec<String> = doors.values().map(|(peer, _)| format!("\"{peer}\"")).collect();
        let mut own = BTreeMap::new();
        for (id, (peer, grpc)) in &doors {
            let mut settings = BTreeMap::from([
                ("peer.advertise".to_owned(), format!("\"{peer}\"")),
                ("grpc.advertise".to_owned(), format!("\"{grpc}\"")),
            ]);
            if spec.brokers > 1 {
                settings.insert("cluster.seeds".to_owned(), format!("[{}]", seeds.join(", ")));
            }
            own.insert(*id, BrokerSpec { settings, ..BrokerSpec::default() });
        }
        let brokers = LocalBrokers::prepare(spec, own)?;
        for (id, (peer, grpc)) in &doors {
            let real = brokers.cluster.addresses(*id)?;
            peers.lead(*peer, real.peer);
            clients.lead(*grpc, real.grpc);
        }
        let grpc = doors.into_iter().map(|(id, (_, grpc))| (id, grpc)).collect();
        Ok(Self { brokers, peers, clients, grpc, pids })
    }

    /// Sets the conduct of one directed pair directly: half-closes, one-way holds and throttles, for which
    /// [`LinkState`] has no word because no other fabric has them.
    pub fn conduct(&self, from: End, to: End, conduct: Conduct) {
        self.doors(from).set(from, to, conduct);
    }

    /// Connections that the proxies carried, and those whose dialler was gone before it could be told.
    #[must_use]
    pub fn connections(&self) -> (u64, u64) {
        let ((peers, unknown), (clients, _)) = (self.peers.counts(), self.clients.counts());
        (peers + clients, unknown)
    }

    fn doors(&self, from: End) -> &Doors {
        match from {
            End::Broker(_) => &self.peers,
            End::Clients => &self.clients,
        }
    }

    fn note_pid(&self, id: u32) -> Result<()> {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        match self.brokers.state(id)? {
            ProcessState::Running { pid } => pids.insert(id, pid),
            ProcessState::Stopped | ProcessState::Exited { .. } => pids.remove(&id),
        };
        Ok(())
    }
}

/// Who dials is the broker whose process owns the socket.
fn by_socket_owner(pids: Pids) -> Dialler {
    Arc::new(move |from, door| {
        let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let running: Vec<u32> = pids.values().copied().collect();
        let pid = owner(from, door, &running)?;
        pids.iter().find(|(_, running)| **running == pid).map(|(id, _)| End::Broker(*id))
    })
}

/// What a link's state means for the bytes of its connections.
fn conduct(state: LinkState) -> Result<Conduct> {
    Ok(match state {
        LinkState::Whole => Conduct::OPEN,
        LinkState::BlackHole => Conduct::both(Flow::Swallow),
        LinkState::Reset => Conduct::RESET,
        LinkState::Held => Conduct::both(Flow::Hold),
        LinkState::Shaped(Shape { loss_permille: 1.., .. }) => {
            bail!(NO_PACKETS)
        }
        LinkState::Shaped(Shape { delay_ms, jitter_ms, loss_permille: 0 }) => {
            // The delay varies by the jitter up and down; the pace knows a least delay and what may come on top.
            let least = delay_ms.saturating_sub(jitter_ms);
            let most = delay_ms.saturating_add(jitter_ms);
            Conduct::both(Flow::Pass(Pace {
                delay: Duration::from_millis(least.into()),
                jitter: Duration::from_millis((most - least).into()),
                bytes_per_second: None,
            }))
        }
    })
}

impl Fabric for ProxyFabric {
    fn name(&self) -> &'static str {
        "proxy"
    }

    fn brokers(&self) -> u32 {
        u32::try_from(self.grpc.len()).unwrap_or(u32::MAX)
    }

    fn disks(&self) -> &'static str {
        self.brokers.disks().name()
    }

    fn can(&self, ability: Ability) -> Result<(), String> {
        match ability {
            Ability::Loss => Err(NO_PACKETS.to_owned()),
            Ability::Unplug => Err(NO_CABLES.to_owned()),
            _ => self.brokers.can(ability),
        }
    }

    fn client(&self, reach: &Reach) -> ClientConfig {
        let reached = self.grpc.iter().filter(|(id, _)| reach.has(**id));
        let addresses: Vec<String> = reached.map(|(_, address)| address.to_string()).collect();
        let connect = Arc::new(OnlyTo::new(addresses.clone()));
        ClientConfig { connect, ..ClientConfig::new(addresses) }
    }

    fn http(&self, id: u32) -> SocketAddr {
        // Brokers that exist have one; another id is answered by nobody.
        self.brokers.http(id).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn data_dir(&self, id: u32) -> Result<PathBuf> {
        self.brokers.data_dir(id)
    }

    fn state(&self, id: u32) -> Result<ProcessState> {
        self.brokers.state(id)
    }

    fn start(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        let started = self.brokers.cluster.start(id).map_err(Into::into).and_then(|()| self.note_pid(id));
        async { started }.boxed()
    }

    fn ready(&mut self, id: u32, within: Duration) -> BoxFuture<'_, Result<()>> {
        async move { Ok(self.brokers.cluster.wait_ready(id, within).await?) }.boxed()
    }

    fn kill(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { Ok(self.brokers.cluster.kill(id).await?) }.boxed()
    }

    fn stop(&mut self, id: u32, grace: Duration) -> BoxFuture<'_, Result<bool>> {
        self.brokers.stop(id, grace).boxed()
    }

    fn pause(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { Ok(self.brokers.cluster.pause(id)?) }.boxed()
    }

    fn resume(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { Ok(self.brokers.cluster.resume(id)?) }.boxed()
    }

    fn cut_power(&mut self, ids: &[u32]) -> BoxFuture<'_, Result<()>> {
        let ids = ids.to_vec();
        async move { self.brokers.cut_power(&ids).await }.boxed()
    }

    fn set_links(&mut self, links: &[(End, End, LinkState)]) -> BoxFuture<'_, Result<()>> {
        let set = links.iter().try_for_each(|(from, to, state)| {
            self.conduct(*from, *to, conduct(*state)?);
            Ok(())
        });
        async { set }.boxed()
    }

    fn plug(&mut self, _id: u32, _plugged: bool) -> BoxFuture<'_, Result<()>> {
        async { bail!(NO_CABLES) }.boxed()
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<()>> {
        self.peers.heal();
        self.clients.heal();
        async { Ok(()) }.boxed()
    }

    fn keep_logs(&self, into: &Path) -> Result<()> {
        self.brokers.keep_logs(into)
    }
}
