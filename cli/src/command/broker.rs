//! `broker`: list, describe.

use serde_json::json;
use wire::error_code::ErrorCode;
use wire::pb;

use super::shown::{broker_state, partitions, partitions_json};
use crate::args::Broker;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Column, Kind, Row, View};

pub(super) const BROKERS: Kind = Kind {
    many: "brokers",
    columns: &[
        Column::number("ID"),
        Column::text("STATE"),
        Column::text("GRPC"),
        Column::text("HTTP"),
        Column::text("RACK"),
        Column::number("LEADERS"),
        Column::number("REPLICAS"),
        Column::text("METADATA"),
        Column::text("VERSION").wide(),
        Column::text("INCARNATION").wide(),
    ],
    fields: &[
        ("id", "number", "node.id of the broker"),
        ("state", "string", "alive, fenced or draining"),
        ("grpc_address", "string", "where clients reach it"),
        ("http_address", "string", "where health and metrics are"),
        ("rack", "string", "as configured; may be empty"),
        ("leaders", "number", "partitions that it leads"),
        ("replicas", "number", "partitions that it holds"),
        ("metadata_role", "string", "voter, learner or none"),
        ("version", "string", "of its program"),
        ("incarnation", "string", "identity of its data directory"),
        ("leads", "array of string", "describe only: partitions that it leads"),
        ("follows", "array of string", "describe only: partitions that it follows"),
    ],
};

pub(crate) async fn run(context: &Context, command: Broker) -> Result<(), Failure> {
    if context.out.explain(&BROKERS)? {
        return Ok(());
    }
    match command {
        Broker::List { watch } => context.watch(&watch, || list(context)).await,
        Broker::Describe { id, watch } => context.watch(&watch, || describe(context, id)).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let admin = context.client()?.admin();
    let mut brokers =
        admin.list_brokers(context.call("Admin/ListBrokers", pb::ListBrokersRequest {})).await?.brokers;
    brokers.sort_by_key(|broker| broker.id);
    context.out.show(View::list(&BROKERS, brokers.iter().map(row).collect()))
}

pub(super) fn row(broker: &pb::BrokerInfo) -> Row {
    Row {
        name: broker.id.to_string(),
        cells: vec![
            broker.id.to_string(),
            broker_state(broker).to_owned(),
            broker.grpc_address.clone(),
            broker.http_address.clone(),
            if broker.rack.is_empty() { "-".to_owned() } else { broker.rack.clone() },
            broker.leaders.to_string(),
            broker.replicas.to_string(),
            broker.metadata_role.clone(),
            broker.version.clone(),
            broker.incarnation.clone(),
        ],
        json: json!({
            "id": broker.id, "state": broker_state(broker), "grpc_address": broker.grpc_address,
            "http_address": broker.http_address, "rack": broker.rack, "leaders": broker.leaders,
            "replicas": broker.replicas, "metadata_role": broker.metadata_role, "version": broker.version,
            "incarnation": broker.incarnation,
        }),
    }
}

async fn describe(context: &Context, id: u32) -> Result<(), Failure> {
    let admin = context.client()?.admin();
    let request = context.call("Admin/DescribeBroker", pb::DescribeBrokerRequest { id });
    let answer = admin.describe_broker(request).await?;
    let broker = answer
        .broker
        .ok_or_else(|| Failure::new(ErrorCode::UnknownBroker, format!("there is no broker {id}")))?;
    let mut row = row(&broker);
    if let serde_json::Value::Object(map) = &mut row.json {
        map.insert("leads".to_owned(), partitions_json(&answer.leads));
        map.insert("follows".to_owned(), partitions_json(&answer.follows));
    }
    let text = format!(
        "{}\n\nleads {}: {}\nfollows {}: {}",
        crate::output::render(&BROKERS, std::slice::from_ref(&row), true),
        answer.leads.len(),
        partitions(&answer.leads, 20),
        answer.follows.len(),
        partitions(&answer.follows, 20),
    );
    context.out.show(View::one(&BROKERS, row).detail(text))
}
