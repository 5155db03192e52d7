//! A member of a group: whom it asks.

use std::time::Duration;

use client::{Client, GroupConfig, GroupConsumer};
use tokio::time::Instant;
use wire::pb;

use crate::consume::fill;
use crate::fake::Cluster;
use crate::fake_groups::{Call, GroupWorld};

const PATIENCE: Duration = Duration::from_secs(20);
/// One turn of a loop that waits.
const TURN: Duration = Duration::from_millis(20);

fn assigned(partition: u32) -> pb::AssignedPartition {
    pb::AssignedPartition { topic: "t".into(), partition, since: 1, ..Default::default() }
}

async fn member(cluster: &Cluster, auto_commit_interval_ms: u32) -> GroupConsumer {
    let config = GroupConfig { auto_commit_interval_ms, ..GroupConfig::new("g") };
    let mut consumer = Client::connect(cluster.config()).await.unwrap().group_consumer(config).unwrap();
    consumer.subscribe(["t"]).unwrap();
    consumer
}

/// Polls until the world is as wanted.
async fn until(
    cluster: &Cluster,
    consumer: &mut GroupConsumer,
    what: &str,
    wanted: impl Fn(&GroupWorld) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(&cluster.group.lock().unwrap()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", cluster.group.lock().unwrap());
        consumer.poll(TURN).await.unwrap();
    }
}

/// True if the last calls, ten at least, came to this broker.
fn all_at(group: &GroupWorld, broker: u32) -> bool {
    let last = group.calls.iter().rev().take(10);
    group.calls.len() >= 10 && last.clone().all(|(id, _)| *id == broker)
}

/// Goal: calls of a member go straight to the coordinator, and on without it. Method: brokers that note who asks them; the one
/// that all of them name dies, and only later they name another.
#[tokio::test]
async fn group_calls_go_to_the_coordinator_and_on_when_it_dies() {
    let cluster = Cluster::start(3, "t", 3);
    {
        let mut group = cluster.group.lock().unwrap();
        (group.coordinator, group.epoch) = (Some(2), 1);
        group.assignment.partitions = (0..3).map(assigned).collect();
    }
    let mut consumer = member(&cluster, 20).await;
    until(&cluster, &mut consumer, "calls at the coordinator", |group| all_at(group, 2)).await;
    fill(&cluster, 0, 1);
    until(&cluster, &mut consumer, "a commit there", |group| group.calls.contains(&(2, Call::Commit))).await;

    cluster.kill(2);
    cluster.move_leaders_off(2);
    let before = cluster.group.lock().unwrap().calls.len();
    until(&cluster, &mut consumer, "calls at others", |group| group.calls.len() >= before + 10).await;
    cluster.group.lock().unwrap().coordinator = Some(3);
    until(&cluster, &mut consumer, "calls at the next one", |group| all_at(group, 3)).await;
    let joins = cluster.group.lock().unwrap().calls.iter().filter(|(_, call)| *call == Call::Join).count();
    assert_eq!(joins, 1, "it was a member all the time");
    assert_eq!(consumer.assignment().len(), 3);
}
