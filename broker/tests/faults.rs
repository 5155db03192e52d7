//! One broker whose disk fills up or breaks.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "helpers of tests fail the test that uses them"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use disk::faulty::FaultyDisk;
use support::{PATIENCE, TestBroker, config, record, start_on};
use wire::pb;

async fn produce(broker: &TestBroker, value: &str) -> pb::ProduceResult {
    let item = pb::PartitionProduce {
        topic: "t".into(),
        partition: Some(0),
        records: vec![record("k", value)],
        ..Default::default()
    };
    let request = pb::ProduceRequest { partitions: vec![item], timeout_ms: 5_000, ..Default::default() };
    broker.broker().await.produce(request).await.expect("an answer").into_inner().results.remove(0)
}

async fn read(broker: &TestBroker) -> usize {
    let item = pb::PartitionFetch { topic: "t".into(), ..Default::default() };
    let request = pb::FetchRequest { partitions: vec![item], plain: true, ..Default::default() };
    let fetched =
        broker.broker().await.fetch(request).await.expect("an answer").into_inner().partitions.remove(0);
    assert_eq!(fetched.error, None);
    fetched.records.len()
}

/// Produces until the answer is `name` (empty = stored), and tells how many were stored on the way.
async fn produce_until(broker: &TestBroker, name: &str) -> usize {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut stored = 0;
    loop {
        let result = produce(broker, "v").await;
        let error = result.error.map(|error| error.name).unwrap_or_default();
        stored += usize::from(error.is_empty());
        if error == name {
            return stored;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_produces_serves_reads_and_recovers_with_space() {
    let disk = FaultyDisk::quiet();
    disk.set_capacity(100 << 30);
    let broker = start_on(config(), Arc::new(disk.clone())).await.expect("starts");
    broker.topic("t", 1).await;
    let mut stored = produce_until(&broker, "").await;
    // 2.5 % are free, below the 5 % that are the smaller of the two marks on so small a disk.
    disk.set_capacity(disk.bytes_used() + disk.bytes_used() / 40);
    stored += produce_until(&broker, "storage_full").await;
    assert_eq!(read(&broker).await, stored);
    assert_eq!(broker.get("/health").await.0, 503);
    assert_eq!(broker.get("/health/live").await.0, 200);
    disk.set_capacity(100 << 30);
    stored += produce_until(&broker, "").await;
    assert_eq!(read(&broker).await, stored);
    assert_eq!(broker.fatal.reason(), None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_stops_the_broker_and_acknowledges_nothing_after() {
    let disk = FaultyDisk::new(7);
    let broker = start_on(config(), Arc::new(disk.clone())).await.expect("starts");
    broker.topic("t", 1).await;
    assert_eq!(produce(&broker, "before").await.error, None);
    disk.fail_sync(1);
    let answer = tokio::time::timeout(PATIENCE, produce(&broker, "after")).await.expect("an answer");
    assert!(answer.error.is_some(), "nothing is acknowledged after a failed fsync");
    let reason = tokio::time::timeout(PATIENCE, broker.fatal.stopped()).await.expect("the broker stops");
    assert!(!reason.is_empty());
    broker.node.kill();
}
