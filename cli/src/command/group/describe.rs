//! `group describe`: everything about a group on one page.

use std::fmt::Write;

use serde_json::{Value, json};
use wire::pb;

use super::shown::{
    GROUPS, behind, group_row, number, partition_json, records, state, summary_json, text, time,
};
use crate::context::Context;
use crate::convert::{duration_text, time_text};
use crate::exit::Failure;
use crate::output::{Column, Kind, Row, View, render};

pub(super) async fn run(context: &Context, names: &[String]) -> Result<(), Failure> {
    let groups = super::described(context, names.to_vec()).await?;
    let page = groups.iter().map(page).collect::<Vec<_>>().join("\n\n");
    let mut rows: Vec<Row> = groups.iter().map(row).collect();
    let view = match (rows.len(), rows.pop()) {
        (1, Some(row)) => View::one(&GROUPS, row),
        (_, last) => {
            rows.extend(last);
            View::list(&GROUPS, rows)
        }
    };
    context.out.show(view.detail(page))
}

fn row(group: &pb::GroupDescription) -> Row {
    let summary = group.summary.clone().unwrap_or_default();
    let mut json = summary_json(&summary);
    if let Value::Object(map) = &mut json {
        let last = group
            .last_rebalance
            .as_ref()
            .map(|last| json!({ "reason": last.reason, "time_ms": time(last.time_ms), "moved": last.moved }));
        let more = json!({
            "coordinator": group.coordinator_id, "lag_records": group.lag_records, "lag_ms": group.lag_ms,
            "last_rebalance": last,
            "members": group.members.iter().map(member_json).collect::<Vec<_>>(),
            "partitions": group.partitions.iter().map(|at| partition_json(None, at)).collect::<Vec<_>>(),
        });
        if let Value::Object(more) = more {
            map.extend(more);
        }
    }
    group_row(&summary, json)
}

fn member_json(member: &pb::GroupMember) -> Value {
    json!({
        "member_id": member.member_id, "instance_id": text(&member.instance_id), "client_id": member.client_id,
        "host": member.host, "topics": member.topics, "patterns": member.patterns, "assignor": text(&member.assignor),
        "session_timeout_ms": member.session_timeout_ms, "joined_ms": member.joined_ms, "away": member.away,
        "partitions": member.partitions,
    })
}

const MEMBERS: Kind = Kind {
    many: "members",
    columns: &[
        Column::text("MEMBER"),
        Column::text("CLIENT"),
        Column::text("HOST"),
        Column::number("PARTITIONS"),
        Column::number("SESSION"),
        Column::text("JOINED"),
        Column::text("READS"),
    ],
    fields: &[],
};

const PARTITIONS: Kind = Kind {
    many: "partitions",
    columns: &[
        Column::text("PARTITION"),
        Column::text("MEMBER"),
        Column::number("COMMITTED"),
        Column::number("END"),
        Column::number("LAG"),
        Column::number("LAG TIME"),
    ],
    fields: &[],
};

/// What people see.
fn page(group: &pb::GroupDescription) -> String {
    let summary = group.summary.clone().unwrap_or_default();
    let coordinator = group.coordinator_id.map_or_else(|| "unknown".to_owned(), |id| format!("broker {id}"));
    let mut page = format!(
        "group {}   {}\n{} members   {} partitions   assignor {}   generation {}   coordinator {coordinator}\nlag {} records",
        summary.group_id,
        state(&summary),
        summary.members,
        summary.partitions,
        summary.assignor,
        summary.generation,
        records(group.lag_records),
    );
    if group.lag_ms.is_some_and(|ms| ms > 0) {
        let _ = write!(page, ", {}", behind(group.lag_ms));
    }
    // Writing to a String cannot fail.
    let _ = match &group.last_rebalance {
        Some(last) => {
            let when = time(last.time_ms).map(|ms| format!(" at {}", time_text(ms))).unwrap_or_default();
            write!(page, "\nlast rebalance{when}: {}; {} partitions moved", last.reason, last.moved)
        }
        None => write!(page, "\nno rebalance yet"),
    };
    if !group.members.is_empty() {
        let rows: Vec<Row> = group.members.iter().map(member_row).collect();
        let _ = write!(page, "\n\n{}", render(&MEMBERS, &rows, false));
    }
    if !group.partitions.is_empty() {
        let rows: Vec<Row> = group.partitions.iter().map(|at| partition_row(group, at)).collect();
        let _ = write!(page, "\n\n{}", render(&PARTITIONS, &rows, false));
    }
    page
}

fn member_row(member: &pb::GroupMember) -> Row {
    let reads: Vec<&str> = member.topics.iter().chain(&member.patterns).map(String::as_str).collect();
    Row {
        name: member.member_id.clone(),
        cells: vec![
            name_of(member),
            member.client_id.clone(),
            member.host.clone(),
            member.partitions.to_string(),
            duration_text(u64::from(member.session_timeout_ms)),
            if member.away { "away".to_owned() } else { time_text(member.joined_ms) },
            reads.join(","),
        ],
        json: Value::Null,
    }
}

fn partition_row(group: &pb::GroupDescription, at: &pb::GroupPartition) -> Row {
    let named = |id: &str| {
        let member = group.members.iter().find(|member| member.member_id == id);
        member.map_or_else(|| "-".to_owned(), name_of)
    };
    let mut member = named(&at.member_id);
    if !at.next_member_id.is_empty() {
        let _ = write!(member, " -> {}", named(&at.next_member_id));
    }
    Row {
        name: format!("{}/{}", at.topic, at.partition),
        cells: vec![
            format!("{}/{}", at.topic, at.partition),
            member,
            number(at.committed_offset),
            number(at.high_watermark),
            records(at.lag_records),
            behind(at.lag_ms),
        ],
        json: Value::Null,
    }
}

/// A static member by the name that people gave it.
pub(super) fn name_of(member: &pb::GroupMember) -> String {
    text(&member.instance_id).unwrap_or(&member.member_id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_members_partitions_and_why_they_moved() {
        let group = pb::GroupDescription {
            summary: Some(pb::GroupSummary {
                group_id: "billing".into(),
                state: "rebalancing".into(),
                paused: true,
                members: 1,
                partitions: 1,
                assignor: "sticky".into(),
                generation: 3,
                ..Default::default()
            }),
            coordinator_id: Some(2),
            lag_records: Some(18_204),
            lag_ms: Some(41_000),
            last_rebalance: Some(pb::LastRebalance {
                reason: "member \"a\" joined".into(),
                time_ms: 0,
                moved: 4,
            }),
            members: vec![pb::GroupMember {
                member_id: "id-1".into(),
                instance_id: "pod-1".into(),
                host: "10.0.0.7".into(),
                session_timeout_ms: 10_000,
                patterns: vec!["orders.>".into()],
                ..Default::default()
            }],
            partitions: vec![pb::GroupPartition {
                topic: "orders".into(),
                partition: 3,
                member_id: "id-1".into(),
                next_member_id: "id-2".into(),
                committed_offset: Some(5),
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = page(&group);
        for part in [
            "group billing   rebalancing, paused\n",
            "coordinator broker 2",
            "lag 18,204 records, 41s",
            "last rebalance: member \"a\" joined; 4 partitions moved",
            "10.0.0.7",
            "orders.>",
            "orders/3   pod-1 -> -          5    -    ?         ?",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let Value::Object(json) = row(&group).json else { panic!("a group is an object") };
        assert!(json.keys().all(|key| GROUPS.fields.iter().any(|(name, ..)| name == key)), "{json:?}");
    }
}
