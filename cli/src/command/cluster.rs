//! `cluster`: status, health.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};
use wire::pb;

use super::broker::{BROKERS, row as broker_row};
use super::shown::{optional, partitions, partitions_json};
use crate::args::Cluster;
use crate::context::Context;
use crate::exit::{Failure, UNHEALTHY};
use crate::output::{Column, Kind, Row, View};
use crate::terminal;

const CLUSTER: Kind = Kind {
    many: "clusters",
    columns: &[Column::text("CLUSTER"), Column::text("VERDICT"), Column::text("REASONS")],
    fields: &[
        ("cluster_id", "string", "identity of the cluster"),
        ("cluster_name", "string", "as configured"),
        ("verdict", "string", "healthy, degraded or unhealthy"),
        ("reasons", "array of string", "why it is not healthy"),
        ("controller_id", "number or null", "broker that leads the metadata group"),
        ("metadata_version", "number", "grows with every change of the metadata"),
        ("topics", "number", "how many there are"),
        ("partitions", "number", "how many there are"),
        ("leaderless", "array of string", "partitions that cannot be written"),
        ("under_replicated", "array of string", "partitions that miss a replica in sync"),
        ("brokers", "array of object", "as in broker list"),
    ],
};

/// Between two looks of `health --wait`.
const HEALTH_PAUSE: Duration = Duration::from_millis(200);

pub(crate) async fn run(context: &Context, command: Cluster) -> Result<(), Failure> {
    if context.out.explain(&CLUSTER)? {
        return Ok(());
    }
    match command {
        Cluster::Status { watch } => context.watch(&watch, || status(context)).await,
        Cluster::Health { wait: false } => health(context).await,
        Cluster::Health { wait: true } => wait_for_health(context).await,
    }
}

async fn ask(context: &Context) -> Result<pb::ClusterStatusResponse, Failure> {
    let admin = context.client()?.admin();
    Ok(admin.cluster_status(context.call("Admin/ClusterStatus", pb::ClusterStatusRequest {})).await?)
}

fn row(status: &pb::ClusterStatusResponse) -> Row {
    let brokers: Vec<Value> = status.brokers.iter().map(|broker| broker_row(broker).json).collect();
    Row {
        name: status.cluster_id.clone(),
        cells: vec![status.cluster_name.clone(), status.verdict.clone(), status.reasons.join("; ")],
        json: json!({
            "cluster_id": status.cluster_id, "cluster_name": status.cluster_name, "verdict": status.verdict,
            "reasons": status.reasons, "controller_id": status.controller_id,
            "metadata_version": status.metadata_version, "topics": status.topics, "partitions": status.partitions,
            "leaderless": partitions_json(&status.leaderless),
            "under_replicated": partitions_json(&status.under_replicated), "brokers": brokers,
        }),
    }
}

async fn status(context: &Context) -> Result<(), Failure> {
    let mut status = ask(context).await?;
    status.brokers.sort_by_key(|broker| broker.id);
    let text = described(&status);
    context.out.show(View::one(&CLUSTER, row(&status)).detail(text))
}

fn described(status: &pb::ClusterStatusResponse) -> String {
    let mut text = format!(
        "cluster {} ({}): {}\ncontroller broker {}   metadata version {}   {} topics   {} partitions",
        status.cluster_name,
        status.cluster_id,
        status.verdict,
        optional(status.controller_id),
        status.metadata_version,
        status.topics,
        status.partitions
    );
    // Writing to a String cannot fail.
    for reason in &status.reasons {
        let _ = write!(text, "\n  {reason}");
    }
    for (what, list) in
        [("without leader", &status.leaderless), ("under-replicated", &status.under_replicated)]
    {
        if !list.is_empty() {
            let _ = write!(text, "\n{what}: {}", partitions(list, 12));
        }
    }
    let brokers: Vec<Row> = status.brokers.iter().map(broker_row).collect();
    let _ = write!(text, "\n\n{}", crate::output::render(&BROKERS, &brokers, false));
    text
}

async fn health(context: &Context) -> Result<(), Failure> {
    let status = ask(context).await?;
    show_health(context, &status)
}

fn show_health(context: &Context, status: &pb::ClusterStatusResponse) -> Result<(), Failure> {
    let mut text = status.verdict.clone();
    for reason in &status.reasons {
        let _ = write!(text, "\n  {reason}");
    }
    let healthy = status.verdict == "healthy";
    let view = View::one(&CLUSTER, row(status)).detail(text);
    context.out.show(if healthy { view } else { view.note("next: altair-cli cluster status") })?;
    if healthy { Ok(()) } else { Err(Failure::Told(UNHEALTHY)) }
}

/// Looks until the cluster is healthy; what it was last is shown when the time is over.
async fn wait_for_health(context: &Context) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + context.timeout();
    loop {
        let asked = tokio::time::timeout_at(deadline, ask(context)).await;
        let over = tokio::time::Instant::now() + HEALTH_PAUSE >= deadline;
        match asked {
            Ok(Ok(status)) if over || status.verdict == "healthy" => return show_health(context, &status),
            Ok(Err(Failure::Api(error))) if error.retriable() && !over => {}
            Ok(Err(failure)) => return Err(failure),
            Ok(Ok(_)) => {}
            Err(_) => {
                terminal::note(&format!("no answer from {} in time", context.addresses()));
                return Err(Failure::Told(UNHEALTHY));
            }
        }
        tokio::time::sleep(HEALTH_PAUSE).await;
    }
}
