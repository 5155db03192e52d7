//! Reading: every record once and in order, whatever happens to leaders and connections.

use std::time::Duration;

use bytes::Bytes;
use client::{
    Client, Compression, ConsumedRecord, Consumer, ConsumerConfig, OffsetReset, Position, TopicPartition,
};
use futures::StreamExt;
use tokio::time::{Instant, timeout};
use wire::error_code::ErrorCode;
use wire::ids::PartitionIndex;
use wire::record::RecordBatchBuilder;

use crate::fake::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);

fn batch(from: u64, count: u64) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::Lz4);
    for number in from..from + count {
        builder.push(1_000, None, Some(number.to_string().as_bytes()), &[("h", b"1")]);
    }
    builder.build().unwrap()
}

/// Writes `batches` batches of ten records.
pub(crate) fn fill(cluster: &Cluster, partition: usize, batches: u64) {
    cluster.with("t", partition, |partition| {
        for _ in 0..batches {
            partition.append(&batch(partition.next, 10)).unwrap();
        }
    });
}

async fn consumer(cluster: &Cluster, config: ConsumerConfig) -> Consumer {
    Client::connect(cluster.config()).await.unwrap().consumer(config).unwrap()
}

/// Polls until `count` records have come.
async fn read(consumer: &mut Consumer, count: usize) -> Vec<ConsumedRecord> {
    let mut out = Vec::new();
    let until = Instant::now() + PATIENCE;
    while out.len() < count {
        assert!(Instant::now() < until, "{} of {count} records", out.len());
        out.extend(consumer.poll(Duration::from_millis(200)).await.unwrap());
    }
    assert_eq!(out.len(), count);
    out
}

fn offsets(records: &[ConsumedRecord], partition: u32) -> Vec<u64> {
    records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect()
}

#[tokio::test]
async fn all_partitions_are_read_once_in_order_through_leader_changes() {
    let cluster = Cluster::start(3, "t", 3);
    (0..3).for_each(|partition| fill(&cluster, partition, 20));
    // Little room, so that reading needs many fetches.
    let config = ConsumerConfig {
        prefetch_bytes: 2_048,
        partition_fetch_bytes: 1_024,
        max_poll_records: 7,
        ..ConsumerConfig::default()
    };
    let mut consumer = consumer(&cluster, config).await;
    consumer.assign_topic("t").await.unwrap();
    let mut records = read(&mut consumer, 140).await;
    cluster.kill(1);
    cluster.move_leaders_off(1);
    records.extend(read(&mut consumer, 460).await);
    for partition in 0..3 {
        assert_eq!(offsets(&records, partition), (0..200).collect::<Vec<u64>>());
    }
    assert!(
        records.iter().all(|record| record.value.as_deref() == Some(record.offset.to_string().as_bytes()))
    );
    (0..3).for_each(|partition| fill(&cluster, partition, 1));
    let more = read(&mut consumer, 30).await;
    assert_eq!(offsets(&more, 1), (200..210).collect::<Vec<u64>>());
    assert_eq!(consumer.positions().values().copied().collect::<Vec<_>>(), [Some(210); 3]);
}

#[tokio::test]
async fn a_position_inside_a_batch_skips_what_lies_before_it() {
    let cluster = Cluster::start(1, "t", 1);
    fill(&cluster, 0, 3);
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    consumer.assign([("t", 0)]).await.unwrap();
    consumer.seek("t", 0, Position::Offset(17)).unwrap();
    assert_eq!(offsets(&read(&mut consumer, 13).await, 0), (17..30).collect::<Vec<u64>>());
    consumer.seek("t", 0, Position::Earliest).unwrap();
    assert_eq!(offsets(&read(&mut consumer, 30).await, 0)[0], 0);
    consumer.seek("t", 0, Position::Latest).unwrap();
    assert!(consumer.poll(Duration::from_millis(50)).await.unwrap().is_empty());
    fill(&cluster, 0, 1);
    assert_eq!(offsets(&read(&mut consumer, 10).await, 0)[0], 30);
    assert!(consumer.seek("t", 7, Position::Latest).is_err());
}

