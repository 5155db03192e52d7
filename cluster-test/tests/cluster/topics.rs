//! Topics over a real cluster: every refusal is a named error, every answer agrees between brokers.

use anyhow::{Result, ensure};
use client::{ConsumerConfig, Position, ProducerConfig, ProducerRecord};
use cluster_test::harness::{TestCluster, eventually};
use std::time::Duration;
use wire::error_code::ErrorCode;
use wire::pb::{CreateTopicRequest, DeleteTopicRequest, DescribePartitionsRequest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_topics_are_refused_by_name() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 2, 3).await?;
    let request = |name: &str, partitions: u32, rf: u32| CreateTopicRequest {
        name: name.to_owned(),
        partitions,
        replication_factor: rf,
        ..CreateTopicRequest::default()
    };
    for (asked, wanted) in [
        (request("orders", 1, 1), ErrorCode::TopicExists),
        (request("", 1, 1), ErrorCode::InvalidTopicName),
        (request("a/b", 1, 1), ErrorCode::InvalidTopicName),
        (request(&"x".repeat(250), 1, 1), ErrorCode::InvalidTopicName),
        (request("many", u32::MAX, 1), ErrorCode::InvalidPartitionCount),
        (request("wide", 1, 5), ErrorCode::NotEnoughBrokers),
        (request("wider", 1, 100), ErrorCode::InvalidReplicationFactor),
    ] {
        let name = asked.name.clone();
        let error = client.admin().create_topic(asked).await.expect_err("it must be refused");
        ensure!(error.code() == wanted, "{name}: {error}");
    }
    let unknown = client
        .admin()
        .delete_topic(DeleteTopicRequest { name: "nothing".to_owned(), dry_run: false })
        .await
        .expect_err("it must be refused");
    ensure!(unknown.code() == ErrorCode::UnknownTopic, "{unknown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_ends_with_the_same_log() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 2, 3).await?;
    let producer = client.producer(ProducerConfig::default())?;
    for number in 0..500_u32 {
        let record = ProducerRecord::new("orders", format!("value-{number}")).key(format!("key-{number}"));
        drop(producer.send(record).await?);
    }
    producer.flush().await?;
    let request =
        DescribePartitionsRequest { topic: "orders".to_owned(), ..DescribePartitionsRequest::default() };
    eventually("three equal replicas of each partition", Duration::from_secs(30), || async {
        let replicas = client.admin().describe_partitions(request.clone()).await.ok()?.replicas;
        let mut ends = std::collections::BTreeMap::new();
        for replica in &replicas {
            ends.entry(replica.partition).or_insert_with(Vec::new).push(replica.high_watermark);
        }
        let complete = ends.len() == 2
            && ends.values().all(|all| all.len() == 3 && all.iter().all(|end| end == &all[0]));
        let total: u64 = ends.values().filter_map(|all| all.first()).sum();
        (complete && total == 500).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_past_the_end_is_out_of_range() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 1, 1).await?;
    let mut consumer = client
        .consumer(ConsumerConfig { offset_reset: client::OffsetReset::Error, ..ConsumerConfig::default() })?;
    consumer.assign([("orders", 0)]).await?;
    consumer.seek("orders", 0, Position::Offset(1_000))?;
    let error = consumer.poll(Duration::from_secs(10)).await.expect_err("there is nothing at offset 1000");
    ensure!(error.code() == ErrorCode::OffsetOutOfRange, "{error}");
    Ok(())
}
