//! Logs: one subscriber for the process, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not a filter that `tracing` understands.
    #[error("log level {level:?} is not a level or filter")]
    Level {
        /// What was given.
        level: String,
        /// Why it was refused.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is installed already.
    #[error("logging was started twice")]
    Started,
}

/// Starts logging to standard error. `level` is a level or a `tracing` filter such as `info,broker::raft=debug`.
///
/// # Errors
/// [`TelemetryError`], if the level is no filter or logging was started before.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    // openraft narrates every step of every group; its warnings are enough unless someone asks.
    let quiet = format!("openraft=error,h2=warn,hyper=warn,tonic=warn,sled=warn,{level}");
    let filter = EnvFilter::try_new(quiet)
        .map_err(|source| TelemetryError::Level { level: level.to_owned(), source })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| TelemetryError::Started)
}
