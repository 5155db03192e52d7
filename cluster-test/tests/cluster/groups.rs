//! Consumer groups while brokers and members die: nothing acked is left out, nobody moves without need.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, GroupConfig};
use cluster_test::harness::{Member, Notes, TestCluster, Writer, eventually};
use tokio::time::Instant;
use wire::pb;

const PARTITIONS: u32 = 6;
/// Far more than anything here takes: only a hang trips it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a machine with other work may add to a time that is asked for.
const SLACK: Duration = Duration::from_secs(2);

async fn members(cluster: &TestCluster, count: usize, config: &GroupConfig) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(Member::start(cluster.brokers.bootstrap(), config.clone(), "orders").await?);
    }
    share(&members, PATIENCE).await?;
    Ok(members)
}

/// Waits until the members share all partitions evenly.
async fn share(members: &[Member], deadline: Duration) -> Result<()> {
    let each = PARTITIONS as usize / members.len();
    eventually("a settled group", deadline, || async {
        members.iter().all(|member| member.partitions() == each).then_some(())
    })
    .await
}

async fn describe(client: &Client) -> Option<pb::GroupDescription> {
    let request = pb::DescribeGroupsRequest { group_ids: vec!["billing".into()], lag: false };
    client.groups().describe_groups(request).await.ok()?.groups.pop()
}

fn places(notes: &Notes) -> BTreeSet<(u32, u64)> {
    notes.read.iter().map(|(partition, offset, _)| (*partition, *offset)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_dies_and_no_partition_moves() -> Result<()> {
    let mut cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", PARTITIONS, 3).await?;
    let members = members(&cluster, 3, &GroupConfig::new("billing")).await?;
    let before = describe(&client).await.context("the group")?;
    let changes: Vec<usize> = members.iter().map(|member| member.notes().changes.len()).collect();
    let writer = Writer::start(&client, "orders", PARTITIONS)?;
    let coordinator = before.coordinator_id.context("a coordinator")?;
    cluster.brokers.kill(coordinator).await?;
    let next = eventually("another coordinator", PATIENCE, || async {
        describe(&client).await?.coordinator_id.filter(|id| *id != coordinator)
    })
    .await?;
    assert_ne!(next, coordinator);
    // Longer than a session: who was not heard of by the new coordinator would be expelled.
    let session = Duration::from_millis(u64::from(before.members[0].session_timeout_ms));
    tokio::time::sleep(session + Duration::from_secs(1)).await;
    cluster.restart(coordinator).await?;
    let ledger = writer.finish().await?;
    let acked: BTreeSet<(u32, u64)> = ledger.places().collect();
    eventually("every acked record to be read", PATIENCE, || async {
        let read = members.iter().flat_map(|member| places(&member.notes())).collect::<BTreeSet<_>>();
        acked.is_subset(&read).then_some(())
    })
    .await?;

    let after = eventually("the group", PATIENCE, || describe(&client)).await?;
    assert_eq!(after.summary.map(|now| now.generation), before.summary.map(|then| then.generation));
    for (member, changes) in members.iter().zip(changes) {
        assert_eq!(member.notes().changes.len(), changes, "{:?}", member.notes().changes);
    }
    let mut read = 0;
    let mut all = BTreeSet::new();
    for member in members {
        let notes = member.close().await?;
        read += notes.read.len();
        all.append(&mut places(&notes));
    }
    assert_eq!(read, all.len(), "without a rebalance no record comes twice");
    let request = pb::FetchOffsetsRequest {
        group_id: "billing".into(),
        linearizable: true,
        ..pb::FetchOffsetsRequest::default()
    };
    let committed = client.groups().fetch_offsets(request).await?.partitions;
    let committed: u64 = committed.iter().filter_map(|at| at.offset).sum();
    assert_eq!(committed, u64::try_from(all.len())?, "everything that was read is committed");
    ledger.check(&client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced_after_its_session_and_a_leaving_one_at_once() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", PARTITIONS, 3).await?;
    let session = Duration::from_secs(3);
    let config = GroupConfig {
        session_timeout_ms: 3_000,
        auto_commit_interval_ms: 100,
        ..GroupConfig::new("billing")
    };
    let mut members = members(&cluster, 3, &config).await?;
    let writer = Writer::start(&client, "orders", PARTITIONS)?;
    eventually("records at every member", PATIENCE, || async {
        members.iter().all(|member| member.notes().read.len() > 10).then_some(())
    })
    .await?;

    let died = Instant::now();
    let mut seen = vec![members.pop().context("a member")?.die().await];
    share(&members, PATIENCE).await?;
    let replaced = died.elapsed();
    assert!(replaced > session / 2, "before its session could be over: {replaced:?}");
    assert!(replaced < session + Duration::from_secs(1) + SLACK, "replaced after {replaced:?}");

    let left = Instant::now();
    seen.push(members.pop().context("a member")?.close().await?);
    share(&members, PATIENCE).await?;
    assert!(left.elapsed() < Duration::from_secs(1) + SLACK, "replaced after {:?}", left.elapsed());

    let ledger = writer.finish().await?;
    let acked: BTreeSet<(u32, u64)> = ledger.places().collect();
    let gone: BTreeSet<(u32, u64)> = seen.iter().flat_map(places).collect();
    eventually("every acked record to be read", PATIENCE, || async {
        let here = members.iter().flat_map(|member| places(&member.notes())).collect::<BTreeSet<_>>();
        acked.iter().all(|place| here.contains(place) || gone.contains(place)).then_some(())
    })
    .await?;
    for member in members {
        member.close().await?;
    }
    ledger.check(&client).await
}
