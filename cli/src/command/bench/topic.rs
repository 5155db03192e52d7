//! The topic that a benchmark writes to: the user's, or one of its own that goes with it.

use std::future::Future;
use std::time::Duration;

use client::Client;
use futures::future::{Either, select};
use wire::pb;

use super::args::Target;
use crate::context::{Context, millis};
use crate::exit::{ERROR, Failure};
use crate::terminal;

/// Time for a new topic with many partitions to get its leaders.
const LED_WITHIN: Duration = Duration::from_secs(60);

/// A topic to write to and read from.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) partitions: u32,
    /// It was made for this benchmark.
    pub(super) own: bool,
}

/// Runs `bench` on the topic that `target` names. A topic of its own is deleted behind it, also after Ctrl-C.
///
/// # Errors
/// The topic cannot be made or is not there; whatever `bench` ends with; [`ERROR`] if it was interrupted.
pub(super) async fn on_a_topic<T, F: Future<Output = Result<T, Failure>>>(
    context: &Context,
    target: &Target,
    bench: impl FnOnce(Stage) -> F,
) -> Result<T, Failure> {
    let client = context.client()?;
    let stage = prepare(context, &client, target).await?;
    let clean_up = stage.own && !target.keep;
    let name = stage.name.clone();
    let outcome = {
        let running = std::pin::pin!(bench(stage));
        let interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        match select(running, interrupted).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                terminal::note("interrupted: no result");
                Err(Failure::Told(ERROR))
            }
        }
    };
    if clean_up {
        let request = pb::DeleteTopicRequest { name: name.clone(), dry_run: false };
        if let Err(error) = client.admin().delete_topic(context.call("Admin/DeleteTopic", request)).await {
            terminal::note(&format!("warning: topic {name} was not deleted: {error}"));
        }
    }
    outcome
}

async fn prepare(context: &Context, client: &Client, target: &Target) -> Result<Stage, Failure> {
    if let Some(name) = &target.topic {
        wire::topic_name::validate(name)?;
        return Ok(Stage { name: name.clone(), partitions: client.partitions(name).await?, own: false });
    }
    let request = pb::CreateTopicRequest {
        name: format!("bench-{}", std::process::id()),
        partitions: target.partitions,
        replication_factor: target.rf,
        wait_ms: millis(LED_WITHIN),
        ..pb::CreateTopicRequest::default()
    };
    let stage = Stage { name: request.name.clone(), partitions: target.partitions, own: true };
    let answer = client.admin().create_topic(context.call("Admin/CreateTopic", request)).await?;
    for warning in &answer.warnings {
        terminal::note(&format!("warning: {warning}"));
    }
    Ok(stage)
}
