//! `group lag`: how far groups are behind.

use serde_json::json;
use wire::pb;

use super::shown::{LAGS, PARTITION_LAGS, behind, number, partition_json, records, state, text};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Row, View};

/// Groups that one call may ask for.
const AT_ONCE: usize = 1_000;

pub(super) async fn run(context: &Context, names: &[String], partitions: bool) -> Result<(), Failure> {
    let names = if names.is_empty() { all(context).await? } else { names.to_vec() };
    let mut groups = Vec::new();
    for chunk in names.chunks(AT_ONCE) {
        groups.extend(super::described(context, chunk.to_vec()).await?);
    }
    let view = if partitions {
        View::list(&PARTITION_LAGS, groups.iter().flat_map(partition_rows).collect())
    } else {
        View::list(&LAGS, groups.iter().map(row).collect())
    };
    context.out.show(view)
}

async fn all(context: &Context) -> Result<Vec<String>, Failure> {
    let groups = context.client()?.groups();
    let request = context.call("Groups/ListGroups", pb::ListGroupsRequest::default());
    let found = groups.list_groups(request).await?.groups;
    Ok(found.into_iter().map(|group| group.group_id).collect())
}

fn row(group: &pb::GroupDescription) -> Row {
    let summary = group.summary.clone().unwrap_or_default();
    Row {
        name: summary.group_id.clone(),
        cells: vec![
            summary.group_id.clone(),
            state(&summary),
            summary.members.to_string(),
            summary.partitions.to_string(),
            records(group.lag_records),
            behind(group.lag_ms),
        ],
        json: json!({
            "group_id": summary.group_id, "state": summary.state, "member_count": summary.members,
            "partition_count": summary.partitions, "lag_records": group.lag_records, "lag_ms": group.lag_ms,
        }),
    }
}

fn partition_rows(group: &pb::GroupDescription) -> Vec<Row> {
    let id = group.summary.as_ref().map_or("", |summary| summary.group_id.as_str());
    let row = |at: &pb::GroupPartition| {
        let member = group.members.iter().find(|member| member.member_id == at.member_id);
        let name = format!("{}/{}", at.topic, at.partition);
        Row {
            cells: vec![
                id.to_owned(),
                name.clone(),
                member
                    .map_or("-", |member| text(&member.instance_id).unwrap_or(&member.member_id))
                    .to_owned(),
                number(at.committed_offset),
                number(at.high_watermark),
                records(at.lag_records),
                behind(at.lag_ms),
            ],
            name,
            json: partition_json(Some(id), at),
        }
    };
    group.partitions.iter().map(row).collect()
}
