//! Namespaces of the harness's own: it runs again inside fresh mount, network and process namespaces.
//!
//! Everything that the harness makes there (processes, interfaces, firewall rules, mounts) belongs to these namespaces, and
//! the kernel takes it away when the first process in them ends, however it ends. So nothing can be left behind, and
//! nothing outside can be touched: there is no route out, and no name of anything that was not made inside.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::fabric::Unavailable;
use super::tool;

/// Says to the inner process whether it is in namespaces of its own.
const WALLS: &str = "ALTAIR_CHAOS_WALLS";
/// Programs without which there are no namespaces with networks.
const NEEDED: &[(&str, &str)] =
    &[("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2"), ("nft", "nftables")];

/// Whether this machine lets the harness make namespaces.
///
/// # Errors
/// What is missing and what to do.
pub fn check() -> Result<(), Unavailable> {
    let unavailable = |missing: String, remedy: String| Unavailable { fabric: "netns", missing, remedy };
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !tool::installed(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        let packages = missing.join(" ");
        let remedy = format!("install the packages {packages}, or use --fabric proxy");
        return Err(unavailable(format!("programs of {packages} are not installed"), remedy));
    }
    let mut args = unshare_args();
    // Firewall rules are the last thing that a machine may withhold.
    args.extend(["nft", "list", "ruleset"]);
    tool::run("unshare", &args, "").map(|_| ()).map_err(|error| {
        let remedy = "run it as root on a machine of your own (not in an unprivileged container), or use --fabric proxy";
        unavailable(format!("{error:#}"), remedy.to_owned())
    })
}

/// Whether this machine lets the harness make namespaces at all; enough for what has a network of its own kind.
#[must_use]
pub fn possible() -> bool {
    let mut args = unshare_args();
    args.push("true");
    tool::installed("unshare") && tool::installed("ip") && tool::run("unshare", &args, "").is_ok()
}

/// What stands between the process that plays and the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walls {
    /// Namespaces of its own.
    Namespaces,
    /// Nothing.
    None,
}

/// Runs this program again with these arguments and waits for its end. It puts files for the moment into `work`, and ends
/// when this process does, see [`enter`].
///
/// # Errors
/// If it cannot be started.
pub fn rerun(args: &[String], work: &Path, walls: Walls) -> Result<ExitStatus> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut command = match walls {
        Walls::Namespaces => {
            let mut unshare = Command::new("unshare");
            unshare.args(unshare_args()).arg(own);
            unshare
        }
        Walls::None => Command::new(own),
    };
    let mut inner = command
        .args(args)
        .env(WALLS, if walls == Walls::Namespaces { "1" } else { "0" })
        .env("TMPDIR", work)
        // Ctrl-C is for this process: the inner one then cleans up.
        .process_group(0)
        // Held open for as long as this process lives, and by nobody else.
        .stdin(Stdio::piped())
        .spawn()
        .context("starting the process that plays")?;
    let lifeline = inner.stdin.take();
    let status = inner.wait().context("waiting for the process that plays")?;
    drop(lifeline);
    Ok(status)
}

/// To be called first by the inner process: calls `orphaned` and ends this process when the outer one ends, and sets up what
/// fresh namespaces lack.
///
/// # Errors
/// If the kernel refuses.
pub fn enter(orphaned: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(|| {
            // Nobody writes: the read ends when the outer process does.
            let _ = std::io::stdin().read(&mut [0]);
            orphaned();
            std::process::exit(1);
        })
        .context("watching the outer process")?;
    if std::env::var_os(WALLS).is_some_and(|walls| walls == "1") {
        furnish()?;
    }
    Ok(())
}

fn furnish() -> Result<()> {
    // `ip netns` and `iptables` keep names and locks in /run: these are ours alone.
    tool::run("mount", &["-t", "tmpfs", "altair-chaos", "/run"], "")?;
    tool::run("ip", &["link", "set", "lo", "up"], "")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("turning this namespace into a router")?;
    Ok(())
}

/// New namespaces for mounts, networks and processes; for users too where this one is not root.
fn unshare_args() -> Vec<&'static str> {
    let mut args = vec!["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        args.push("--map-root-user");
    }
    args
}
