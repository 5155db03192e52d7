//! Commits a second, and what they cost producers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use client::{Client, ProducerConfig, ProducerRecord};
use cluster_test::harness::TestCluster;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use wire::pb;

use super::{Bound, Figure};

/// Partitions that each commit names.
const PARTITIONS: u32 = 250;
/// Groups that commit at the same time.
const GROUPS: u64 = 8;
/// What is asked for.
const WANTED: f64 = 50_000.0;
/// How long each load runs.
const RUN: Duration = Duration::from_secs(8);
/// Records that are written beside the commits, of 1 KiB each: a steady load, far from what the brokers can do.
const RECORDS_PER_SECOND: u64 = 4_000;

pub(super) async fn measure() -> Result<Vec<Figure>> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    // What is committed for needs no copies; what is written beside it has three.
    cluster.topic(&client, "wide", PARTITIONS, 1).await?;
    cluster.topic(&client, "orders", 6, 3).await?;
    let most = commit_for(&cluster, None).await?;
    let alone = produce(&client).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (commits, beside) = tokio::join!(commit_until(&cluster, Some(WANTED), Arc::clone(&stop)), async {
        let beside = produce(&client).await;
        stop.store(true, Ordering::Relaxed);
        beside
    });
    let (commits, beside) = (commits?, beside?);
    let lost = (1.0 - beside.per_second / alone.per_second).max(0.0) * 100.0;
    Ok(vec![
        Figure {
            name: "partition-commits a second, nothing else to do",
            measured: most,
            unit: "/s",
            bound: Bound::AtLeast(WANTED),
        },
        Figure {
            name: "the same beside producers, asked for 50,000",
            measured: commits,
            unit: "/s",
            bound: Bound::AtLeast(WANTED * 0.95),
        },
        Figure {
            name: "producers of 4,000 records of 1 KiB a second: what commits cost them",
            measured: lost,
            unit: "%",
            bound: Bound::AtMost(20.0),
        },
        Figure {
            name: "... p99 of their acks without commits",
            measured: alone.p99_ms,
            unit: "ms",
            bound: Bound::None,
        },
        Figure { name: "... and with them", measured: beside.p99_ms, unit: "ms", bound: Bound::None },
    ])
}

async fn commit_for(cluster: &TestCluster, rate: Option<f64>) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stop);
    let (commits, ()) = tokio::join!(commit_until(cluster, rate, stop), async move {
        tokio::time::sleep(RUN).await;
        ended.store(true, Ordering::Relaxed);
    });
    commits
}

/// Commits of groups without members, each naming all partitions; partition-commits a second.
async fn commit_until(cluster: &TestCluster, rate: Option<f64>, stop: Arc<AtomicBool>) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for group in 0..GROUPS {
        let (client, stop, done) = (cluster.client().await?, Arc::clone(&stop), Arc::clone(&done));
        tasks.spawn(async move {
            let every =
                rate.map(|rate| Duration::from_secs_f64(f64::from(PARTITIONS) * GROUPS as f64 / rate));
            let mut ticks = tokio::time::interval(every.unwrap_or(Duration::from_nanos(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut offset = 0;
            while !stop.load(Ordering::Relaxed) {
                if every.is_some() {
                    ticks.tick().await;
                }
                offset += 1;
                client.groups().commit_offsets(commit(group, offset)).await?;
                done.fetch_add(u64::from(PARTITIONS), Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

fn commit(group: u64, offset: u64) -> pb::CommitOffsetsRequest {
    let partitions = (0..PARTITIONS).map(|partition| pb::PartitionCommit {
        topic: "wide".into(),
        partition,
        offset,
        ..pb::PartitionCommit::default()
    });
    pb::CommitOffsetsRequest {
        group_id: format!("tool-{group}"),
        partitions: partitions.collect(),
        ..pb::CommitOffsetsRequest::default()
    }
}

struct Produced {
    per_second: f64,
    p99_ms: f64,
}

/// A steady load of records; how many were acked within its time, and how long the acks took.
async fn produce(client: &Client) -> Result<Produced> {
    let producer = client.producer(ProducerConfig::default())?;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (started, mut acks) = (Instant::now(), JoinSet::new());
    let value = bytes::Bytes::from(vec![7_u8; 1024]);
    while started.elapsed() < RUN {
        ticks.tick().await;
        for _ in 0..RECORDS_PER_SECOND / 100 {
            let sent = Instant::now();
            let delivery = producer.send(ProducerRecord::new("orders", value.clone())).await?;
            acks.spawn(async move { delivery.await.map(|_| (Instant::now(), sent.elapsed())) });
        }
    }
    let end = started + RUN;
    let (mut count, mut times) = (0_u64, Vec::new());
    while let Some(acked) = acks.join_next().await {
        let (at, time) = acked??;
        count += u64::from(at <= end);
        times.push(time);
    }
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Ok(Produced { per_second: count as f64 / RUN.as_secs_f64(), p99_ms: p99.as_secs_f64() * 1e3 })
}