#[tokio::test]
async fn an_offset_that_is_gone_follows_the_reset_policy() {
    for reset in [OffsetReset::Earliest, OffsetReset::Latest, OffsetReset::Error] {
        let cluster = Cluster::start(1, "t", 1);
        fill(&cluster, 0, 3);
        cluster.with("t", 0, |partition| partition.log_start = 20);
        let mut consumer =
            consumer(&cluster, ConsumerConfig { offset_reset: reset, ..ConsumerConfig::default() }).await;
        consumer.assign([("t", 0)]).await.unwrap();
        consumer.seek("t", 0, Position::Offset(5)).unwrap();
        match reset {
            OffsetReset::Earliest => assert_eq!(read(&mut consumer, 10).await[0].offset, 20),
            OffsetReset::Latest => {
                let at = TopicPartition { topic: "t".into(), partition: PartitionIndex(0) };
                let until = Instant::now() + PATIENCE;
                while consumer.positions()[&at] != Some(30) {
                    assert!(consumer.poll(Duration::from_millis(20)).await.unwrap().is_empty());
                    assert!(Instant::now() < until);
                }
            }
            OffsetReset::Error => {
                let error = timeout(PATIENCE, consumer.poll(PATIENCE)).await.unwrap().unwrap_err();
                assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
                consumer.seek("t", 0, Position::Offset(20)).unwrap();
                assert_eq!(read(&mut consumer, 10).await[0].offset, 20);
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_batch_is_reported_after_what_came_before_it() {
    let cluster = Cluster::start(1, "t", 1);
    fill(&cluster, 0, 3);
    cluster.with("t", 0, |partition| {
        partition.unknown_read.push_back(ErrorCode::NotReady);
        let mut damaged = partition.batches[1].to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        partition.batches[1] = damaged.into();
    });
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    consumer.assign([("t", 0)]).await.unwrap();
    assert_eq!(offsets(&read(&mut consumer, 10).await, 0), (0..10).collect::<Vec<u64>>());
    let error = timeout(PATIENCE, consumer.poll(PATIENCE)).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::CorruptBatch);
    assert!(consumer.poll(Duration::from_millis(50)).await.unwrap().is_empty());
    consumer.seek("t", 0, Position::Offset(20)).unwrap();
    assert_eq!(read(&mut consumer, 10).await[0].offset, 20);
}

#[tokio::test]
async fn nothing_behind_a_damaged_batch_is_returned_before_a_seek() {
    let cluster = Cluster::start(1, "t", 1);
    fill(&cluster, 0, 100);
    cluster.with("t", 0, |partition| {
        let mut damaged = partition.batches[20].to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        partition.batches[20] = damaged.into();
    });
    let config =
        ConsumerConfig { partition_fetch_bytes: 1_024, max_poll_records: 10, ..ConsumerConfig::default() };
    let mut consumer = consumer(&cluster, config).await;
    consumer.assign([("t", 0)]).await.unwrap();
    // A reader that asks for the end has everything before it, damage and all.
    let until = Instant::now() + PATIENCE;
    while cluster.with("t", 0, |partition| partition.asked) < 1_000 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut next = 0;
    let error = loop {
        match timeout(PATIENCE, consumer.poll(PATIENCE)).await.unwrap() {
            Ok(records) => {
                for record in records {
                    assert_eq!(record.offset, next);
                    next += 1;
                }
            }
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), next), (ErrorCode::CorruptBatch, 200));
    assert!(consumer.poll(Duration::from_millis(100)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_paused_partition_waits_and_the_others_go_on() {
    let cluster = Cluster::start(1, "t", 2);
    (0..2).for_each(|partition| fill(&cluster, partition, 5));
    let mut consumer =
        consumer(&cluster, ConsumerConfig { max_poll_records: 3, ..ConsumerConfig::default() }).await;
    consumer.assign_topic("t").await.unwrap();
    let before = read(&mut consumer, 3).await;
    assert!(consumer.pause("t", 0));
    let others = read(&mut consumer, 50 - offsets(&before, 1).len()).await;
    assert!(others.iter().all(|record| record.partition == 1));
    assert!(consumer.resume("t", 0));
    let rest = read(&mut consumer, 50 - offsets(&before, 0).len()).await;
    let all: Vec<u64> = offsets(&before, 0).into_iter().chain(offsets(&rest, 0)).collect();
    assert_eq!(all, (0..50).collect::<Vec<u64>>());
    assert!(!consumer.pause("t", 9));
}

#[tokio::test]
async fn a_stream_gives_records_one_by_one() {
    let cluster = Cluster::start(2, "t", 1);
    fill(&cluster, 0, 3);
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    consumer.assign_topic("t").await.unwrap();
    let records: Vec<u64> = timeout(
        PATIENCE,
        std::pin::pin!(consumer.stream()).take(30).map(|record| record.unwrap().offset).collect::<Vec<u64>>(),
    )
    .await
    .unwrap();
    assert_eq!(records, (0..30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn offsets_of_beginning_and_end_are_known_without_reading() {
    let cluster = Cluster::start(2, "t", 2);
    fill(&cluster, 1, 3);
    cluster.with("t", 1, |partition| partition.log_start = 10);
    let consumer = consumer(&cluster, ConsumerConfig::default()).await;
    let all: Vec<TopicPartition> =
        (0..2).map(|index| TopicPartition { topic: "t".into(), partition: PartitionIndex(index) }).collect();
    let (first, end) =
        (consumer.beginning_offsets(&all).await.unwrap(), consumer.end_offsets(&all).await.unwrap());
    assert_eq!((first[&all[0]], end[&all[0]]), (0, 0));
    assert_eq!((first[&all[1]], end[&all[1]]), (10, 30));
}

#[tokio::test]
async fn health_tells_which_brokers_answer() {
    let cluster = Cluster::start(3, "t", 1);
    let client = Client::connect(cluster.config()).await.unwrap();
    assert!(client.health().await.healthy);
    cluster.kill(2);
    let health = client.health().await;
    assert_eq!(health.brokers.iter().filter(|broker| broker.answered.is_err()).count(), 1);
    assert!(health.healthy);
}
