//! Pieces of the broker's answers as people and scripts see them; what more than one command shows.

use serde_json::{Value, json};
use wire::api_error::ApiError;
use wire::pb;

use crate::convert::duration_text;
use crate::exit::Failure;

/// `3` or `-`.
pub(crate) fn optional(id: Option<u32>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| id.to_string())
}

/// `1,2,3`.
pub(crate) fn ids(list: &[u32]) -> String {
    if list.is_empty() {
        return "-".to_owned();
    }
    list.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// `orders/3, orders/5 and 4 more`.
pub(crate) fn partitions(list: &[pb::PartitionRef], max: usize) -> String {
    let mut text =
        list.iter().take(max).map(|p| format!("{}/{}", p.topic, p.partition)).collect::<Vec<_>>().join(", ");
    if list.len() > max {
        text.push_str(&format!(" and {} more", list.len() - max));
    }
    text
}

/// Partitions as a JSON array of names.
pub(crate) fn partitions_json(list: &[pb::PartitionRef]) -> Value {
    list.iter().map(|p| json!(format!("{}/{}", p.topic, p.partition))).collect()
}

/// State of a broker in one word.
pub(crate) fn broker_state(broker: &pb::BrokerInfo) -> &'static str {
    match broker.state() {
        pb::BrokerState::Alive => "alive",
        pb::BrokerState::Fenced => "fenced",
        pb::BrokerState::Draining => "draining",
        pb::BrokerState::Unspecified => "unknown",
    }
}

/// How a topic is, from its partitions.
pub(crate) fn topic_status(topic: &pb::TopicInfo) -> String {
    let leaderless = topic.partitions.iter().filter(|p| p.leader.is_none()).count();
    let behind = topic.partitions.iter().filter(|p| p.isr.len() < p.replicas.len()).count();
    match (leaderless, behind) {
        (0, 0) => "ready".to_owned(),
        (0, n) => format!("{n} under-replicated"),
        (n, _) => format!("{n} without leader"),
    }
}

/// Retention of a topic for people.
pub(crate) fn retention(topic: &pb::TopicInfo) -> String {
    match topic.config.get("retention_ms").map(String::as_str) {
        None => "-".to_owned(),
        Some("" | "none") => "unlimited".to_owned(),
        Some(ms) => ms.parse().map_or_else(|_| ms.to_owned(), duration_text),
    }
}

/// The error inside an answer about one thing, if there is one.
pub(crate) fn checked(error: Option<pb::ErrorDetail>) -> Result<(), Failure> {
    match error {
        Some(detail) if !detail.code.is_empty() => Err(ApiError::from(detail).into()),
        _ => Ok(()),
    }
}
