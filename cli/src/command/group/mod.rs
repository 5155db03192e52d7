//! `group`: list, describe, lag, seek, delete, pause, resume.

pub(crate) mod args;
mod change;
mod describe;
mod lag;
mod seek;
mod shown;

use wire::pb;

use self::args::Group;
use self::shown::{GROUPS, LAGS, PARTITION_LAGS, SEEKS, group_row, summary_json};
use super::shown::checked;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::View;

pub(crate) async fn run(context: &Context, command: Group) -> Result<(), Failure> {
    let kind = match &command {
        Group::Seek(_) => &SEEKS,
        Group::Lag { partitions: true, .. } => &PARTITION_LAGS,
        Group::Lag { .. } => &LAGS,
        _ => &GROUPS,
    };
    if context.out.explain(kind)? {
        return Ok(());
    }
    match command {
        Group::List { filter, watch } => context.watch(&watch, || list(context, filter.as_deref())).await,
        Group::Describe { names, watch } => context.watch(&watch, || describe::run(context, &names)).await,
        Group::Lag { names, partitions, watch } => {
            context.watch(&watch, || lag::run(context, &names, partitions)).await
        }
        Group::Seek(args) => seek::run(context, &args).await,
        Group::Delete { names, yes, dry_run } => change::delete(context, &names, yes, dry_run).await,
        Group::Pause { names } => change::pause(context, &names, true).await,
        Group::Resume { names } => change::pause(context, &names, false).await,
    }
}

async fn list(context: &Context, filter: Option<&str>) -> Result<(), Failure> {
    let groups = context.client()?.groups();
    let request = pb::ListGroupsRequest { filter: filter.unwrap_or_default().to_owned() };
    let found = groups.list_groups(context.call("Groups/ListGroups", request)).await?.groups;
    let rows = found.iter().map(|group| group_row(group, summary_json(group))).collect();
    let view = View::list(&GROUPS, rows);
    context.out.show(if found.is_empty() {
        view.note("no groups; next: altair-cli consume orders --group billing")
    } else {
        view
    })
}

/// Groups that must all be there.
async fn described(context: &Context, names: Vec<String>) -> Result<Vec<pb::GroupDescription>, Failure> {
    let groups = context.client()?.groups();
    let request = pb::DescribeGroupsRequest { group_ids: names, lag: true };
    let found = groups.describe_groups(context.call("Groups/DescribeGroups", request)).await?.groups;
    for group in &found {
        checked(group.error.clone())?;
    }
    Ok(found)
}
