//! `altair health`: exit code 0 if the broker on this host is ready. A container image without a shell or curl has it
//! for its health check.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use broker::supervise::http_get;
use clap::Args;

use super::config_args::ConfigArgs;
use super::report;

/// Flags of `health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Address of the broker's HTTP port [default: http.addr of its configuration].
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<SocketAddr>,
    /// Only ask whether the process answers, not whether it is ready.
    #[arg(long)]
    live: bool,
    /// Give up after this long.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Asks once.
pub(crate) fn run(args: &HealthArgs) -> ExitCode {
    match ask(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn ask(args: &HealthArgs) -> anyhow::Result<()> {
    let address = match args.addr {
        Some(address) => address,
        None => reachable(args.config.load()?.config.http.addr),
    };
    let path = if args.live { "/health/live" } else { "/health/ready" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime
        .block_on(http_get(address, path, args.timeout))
        .with_context(|| format!("asking http://{address}{path}"))?;
    if answer.status != 200 {
        bail!("http://{address}{path} answers {}: {}", answer.status, answer.body.trim());
    }
    Ok(())
}

/// A listener on every interface is asked through loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}
