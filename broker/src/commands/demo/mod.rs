//! `altair demo`: the main job in one command. Three brokers, a replicated topic, writers and a reader, the leader killed
//! with SIGKILL in the middle, and a report that counts every record.

mod acks;
mod load;
mod report;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::{ClusterSpec, LocalCluster, PortChoice};
use clap::{Args, ValueEnum};
use client::{Client, ClientConfig, ProducerConfig};
use tokio::time::Instant;

use super::print::{note, say};
use load::{Load, Pace, Writers};
use report::Report;

/// How long the brokers may take to get ready, and the topic its leaders.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long reading back may stand still before it counts as lost.
const READ_PATIENCE: Duration = Duration::from_secs(15);
/// How long a broker may take to stop at the end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Longest time that a record may take, the failover included.
const DELIVERY_TIMEOUT_MS: u32 = 20_000;

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For a person.
    Text,
    /// One JSON line at the end, progress on standard error.
    Json,
}

/// Three brokers, a topic, a killed leader, and a verdict.
///
/// Starts real broker processes on free loopback ports, writes with idempotent producers and acks=all, kills the broker
/// that leads most partitions with SIGKILL, starts it again, reads everything back and compares it with the receipts.
/// Exit code 1 if anything was lost, duplicated or reordered.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Brokers to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    brokers: u32,
    /// Replicas of each partition; with fewer than 3 a killed leader takes its partitions along until it is back.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    rf: u32,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Bytes of a record.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(32..=1_000_000))]
    record_bytes: u32,
    /// Records a second in the paced phase, in which the leader is killed.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Length of the paced phase in seconds; before it, a quarter of it goes as fast as it can.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=3600))]
    seconds: u32,
    /// Directory for the brokers' data; default: a new one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the data and logs.
    #[arg(long)]
    keep: bool,
    /// How the report is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the demo.
///
/// # Errors
/// If the brokers do not start or the run cannot be finished; a broken promise is an exit code, not an error.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("altair-demo-{}", std::process::id())));
    let made_here = args.dir.is_none();
    let outcome = tokio::select! {
        outcome = play(&args, &dir) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; the brokers were stopped")),
    };
    if made_here && !args.keep && outcome.is_ok() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    } else {
        note(&format!("data and logs are kept in {}", dir.display()));
    }
    let report = outcome?;
    match args.output {
        Output::Text => say(&format!("\n{}", report.text())),
        Output::Json => say(&serde_json::to_string(&report)?),
    }
    Ok(if report.clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn play(args: &DemoArgs, dir: &std::path::Path) -> Result<Report> {
    let mut cluster = LocalCluster::prepare(ClusterSpec {
        brokers: args.brokers,
        dir: dir.to_owned(),
        binary: std::env::current_exe().context("finding this binary")?,
        ports: PortChoice::Free,
        settings: BTreeMap::new(),
        own: BTreeMap::new(),
    })?;
    let started = Instant::now();
    cluster.start_all(START_DEADLINE).await?;
    note(&format!("{} brokers ready in {} ms", args.brokers, started.elapsed().as_millis()));
    let client = Client::connect(ClientConfig::new(cluster.bootstrap())).await?;
    let load = Load {
        topic: "demo".to_owned(),
        partitions: args.partitions,
        writers: 4,
        record_bytes: usize::try_from(args.record_bytes)?,
    };
    let created = Instant::now();
    super::topics::create(&client, &load.topic, args.partitions, args.rf, START_DEADLINE).await?;
    note(&format!(
        "topic demo: {} partitions, rf {}, ready in {} ms",
        args.partitions,
        args.rf,
        created.elapsed().as_millis()
    ));
    let report = under_load(args, &mut cluster, &client, &load).await?;
    cluster.stop_all(STOP_GRACE).await;
    Ok(report)
}

/// The two phases of load, the kill in the second, and the comparison.
async fn under_load(
    args: &DemoArgs,
    cluster: &mut LocalCluster,
    client: &Client,
    load: &Load,
) -> Result<Report> {
    let config = ProducerConfig { delivery_timeout_ms: DELIVERY_TIMEOUT_MS, ..ProducerConfig::default() };
    let producer = client.producer(config)?;
    let pace = Arc::new(Pace::default());
    let seconds = Duration::from_secs(u64::from(args.seconds));

    let writers = Writers::start(&producer, load, &pace);
    let burst_from = Instant::now();
    tokio::time::sleep(seconds / 4).await;
    let (burst_acked, burst_time) = (pace.acked(), burst_from.elapsed());
    pace.set_rate(args.rate);
    let mib_s = burst_acked as f64 * load.record_bytes as f64 / f64::from(1 << 20) / burst_time.as_secs_f64();
    note(&format!(
        "as fast as it goes: {burst_acked} records acked, {mib_s:.1} MiB/s; now {} a second",
        args.rate
    ));

    // The burst's backlog must not count into the latency at the paced rate.
    let settle = Instant::now() + START_DEADLINE;
    while pace.acked() + u64::from(args.rate) / 10 < pace.sent() && Instant::now() < settle {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let paced_from = Instant::now();
    tokio::time::sleep(seconds * 4 / 10).await;
    let victim = super::topics::busiest_leader(client, &load.topic).await?;
    let killed_at = Instant::now();
    cluster.kill(victim).await?;
    note(&format!("broker {victim} killed with SIGKILL"));
    tokio::time::sleep(seconds * 3 / 10).await;
    cluster.start(victim)?;
    note(&format!("broker {victim} started again"));
    tokio::time::sleep(seconds * 3 / 10).await;
    pace.stop();
    let acks = writers.receipts().await?;
    cluster.wait_ready(victim, START_DEADLINE).await?;
    note(&format!("{} records sent, {} acked; reading back", pace.sent(), acks.len()));

    let read = load::read_all(client, load, READ_PATIENCE).await?;
    let receipts: Vec<_> = acks.iter().map(|ack| (ack.name, ack.place)).collect();
    let verdict = verify::verify(&receipts, &read);
    let (ack_p50_ms, ack_p99_ms) = acks::percentiles(&acks, paced_from, killed_at);
    Ok(Report {
        brokers: args.brokers,
        records: pace.sent(),
        acked: u64::try_from(acks.len())?,
        read: u64::try_from(read.len())?,
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        reordered: verdict.reordered,
        unavailable_ms: u64::try_from(acks::longest_gap(&acks, killed_at).as_millis())?,
        produce_mib_s: acks::round(mib_s),
        ack_p50_ms,
        ack_p99_ms,
        killed_broker: victim,
    })
}
