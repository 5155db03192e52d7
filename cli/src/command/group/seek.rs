//! `group seek`: moves committed offsets, after a look at where they would go.

use std::collections::BTreeMap;

use client::Clock;
use serde_json::json;
use wire::pb;
use wire::pb::reset_offsets_request::To;

use super::args::GroupSeek;
use super::shown::{SEEKS, number};
use crate::context::Context;
use crate::convert::partition_name;
use crate::exit::Failure;
use crate::offset::Place;
use crate::output::{Row, View};
use crate::terminal;

pub(super) async fn run(context: &Context, args: &GroupSeek) -> Result<(), Failure> {
    let groups = context.client()?.groups();
    let preview = pb::ResetOffsetsRequest {
        group_id: args.name.clone(),
        scope: scope(args)?,
        to: Some(target(args)?),
        dry_run: true,
    };
    let mut answer = groups.reset_offsets(context.call("Groups/ResetOffsets", preview.clone())).await?;
    if !args.dry_run {
        let question = format!("move {} offsets of group {}", answer.partitions.len(), args.name);
        terminal::confirm(&question, args.yes, "--dry-run shows where they would go")?;
        let request = pb::ResetOffsetsRequest { dry_run: false, ..preview };
        answer = groups.reset_offsets(context.call("Groups/ResetOffsets", request)).await?;
    }
    let rows = answer.partitions.iter().map(|at| row(at, args.dry_run)).collect();
    let view = View::list(&SEEKS, rows);
    context.out.show(if args.dry_run {
        view.note("nothing was changed: leave --dry-run away")
    } else {
        view.note(format!("next: altair-cli group describe {}", args.name))
    })
}

fn row(at: &pb::ResetOffset, dry_run: bool) -> Row {
    let name = format!("{}/{}", at.topic, at.partition);
    Row {
        cells: vec![
            name.clone(),
            number(at.before),
            at.after.to_string(),
            at.log_start_offset.to_string(),
            at.high_watermark.to_string(),
        ],
        name,
        json: json!({
            "topic": at.topic, "partition": at.partition, "before": at.before, "after": at.after,
            "log_start_offset": at.log_start_offset, "high_watermark": at.high_watermark, "dry_run": dry_run,
        }),
    }
}

fn target(args: &GroupSeek) -> Result<To, Failure> {
    let place = match (args.to, args.shift) {
        (_, Some(shift)) => return Ok(To::ShiftBy(shift)),
        (Some(place), None) => place,
        (None, None) => return Err(Failure::usage("where to?", "--to earliest, or --shift -100")),
    };
    Ok(match place {
        Place::Earliest => To::Earliest(true),
        Place::Latest => To::Latest(true),
        Place::Offset(offset) => To::Offset(offset),
        Place::Before(count) => To::BeforeEnd(count),
        Place::Time(ms) => To::TimestampMs(ms),
        Place::Ago(ms) => {
            let ago = i64::try_from(ms).unwrap_or(i64::MAX);
            To::TimestampMs(Clock::system().now_ms().saturating_sub(ago))
        }
    })
}

/// Topics whole, and single partitions of others.
fn scope(args: &GroupSeek) -> Result<Vec<pb::ResetScope>, Failure> {
    let mut wanted: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for name in &args.partition {
        let (topic, partition) = partition_name(name)?;
        wanted.entry(topic).or_default().push(partition);
    }
    for topic in &args.topic {
        // An empty list means all of them.
        wanted.insert(topic.clone(), Vec::new());
    }
    let scope = wanted.into_iter().map(|(topic, partitions)| pb::ResetScope { topic, partitions });
    Ok(scope.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_topic_wins_over_its_single_partitions() {
        let args = GroupSeek {
            name: "g".into(),
            to: Some(Place::Before(5)),
            shift: None,
            topic: vec!["orders".into()],
            partition: vec!["orders/3".into(), "pay/1".into(), "pay/2".into()],
            yes: false,
            dry_run: false,
        };
        let scope = scope(&args).unwrap();
        assert_eq!(scope.len(), 2);
        assert_eq!((scope[0].topic.as_str(), scope[0].partitions.len()), ("orders", 0));
        assert_eq!((scope[1].topic.as_str(), scope[1].partitions.as_slice()), ("pay", [1, 2].as_slice()));
        assert_eq!(target(&args).unwrap(), To::BeforeEnd(5));
        assert_eq!(target(&GroupSeek { to: None, shift: Some(-3), ..args }).unwrap(), To::ShiftBy(-3));
    }
}
