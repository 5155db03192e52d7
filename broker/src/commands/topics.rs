//! The two questions that `dev` and `demo` ask a cluster about topics.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Client;
use wire::pb;

/// Creates a topic and waits until each partition has a leader; a topic that is there already is fine.
///
/// # Errors
/// The broker's, or that leaders did not come in time.
pub(crate) async fn create(
    client: &Client,
    name: &str,
    partitions: u32,
    rf: u32,
    deadline: Duration,
) -> Result<()> {
    let request = pb::CreateTopicRequest {
        name: name.to_owned(),
        partitions,
        replication_factor: rf,
        wait_ms: u32::try_from(deadline.as_millis())?,
        ..pb::CreateTopicRequest::default()
    };
    match client.admin().create_topic(request).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == wire::error_code::ErrorCode::TopicExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("creating topic {name}")),
    }
}

/// The broker that leads most partitions of a topic; the lowest id where several do.
///
/// # Errors
/// If no partition has a leader.
pub(crate) async fn busiest_leader(client: &Client, topic: &str) -> Result<u32> {
    let request = pb::DescribeTopicsRequest { names: vec![topic.to_owned()] };
    let topics = client.admin().describe_topics(request).await?.topics;
    let mut led: BTreeMap<u32, u32> = BTreeMap::new();
    for leader in topics.iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.leader) {
        *led.entry(leader).or_default() += 1;
    }
    let most = led.iter().max_by_key(|(id, count)| (**count, std::cmp::Reverse(**id)));
    most.map(|(id, _)| *id).with_context(|| format!("no partition of {topic} has a leader"))
}
