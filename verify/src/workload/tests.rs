//! Workloads without a cluster: every call has an outcome, nothing ends early, and a seed repeats itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::{ByteStream, ClientConfig, Clock, Connect};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::history::{History, Op, Outcome};

/// A network in which nobody listens.
#[derive(Debug)]
struct Nobody;

impl Connect for Nobody {
    fn connect(&self, _address: &str) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        futures::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
    }
}

fn spec(seed: u64) -> WorkloadSpec {
    let clients = Arc::new(|worker| ClientConfig {
        connect: Arc::new(Nobody),
        random_seed: Some(u64::from(worker)),
        clock: Clock::from_fn(|| 0),
        ..ClientConfig::default()
    });
    let mut spec = WorkloadSpec::new(seed, clients, vec![TopicTarget::new("t", 2)]);
    for writer in &mut spec.writers {
        writer.producer.max_block_ms = 3_000;
        writer.placement = Placement::Random;
    }
    spec
}

async fn run(spec: WorkloadSpec, time: Duration) -> (History, Progress) {
    let begun = Instant::now();
    let clock = move || u64::try_from(begun.elapsed().as_nanos()).unwrap();
    let recorder = Recorder::memory(Arc::new(clock));
    let stop = CancellationToken::new();
    let workload = Workload::new(spec, recorder.clone()).unwrap();
    let later = stop.clone();
    let (progress, ()) = tokio::join!(workload.run(stop), async move {
        tokio::time::sleep(time).await;
        later.cancel();
    });
    (recorder.history().unwrap(), progress)
}

#[tokio::test(start_paused = true)]
async fn without_a_cluster_every_send_certainly_fails_and_the_writers_go_on() {
    let (history, progress) = run(spec(1), Duration::from_secs(60)).await;
    let sends: Vec<_> = history.calls.iter().filter(|call| matches!(call.op, Op::Send(_))).collect();
    assert!(sends.len() >= 2 * 15, "only {} sends in a minute of 3 s each", sends.len());
    for call in &sends {
        assert!(matches!(call.outcome, Outcome::Fail(_)), "{call:?}");
        assert!(call.completed.is_some());
    }
    assert_eq!(progress.total(|worker| worker.failed), sends.len() as u64);
    assert_eq!(progress.total(|worker| worker.sent), sends.len() as u64);
    assert_eq!(progress.total(|worker| worker.acked), 0);
    assert!(history.calls.iter().all(|call| call.completed.is_some()), "a call was left without an outcome");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_workload_that_waits_for_a_cluster_at_once() {
    let begun = Instant::now();
    run(spec(1), Duration::from_secs(2)).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let (first, _) = run(spec(7), Duration::from_secs(20)).await;
    let (again, _) = run(spec(7), Duration::from_secs(20)).await;
    let (other, _) = run(spec(8), Duration::from_secs(20)).await;
    assert_eq!(first, again);
    assert_ne!(first.calls, other.calls);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_writer_sends_to_its_partition_only() {
    let mut spec = spec(3);
    spec.writers.truncate(1);
    spec.writers[0].placement = Placement::Pinned(1);
    let (history, _) = run(spec, Duration::from_secs(20)).await;
    let parts = history.calls.iter().filter_map(|call| match &call.op {
        Op::Send(send) => Some(send.part),
        _ => None,
    });
    let parts: Vec<u32> = parts.collect();
    assert!(parts.len() > 3 && parts.iter().all(|part| *part == 1), "{parts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_final_read_without_a_cluster_ends_with_an_error_within_its_bound() {
    let recorder = Recorder::memory(Arc::new(|| 0));
    let client = ClientConfig { connect: Arc::new(Nobody), ..ClientConfig::default() };
    let spec = FinalReadSpec {
        catch_up: Duration::from_secs(5),
        ..FinalReadSpec::new(client, vec![TopicTarget::new("t", 1)])
    };
    let begun = Instant::now();
    assert!(final_read(&spec, &recorder).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_workload_that_cannot_work_names_every_problem() {
    let clients = Arc::new(|_| ClientConfig::new(["nowhere"]));
    let mut spec = WorkloadSpec::new(1, clients, Vec::new());
    spec.writers[0].window = 0;
    spec.writers[1].placement = Placement::Keyed(0);
    spec.writers.push(WriterSpec { placement: Placement::Pinned(0), ..WriterSpec::default() });
    let problems = Workload::new(spec, Recorder::memory(Arc::new(|| 0))).unwrap_err().to_string();
    for part in ["at least one topic", "window", "one key", "a pinned writer", "`nowhere` is not host:port"] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
}
