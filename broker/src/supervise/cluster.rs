//! N brokers on loopback, each with its own directory, config file and log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::ports::{self, BrokerAddresses, PortChoice};
use super::probe::http_get;
use super::process::{BrokerProcess, ProcessState};

/// Pause between two readiness probes.
const PROBE_EVERY: Duration = Duration::from_millis(15);
/// How long one readiness probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// Lines of a broker's log that an error shows.
const LOG_LINES_SHOWN: usize = 12;

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Number of brokers; ids are 1 to this. At least 1.
    pub brokers: u32,
    /// Directory that holds one directory per broker.
    pub dir: PathBuf,
    /// The `altair` binary.
    pub binary: PathBuf,
    /// How ports are picked.
    pub ports: PortChoice,
    /// Config keys over the defaults, for example `("storage.segment_bytes", "1MiB")`.
    pub settings: BTreeMap<String, String>,
    /// What single brokers have of their own, by id. Empty: nothing.
    pub own: BTreeMap<u32, BrokerSpec>,
}

/// What one broker has of its own.
#[derive(Debug, Clone, Default)]
pub struct BrokerSpec {
    /// Where it listens, instead of the address that was picked for it.
    pub addresses: Option<BrokerAddresses>,
    /// Config keys over those of the cluster.
    pub settings: BTreeMap<String, String>,
    /// Environment variables of its process.
    pub environment: BTreeMap<String, String>,
    /// A command that becomes the broker, for example `nsenter --net=PATH`: it must end in an exec of its arguments.
    pub wrapper: Vec<String>,
}

