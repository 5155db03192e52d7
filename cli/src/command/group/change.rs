//! `group delete`, `group pause` and `group resume`.

use serde_json::json;
use wire::pb;

use super::shown::{GROUPS, group_row, summary_json};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Row, View};
use crate::terminal;

pub(super) async fn delete(
    context: &Context,
    names: &[String],
    yes: bool,
    dry_run: bool,
) -> Result<(), Failure> {
    if !dry_run {
        let question = format!("delete {} with all offsets", names.join(", "));
        terminal::confirm(&question, yes, "--dry-run shows whether it can be done")?;
    }
    let groups = context.client()?.groups();
    let mut rows = Vec::new();
    for name in names {
        let request = pb::DeleteGroupRequest { group_id: name.clone(), dry_run };
        groups.delete_group(context.call("Groups/DeleteGroup", request)).await?;
        let state = if dry_run { "could be deleted" } else { "deleted" };
        let dash = || "-".to_owned();
        rows.push(Row {
            name: name.clone(),
            cells: vec![name.clone(), state.to_owned(), dash(), dash(), dash(), dash(), dash()],
            json: json!({ "group_id": name, "state": state, "deleted": !dry_run, "dry_run": dry_run }),
        });
    }
    context.out.show(View::list(&GROUPS, rows))
}

pub(super) async fn pause(context: &Context, names: &[String], paused: bool) -> Result<(), Failure> {
    let groups = context.client()?.groups();
    for name in names {
        let request = pb::PauseGroupRequest { group_id: name.clone(), paused };
        groups.pause_group(context.call("Groups/PauseGroup", request)).await?;
    }
    let request = pb::DescribeGroupsRequest { group_ids: names.to_vec(), lag: false };
    let found = groups.describe_groups(context.call("Groups/DescribeGroups", request)).await?.groups;
    let summaries = found.into_iter().filter_map(|group| group.summary);
    let rows = summaries.map(|group| group_row(&group, summary_json(&group))).collect();
    let view = View::list(&GROUPS, rows);
    context.out.show(if paused {
        view.note(format!("next: altair-cli group resume {}", names.join(" ")))
    } else {
        view
    })
}
