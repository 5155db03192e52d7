//! The flags that set config keys, shared by every command that reads a configuration.

use std::path::PathBuf;

use broker::config::{self, ConfigError, LoadArgs, Loaded};
use clap::Args;

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// Config file, YAML or JSON [default: ./altair.yaml or /etc/altair/altair.yaml, if there is one].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set any key, for example --set topics.retention_ms=3d; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Number of this broker (node.id).
    #[arg(long, value_name = "NUMBER")]
    id: Option<String>,
    /// Directory of this broker's data (storage.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Peer addresses of some brokers, with commas (cluster.seeds).
    #[arg(long, value_name = "HOST:PORT,…")]
    seeds: Option<String>,
    /// Brokers that begin a new cluster together (cluster.bootstrap_expect).
    #[arg(long, value_name = "NUMBER")]
    bootstrap_expect: Option<String>,
    /// Address for clients (grpc.addr).
    #[arg(long, value_name = "HOST:PORT")]
    grpc_addr: Option<String>,
    /// Address for health, metrics and REST (http.addr).
    #[arg(long, value_name = "HOST:PORT")]
    http_addr: Option<String>,
    /// Address for the other brokers (peer.addr).
    #[arg(long, value_name = "HOST:PORT")]
    peer_addr: Option<String>,
    /// disk or memory (storage.mode).
    #[arg(long, value_name = "MODE")]
    storage: Option<String>,
    /// error, warn, info, debug or trace (telemetry.log_level).
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE, for example node.id=2".to_owned())
}

impl ConfigArgs {
    /// Reads all layers. The direct flags win over `--set`.
    ///
    /// # Errors
    /// As [`config::load`].
    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        let mut flags: Vec<_> = self
            .set
            .iter()
            .map(|(key, value)| (key.clone(), value.clone(), format!("--set {key}")))
            .collect();
        let direct = [
            ("node.id", "--id", &self.id),
            ("storage.data_dir", "--data-dir", &self.data_dir),
            ("cluster.seeds", "--seeds", &self.seeds),
            ("cluster.bootstrap_expect", "--bootstrap-expect", &self.bootstrap_expect),
            ("grpc.addr", "--grpc-addr", &self.grpc_addr),
            ("http.addr", "--http-addr", &self.http_addr),
            ("peer.addr", "--peer-addr", &self.peer_addr),
            ("storage.mode", "--storage", &self.storage),
            ("telemetry.log_level", "--log-level", &self.log_level),
        ];
        flags.extend(direct.iter().filter_map(|(key, flag, value)| {
            value.as_ref().map(|value| ((*key).to_owned(), value.clone(), (*flag).to_owned()))
        }));
        // A variable that is not UTF-8 cannot be one of ours.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        config::load(&LoadArgs { file: self.config.clone(), env, flags })
    }
}
