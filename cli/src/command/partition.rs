//! `partition`: list, transfer-leader.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wire::error_code::ErrorCode;
use wire::pb;

use super::shown::{checked, ids, optional};
use crate::args::Partition;
use crate::context::Context;
use crate::convert::{partition_name, size_text};
use crate::exit::Failure;
use crate::output::{Column, Kind, Row, View};

const PARTITIONS: Kind = Kind {
    many: "partitions",
    columns: &[
        Column::text("PARTITION"),
        Column::number("LEADER"),
        Column::number("EPOCH"),
        Column::text("REPLICAS"),
        Column::text("IN SYNC"),
        Column::number("START"),
        Column::number("END"),
        Column::number("SIZE"),
        Column::number("SEGMENTS").wide(),
        Column::number("GROUP").wide(),
        Column::number("COMMITTED").wide(),
        Column::number("APPLIED").wide(),
        Column::text("TROUBLE").wide(),
    ],
    fields: &[
        ("topic", "string", "its topic"),
        ("partition", "number", "its number in the topic"),
        ("leader", "number or null", "id of the leading broker"),
        ("leader_epoch", "number", "grows with every new leader"),
        ("preferred_leader", "number", "broker that leads when all is well"),
        ("replicas", "array of number", "brokers that hold it"),
        ("isr", "array of number", "of these, the ones in sync"),
        ("raft_group", "number", "id of its Raft group"),
        ("log_start_offset", "number or null", "first offset there is, as the leader says"),
        ("high_watermark", "number or null", "one past the last committed offset"),
        ("size_bytes", "number or null", "bytes on the leader's disk"),
        (
            "replica_status",
            "array of object",
            "of each replica that answered: broker_id, replica_id, role, term, last_log_index, committed_index, applied_index, purged_index, log_start_offset, high_watermark, size_bytes, segments, error",
        ),
        ("transferred", "boolean", "after transfer-leader"),
    ],
};

pub(crate) async fn run(context: &Context, command: Partition) -> Result<(), Failure> {
    if context.out.explain(&PARTITIONS)? {
        return Ok(());
    }
    match command {
        Partition::List { topic, watch } => context.watch(&watch, || list(context, topic.as_deref())).await,
        Partition::TransferLeader { partition, to } => transfer(context, &partition, to).await,
    }
}

async fn list(context: &Context, topic: Option<&str>) -> Result<(), Failure> {
    let admin = context.client()?.admin();
    let names: Vec<String> = topic.iter().map(|name| (*name).to_owned()).collect();
    let request = context.call("Admin/DescribeTopics", pb::DescribeTopicsRequest { names });
    let topics = admin.describe_topics(request).await?.topics;
    if let (Some(name), true) = (topic, topics.is_empty()) {
        return Err(Failure::new(ErrorCode::UnknownTopic, format!("there is no topic {name:?}")));
    }
    let request =
        pb::DescribePartitionsRequest { topic: topic.unwrap_or_default().to_owned(), ..Default::default() };
    let answer = admin.describe_partitions(context.call("Admin/DescribePartitions", request)).await?;
    let mut statuses: BTreeMap<(String, u32), Vec<pb::ReplicaStatus>> = BTreeMap::new();
    for status in answer.replicas {
        statuses.entry((status.topic.clone(), status.partition)).or_default().push(status);
    }
    let mut rows = Vec::new();
    for topic in &topics {
        checked(topic.error.clone())?;
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition);
            rows.push(row(&topic.name, partition, &statuses.remove(&key).unwrap_or_default()));
        }
    }
    context.out.show(View::list(&PARTITIONS, rows))
}

fn row(topic: &str, partition: &pb::PartitionInfo, replicas: &[pb::ReplicaStatus]) -> Row {
    let name = format!("{topic}/{}", partition.partition);
    // What the leader says counts; a leader that does not answer leaves these columns empty.
    let leader =
        partition.leader.and_then(|id| replicas.iter().find(|r| r.broker_id == id && r.error.is_empty()));
    let number = |value: fn(&pb::ReplicaStatus) -> u64| {
        leader.map_or_else(|| "-".to_owned(), |status| value(status).to_string())
    };
    let trouble: Vec<String> = replicas
        .iter()
        .filter(|replica| !replica.error.is_empty())
        .map(|replica| format!("broker {}: {}", replica.broker_id, replica.error))
        .collect();
    Row {
        cells: vec![
            name.clone(),
            optional(partition.leader),
            partition.leader_epoch.to_string(),
            ids(&partition.replicas),
            ids(&partition.isr),
            number(|status| status.log_start_offset),
            number(|status| status.high_watermark),
            leader.map_or_else(|| "-".to_owned(), |status| size_text(status.size_bytes)),
            number(|status| u64::from(status.segments)),
            partition.raft_group.to_string(),
            number(|status| status.committed_index),
            number(|status| status.applied_index),
            trouble.join("; "),
        ],
        name,
        json: json!({
            "topic": topic, "partition": partition.partition, "leader": partition.leader,
            "leader_epoch": partition.leader_epoch, "preferred_leader": partition.preferred_leader,
            "replicas": partition.replicas, "isr": partition.isr, "raft_group": partition.raft_group,
            "log_start_offset": leader.map(|s| s.log_start_offset), "high_watermark": leader.map(|s| s.high_watermark),
            "size_bytes": leader.map(|s| s.size_bytes),
            "replica_status": replicas.iter().map(replica_json).collect::<Vec<Value>>(),
        }),
    }
}

fn replica_json(status: &pb::ReplicaStatus) -> Value {
    json!({
        "broker_id": status.broker_id, "replica_id": status.replica_id, "role": status.role, "term": status.term,
        "last_log_index": status.last_log_index, "committed_index": status.committed_index,
        "applied_index": status.applied_index, "purged_index": status.purged_index,
        "log_start_offset": status.log_start_offset, "high_watermark": status.high_watermark,
        "size_bytes": status.size_bytes, "segments": status.segments, "error": status.error,
    })
}

async fn transfer(context: &Context, partition: &str, to: Option<u32>) -> Result<(), Failure> {
    let (topic, index) = partition_name(partition)?;
    let request = pb::TransferLeaderRequest {
        topic: topic.clone(),
        partition: index,
        to_broker: to,
        timeout_ms: context.timeout_ms(),
    };
    let admin = context.client()?.admin();
    let answer = admin.transfer_leader(context.call("Admin/TransferLeader", request)).await?;
    let text = format!("broker {} leads {partition} in epoch {}", answer.leader, answer.leader_epoch);
    let row = Row {
        name: partition.to_owned(),
        cells: Vec::new(),
        json: json!({
            "topic": topic, "partition": index, "leader": answer.leader, "leader_epoch": answer.leader_epoch,
            "transferred": true,
        }),
    };
    let next = format!("next: altair-cli partition list {topic}");
    context.out.show(View::one(&PARTITIONS, row).detail(text).note(next))
}
