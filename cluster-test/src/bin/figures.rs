//! The figures of the core, measured: how fast brokers start, how long a killed leader is missed, what an idle broker
//! costs. Prints one table, and with `--json` one JSON line.
//!
//! `cargo run --release -p cluster-test --bin figures`

use std::collections::BTreeMap;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use broker::supervise::{ClusterSpec, LocalCluster, PortChoice, ProcessState};
use cluster_test::harness::{altair, altair_cli, cpu_seconds, rss_bytes, run};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

/// Runs of each start-up figure.
const STARTS: usize = 5;
/// Runs of the demo.
const DEMOS: usize = 5;
/// How long the idle broker is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Time for anything to get ready.
const READY: Duration = Duration::from_secs(60);

/// One row: what was measured, what was asked for.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    measured: f64,
    unit: &'static str,
    at_most: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let mut figures = vec![binary_size()?];
    figures.extend(start_times().await?);
    figures.push(dev_start().await?);
    figures.extend(idle().await?);
    figures.extend(demos().await?);
    let json = std::env::args().any(|arg| arg == "--json");
    let mut good = true;
    for figure in &figures {
        let holds = figure.measured <= figure.at_most;
        good &= holds;
        if !json {
            let verdict = if holds { "ok" } else { "MISSED" };
            print_line(&format!(
                "{:<58} {:>10.2} {:<6} at most {:>8.2}  {verdict}",
                figure.name, figure.measured, figure.unit, figure.at_most
            ));
        }
    }
    if json {
        print_line(&serde_json::to_string(&figures)?);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the output of a command-line tool")]
fn print_line(text: &str) {
    println!("{text}");
}

fn spec(dir: &std::path::Path, brokers: u32) -> ClusterSpec {
    let dir = dir.to_owned();
    let (settings, own) = (BTreeMap::new(), BTreeMap::new());
    ClusterSpec { brokers, dir, binary: altair(), ports: PortChoice::Free, settings, own }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn binary_size() -> Result<Figure> {
    let bytes = std::fs::metadata(altair())?.len();
    let mib = bytes as f64 / f64::from(1 << 20);
    Ok(Figure {
        name: "release binary of altair, debug info stripped",
        measured: mib,
        unit: "MiB",
        at_most: 40.0,
    })
}

/// Creates a topic and has one record acked: what "ready to take writes" means.
async fn first_write(cluster: &LocalCluster, brokers: u32) -> Result<()> {
    let addr = cluster.bootstrap().join(",");
    let rf = brokers.min(3).to_string();
    for args in [
        vec!["--addr", &addr, "topic", "create", "first", "--partitions", "1", "--rf", &rf],
        vec!["--addr", &addr, "produce", "first", "hello"],
    ] {
        let output = run(altair_cli(), args, None).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

async fn start_times() -> Result<Vec<Figure>> {
    let mut rows = Vec::new();
    for (brokers, ready_name, write_name, ready_max, write_max) in [
        (
            1,
            "one broker, process start to ready, median",
            "one broker, process start to first acked write",
            300.0,
            600.0,
        ),
        (
            3,
            "three brokers, process start to ready, median",
            "three brokers, process start to first acked write",
            3000.0,
            3000.0,
        ),
    ] {
        let (mut ready, mut written) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let dir = tempfile::tempdir()?;
            let mut cluster = LocalCluster::prepare(spec(dir.path(), brokers))?;
            let started = Instant::now();
            cluster.start_all(READY).await?;
            ready.push(started.elapsed().as_secs_f64() * 1e3);
            first_write(&cluster, brokers).await?;
            written.push(started.elapsed().as_secs_f64() * 1e3);
            cluster.stop_all(READY).await;
        }
        rows.push(Figure { name: ready_name, measured: median(ready), unit: "ms", at_most: ready_max });
        rows.push(Figure { name: write_name, measured: median(written), unit: "ms", at_most: write_max });
    }
    Ok(rows)
}

/// `altair dev --brokers 3` as a person starts it, until it greets.
async fn dev_start() -> Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let dir = tempfile::tempdir()?;
        let started = Instant::now();
        let mut child = std::process::Command::new(altair())
            .args(["dev", "--brokers", "3", "--free-ports", "--dir"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().context("its output")?;
        let out = tokio::net::unix::pipe::Receiver::from_owned_fd(out.into())?;
        let greeting = tokio::time::timeout(READY, BufReader::new(out).lines().next_line()).await??;
        ensure!(greeting.is_some_and(|line| line.contains("ready")), "altair dev did not greet");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        let quit = run(
            altair(),
            [std::ffi::OsStr::new("dev"), "--dir".as_ref(), dir.path().as_os_str(), "quit".as_ref()],
            None,
        )
        .await?;
        ensure!(quit.status.success(), "{}", String::from_utf8_lossy(&quit.stderr));
        tokio::task::spawn_blocking(move || child.wait()).await??;
    }
    Ok(Figure {
        name: "altair dev --brokers 3, start to greeting, median",
        measured: median(times),
        unit: "ms",
        at_most: 3000.0,
    })
}

/// Three brokers without topics, left alone: the dearest of them counts.
async fn idle() -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let mut cluster = LocalCluster::prepare(spec(dir.path(), 3))?;
    cluster.start_all(READY).await?;
    let mut pids = Vec::new();
    for id in cluster.ids() {
        if let ProcessState::Running { pid } = cluster.state(id)? {
            pids.push(pid.to_string());
        }
    }
    // Start-up work ends; what is measured is the rest.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before: Vec<f64> = pids.iter().map(|pid| cpu_seconds(pid)).collect::<Result<_>>()?;
    tokio::time::sleep(IDLE).await;
    let (mut cpu, mut rss) = (0.0_f64, 0.0_f64);
    for (pid, before) in pids.iter().zip(before) {
        cpu = cpu.max((cpu_seconds(pid)? - before) / IDLE.as_secs_f64() * 100.0);
        rss = rss.max(rss_bytes(pid)? / f64::from(1 << 20));
    }
    cluster.stop_all(READY).await;
    Ok(vec![
        Figure {
            name: "idle broker of three, no topics: resident memory",
            measured: rss,
            unit: "MiB",
            at_most: 60.0,
        },
        Figure {
            name: "idle broker of three, no topics: CPU of one core",
            measured: cpu,
            unit: "%",
            at_most: 1.0,
        },
    ])
}

async fn demos() -> Result<Vec<Figure>> {
    let (mut gaps, mut times) = (Vec::new(), Vec::new());
    for _ in 0..DEMOS {
        let started = Instant::now();
        let output = run(altair(), ["demo", "--output", "json"], None).await?;
        times.push(started.elapsed().as_secs_f64());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(text.lines().last().context("no report")?)?;
        gaps.push(
            report.get("unavailable_ms").and_then(serde_json::Value::as_f64).context("unavailable_ms")?,
        );
    }
    let worst = |values: &[f64]| values.iter().copied().fold(0.0_f64, f64::max);
    Ok(vec![
        Figure {
            name: "demo with its defaults, longest of five",
            measured: worst(&times),
            unit: "s",
            at_most: 30.0,
        },
        Figure {
            name: "leader killed: longest time without an ack, worst of five",
            measured: worst(&gaps),
            unit: "ms",
            at_most: 2000.0,
        },
        Figure {
            name: "leader killed: longest time without an ack, median of five",
            measured: median(gaps),
            unit: "ms",
            at_most: 1200.0,
        },
    ])
}
