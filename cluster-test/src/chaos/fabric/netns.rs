//! Brokers in network namespaces, each on a cable to a router in the middle: the harness itself, which is the clients too.
//!
//! To be made inside the [`sandbox`](crate::chaos::sandbox) only: names and addresses are fixed, because nobody else is
//! there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::{BrokerAddresses, BrokerSpec, ProcessState};
use client::ClientConfig;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::firewall::{self, GRPC_PORT, HTTP_PORT, PEER_PORT};
use super::local::LocalBrokers;
use super::shaper::Shaper;
use super::{Ability, End, Fabric, FabricSpec, LinkState};
use crate::chaos::reach::{OnlyTo, Reach};
use crate::chaos::tool;

/// The fabric `netns`.
#[derive(Debug)]
pub struct Netns {
    brokers: LocalBrokers,
    count: u32,
    links: BTreeMap<(End, End), LinkState>,
    /// Or why there is none.
    shaper: Result<Shaper, String>,
}

impl Netns {
    /// Makes namespaces, cables and disks; starts nothing. `seed` is that of lost and late packets.
    ///
    /// # Errors
    /// If the machine refuses.
    pub fn prepare(spec: &FabricSpec, seed: u64) -> Result<Self> {
        let mut own = BTreeMap::new();
        for id in 1..=spec.brokers {
            cable(id).with_context(|| format!("making the namespace of broker {id}"))?;
            own.insert(id, broker_spec(id));
        }
        let none = BTreeMap::new();
        // Rules that stood from an earlier cluster are gone with this, and a kernel that cannot queue says so.
        tool::run("nft", &["-f", "-"], &firewall::nft(&none)).context("setting up the firewall")?;
        let shaper = tool::run("iptables-restore", &[], &firewall::iptables(&none))
            .and_then(|_| Shaper::start(seed).context("opening a packet queue"))
            .map_err(|error| format!("{error:#}"));
        let brokers = LocalBrokers::prepare(spec, own)?;
        Ok(Self { brokers, count: spec.brokers, links: none, shaper })
    }

    /// Makes the kernel do what `self.links` says.
    fn apply(&self) -> Result<()> {
        tool::run("nft", &["-f", "-"], &firewall::nft(&self.links))?;
        if let Ok(shaper) = &self.shaper {
            shaper.set(&self.links);
            tool::run("iptables-restore", &[], &firewall::iptables(&self.links))?;
        }
        Ok(())
    }
}

/// Where broker `id` listens.
fn addresses(id: u32) -> BrokerAddresses {
    let ip = firewall::address(End::Broker(id), id);
    let at = |port| SocketAddr::from((ip, port));
    BrokerAddresses { grpc: at(GRPC_PORT), http: at(HTTP_PORT), peer: at(PEER_PORT) }
}

fn broker_spec(id: u32) -> BrokerSpec {
    let wrapper = vec!["nsenter".to_owned(), format!("--net=/run/netns/n{id}")];
    BrokerSpec { addresses: Some(addresses(id)), wrapper, ..BrokerSpec::default() }
}

/// A namespace for broker `id`, a cable from it to the router, and the way to the others.
fn cable(id: u32) -> Result<()> {
    let (namespace, plug) = (format!("n{id}"), format!("b{id}"));
    let router = firewall::address(End::Clients, id).to_string();
    let own = format!("{}/24", firewall::address(End::Broker(id), id));
    tool::run("ip", &["netns", "add", &namespace], "")?;
    tool::run(
        "ip",
        &["link", "add", &plug, "type", "veth", "peer", "name", "eth0", "netns", &namespace],
        "",
    )?;
    tool::run("ip", &["addr", "add", &format!("{router}/24"), "dev", &plug], "")?;
    tool::run("ip", &["link", "set", &plug, "up"], "")?;
    let inside = format!(
        "link set lo up\naddr add {own} dev eth0\nlink set eth0 up\nroute add default via {router}\n"
    );
    tool::run("ip", &["-n", &namespace, "-batch", "-"], &inside)?;
    Ok(())
}

impl Drop for Netns {
    fn drop(&mut self) {
        for id in 1..=self.count {
            // The kernel keeps the namespace until its last process has gone; the name and the cable go now.
            let _ = tool::run("ip", &["link", "del", &format!("b{id}")], "");
            let _ = tool::run("ip", &["netns", "del", &format!("n{id}")], "");
        }
    }
}

impl Fabric for Netns {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn brokers(&self) -> u32 {
        self.count
    }

    fn disks(&self) -> &'static str {
        self.brokers.disks().name()
    }

    fn can(&self, ability: Ability) -> Result<(), String> {
        match ability {
            Ability::Delay | Ability::Loss | Ability::Hold => {
                self.shaper.as_ref().map(|_| ()).map_err(Clone::clone)
            }
            _ => self.brokers.can(ability),
        }
    }

    fn client(&self, reach: &Reach) -> ClientConfig {
        let ids = (1..=self.count).filter(|id| reach.has(*id));
        let reachable: Vec<String> = ids.map(|id| addresses(id).grpc.to_string()).collect();
        let connect = Arc::new(OnlyTo::new(reachable.clone()));
        ClientConfig { connect, ..ClientConfig::new(reachable) }
    }

    fn http(&self, id: u32) -> SocketAddr {
        addresses(id).http
    }

    fn data_dir(&self, id: u32) -> Result<PathBuf> {
        self.brokers.data_dir(id)
    }

    fn state(&self, id: u32) -> Result<ProcessState> {
        self.brokers.state(id)
    }

    fn start(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { Ok(self.brokers.cluster.start(id)?) }.boxed()
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
        for (from, to, state) in links {
            self.links.insert((*from, *to), *state);
        }
        self.links.retain(|_, state| *state != LinkState::Whole);
        let applied = self.apply();
        async { applied }.boxed()
    }

    fn plug(&mut self, id: u32, plugged: bool) -> BoxFuture<'_, Result<()>> {
        let state = if plugged { "up" } else { "down" };
        let set = tool::run("ip", &["link", "set", &format!("b{id}"), state], "").map(|_| ());
        async { set }.boxed()
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<()>> {
        self.links.clear();
        let applied = self.apply();
        async { applied }.boxed()
    }

    fn keep_logs(&self, into: &Path) -> Result<()> {
        self.brokers.keep_logs(into)
    }
}
