//! What every command has at hand: the flags, the way to the cluster, the way to the user.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use client::{Client, ClientConfig, RetryConfig};

use crate::args::{Global, Watch};
use crate::exit::Failure;
use crate::output::{Format, Output};
use crate::terminal;

/// Attempts of a call beyond the first. With the SDK's backoff this outlives an election, and a cluster that is not
/// there is told within seconds.
const RETRIES: u32 = 12;

#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) out: Output,
    global: Global,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { out: Output::new(global.output, global.quiet), global }
    }

    /// For calls that a person waits for: few retries.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let retry = RetryConfig { retries: RETRIES, ..RetryConfig::default() };
        Ok(Client::start(ClientConfig { retry, ..self.config() })?)
    }

    /// For streams of records: retries for as long as the stream's own deadlines allow.
    pub(crate) fn patient_client(&self) -> Result<Client, Failure> {
        Ok(Client::start(self.config())?)
    }

    /// Settings of a connection as the flags say.
    pub(crate) fn config(&self) -> ClientConfig {
        // The SDK gives a whole call three times this.
        let attempt = (self.global.timeout / 3).clamp(Duration::from_millis(1), Duration::from_secs(600));
        ClientConfig {
            request_timeout_ms: millis(attempt),
            client_id: "altair-cli".to_owned(),
            ..ClientConfig::new(self.global.addr.iter().map(|address| address.trim()))
        }
    }

    /// The form that the user asked for, if any; `-q` asks for names.
    pub(crate) fn chosen_format(&self) -> Option<Format> {
        self.global.output.or(self.global.quiet.then_some(Format::Name))
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.global.verbose
    }

    /// The addresses that were given.
    pub(crate) fn addresses(&self) -> String {
        self.global.addr.join(", ")
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.global.timeout
    }

    pub(crate) fn timeout_ms(&self) -> u32 {
        millis(self.global.timeout)
    }

    /// With `-v`: the call that is made.
    pub(crate) fn call<T: Debug>(&self, method: &str, request: T) -> T {
        if self.global.verbose {
            terminal::note(&format!("call altair.v1.{method} {request:?}"));
        }
        request
    }

    /// Runs a look once, or with `--watch` again and again until Ctrl-C.
    pub(crate) async fn watch<F, Fut>(&self, watch: &Watch, look: F) -> Result<(), Failure>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<(), Failure>>,
    {
        let Some(every) = watch.watch else { return look().await };
        loop {
            if self.out.is_for_people() {
                terminal::clear_screen();
            }
            match look().await {
                // What cannot answer now may answer the next time; that is what one watches for.
                Err(Failure::Api(error)) if error.retriable() => terminal::print_error(&error),
                Err(failure) => return Err(failure),
                Ok(()) => {}
            }
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep(every.max(Duration::from_millis(100))) => {}
            }
        }
    }
}

/// A duration as a request carries it.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
