//! How soon another member has the partitions of one that died, and of one that said goodbye.

use std::time::Duration;

use anyhow::{Context, Result};
use client::GroupConfig;
use cluster_test::harness::{Member, TestCluster, eventually};
use tokio::time::Instant;

use super::{Bound, Figure};

const PARTITIONS: u32 = 12;
const SESSION_MS: u32 = 6_000;
const RUNS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure() -> Result<Vec<Figure>> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", PARTITIONS, 3).await?;
    let (mut died, mut left) = (0.0_f64, 0.0_f64);
    for run in 0..RUNS {
        let group = format!("billing-{run}");
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push(join(&cluster, &group).await?);
        }
        share(&members).await?;
        let began = Instant::now();
        members.pop().context("a member")?.die().await;
        share(&members).await?;
        died = died.max(began.elapsed().as_secs_f64());
        let began = Instant::now();
        members.pop().context("a member")?.close().await?;
        share(&members).await?;
        left = left.max(began.elapsed().as_secs_f64());
        for member in members {
            member.close().await?;
        }
    }
    Ok(vec![
        Figure {
            name: "a consumer that dies is replaced, session of 6 s, worst of three",
            measured: died,
            unit: "s",
            bound: Bound::AtMost(f64::from(SESSION_MS) / 1e3 + 1.0),
        },
        Figure {
            name: "a consumer that closes is replaced, worst of three",
            measured: left,
            unit: "s",
            bound: Bound::AtMost(1.0),
        },
    ])
}

async fn join(cluster: &TestCluster, group: &str) -> Result<Member> {
    let config = GroupConfig { session_timeout_ms: SESSION_MS, ..GroupConfig::new(group) };
    Member::start(cluster.brokers.bootstrap(), config, "orders").await
}

/// Waits until the members share all partitions evenly.
async fn share(members: &[Member]) -> Result<()> {
    let each = PARTITIONS as usize / members.len();
    eventually("a settled group", PATIENCE, || async {
        members.iter().all(|member| member.partitions() == each).then_some(())
    })
    .await
}
