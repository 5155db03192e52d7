//! The workload that every harness drives, against real brokers: its history holds what the cluster did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Acks, ClientConfig, ProducerConfig};
use cluster_test::harness::{TestCluster, eventually};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use verify::history::{AckLevel, Answer, History, Op, Outcome, Recorder};
use verify::workload::{
    FinalReadSpec, Placement, Progress, ProgressWatch, TopicTarget, Workload, WorkloadSpec, WriterSpec,
    final_read,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn spec(bootstrap: Vec<String>, topics: Vec<TopicTarget>) -> WorkloadSpec {
    let clients = Arc::new(move |worker| ClientConfig {
        random_seed: Some(u64::from(worker)),
        ..ClientConfig::new(bootstrap.clone())
    });
    let mut spec = WorkloadSpec::new(11, clients, topics);
    let weak = |acks| WriterSpec {
        producer: ProducerConfig { acks, ..WriterSpec::default().producer },
        placement: Placement::Random,
        ..WriterSpec::default()
    };
    spec.writers[0].restart_after = Some(150);
    spec.writers[1].placement = Placement::Keyed(20);
    spec.writers.extend([weak(Acks::Leader), weak(Acks::None)]);
    spec
}

async fn everyone_moves(progress: &ProgressWatch) -> Result<()> {
    let before = progress.snapshot();
    let moved =
        |now: &Progress| now.idle_workers(&before).is_empty() && now.idle_partitions(&before).is_empty();
    eventually("progress of every worker and partition", PATIENCE, || async {
        moved(&progress.snapshot()).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_goes_on_over_a_killed_leader_and_every_replica_holds_what_was_acked() -> Result<()> {
    let mut cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 3, 3).await?;
    let topics = vec![TopicTarget::new("orders", 3)];
    let begun = Instant::now();
    let recorder =
        Recorder::memory(Arc::new(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)));
    let workload = Workload::new(spec(cluster.brokers.bootstrap(), topics.clone()), recorder.clone())?;
    let (progress, stop) = (workload.progress(), CancellationToken::new());
    let faults = async {
        everyone_moves(&progress).await?;
        let victim = cluster.leader(&client, "orders", 0, None).await?;
        cluster.brokers.kill(victim).await?;
        everyone_moves(&progress).await.context("with one broker dead")?;
        cluster.restart(victim).await?;
        everyone_moves(&progress).await.context("with all brokers back")?;
        eventually("enough committed records to judge by", PATIENCE, || async {
            let now = progress.snapshot();
            (now.partitions.values().map(|partition| partition.acked).sum::<u64>() > 100).then_some(())
        })
        .await
    };
    let ends_the_workload = async {
        let outcome = faults.await;
        stop.cancel();
        outcome
    };
    let (_, faults) = tokio::join!(workload.run(stop.clone()), ends_the_workload);
    faults?;

    let spec = FinalReadSpec::new(ClientConfig::new(cluster.brokers.bootstrap()), topics);
    let read = final_read(&spec, &recorder).await?;
    assert!(read.troubles.is_empty(), "{:?}", read.troubles);
    assert_eq!(read.replicas, 9);
    holds_what_was_acked(&recorder.history()?);
    Ok(())
}

/// Every committed record stands at its offset on every replica, and the replicas are the same.
fn holds_what_was_acked(history: &History) {
    let mut contents = BTreeMap::new();
    let mut committed = Vec::new();
    let mut polled = BTreeSet::new();
    for call in &history.calls {
        match (&call.op, &call.outcome) {
            (Op::FinalRead(op), Outcome::Ok(Answer::FinalRead(read))) => {
                contents.insert((op.part, op.replica), read);
            }
            (Op::Send(op), Outcome::Ok(Answer::Send(receipt))) if op.acks == AckLevel::All => {
                committed.push((op.part, receipt.off[0], op.vals[0]));
            }
            (Op::Poll(_), Outcome::Ok(Answer::Poll(answer))) => {
                let records = answer.parts.iter().flat_map(|part| part.recs.iter());
                polled.extend(records.map(|(_, value)| *value));
            }
            _ => {}
        }
    }
    assert!(committed.len() > 50);
    for (part, offset, value) in &committed {
        for (_, read) in contents.range((*part, 0)..(*part + 1, 0)) {
            let found = read.recs.iter().find(|record| record.off == *offset).map(|record| record.val);
            assert_eq!(found, Some(*value), "partition {part} at {offset}");
        }
    }
    for part in 0..3 {
        let copies: Vec<_> = contents.range((part, 0)..(part + 1, 0)).collect();
        assert_eq!(copies.len(), 3);
        assert!(copies.windows(2).all(|pair| pair[0].1 == pair[1].1), "replicas of {part} differ");
    }
    let seen = committed.iter().filter(|(_, _, value)| polled.contains(value)).count();
    assert!(seen > 0, "the readers saw none of {} committed records", committed.len());
}
