//! `topic`: create, list, describe, update, delete.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use wire::error_code::ErrorCode;
use wire::pb;

use super::shown::{checked, ids, optional, retention, topic_status};
use crate::args::{Topic, TopicCreate, TopicSettings, TopicUpdate};
use crate::context::Context;
use crate::convert;
use crate::exit::Failure;
use crate::output::{Column, Kind, Row, View};
use crate::terminal;

const TOPICS: Kind = Kind {
    many: "topics",
    columns: &[
        Column::text("TOPIC"),
        Column::number("PARTITIONS"),
        Column::number("RF"),
        Column::text("RETENTION"),
        Column::text("STATUS"),
        Column::text("ID").wide(),
        Column::text("OVERRIDDEN").wide(),
    ],
    fields: &[
        ("name", "string", "its name"),
        ("topic_id", "string", "its identity; a topic made again has another"),
        ("partition_count", "number", "how many partitions it has"),
        ("replication_factor", "number", "replicas of each partition"),
        ("status", "string", "ready, or what is missing"),
        ("config", "object", "effective value of every setting"),
        ("overridden", "array of string", "settings that differ from the default"),
        (
            "partitions",
            "array of object",
            "partition, leader (or null), leader_epoch, preferred_leader, replicas, isr, raft_group",
        ),
        ("ready_ms", "number", "after create: how long until every partition had a leader"),
        ("dry_run", "boolean", "true if nothing was changed"),
        ("warnings", "array of string", "what the broker wants to be known"),
        ("deleted", "boolean", "after delete"),
    ],
};

pub(crate) async fn run(context: &Context, command: Topic) -> Result<(), Failure> {
    if context.out.explain(&TOPICS)? {
        return Ok(());
    }
    match command {
        Topic::Create(args) => create(context, &args).await,
        Topic::List { filter, watch } => context.watch(&watch, || list(context, filter.as_deref())).await,
        Topic::Describe { names, watch } => context.watch(&watch, || describe(context, &names)).await,
        Topic::Update(args) => update(context, args).await,
        Topic::Delete { names, yes, dry_run } => delete(context, &names, yes, dry_run).await,
    }
}

/// The settings of all flags together; a flag of its own wins over `--config`.
fn settings(args: &TopicSettings) -> Result<BTreeMap<String, String>, Failure> {
    let mut all: BTreeMap<String, String> = args.config.iter().cloned().collect();
    let flags = [
        ("retention_ms", args.retention.clone()),
        ("retention_bytes", args.retention_bytes.clone()),
        ("min_insync_replicas", args.min_insync_replicas.map(|n| n.to_string())),
    ];
    for (key, value) in flags {
        let Some(value) = value else { continue };
        let (key, value) = convert::topic_setting(&format!("{key}={value}")).map_err(|message| {
            Failure::usage(message, "for example --retention 7d or --retention-bytes 10GiB")
        })?;
        all.insert(key, value);
    }
    Ok(all)
}

async fn create(context: &Context, args: &TopicCreate) -> Result<(), Failure> {
    let config = settings(&args.settings)?;
    for name in &args.names {
        wire::topic_name::validate(name)?;
    }
    let admin = context.client()?.admin();
    let mut rows = Vec::new();
    for name in &args.names {
        let request = pb::CreateTopicRequest {
            name: name.clone(),
            partitions: args.partitions,
            replication_factor: args.rf,
            config: config.clone(),
            dry_run: args.dry_run,
            wait_ms: if args.no_wait || args.dry_run { 0 } else { context.timeout_ms() },
        };
        let answer = admin.create_topic(context.call("Admin/CreateTopic", request)).await?;
        for warning in &answer.warnings {
            terminal::note(&format!("warning: {warning}"));
        }
        let topic =
            answer.topic.unwrap_or_else(|| pb::TopicInfo { name: name.clone(), ..Default::default() });
        let mut row = topic_row(&topic);
        row.set_status(match (args.dry_run, args.no_wait) {
            (true, _) => "not created (dry run)".to_owned(),
            (_, true) => "created".to_owned(),
            _ if topic_status(&topic) == "ready" => format!("ready in {}ms", answer.ready_ms),
            _ => topic_status(&topic),
        });
        row.add("ready_ms", json!(answer.ready_ms));
        row.add("dry_run", json!(args.dry_run));
        row.add("warnings", json!(answer.warnings));
        rows.push(row);
    }
    let first = args.names.first().map_or("", String::as_str);
    let view = View::list(&TOPICS, rows);
    context.out.show(if args.dry_run {
        view.note("nothing was created: leave --dry-run away")
    } else {
        view.note(format!(
            "next: altair-cli produce {first} --key a hello   |   altair-cli consume {first} --from earliest"
        ))
    })
}

