//! What carries a cluster: N real brokers, and a network between them and their clients that can be broken.
//!
//! A link is *directed and about calls*: the link from A to B carries the connections that A opens to B, with both
//! directions of their bytes. A one-way fault is thus one link broken and the other one whole: A cannot call B, while B
//! calls A and is answered. That is the asymmetry which programs over TCP can see.

pub mod docker;
mod firewall;
pub mod local;
pub mod netns;
pub mod proxy;
mod shaper;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use broker::supervise::ProcessState;
use client::ClientConfig;
use futures::future::BoxFuture;

use super::reach::Reach;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A broker, by id.
    Broker(u32),
    /// All clients of the harness. They call brokers; brokers never call them.
    Clients,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(id) => write!(f, "{id}"),
            Self::Clients => f.write_str("clients"),
        }
    }
}

/// How a link carries bytes that are not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Added to each packet or piece. Unit: ms.
    pub delay_ms: u32,
    /// Varies the delay by up to this, up and down; where it exceeds the time between packets, they overtake each
    /// other on fabrics that see packets. Unit: ms.
    pub jitter_ms: u32,
    /// Packets that vanish, of 1,000. Needs [`Ability::Loss`].
    pub loss_permille: u32,
}

/// What a link does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// Carries everything at once.
    #[default]
    Whole,
    /// Bytes vanish without a word: connections hang, new ones time out.
    BlackHole,
    /// Open connections are reset, new ones refused.
    Reset,
    /// Slow or lossy.
    Shaped(Shape),
    /// Keeps bytes back and delivers them in order when the link is whole again. Needs [`Ability::Hold`].
    Held,
}

/// What not every fabric can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Break links at all: [`LinkState::BlackHole`].
    Cut,
    /// Break links between brokers in one direction only.
    OneWay,
    /// [`LinkState::Reset`].
    Reset,
    /// Delay and jitter.
    Delay,
    /// Loss of single packets, and their reordering.
    Loss,
    /// [`LinkState::Held`].
    Hold,
    /// Attach to a broker's process with `strace`: failing and slow syncs.
    Trace,
    /// Each broker's data directory is a filesystem of bounded size that the harness may fill.
    BoundedDisk,
    /// Set a broker's wall clock apart (`libfaketime`).
    Clock,
    /// Cut the power of a broker's disk: what was not synced is gone.
    Power,
    /// Change bytes in the files of a stopped broker.
    Rot,
    /// Take a broker's cable out: its network is gone, not only silent.
    Unplug,
}

/// What data directories stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// Folders of the machine's own filesystem.
    Plain,
    /// A tmpfs of this many bytes for each broker: a disk that can be filled.
    Tmpfs(u64),
    /// An ext4 image of this many bytes for each broker: a disk whose power can be cut.
    Image(u64),
}

impl Disks {
    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tmpfs(_) => "memory",
            Self::Image(_) => "image",
        }
    }
}

/// What to build.
#[derive(Debug, Clone)]
pub struct FabricSpec {
    /// Number of brokers; ids are 1 to this.
    pub brokers: u32,
    /// Empty directory for configs, logs and data.
    pub dir: PathBuf,
    /// Directory of the run, whose lock says whether it lives. What an engine makes is labelled with it.
    pub run: PathBuf,
    /// The `altair` binary, for fabrics that start processes.
    pub binary: PathBuf,
    /// The image of the brokers, for fabrics that start containers.
    pub image: String,
    /// Config keys over the defaults.
    pub settings: BTreeMap<String, String>,
    /// Environment of single brokers' processes.
    pub environment: BTreeMap<u32, BTreeMap<String, String>>,
    /// What data directories stand on.
    pub disks: Disks,
}

/// Which fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FabricKind {
    /// Network namespaces of the harness's own.
    Netns,
    /// TCP proxies in the harness's process.
    Proxy,
    /// Containers of the compose files.
    Docker,
}

