//! A harness that gets SIGKILL leaves no process, mount, disk or container; at most a directory, which the next run removes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::run::{Turn, missing, told};

/// Far more than it takes, so that only a hang trips it.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const BROKERS: usize = 3;

/// Which of the two processes of a run gets the signal.
#[derive(Clone, Copy)]
enum Who {
    /// The one that people start.
    Outer,
    /// The one that plays.
    Inner,
}

#[test]
fn killed_in_namespaces_it_leaves_nothing() -> Result<()> {
    leaves_nothing("netns", Who::Outer)?;
    leaves_nothing("netns", Who::Inner)
}

#[test]
fn killed_behind_proxies_it_leaves_nothing() -> Result<()> {
    leaves_nothing("proxy", Who::Outer)?;
    leaves_nothing("proxy", Who::Inner)
}

#[test]
fn killed_in_containers_it_leaves_nothing() -> Result<()> {
    leaves_nothing("docker", Who::Outer)?;
    leaves_nothing("docker", Who::Inner)
}

fn leaves_nothing(fabric: &str, who: Who) -> Result<()> {
    if missing(fabric) {
        return Ok(());
    }
    let turn = Turn::take()?;
    // Somebody else's directory beside those of runs.
    let foreign = turn.dir.path().join("altair-chaos-notes");
    std::fs::create_dir(&foreign)?;
    let disks_before = loop_disks();
    // Faults that keep disks of the harness's own busy.
    let mut run = turn.start(&format!("--fabric {fabric} --rounds 1 --secs 600 --faults power-cut,pause"))?;
    let brokers = |at_least| move |found: &Found| found.brokers.len() >= at_least;
    let found = wait("a cluster", &turn, fabric, brokers(BROKERS))?;
    let victim = match who {
        Who::Outer => run.id(),
        Who::Inner => found.player.context("nobody plays")?,
    };
    kill_process(pid(victim)?, Signal::KILL)?;
    run.wait()?;
    wait("the end of all processes", &turn, fabric, |found| {
        found.brokers.is_empty() && found.player.is_none()
    })?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&*turn.dir.path().to_string_lossy()), "{mounts}");
    wait("the end of all disks", &turn, fabric, |_| loop_disks() <= disks_before)?;
    let cleaned = turn.run("--clean")?;
    ensure!(cleaned.status.success(), "{}", told(&cleaned));
    let left: Vec<_> = std::fs::read_dir(turn.dir.path())?.flatten().map(|entry| entry.path()).collect();
    ensure!(left == [foreign], "{left:?}");
    Ok(())
}

/// Processes and containers of this test's run.
struct Found {
    brokers: Vec<String>,
    player: Option<u32>,
}

fn wait(what: &str, turn: &Turn, fabric: &str, met: impl Fn(&Found) -> bool) -> Result<Found> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut found = processes(turn.dir.path())?;
        if fabric == "docker" {
            found.brokers = containers(turn.dir.path())?;
        }
        if met(&found) {
            return Ok(found);
        }
        if Instant::now() >= until {
            bail!("{what} did not come: brokers {:?}, player {:?}", found.brokers, found.player);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Processes that have the test's directory in their command line.
fn processes(dir: &Path) -> Result<Found> {
    let (dir, mut found) = (dir.to_string_lossy(), Found { brokers: Vec::new(), player: None });
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // Not a process, or one that has just ended.
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*dir) && line.contains(" serve --config ") {
            found.brokers.push(line);
        } else if line.contains(&*dir) && line.contains("--inside") && !line.starts_with("unshare") {
            found.player = Some(pid);
        }
    }
    Ok(found)
}

/// Containers of runs in the test's directory, alive or not.
fn containers(dir: &Path) -> Result<Vec<String>> {
    let format = "{{.ID}} {{.Label \"altair.chaos.run\"}}";
    let output = std::process::Command::new("docker").args(["ps", "--all", "--format", format]).output()?;
    let (text, dir) = (String::from_utf8_lossy(&output.stdout).into_owned(), dir.to_string_lossy());
    Ok(text.lines().filter(|line| line.contains(&*dir)).map(str::to_owned).collect())
}

/// Loop devices that stand on images of a harness.
fn loop_disks() -> usize {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let image = |path: &Path| std::fs::read_to_string(path.join("loop/backing_file")).unwrap_or_default();
    devices.filter(|device| image(&device.path()).contains("altair-chaos-")).count()
}

fn pid(number: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(number)?).context("no process number")
}
