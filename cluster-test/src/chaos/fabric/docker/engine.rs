//! The Docker engine, through its own command line.
//!
//! Everything that a run makes carries a label with the run's directory: by it the run finds what is its own, and a later one
//! what a dead one left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::super::Unavailable;
use crate::chaos::{tool, workdir};

/// Label of containers, networks and volumes: the directory of the run that made them.
pub(super) const RUN_LABEL: &str = "altair.chaos.run";

/// What there is of a run: how each kind is listed and removed.
const KINDS: [(&[&str], &[&str]); 3] = [
    (&["ps", "--all", "--quiet"], &["rm", "--force", "--volumes"]),
    (&["network", "ls", "--quiet"], &["network", "rm"]),
    (&["volume", "ls", "--quiet"], &["volume", "rm", "--force"]),
];

/// Whether an engine with compose answers here.
///
/// # Errors
/// What is missing and what to do.
pub fn check() -> Result<(), Unavailable> {
    let unavailable = |missing: &str, remedy: &str| Unavailable {
        fabric: "docker",
        missing: missing.to_owned(),
        remedy: format!("{remedy}, or use --fabric netns or proxy"),
    };
    if !tool::installed("docker") {
        return Err(unavailable(
            "docker is not installed",
            "install the packages docker.io and docker-compose",
        ));
    }
    if let Err(error) = docker(&["info"]) {
        let said = format!("{error:#}");
        let reason = said.lines().last().unwrap_or_default().trim().to_owned();
        let missing = format!("no Docker engine answers ({reason})");
        return Err(unavailable(&missing, "start it, or run this as somebody who may use it"));
    }
    if compose().is_none() {
        return Err(unavailable("compose is not installed", "install the package docker-compose"));
    }
    Ok(())
}

/// The compose program of this machine.
pub(super) fn compose() -> Option<Command> {
    if docker(&["compose", "version"]).is_ok() {
        let mut plugin = Command::new("docker");
        plugin.arg("compose");
        return Some(plugin);
    }
    tool::installed("docker-compose").then(|| Command::new("docker-compose"))
}

/// Whether the engine has an image.
#[must_use]
pub fn has_image(name: &str) -> bool {
    docker(&["image", "inspect", name]).is_ok()
}

/// Runs the engine's client to its end; blocks.
pub(super) fn docker(args: &[&str]) -> Result<String> {
    tool::run("docker", args, "")
}

/// As [`docker`], without blocking the caller's thread: some calls take many seconds.
pub(super) async fn docker_apart(args: &[&str]) -> Result<String> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let worked = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        docker(&args)
    });
    worked.await?
}

/// Removes everything that the run in this directory has in the engine, as far as it can; a later run will find the rest.
pub fn remove(run: &Path) {
    let label = format!("label={RUN_LABEL}={}", run.display());
    for (list, remove) in KINDS {
        // No engine, nothing in it.
        let Ok(found) = docker(&[list, &["--filter", &label]].concat()) else { return };
        let ids: Vec<&str> = found.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = docker(&[remove, &ids].concat());
        }
    }
}

/// Removes what runs left in the engine that live no more; says whose it was.
///
/// # Errors
/// If something is still there afterwards.
pub fn clear_stale() -> Result<Vec<String>> {
    if !tool::installed("docker") {
        return Ok(Vec::new());
    }
    let mut removed = Vec::new();
    for run in runs() {
        if workdir::is_alive(Path::new(&run)) {
            continue;
        }
        remove(Path::new(&run));
        ensure!(!runs().contains(&run), "containers of {run} cannot be removed; see docker ps -a");
        removed.push(format!("containers, networks and volumes of {run}"));
    }
    Ok(removed)
}

/// Directories of the runs that have something in the engine; none if no engine answers.
fn runs() -> BTreeSet<String> {
    let filter = format!("label={RUN_LABEL}");
    let format = format!("{{{{.Label \"{RUN_LABEL}\"}}}}");
    let found = KINDS.iter().filter_map(|(list, _)| {
        let list: Vec<&str> = list.iter().copied().filter(|arg| *arg != "--quiet").collect();
        docker(&[&list[..], &["--filter", &filter, "--format", &format]].concat()).ok()
    });
    found.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What the engine says about a container.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) state: State,
    network_settings: NetworkSettings,
}

/// Its process.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    /// `created`, `running`, `exited` …
    pub(super) status: String,
    /// Number of its first process as this machine counts; 0 without one.
    pub(super) pid: u32,
    pub(super) exit_code: i32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    ip_address: String,
}

impl Container {
    /// Its addresses now; none while it does not run.
    pub(super) fn addresses(&self) -> Vec<Ipv4Addr> {
        let endpoints = self.network_settings.networks.values();
        endpoints.filter_map(|endpoint| endpoint.ip_address.parse().ok()).collect()
    }
}

/// Looks at containers, in the order of their ids.
pub(super) fn inspect(ids: &[&str]) -> Result<Vec<Container>> {
    let text = docker(&[&["container", "inspect"], ids].concat())?;
    let found: Vec<Container> = serde_json::from_str(&text).context("reading what docker inspect says")?;
    ensure!(found.len() == ids.len(), "docker knows {} of {} containers", found.len(), ids.len());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_is_understood() {
        let text = r#"[{"Id":"x","State":{"Status":"exited","Pid":0,"ExitCode":137,"Paused":false},
            "NetworkSettings":{"Ports":{},"Networks":{
                "p_peers":{"IPAddress":"172.18.0.3"},"p_clients":{"IPAddress":""}}}}]"#;
        let containers: Vec<Container> = serde_json::from_str(text).unwrap();
        let State { status, pid, exit_code } = &containers[0].state;
        assert_eq!((status.as_str(), *pid, *exit_code), ("exited", 0, 137));
        assert_eq!(containers[0].addresses(), [Ipv4Addr::new(172, 18, 0, 3)]);
    }
}
