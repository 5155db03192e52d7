//! A member of a group: whom it asks, and what a change of its partitions holds up.

use std::time::Duration;

use client::{Client, ConsumedRecord, GroupConfig, GroupConsumer, Rebalance};
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

fn at(partition: u32) -> pb::PartitionRef {
    pb::PartitionRef { topic: "t".into(), partition }
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

/// Polls until so many records have come.
async fn read(consumer: &mut GroupConsumer, count: usize) -> Vec<ConsumedRecord> {
    let deadline = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while out.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records", out.len());
        out.extend(consumer.poll(TURN).await.unwrap());
    }
    out
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

/// Goal: who must give a partition back reads on what it keeps. Method: the last commit hangs, and meanwhile records of the other
/// partition come; the partition is released when the commit is done, and not before.
#[tokio::test]
async fn what_stays_is_read_on_while_the_last_commit_of_what_goes_hangs() {
    let cluster = Cluster::start(1, "t", 2);
    {
        let mut group = cluster.group.lock().unwrap();
        group.epoch = 1;
        group.assignment.partitions = vec![assigned(0), assigned(1)];
    }
    // It commits nothing by itself.
    let mut consumer = member(&cluster, 600_000).await;
    let (told, mut changes) = tokio::sync::mpsc::channel(16);
    consumer.on_rebalance(move |change| {
        told.try_send(change).unwrap();
        std::future::ready(())
    });
    (0..2).for_each(|partition| fill(&cluster, partition, 1));
    assert_eq!(read(&mut consumer, 20).await.len(), 20);
    assert!(matches!(changes.try_recv(), Ok(Rebalance::Assigned(all)) if all.len() == 2));

    {
        let mut group = cluster.group.lock().unwrap();
        (group.epoch, group.holds_commits) = (2, true);
        group.assignment =
            pb::Assignment { partitions: vec![assigned(0)], revoked: vec![at(1)], ..Default::default() };
    }
    let is_asked = |group: &GroupWorld| group.calls.iter().any(|(_, call)| *call == Call::Commit);
    until(&cluster, &mut consumer, "the last commit", is_asked).await;
    assert!(matches!(changes.try_recv(), Ok(Rebalance::Revoked(gone)) if gone.len() == 1));
    (0..2).for_each(|partition| fill(&cluster, partition, 1));
    let more = read(&mut consumer, 10).await;
    assert!(more.iter().all(|record| record.partition == 0), "{more:?}");
    assert_eq!(cluster.group.lock().unwrap().released, [], "before its commit is done");

    cluster.group.lock().unwrap().holds_commits = false;
    until(&cluster, &mut consumer, "the release", |group| group.released.contains(&at(1))).await;
    let committed = cluster.group.lock().unwrap().committed.clone();
    assert_eq!(committed.iter().map(|at| (at.partition, at.offset)).collect::<Vec<_>>(), [(1, 10)]);
    {
        let mut group = cluster.group.lock().unwrap();
        group.epoch = 3;
        group.assignment.revoked.clear();
    }
    fill(&cluster, 0, 1);
    read(&mut consumer, 10).await;
    assert!(changes.try_recv().is_err(), "the application took leave of it already");
}
