//! The cluster in containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use broker::supervise::{ProcessState, http_get};
use client::ClientConfig;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::super::{Ability, End, Fabric, FabricSpec, LinkState};
use super::engine::{self, Container, docker, docker_apart, inspect};
use super::{compose, firewall};
use crate::chaos::reach::{OnlyTo, Reach};
use crate::chaos::tool;

/// First port of brokers' health pages.
const HTTP_PORT: u32 = 8080;
/// Time for one look at whether a broker is ready.
const PROBE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time for the engine to let go of an endpoint.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Time for the engine to end a container whose process is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Lines of a broker's log in an error.
const LAST_LINES: &str = "12";
/// Exit code of a process that was killed.
const KILLED: i32 = 128 + 9;

/// Why packets are not delayed here.
const NO_QUEUES: &str = "containers' packets go through no queue of the harness; netns and proxy can";
/// Why disks have no bound and no power to cut.
const NO_DISKS: &str = "the containers' volumes are on the engine's own disk; netns and proxy can";

/// The fabric `docker`. Dropping it removes its containers, networks and volumes.
#[derive(Debug)]
pub struct Docker {
    run: PathBuf,
    project: String,
    address: IpAddr,
    /// Container ids of the brokers, in order.
    containers: Vec<String>,
    /// Where the engine keeps each broker's volume.
    volumes: Vec<PathBuf>,
    links: BTreeMap<(End, End), LinkState>,
}

impl Docker {
    /// Makes containers, networks and volumes; starts nothing.
    ///
    /// # Errors
    /// What compose says.
    pub async fn prepare(spec: &FabricSpec) -> Result<Self> {
        let over = spec.dir.join("over.json");
        std::fs::write(&over, serde_json::to_vec_pretty(&compose::over(spec))?)
            .with_context(|| format!("writing {}", over.display()))?;
        let project = format!("altair-chaos-{}-{}", std::process::id(), number());
        let address = IpAddr::V4(compose::address(std::process::id()));
        let (run, links) = (spec.run.clone(), BTreeMap::new());
        // From here on whatever compose has made goes when this is dropped.
        let mut fabric = Self { run, project, address, containers: Vec::new(), volumes: Vec::new(), links };
        let mut command = engine::compose().context("compose is not installed")?;
        command
            .arg("-p")
            .arg(&fabric.project)
            .arg("-f")
            .arg(compose::file(spec.brokers))
            .arg("-f")
            .arg(&over)
            .args(["up", "--no-start"])
            .envs(compose::variables(&spec.image));
        let made = tokio::task::spawn_blocking(move || tool::run_command(&mut command, ""));
        made.await?.context("making containers")?;
        for id in 1..=spec.brokers {
            fabric.find(id).with_context(|| format!("finding the container of broker {id}"))?;
        }
        Ok(fabric)
    }

