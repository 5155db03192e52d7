//! What a thousand groups cost that have nothing to do but to be alive.

use std::time::Duration;

use anyhow::Result;
use client::{Client, GroupConfig};
use cluster_test::harness::{TestCluster, eventually};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::pb;

use super::{Bound, Figure};

const GROUPS: usize = 1_000;
/// Processes that they stand for: each has a connection of its own to every broker.
const CLIENTS: usize = 50;
const WATCHED: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn measure() -> Result<Vec<Figure>> {
    let cluster = TestCluster::start(3).await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let first = cluster.client().await?;
    let before_all = watch(&cluster).await?;
    for number in 0..CLIENTS {
        let client = cluster.client().await?;
        for group in 0..GROUPS / CLIENTS {
            member(&client, &format!("idle-{number}-{group}"), &stop, &mut tasks)?;
        }
    }
    eventually("all groups", PATIENCE, || async {
        let groups = first.groups().list_groups(pb::ListGroupsRequest::default()).await.ok()?.groups;
        (groups.iter().filter(|group| group.members == 1).count() == GROUPS).then_some(())
    })
    .await?;
    // Joining ends; what is measured is the rest.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cost = watch(&cluster).await?;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(vec![
        Figure {
            name: "1,000 idle groups, heartbeats every 3 s: CPU of all brokers together",
            measured: cost,
            unit: "%",
            bound: Bound::AtMost(10.0),
        },
        Figure { name: "... of it without any group", measured: before_all, unit: "%", bound: Bound::None },
    ])
}

/// A member that waits for a topic that never comes.
fn member(
    client: &Client,
    group: &str,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let mut consumer = client.group_consumer(GroupConfig::new(group))?;
    consumer.subscribe(["never"])?;
    let stop = stop.clone();
    tasks.spawn(async move {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                polled = consumer.poll(Duration::from_secs(60)) => { polled?; }
            }
        }
        Ok(())
    });
    Ok(())
}

/// Processor time of all brokers together, in percent of one core.
async fn watch(cluster: &TestCluster) -> Result<f64> {
    let before = cluster.usage()?.cpu_seconds;
    tokio::time::sleep(WATCHED).await;
    Ok((cluster.usage()?.cpu_seconds - before) / WATCHED.as_secs_f64() * 100.0)
}