impl Row {
    fn set_status(&mut self, status: String) {
        self.add("status", json!(status));
        if let Some(cell) = self.cells.get_mut(4) {
            *cell = status;
        }
    }

    fn add(&mut self, key: &str, value: Value) {
        if let Value::Object(map) = &mut self.json {
            map.insert(key.to_owned(), value);
        }
    }
}

fn topic_row(topic: &pb::TopicInfo) -> Row {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|p| {
            json!({
                "partition": p.partition, "leader": p.leader, "leader_epoch": p.leader_epoch,
                "preferred_leader": p.preferred_leader, "replicas": p.replicas, "isr": p.isr,
                "raft_group": p.raft_group,
            })
        })
        .collect();
    let status = topic_status(topic);
    Row {
        name: topic.name.clone(),
        cells: vec![
            topic.name.clone(),
            topic.partitions.len().to_string(),
            topic.replication_factor.to_string(),
            retention(topic),
            status.clone(),
            topic.topic_id.clone(),
            if topic.overridden.is_empty() { "-".to_owned() } else { topic.overridden.join(",") },
        ],
        json: json!({
            "name": topic.name, "topic_id": topic.topic_id, "partition_count": topic.partitions.len(),
            "replication_factor": topic.replication_factor, "status": status, "config": topic.config,
            "overridden": topic.overridden, "partitions": partitions,
        }),
    }
}

async fn list(context: &Context, filter: Option<&str>) -> Result<(), Failure> {
    let admin = context.client()?.admin();
    let request = context.call("Admin/DescribeTopics", pb::DescribeTopicsRequest::default());
    let mut topics = admin.describe_topics(request).await?.topics;
    topics.retain(|topic| filter.is_none_or(|part| topic.name.contains(part)));
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let view = View::list(&TOPICS, topics.iter().map(topic_row).collect());
    context.out.show(if topics.is_empty() {
        view.note("no topics; next: altair-cli topic create orders --rf 3")
    } else {
        view
    })
}

async fn describe(context: &Context, names: &[String]) -> Result<(), Failure> {
    let admin = context.client()?.admin();
    let request = pb::DescribeTopicsRequest { names: names.to_vec() };
    let topics = admin.describe_topics(context.call("Admin/DescribeTopics", request)).await?.topics;
    for topic in &topics {
        checked(topic.error.clone())?;
    }
    if let Some(missing) = names.iter().find(|name| topics.iter().all(|topic| topic.name != **name)) {
        return Err(Failure::new(ErrorCode::UnknownTopic, format!("there is no topic {missing:?}")));
    }
    let text = topics.iter().map(described).collect::<Vec<_>>().join("\n\n");
    let mut rows: Vec<Row> = topics.iter().map(topic_row).collect();
    let view = match (rows.len(), rows.pop()) {
        (1, Some(row)) => View::one(&TOPICS, row),
        (_, last) => {
            rows.extend(last);
            View::list(&TOPICS, rows)
        }
    };
    context.out.show(view.detail(text))
}

const PARTITIONS: Kind = Kind {
    many: "partitions",
    columns: &[
        Column::number("PARTITION"),
        Column::number("LEADER"),
        Column::number("EPOCH"),
        Column::number("PREFERRED"),
        Column::text("REPLICAS"),
        Column::text("IN SYNC"),
    ],
    fields: &[],
};