/// Why a cluster on this machine does not run.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Files or directories could not be made.
    #[error("preparing {path}")]
    Prepare {
        /// Where.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// No ports.
    #[error("finding free ports")]
    Ports(#[source] std::io::Error),
    /// The process could not be started.
    #[error("starting broker {id} from {binary}")]
    Spawn {
        /// The broker.
        id: u32,
        /// The binary.
        binary: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// There is no such broker.
    #[error("there is no broker {id}; ids are 1 to {brokers}")]
    UnknownBroker {
        /// The id asked for.
        id: u32,
        /// How many there are.
        brokers: u32,
    },
    /// The broker ended instead of getting ready.
    #[error("broker {id} ended before it was ready ({state}); the end of its log:\n{log}")]
    Ended {
        /// The broker.
        id: u32,
        /// How it ended.
        state: ProcessState,
        /// Last lines of its log.
        log: String,
    },
    /// The broker runs but was not ready in time.
    #[error("broker {id} was not ready within {waited:?}: {answer}; its log is {log}")]
    NotReady {
        /// The broker.
        id: u32,
        /// How long was waited.
        waited: Duration,
        /// Last answer of its readiness probe.
        answer: String,
        /// Path of its log.
        log: PathBuf,
    },
}

/// One broker of the cluster.
#[derive(Debug)]
struct Member {
    dir: PathBuf,
    addresses: BrokerAddresses,
    process: Option<BrokerProcess>,
}

/// Brokers on this machine. Dropping it kills them all.
#[derive(Debug)]
pub struct LocalCluster {
    spec: ClusterSpec,
    members: Vec<Member>,
    moved: bool,
}

impl LocalCluster {
    /// Makes the directories and config files; starts nothing.
    ///
    /// # Errors
    /// [`SuperviseError::Ports`] or [`SuperviseError::Prepare`].
    pub fn prepare(spec: ClusterSpec) -> Result<Self, SuperviseError> {
        let (mut addresses, moved) =
            ports::choose(spec.brokers, spec.ports).map_err(SuperviseError::Ports)?;
        for (number, picked) in (1..).zip(&mut addresses) {
            *picked = spec.own.get(&number).and_then(|own| own.addresses).unwrap_or(*picked);
        }
        let mut members = Vec::new();
        for (number, own) in (1..).zip(&addresses) {
            let dir = spec.dir.join(format!("broker-{number}"));
            let prepare = |source| SuperviseError::Prepare { path: dir.clone(), source };
            std::fs::create_dir_all(&dir).map_err(prepare)?;
            let text = config_text(&spec, number, own, &addresses);
            std::fs::write(dir.join("altair.yaml"), text).map_err(prepare)?;
            members.push(Member { dir, addresses: *own, process: None });
        }
        Ok(Self { spec, members, moved })
    }

    /// Ids of all brokers, running or not.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.spec.brokers
    }

    /// True if the standard ports were taken and others are used.
    #[must_use]
    pub fn ports_moved(&self) -> bool {
        self.moved
    }

    /// Starts a broker that does not run.
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`] or [`SuperviseError::Spawn`].
    pub fn start(&mut self, id: u32) -> Result<(), SuperviseError> {
        let binary = self.spec.binary.clone();
        let own = self.spec.own.get(&id).cloned().unwrap_or_default();
        let member = self.member_mut(id)?;
        if matches!(member.state(), ProcessState::Running { .. }) {
            return Ok(());
        }
        let mut command = wrapped(&binary, &own.wrapper);
        command
            .envs(&own.environment)
            .arg("serve")
            .arg("--config")
            .arg(member.dir.join("altair.yaml"))
            // A supervisor that is killed must not leave brokers behind.
            .env("ALTAIR_DIE_WITH_PARENT", "1");
        let process = BrokerProcess::spawn(&mut command, &member.dir.join("broker.log"))
            .map_err(|source| SuperviseError::Spawn { id, binary, source })?;
        member.process = Some(process);
        Ok(())
    }

    /// Starts all brokers and waits until each is ready.
    ///
    /// # Errors
    /// Those of [`LocalCluster::start`] and [`LocalCluster::wait_ready`].
    pub async fn start_all(&mut self, deadline: Duration) -> Result<(), SuperviseError> {
        for id in self.ids() {
            self.start(id)?;
        }
        self.wait_all_ready(deadline).await
    }

    /// Waits until every broker that was started is ready.
    ///
    /// # Errors
    /// Those of [`LocalCluster::wait_ready`].
    pub async fn wait_all_ready(&self, deadline: Duration) -> Result<(), SuperviseError> {
        let until = Instant::now() + deadline;
        for id in self.ids() {
            if self.member(id)?.process.is_some() {
                self.wait_ready(id, until.saturating_duration_since(Instant::now())).await?;
            }
        }
        Ok(())
    }

    /// Waits until a broker's `/health/ready` says yes.
    ///
    /// # Errors
    /// [`SuperviseError::Ended`], [`SuperviseError::NotReady`] or [`SuperviseError::UnknownBroker`].
    pub async fn wait_ready(&self, id: u32, deadline: Duration) -> Result<(), SuperviseError> {
        let until = Instant::now() + deadline;
        loop {
            let member = self.member(id)?;
            let state = member.state();
            if !matches!(state, ProcessState::Running { .. }) {
                return Err(SuperviseError::Ended { id, state, log: self.log_tail(id) });
            }
            let answer = match http_get(member.addresses.http, "/health/ready", PROBE_DEADLINE).await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("HTTP {} {}", answer.status, answer.body.trim()),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                let log = member.dir.join("broker.log");
                return Err(SuperviseError::NotReady { id, waited: deadline, answer, log });
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    /// Ends a broker with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub async fn kill(&mut self, id: u32) -> Result<(), SuperviseError> {
        if let Some(process) = &self.member(id)?.process {
            process.signal(Signal::KILL);
            process.wait_end(Duration::from_secs(10)).await;
        }
        Ok(())
    }

    /// Asks a broker to stop; kills it when it has not within `grace`. True if it stopped by itself.
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub async fn stop(&mut self, id: u32, grace: Duration) -> Result<bool, SuperviseError> {
        let member = self.member_mut(id)?;
        let Some(process) = member.process.take() else { return Ok(true) };
        process.signal(Signal::TERM);
        let graceful = process.wait_end(grace).await;
        if !graceful {
            process.signal(Signal::KILL);
            process.wait_end(grace).await;
        }
        Ok(graceful)
    }

    /// Stops all brokers at once.
    pub async fn stop_all(&mut self, grace: Duration) {
        for member in &self.members {
            if let Some(process) = &member.process {
                process.signal(Signal::TERM);
            }
        }
        for id in self.ids() {
            // The id comes from the cluster itself.
            let _ = self.stop(id, grace).await;
        }
    }

    /// Freezes a broker (SIGSTOP).
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub fn pause(&self, id: u32) -> Result<(), SuperviseError> {
        self.signal(id, Signal::STOP)
    }

    /// Lets a frozen broker go on (SIGCONT).
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub fn resume(&self, id: u32) -> Result<(), SuperviseError> {
        self.signal(id, Signal::CONT)
    }

    fn signal(&self, id: u32, signal: Signal) -> Result<(), SuperviseError> {
        if let Some(process) = &self.member(id)?.process {
            process.signal(signal);
        }
        Ok(())
    }

    /// What a broker's process is doing.
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub fn state(&self, id: u32) -> Result<ProcessState, SuperviseError> {
        Ok(self.member(id)?.state())
    }

    /// Where a broker listens.
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub fn addresses(&self, id: u32) -> Result<BrokerAddresses, SuperviseError> {
        Ok(self.member(id)?.addresses)
    }

    /// A broker's directory: config, log and data.
    ///
    /// # Errors
    /// [`SuperviseError::UnknownBroker`].
    pub fn dir(&self, id: u32) -> Result<&Path, SuperviseError> {
        Ok(&self.member(id)?.dir)
    }

    /// gRPC addresses of all brokers, for a client.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<String> {
        self.members.iter().map(|member| member.addresses.grpc.to_string()).collect()
    }

    /// Last lines of a broker's log; empty if there is none.
    #[must_use]
    pub fn log_tail(&self, id: u32) -> String {
        let Ok(member) = self.member(id) else { return String::new() };
        let text = std::fs::read_to_string(member.dir.join("broker.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines.iter().skip(from).copied().collect::<Vec<_>>().join("\n")
    }

    fn member(&self, id: u32) -> Result<&Member, SuperviseError> {
        let unknown = SuperviseError::UnknownBroker { id, brokers: self.spec.brokers };
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        place.and_then(|place| self.members.get(place)).ok_or(unknown)
    }

    fn member_mut(&mut self, id: u32) -> Result<&mut Member, SuperviseError> {
        let unknown = SuperviseError::UnknownBroker { id, brokers: self.spec.brokers };
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        place.and_then(|place| self.members.get_mut(place)).ok_or(unknown)
    }
}

impl Member {
    fn state(&self) -> ProcessState {
        self.process.as_ref().map_or(ProcessState::Stopped, BrokerProcess::state)
    }
}

/// The command that starts `binary`, inside its wrapper if it has one.
fn wrapped(binary: &Path, wrapper: &[String]) -> Command {
    let Some((outer, args)) = wrapper.split_first() else { return Command::new(binary) };
    let mut command = Command::new(outer);
    command.args(args).arg(binary);
    command
}

/// The config file of one broker, as a person would write it.
fn config_text(spec: &ClusterSpec, id: u32, own: &BrokerAddresses, all: &[BrokerAddresses]) -> String {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut set = |key: &str, value: String| {
        if let Some((section, key)) = key.split_once('.') {
            sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value);
        }
    };
    set("node.id", id.to_string());
    if spec.brokers > 1 {
        let seeds: Vec<String> = all.iter().map(|a| format!("\"{}\"", a.peer)).collect();
        set("cluster.seeds", format!("[{}]", seeds.join(", ")));
        set("cluster.bootstrap_expect", spec.brokers.to_string());
    }
    set("grpc.addr", format!("\"{}\"", own.grpc));
    set("http.addr", format!("\"{}\"", own.http));
    set("peer.addr", format!("\"{}\"", own.peer));
    let data = spec.dir.join(format!("broker-{id}")).join("data");
    set("storage.data_dir", format!("\"{}\"", data.display()));
    let own_settings = spec.own.get(&id).map(|own| &own.settings);
    for (key, value) in spec.settings.iter().chain(own_settings.into_iter().flatten()) {
        set(key, value.clone());
    }
    let mut text =
        String::from("# Written when the cluster was started; changed by hand, it is overwritten.\n");
    for (section, keys) in sections {
        text.push_str(&format!("{section}:\n"));
        for (key, value) in keys {
            text.push_str(&format!("  {key}: {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, binary: &str) -> ClusterSpec {
        ClusterSpec {
            brokers: 3,
            dir: dir.to_owned(),
            binary: PathBuf::from(binary),
            ports: PortChoice::Free,
            settings: BTreeMap::from([("topics.default_rf".to_owned(), "1".to_owned())]),
            own: BTreeMap::new(),
        }
    }

    #[test]
    fn each_broker_gets_a_config_that_names_all_seeds() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = LocalCluster::prepare(spec(dir.path(), "true")).unwrap();
        let text = std::fs::read_to_string(cluster.dir(2).unwrap().join("altair.yaml")).unwrap();
        assert!(text.contains("  id: 2\n"), "{text}");
        assert!(text.contains("  default_rf: 1\n"), "{text}");
        for id in cluster.ids() {
            assert!(text.contains(&cluster.addresses(id).unwrap().peer.to_string()), "{text}");
        }
    }

    #[test]
    fn what_a_broker_has_of_its_own_goes_over_what_all_have() {
        let dir = tempfile::tempdir().unwrap();
        let at = |port| std::net::SocketAddr::from(([127, 0, 0, 9], port));
        let addresses = BrokerAddresses { grpc: at(1), http: at(2), peer: at(3) };
        let settings = BTreeMap::from([("topics.default_rf".to_owned(), "2".to_owned())]);
        let own = BrokerSpec { addresses: Some(addresses), settings, ..BrokerSpec::default() };
        let mut spec = spec(dir.path(), "true");
        spec.own.insert(2, own);
        let cluster = LocalCluster::prepare(spec).unwrap();
        let text = |id| std::fs::read_to_string(cluster.dir(id).unwrap().join("altair.yaml")).unwrap();
        assert!(text(1).contains("  default_rf: 1\n") && text(2).contains("  default_rf: 2\n"));
        assert!(text(1).contains("127.0.0.9:3"), "{}", text(1));
        assert_eq!(cluster.addresses(2).unwrap(), addresses);
    }

    #[tokio::test]
    async fn a_wrapper_becomes_the_broker() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "false");
        // `env false serve …`: the binary comes behind its wrapper.
        let own = BrokerSpec { wrapper: vec!["env".to_owned()], ..BrokerSpec::default() };
        spec.own.insert(1, own);
        spec.brokers = 1;
        let mut cluster = LocalCluster::prepare(spec).unwrap();
        let error = cluster.start_all(Duration::from_secs(20)).await.unwrap_err();
        let SuperviseError::Ended { state: ProcessState::Exited { code, .. }, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(code, Some(1));
    }

    #[tokio::test]
    async fn a_broker_that_ends_at_once_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = LocalCluster::prepare(spec(dir.path(), "false")).unwrap();
        let error = cluster.start_all(Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, SuperviseError::Ended { id: 1, .. }), "{error}");
    }

    #[test]
    fn a_broker_outside_the_cluster_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = LocalCluster::prepare(spec(dir.path(), "true")).unwrap();
        for id in [0, 4] {
            let error = cluster.start(id).unwrap_err();
            assert_eq!(error.to_string(), format!("there is no broker {id}; ids are 1 to 3"));
        }
    }
}