    /// Finds the container and volume that compose has made for the next broker.
    fn find(&mut self, id: u32) -> Result<()> {
        let label = |what: &str, value: &str| format!("label=com.docker.compose.{what}={value}");
        let (project, name) = (label("project", &self.project), compose::service(id));
        let service = label("service", &name);
        let found = docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service])?;
        self.containers.push(found.split_whitespace().next().context("there is none")?.to_owned());
        let format = ["volume", "inspect", "--format", "{{.Mountpoint}}"];
        let volume = docker(&[&format[..], &[&format!("{}_{name}", self.project)]].concat())?;
        self.volumes.push(PathBuf::from(volume.trim()));
        Ok(())
    }

    fn container(&self, id: u32) -> Result<&str> {
        self.of(id, &self.containers).map(String::as_str)
    }

    fn of<'a, T>(&self, id: u32, each: &'a [T]) -> Result<&'a T> {
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        place.and_then(|place| each.get(place)).with_context(|| format!("there is no broker {id}"))
    }

    fn look(&self, id: u32) -> Result<Container> {
        inspect(&[self.container(id)?])?.pop().with_context(|| format!("broker {id} has no container"))
    }

    /// Makes the kernel do what `self.links` says, in every container that runs.
    fn apply(&self) -> Result<()> {
        let ids: Vec<&str> = self.containers.iter().map(String::as_str).collect();
        let containers: Vec<(u32, Container)> = (1..).zip(inspect(&ids)?).collect();
        let addresses = containers.iter().map(|(id, container)| (*id, container.addresses())).collect();
        for (id, container) in &containers {
            if container.state.pid == 0 {
                continue;
            }
            let namespace = format!("--net=/proc/{}/ns/net", container.state.pid);
            let rules = firewall::nft(*id, &self.links, &addresses);
            let set = tool::run("nsenter", &[&namespace, "nft", "-f", "-"], &rules);
            set.with_context(|| format!("setting the firewall of broker {id}"))?;
        }
        Ok(())
    }

    async fn signal(&self, id: u32, signal: &str) -> Result<()> {
        docker_apart(&["kill", "--signal", signal, self.container(id)?]).await.map(|_| ())
    }

    async fn end(&self, id: u32) -> Result<()> {
        if !matches!(self.state(id)?, ProcessState::Running { .. }) {
            return Ok(());
        }
        let killed = self.signal(id, "KILL").await;
        let until = Instant::now() + ENDS_WITHIN;
        while matches!(self.state(id)?, ProcessState::Running { .. }) {
            // It may have ended by itself in between; then there was nothing to kill.
            killed.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            ensure!(Instant::now() < until, "the container of broker {id} does not end");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn start_now(&self, id: u32) -> Result<()> {
        docker_apart(&["start", self.container(id)?]).await?;
        // A container that starts has a namespace without rules, and may have other addresses.
        if self.links.is_empty() { Ok(()) } else { self.apply() }
    }

    async fn wait_ready(&self, id: u32, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        loop {
            let state = self.state(id)?;
            if !matches!(state, ProcessState::Running { .. }) {
                let log = self.log(id, &["--tail", LAST_LINES])?;
                bail!("broker {id} ended before it was ready ({state}); the end of its log:\n{log}");
            }
            let answer = match http_get(self.http(id), "/health/ready", PROBE).await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("HTTP {} {}", answer.status, answer.body.trim()),
                Err(error) => error.to_string(),
            };
            ensure!(Instant::now() < until, "broker {id} was not ready within {within:?}: {answer}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn set_cable(&self, id: u32, plugged: bool) -> Result<()> {
        let (container, name) = (self.container(id)?, compose::service(id));
        for network in compose::NETWORKS.map(|network| format!("{}_{network}", self.project)) {
            if plugged {
                connect(&network, &name, container).await?;
            } else {
                docker_apart(&["network", "disconnect", &network, container]).await?;
            }
        }
        if plugged && !self.links.is_empty() { self.apply() } else { Ok(()) }
    }

    fn log(&self, id: u32, options: &[&str]) -> Result<String> {
        // The engine's client tells apart what a broker wrote to which output; all of it is the log.
        let output = Command::new("docker").arg("logs").args(options).arg(self.container(id)?).output()?;
        let [told, errors] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(told + &errors)
    }
}

/// Puts a container into a network. The engine sometimes keeps the old endpoint of one that it has just taken out, and refuses
/// it for that; what it keeps is taken away by force then.
async fn connect(network: &str, alias: &str, container: &str) -> Result<()> {
    let until = Instant::now() + CONNECT_WITHIN;
    loop {
        match docker_apart(&["network", "connect", "--alias", alias, network, container]).await {
            Err(error) if format!("{error:#}").contains("already exists") && Instant::now() < until => {
                // It may be gone by now, which is as good.
                let _ = docker_apart(&["network", "disconnect", "--force", network, container]).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
            other => return other.map(drop),
        }
    }
}

/// Clusters that this process has made.
fn number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(1);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Whether rules can be set in containers' namespaces.
fn can_cut() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may set rules in containers' networks".to_owned());
    }
    match [("nsenter", "util-linux"), ("nft", "nftables")].iter().find(|(tool, _)| !tool::installed(tool)) {
        Some((tool, package)) => Err(format!("{tool} is not installed (package {package})")),
        None => Ok(()),
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        engine::remove(&self.run);
    }
}

impl Fabric for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn brokers(&self) -> u32 {
        u32::try_from(self.containers.len()).unwrap_or(u32::MAX)
    }

    fn disks(&self) -> &'static str {
        "volume"
    }

    fn can(&self, ability: Ability) -> Result<(), String> {
        match ability {
            Ability::Cut | Ability::OneWay | Ability::Reset => can_cut(),
            Ability::Delay | Ability::Loss | Ability::Hold => Err(NO_QUEUES.to_owned()),
            Ability::Trace if !rustix::process::geteuid().is_root() => {
                Err("only root may trace processes in containers".to_owned())
            }
            Ability::Trace => tool::strace(),
            Ability::BoundedDisk | Ability::Power => Err(NO_DISKS.to_owned()),
            Ability::Clock => {
                Err("the image's static binary takes no other clock; netns and proxy can".to_owned())
            }
            Ability::Rot => self.volumes.iter().try_for_each(|volume| match std::fs::read_dir(volume) {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("the engine's volumes cannot be touched here: {error}")),
            }),
            Ability::Unplug => Ok(()),
        }
    }

    fn client(&self, reach: &Reach) -> ClientConfig {
        let ids = (1..=self.brokers()).filter(|id| reach.has(*id));
        let reachable: Vec<String> =
            ids.map(|id| SocketAddr::new(self.address, firewall::grpc_port(id)).to_string()).collect();
        let connect = Arc::new(OnlyTo::new(reachable.clone()));
        ClientConfig { connect, ..ClientConfig::new(reachable) }
    }

    fn http(&self, id: u32) -> SocketAddr {
        let port = HTTP_PORT + id.saturating_sub(1);
        SocketAddr::new(self.address, u16::try_from(port).unwrap_or(0))
    }

    fn data_dir(&self, id: u32) -> Result<PathBuf> {
        self.of(id, &self.volumes).cloned()
    }

    fn state(&self, id: u32) -> Result<ProcessState> {
        let state = self.look(id)?.state;
        Ok(match state.status.as_str() {
            "created" => ProcessState::Stopped,
            _ if state.pid != 0 => ProcessState::Running { pid: state.pid },
            _ => {
                let how = format!("exit code {}", state.exit_code);
                ProcessState::Exited { how, code: Some(state.exit_code) }
            }
        })
    }

    fn start(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { self.start_now(id).await }.boxed()
    }

    fn ready(&mut self, id: u32, within: Duration) -> BoxFuture<'_, Result<()>> {
        async move { self.wait_ready(id, within).await }.boxed()
    }

    fn kill(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { self.end(id).await }.boxed()
    }

    fn stop(&mut self, id: u32, grace: Duration) -> BoxFuture<'_, Result<bool>> {
        async move {
            if !matches!(self.state(id)?, ProcessState::Running { .. }) {
                return Ok(true);
            }
            // A frozen process does not hear SIGTERM.
            self.signal(id, "CONT").await?;
            let seconds = grace.as_secs().to_string();
            docker_apart(&["stop", "--time", &seconds, self.container(id)?]).await?;
            Ok(self.look(id)?.state.exit_code != KILLED)
        }
        .boxed()
    }

    fn pause(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { self.signal(id, "STOP").await }.boxed()
    }

    fn resume(&mut self, id: u32) -> BoxFuture<'_, Result<()>> {
        async move { self.signal(id, "CONT").await }.boxed()
    }

    fn cut_power(&mut self, _ids: &[u32]) -> BoxFuture<'_, Result<()>> {
        async { bail!(NO_DISKS) }.boxed()
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
        async move { self.set_cable(id, plugged).await }.boxed()
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<()>> {
        self.links.clear();
        let applied = if can_cut().is_ok() { self.apply() } else { Ok(()) };
        async { applied }.boxed()
    }

    fn keep_logs(&self, into: &Path) -> Result<()> {
        for id in 1..=self.brokers() {
            let copy = into.join(format!("broker-{id}.log"));
            std::fs::write(&copy, self.log(id, &[])?)
                .with_context(|| format!("writing {}", copy.display()))?;
        }
        Ok(())
    }
}