fn described(topic: &pb::TopicInfo) -> String {
    let mut text = format!(
        "topic {}   {}\nid {}   {} partitions   replication factor {}",
        topic.name,
        topic_status(topic),
        topic.topic_id,
        topic.partitions.len(),
        topic.replication_factor
    );
    for (key, value) in &topic.config {
        let origin = if topic.overridden.contains(key) { "" } else { " (default)" };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {key}: {value}{origin}");
    }
    let rows: Vec<Row> = topic
        .partitions
        .iter()
        .map(|p| Row {
            name: p.partition.to_string(),
            cells: vec![
                p.partition.to_string(),
                optional(p.leader),
                p.leader_epoch.to_string(),
                p.preferred_leader.to_string(),
                ids(&p.replicas),
                ids(&p.isr),
            ],
            json: Value::Null,
        })
        .collect();
    let _ = write!(text, "\n\n{}", crate::output::render(&PARTITIONS, &rows, false));
    text
}

async fn update(context: &Context, args: TopicUpdate) -> Result<(), Failure> {
    let set = settings(&args.settings)?;
    let reset: Vec<String> = args.reset.iter().map(|key| convert::setting_key(key)).collect();
    if set.is_empty() && reset.is_empty() && args.partitions == 0 {
        return Err(Failure::usage(
            "there is nothing to change",
            "--partitions, --retention, --config or --reset",
        ));
    }
    let admin = context.client()?.admin();
    let request = pb::UpdateTopicRequest {
        name: args.name,
        partitions: args.partitions,
        set,
        reset,
        dry_run: args.dry_run,
    };
    let answer = admin.update_topic(context.call("Admin/UpdateTopic", request.clone())).await?;
    for warning in &answer.warnings {
        terminal::note(&format!("warning: {warning}"));
    }
    let topic =
        answer.topic.unwrap_or_else(|| pb::TopicInfo { name: request.name.clone(), ..Default::default() });
    let mut row = topic_row(&topic);
    row.add("dry_run", json!(args.dry_run));
    row.add("warnings", json!(answer.warnings));
    if args.dry_run {
        row.set_status("not changed (dry run)".to_owned());
    }
    context
        .out
        .show(View::one(&TOPICS, row).note(format!("next: altair-cli topic describe {}", request.name)))
}

async fn delete(context: &Context, names: &[String], yes: bool, dry_run: bool) -> Result<(), Failure> {
    if !dry_run {
        let question = format!("delete {} with all records", names.join(", "));
        terminal::confirm(&question, yes, "--dry-run shows what would happen")?;
    }
    let admin = context.client()?.admin();
    let mut rows = Vec::new();
    for name in names {
        let request = pb::DeleteTopicRequest { name: name.clone(), dry_run };
        let answer = admin.delete_topic(context.call("Admin/DeleteTopic", request)).await?;
        let status = if dry_run { "would be deleted" } else { "deleted" };
        let dash = || "-".to_owned();
        rows.push(Row {
            name: name.clone(),
            cells: vec![name.clone(), dash(), dash(), dash(), status.to_owned(), answer.topic_id.clone(), dash()],
            json: json!({
                "name": name, "topic_id": answer.topic_id, "status": status, "deleted": !dry_run, "dry_run": dry_run,
            }),
        });
    }
    context.out.show(View::list(&TOPICS, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings_and_win_over_config() {
        let args = TopicSettings {
            retention: Some("7d".into()),
            retention_bytes: Some("none".into()),
            min_insync_replicas: Some(2),
            config: vec![("retention_ms".into(), "5".into()), ("segment_bytes".into(), "9".into())],
        };
        let all = settings(&args).unwrap();
        assert_eq!(all["retention_ms"], "604800000");
        assert_eq!(all["retention_bytes"], "none");
        assert_eq!(all["min_insync_replicas"], "2");
        assert_eq!(all["segment_bytes"], "9");
    }

    #[test]
    fn a_described_topic_shows_settings_and_partitions() {
        let topic = pb::TopicInfo {
            name: "orders".into(),
            topic_id: "id".into(),
            replication_factor: 3,
            partitions: vec![pb::PartitionInfo {
                leader_epoch: 4,
                preferred_leader: 1,
                replicas: vec![1, 2, 3],
                isr: vec![2, 3],
                ..Default::default()
            }],
            config: [("retention_ms".to_owned(), "1000".to_owned())].into(),
            ..Default::default()
        };
        let text = described(&topic);
        assert!(text.starts_with("topic orders   1 without leader\n"), "{text}");
        assert!(text.contains("retention_ms: 1000 (default)"), "{text}");
        assert!(text.ends_with("        0       -      4          1  1,2,3     2,3"), "{text}");
    }
}
