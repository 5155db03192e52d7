//! Brokers as processes of this machine, on disks of the harness's own: what the fabrics `netns` and `proxy` share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::supervise::{BrokerSpec, ClusterSpec, LocalCluster, PortChoice, ProcessState};

use super::{Ability, Disks, FabricSpec};
use crate::chaos::clock;
use crate::chaos::power::{self, ImageDisk};
use crate::chaos::tool;

/// The processes and what their data stands on. Dropping it kills them and unmounts.
#[derive(Debug)]
pub struct LocalBrokers {
    /// The processes. They must go before what they write to.
    pub cluster: LocalCluster,
    volumes: BTreeMap<u32, Volume>,
    disks: Disks,
}

impl LocalBrokers {
    /// Makes directories, disks and configs; starts nothing. `own` says what each broker has of its own; the spec's
    /// environment comes on top.
    ///
    /// # Errors
    /// If the machine refuses.
    pub fn prepare(spec: &FabricSpec, mut own: BTreeMap<u32, BrokerSpec>) -> Result<Self> {
        for (id, environment) in &spec.environment {
            own.entry(*id).or_default().environment.extend(environment.clone());
        }
        let cluster = LocalCluster::prepare(ClusterSpec {
            brokers: spec.brokers,
            dir: spec.dir.clone(),
            binary: spec.binary.clone(),
            ports: PortChoice::Free,
            settings: spec.settings.clone(),
            own,
        })?;
        let mut volumes = BTreeMap::new();
        for id in cluster.ids() {
            let data = cluster.dir(id)?.join("data");
            volumes.extend(Volume::mount(&data, spec.disks)?.map(|volume| (id, volume)));
        }
        Ok(Self { cluster, volumes, disks: spec.disks })
    }

    /// What data directories stand on.
    #[must_use]
    pub fn disks(&self) -> Disks {
        self.disks
    }

    /// A broker's data directory.
    ///
    /// # Errors
    /// If there is no such broker.
    pub fn data_dir(&self, id: u32) -> Result<PathBuf> {
        Ok(self.cluster.dir(id)?.join("data"))
    }

    /// A broker's health and metrics address.
    #[must_use]
    pub fn http(&self, id: u32) -> Option<SocketAddr> {
        self.cluster.addresses(id).ok().map(|addresses| addresses.http)
    }

    /// What a broker's process is doing.
    ///
    /// # Errors
    /// If there is no such broker.
    pub fn state(&self, id: u32) -> Result<ProcessState> {
        Ok(self.cluster.state(id)?)
    }

    /// Asks a broker to stop; true if it did by itself.
    ///
    /// # Errors
    /// If there is no such broker.
    pub async fn stop(&mut self, id: u32, grace: Duration) -> Result<bool> {
        // A frozen process does not hear SIGTERM.
        self.cluster.resume(id)?;
        Ok(self.cluster.stop(id, grace).await?)
    }

    /// What depends on this machine and the disks alone; `Ok` for everything else.
    ///
    /// # Errors
    /// Why not, in words that end up in the report.
    pub fn can(&self, ability: Ability) -> Result<(), String> {
        match ability {
            Ability::Trace => tool::strace(),
            Ability::BoundedDisk if self.disks == Disks::Plain => {
                Err("its disks have no bound in this round".to_owned())
            }
            Ability::Clock => clock::check(),
            Ability::Power if !matches!(self.disks, Disks::Image(_)) => {
                Err("its disks are not images in this round".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Cuts the power of these brokers' disks at one moment and ends the brokers, on disks that work again.
    ///
    /// # Errors
    /// If a disk is not an image, or does not come back.
    pub async fn cut_power(&mut self, ids: &[u32]) -> Result<()> {
        let mut disks = Vec::new();
        for id in ids {
            match self.volumes.get(id) {
                Some(Volume::Image(disk)) => disks.push(disk),
                _ => bail!("the disk of broker {id} is not an image"),
            }
        }
        for id in ids {
            self.cluster.pause(*id)?;
        }
        for id in ids {
            if let ProcessState::Running { pid } = self.cluster.state(*id)? {
                power::frozen(pid).await?;
            }
        }
        power::shut_down(&disks)?;
        for id in ids {
            self.cluster.kill(*id).await?;
        }
        for disk in disks {
            disk.come_back().await?;
        }
        Ok(())
    }

    /// Copies each broker's log to `into`.
    ///
    /// # Errors
    /// If a log cannot be copied.
    pub fn keep_logs(&self, into: &Path) -> Result<()> {
        for id in self.cluster.ids() {
            let log = self.cluster.dir(id)?.join("broker.log");
            if log.exists() {
                let copy = into.join(format!("broker-{id}.log"));
                std::fs::copy(&log, &copy).with_context(|| format!("keeping {}", log.display()))?;
            }
        }
        Ok(())
    }
}

/// The disks asked for, or the nearest to them that this machine lets the harness make.
#[must_use]
pub fn possible(disks: Disks) -> Disks {
    /// Size of a disk that is made to see whether it can be.
    const TRIED_BYTES: u64 = 16 << 20;
    static CAN: OnceLock<(bool, bool)> = OnceLock::new();
    let (images, memory) = *CAN.get_or_init(|| {
        let can = |disks| {
            let folder = tempfile::tempdir();
            folder.is_ok_and(|folder| Volume::mount(folder.path(), disks).is_ok())
        };
        (power::check().is_ok() && can(Disks::Image(TRIED_BYTES)), can(Disks::Tmpfs(TRIED_BYTES)))
    });
    match disks {
        Disks::Image(bytes) if !images && memory => Disks::Tmpfs(bytes),
        Disks::Image(_) if !images => Disks::Plain,
        Disks::Tmpfs(_) if !memory => Disks::Plain,
        other => other,
    }
}

/// A filesystem of the harness's own, unmounted when dropped.
#[derive(Debug)]
pub enum Volume {
    /// In memory, of bounded size.
    Tmpfs {
        /// Where it is mounted.
        at: PathBuf,
    },
    /// An image whose power can be cut.
    Image(ImageDisk),
}

impl Volume {
    /// Mounts what is asked for at `at`; nothing for plain folders.
    ///
    /// # Errors
    /// If this machine does not let the harness mount.
    pub fn mount(at: &Path, disks: Disks) -> Result<Option<Self>> {
        let bytes = match disks {
            Disks::Plain => return Ok(None),
            Disks::Image(bytes) => return Ok(Some(Self::Image(ImageDisk::make(at, bytes)?))),
            Disks::Tmpfs(bytes) => bytes,
        };
        std::fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
        let place = at.to_string_lossy();
        tool::run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "altair-chaos", &place], "")
            .context("mounting a tmpfs")?;
        Ok(Some(Self::Tmpfs { at: at.to_owned() }))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Self::Tmpfs { at } = self {
            // Lazily: a process that is being killed may still hold a file in it.
            let _ = tool::run("umount", &["-l", &at.to_string_lossy()], "");
        }
    }
}
