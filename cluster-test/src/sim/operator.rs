//! The operator: changes of the cluster that go through its administration, asked for by the nemesis.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Client, ClientConfig, ClientError};
use tokio_util::sync::CancellationToken;
use verify::history::{FaultOutcome, Recorder};
use wire::pb;

use super::clients::REPLICAS;
use super::fault::FaultKind;
use super::load::TOPIC;
use super::trace::Trace;

/// Between two looks for a job. Unit: simulated.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Jobs that may wait.
const JOBS_MAX: usize = 4;

/// A change of the cluster.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// Moves the leadership of a partition of the workload's topic.
    Transfer {
        /// The partition.
        partition: u32,
        /// The broker that is to lead.
        to: u32,
    },
    /// Creates a topic that nobody uses.
    CreateTopic,
}

/// Jobs, and who does them.
#[derive(Debug, Default)]
pub struct Operator {
    jobs: Mutex<VecDeque<Job>>,
    installed: AtomicU64,
}

impl Operator {
    /// Appoints a job; its outcome is recorded when it is known.
    pub(super) fn ask<T>(&self, job: Job) -> Result<T, String> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= JOBS_MAX {
            return Err("the operator is busy".to_owned());
        }
        jobs.push_back(job);
        Err("handed to the operator".to_owned())
    }

    /// Jobs that were done.
    pub(super) fn installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Job> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Does jobs until `stop`.
    pub(super) async fn run(
        self: Arc<Self>,
        config: ClientConfig,
        recorder: Recorder,
        trace: Trace,
        stop: CancellationToken,
    ) -> Result<(), ClientError> {
        let client = Client::start(config)?;
        let mut topics = 0_u32;
        while !stop.is_cancelled() {
            let Some(job) = self.take() else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let (kind, target, outcome) = match job {
                Job::Transfer { partition, to } => {
                    let done = transfer(&client, partition, to).await;
                    (FaultKind::Transfer, format!("{TOPIC}/{partition} to broker {to}"), done)
                }
                Job::CreateTopic => {
                    topics += 1;
                    (FaultKind::CreateTopic, format!("extra-{topics}"), create(&client, topics).await)
                }
            };
            let (outcome, detail) = match outcome {
                Ok(()) => (FaultOutcome::Installed, String::new()),
                Err(ClientError::Unknown(error)) => (FaultOutcome::Indeterminate, error.to_string()),
                Err(error) => (FaultOutcome::Skipped, error.to_string()),
            };
            if outcome == FaultOutcome::Installed {
                self.installed.fetch_add(1, Ordering::Relaxed);
            }
            trace.note(format_args!("fault {} {outcome:?} {target} {detail}", kind.name()));
            recorder.fault(kind.name(), target, outcome, detail);
        }
        Ok(())
    }
}

async fn transfer(client: &Client, partition: u32, to: u32) -> Result<(), ClientError> {
    let request = pb::TransferLeaderRequest {
        topic: TOPIC.to_owned(),
        partition,
        to_broker: Some(to),
        timeout_ms: 2_000,
    };
    client.admin().transfer_leader(request).await.map(|_| ())
}

async fn create(client: &Client, number: u32) -> Result<(), ClientError> {
    let request = pb::CreateTopicRequest {
        name: format!("extra-{number}"),
        partitions: 1,
        replication_factor: REPLICAS,
        ..pb::CreateTopicRequest::default()
    };
    client.admin().create_topic(request).await.map(|_| ())
}
