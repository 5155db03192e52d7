//! Groups, their lag and their offsets as people and scripts see them.

use serde_json::{Map, Value, json};
use wire::pb;

use crate::convert::{count_text, duration_text};
use crate::output::{Column, Kind, Row};

pub(super) const GROUPS: Kind = Kind {
    many: "groups",
    columns: &[
        Column::text("GROUP"),
        Column::text("STATE"),
        Column::number("MEMBERS"),
        Column::number("PARTITIONS"),
        Column::text("TOPICS"),
        Column::text("ASSIGNOR").wide(),
        Column::number("GENERATION").wide(),
    ],
    fields: &[
        ("group_id", "string", "its id"),
        ("state", "string", "empty, rebalancing or stable"),
        ("paused", "boolean", "true if its members shall not read"),
        ("member_count", "number", "how many members it has"),
        ("partition_count", "number", "partitions that are assigned or have an offset"),
        ("topics", "array of string", "the topics of these"),
        ("assignor", "string", "how partitions are shared out: sticky, range or round_robin"),
        ("generation", "number", "rebalances so far"),
        (
            "idle_since_ms",
            "number or null",
            "since when it has neither members nor commits, ms since the Unix epoch",
        ),
        ("coordinator", "number or null", "describe: id of the broker that keeps the sessions"),
        ("lag_records", "number or null", "describe: records behind; null = a leader did not answer"),
        ("lag_ms", "number or null", "describe: age of the oldest record that is not committed"),
        ("last_rebalance", "object or null", "describe: reason, time_ms (or null), moved"),
        (
            "members",
            "array of object",
            "describe: member_id, instance_id, client_id, host, topics, patterns, assignor, session_timeout_ms, joined_ms, away, partitions",
        ),
        (
            "partitions",
            "array of object",
            "describe: topic, partition, member_id, next_member_id, committed_offset, metadata, committed_ms, log_start_offset, high_watermark, lag_records, lag_ms",
        ),
        ("deleted", "boolean", "after delete"),
        ("dry_run", "boolean", "true if nothing was changed"),
    ],
};

pub(super) const LAGS: Kind = Kind {
    many: "groups",
    columns: &[
        Column::text("GROUP"),
        Column::text("STATE"),
        Column::number("MEMBERS"),
        Column::number("PARTITIONS"),
        Column::number("LAG"),
        Column::number("LAG TIME"),
    ],
    fields: &[
        ("group_id", "string", "the group"),
        ("state", "string", "empty, rebalancing or stable"),
        ("member_count", "number", "how many members it has"),
        ("partition_count", "number", "partitions that are assigned or have an offset"),
        ("lag_records", "number or null", "records behind; null = a leader did not answer"),
        ("lag_ms", "number or null", "age of the oldest record that is not committed"),
    ],
};

pub(super) const PARTITION_LAGS: Kind = Kind {
    many: "partitions",
    columns: &[
        Column::text("GROUP"),
        Column::text("PARTITION"),
        Column::text("MEMBER"),
        Column::number("COMMITTED"),
        Column::number("END"),
        Column::number("LAG"),
        Column::number("LAG TIME"),
    ],
    fields: &[
        ("group_id", "string", "the group"),
        ("topic", "string", "the topic"),
        ("partition", "number", "the partition"),
        ("member_id", "string or null", "who owns it"),
        ("next_member_id", "string or null", "who gets it once the owner has let go"),
        ("committed_offset", "number or null", "the next record to read"),
        ("metadata", "string", "the consumer's own text beside the offset"),
        ("committed_ms", "number or null", "when it was committed, ms since the Unix epoch"),
        ("log_start_offset", "number or null", "first offset there is"),
        ("high_watermark", "number or null", "one past the last committed record"),
        ("lag_records", "number or null", "records behind; null = the leader did not answer"),
        ("lag_ms", "number or null", "age of the oldest record that is not committed"),
    ],
};

pub(super) const SEEKS: Kind = Kind {
    many: "partitions",
    columns: &[
        Column::text("PARTITION"),
        Column::number("BEFORE"),
        Column::number("AFTER"),
        Column::number("START"),
        Column::number("END"),
    ],
    fields: &[
        ("topic", "string", "the topic"),
        ("partition", "number", "the partition"),
        ("before", "number or null", "what was committed"),
        ("after", "number", "where the group goes on"),
        ("log_start_offset", "number", "first offset there is"),
        ("high_watermark", "number", "one past the last committed record"),
        ("dry_run", "boolean", "true if nothing was changed"),
    ],
};

/// The row of a group, with the JSON that the command shows.
pub(super) fn group_row(group: &pb::GroupSummary, json: Value) -> Row {
    Row {
        name: group.group_id.clone(),
        cells: vec![
            group.group_id.clone(),
            state(group),
            group.members.to_string(),
            group.partitions.to_string(),
            if group.topics.is_empty() { "-".to_owned() } else { group.topics.join(",") },
            group.assignor.clone(),
            group.generation.to_string(),
        ],
        json,
    }
}

/// `stable`, or `stable, paused`.
pub(super) fn state(group: &pb::GroupSummary) -> String {
    if group.paused { format!("{}, paused", group.state) } else { group.state.clone() }
}

pub(super) fn summary_json(group: &pb::GroupSummary) -> Value {
    json!({
        "group_id": group.group_id, "state": group.state, "paused": group.paused, "member_count": group.members,
        "partition_count": group.partitions, "topics": group.topics, "assignor": group.assignor,
        "generation": group.generation, "idle_since_ms": time(group.idle_since_ms),
    })
}

/// A time that may be missing.
pub(super) fn time(ms: i64) -> Option<i64> {
    Some(ms).filter(|ms| *ms != 0)
}

/// A text that may be missing.
pub(super) fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Records, for people.
pub(super) fn records(lag: Option<u64>) -> String {
    lag.map_or_else(|| "?".to_owned(), count_text)
}

/// A time behind, for people.
pub(super) fn behind(lag_ms: Option<u64>) -> String {
    match lag_ms {
        None => "?".to_owned(),
        Some(0) => "-".to_owned(),
        Some(ms) => duration_text(ms),
    }
}

pub(super) fn partition_json(group: Option<&str>, at: &pb::GroupPartition) -> Value {
    let mut json = json!({
        "topic": at.topic, "partition": at.partition, "member_id": text(&at.member_id),
        "next_member_id": text(&at.next_member_id), "committed_offset": at.committed_offset,
        "metadata": at.metadata, "committed_ms": time(at.committed_ms), "log_start_offset": at.log_start_offset,
        "high_watermark": at.high_watermark, "lag_records": at.lag_records, "lag_ms": at.lag_ms,
    });
    if let (Value::Object(map), Some(group)) = (&mut json, group) {
        let map: &mut Map<String, Value> = map;
        map.insert("group_id".to_owned(), json!(group));
    }
    json
}