impl FabricKind {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Netns, Self::Proxy, Self::Docker];

    /// The name that people use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Proxy => "proxy",
            Self::Docker => "docker",
        }
    }

    /// Builds a cluster on it; starts nothing. Disks that this machine cannot make are replaced by simpler ones.
    ///
    /// # Errors
    /// If the machine refuses.
    pub async fn build(self, spec: &FabricSpec, seed: u64) -> Result<Box<dyn Fabric>> {
        let local = || FabricSpec { disks: local::possible(spec.disks), ..spec.clone() };
        Ok(match self {
            Self::Netns => Box::new(netns::Netns::prepare(&local(), seed)?),
            Self::Proxy => Box::new(proxy::ProxyFabric::prepare(&local(), seed).await?),
            Self::Docker => Box::new(docker::Docker::prepare(spec).await?),
        })
    }
}

/// This machine cannot make a fabric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fabric {fabric} cannot be made here: {missing}; {remedy}")]
pub struct Unavailable {
    /// Its name.
    pub fabric: &'static str,
    /// What is missing.
    pub missing: String,
    /// What the user can do.
    pub remedy: String,
}

/// A cluster and its network. Dropping it ends all processes and removes everything that it made.
// SEAM: network namespaces, TCP proxies, containers.
pub trait Fabric: Send {
    /// `netns`, `proxy` or `docker`.
    fn name(&self) -> &'static str;

    /// Number of brokers; ids are 1 to this.
    fn brokers(&self) -> u32;

    /// What data directories stand on, in a word for reports.
    fn disks(&self) -> &'static str;

    /// Whether this fabric, made as it was, can do something.
    ///
    /// # Errors
    /// Why not, in words that end up in the report.
    fn can(&self, ability: Ability) -> Result<(), String>;

    /// Settings of a client that can reach these brokers and no other. Subject to the links from [`End::Clients`].
    fn client(&self, reach: &Reach) -> ClientConfig;

    /// A broker's health and metrics address as the harness reaches it, links notwithstanding where the fabric can.
    fn http(&self, id: u32) -> SocketAddr;

    /// A broker's data directory as the harness sees it.
    ///
    /// # Errors
    /// If it has none that the harness can touch.
    fn data_dir(&self, id: u32) -> Result<PathBuf>;

    /// What a broker's process is doing; the number in it is one that the harness can trace and signal.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn state(&self, id: u32) -> Result<ProcessState>;

    /// Starts a broker that does not run, without waiting for it.
    fn start(&mut self, id: u32) -> BoxFuture<'_, Result<()>>;

    /// Waits until a broker says that it is ready; fails early if its process has ended.
    fn ready(&mut self, id: u32, within: Duration) -> BoxFuture<'_, Result<()>>;

    /// Ends a broker at once (SIGKILL) and waits until it is gone.
    fn kill(&mut self, id: u32) -> BoxFuture<'_, Result<()>>;

    /// Asks a broker to stop (SIGTERM); true if it did by itself within `grace`, else it is killed.
    fn stop(&mut self, id: u32, grace: Duration) -> BoxFuture<'_, Result<bool>>;

    /// Freezes a broker's process.
    fn pause(&mut self, id: u32) -> BoxFuture<'_, Result<()>>;

    /// Lets a frozen process go on.
    fn resume(&mut self, id: u32) -> BoxFuture<'_, Result<()>>;

    /// Cuts the power of these brokers' disks at one moment and ends the brokers: what they had not synced is gone. Leaves
    /// them stopped, on disks that work again. Needs [`Ability::Power`].
    fn cut_power(&mut self, ids: &[u32]) -> BoxFuture<'_, Result<()>>;

    /// Sets what links do, all at once where the fabric can. Links not named stay as they are.
    fn set_links(&mut self, links: &[(End, End, LinkState)]) -> BoxFuture<'_, Result<()>>;

    /// Takes the cable of a broker out, or puts it back. Needs [`Ability::Unplug`].
    fn plug(&mut self, id: u32, plugged: bool) -> BoxFuture<'_, Result<()>>;

    /// Makes every link whole.
    fn heal(&mut self) -> BoxFuture<'_, Result<()>>;

    /// Writes each broker's log to `into` as `broker-ID.log`.
    ///
    /// # Errors
    /// If a log cannot be read or written.
    fn keep_logs(&self, into: &Path) -> Result<()>;
}
