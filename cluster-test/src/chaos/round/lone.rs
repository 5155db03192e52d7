//! Clients that reach nobody but a side without a majority: none of their writes may be acknowledged by all while it is alone.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{ClientConfig, ProducerConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use verify::history::{History, Op, Outcome, Recorder};
use verify::workload::{Placement, TopicTarget, Workload, WorkloadSpec, WriterSpec};

/// Time after which a lone write is given up, so that others are tried while the cut lasts. Unit: ms.
const GIVE_UP_MS: u32 = 1_500;
/// Time for a lone client to end.
const SETTLE: Duration = Duration::from_secs(2);

/// Clients at work on one side of a cut.
#[derive(Debug)]
pub(super) struct Lone {
    alone: Alone,
    stop: CancellationToken,
    task: JoinSet<()>,
}

/// What was tried on one side of a cut.
#[derive(Debug, Clone)]
pub(super) struct Alone {
    side: BTreeSet<u32>,
    /// Partitions of which the side holds no majority.
    parts: BTreeSet<u32>,
    workers: Range<u32>,
    /// When the cut was certainly whole no more. Unit: ns since the round began.
    until_ns: u64,
}

/// Where lone clients work.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// Reaches this side only.
    pub(super) client: ClientConfig,
    pub(super) topic: &'a TopicTarget,
    pub(super) side: &'a BTreeSet<u32>,
    pub(super) parts: BTreeSet<u32>,
}

impl Lone {
    /// Starts a writer for each of the place's partitions. Its producers are not idempotent: those would first need an id, which
    /// only a majority gives.
    pub(super) fn start(place: Place<'_>, first_worker: u32, recorder: Recorder) -> Result<Self> {
        let writer = |part: &u32| WriterSpec {
            producer: ProducerConfig {
                idempotent: Some(false),
                delivery_timeout_ms: GIVE_UP_MS,
                max_block_ms: GIVE_UP_MS,
                ..ProducerConfig::default()
            },
            placement: Placement::Pinned(*part),
            pace: Duration::from_millis(50),
            ..WriterSpec::default()
        };
        let client = place.client;
        let clients =
            Arc::new(move |worker: u32| ClientConfig { random_seed: Some(worker.into()), ..client.clone() });
        let mut spec = WorkloadSpec::new(u64::from(first_worker), clients, vec![place.topic.clone()]);
        spec.first_worker = first_worker;
        spec.writers = place.parts.iter().map(writer).collect();
        spec.readers.clear();
        spec.observers.clear();
        spec.settle = SETTLE;
        let workers = first_worker..first_worker + spec.workers();
        let workload = Workload::new(spec, recorder).context("starting clients of a lonely side")?;
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        let stopped = stop.clone();
        task.spawn(async move {
            workload.run(stopped).await;
        });
        let alone = Alone { side: place.side.clone(), parts: place.parts, workers, until_ns: u64::MAX };
        Ok(Self { alone, stop, task })
    }

    /// Says that the cut is about to be mended; what is acknowledged later proves nothing.
    pub(super) fn mended(&mut self, now_ns: u64) {
        self.alone.until_ns = now_ns;
    }

    /// Ends the clients and tells what they were.
    pub(super) async fn finish(mut self) -> Alone {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        self.alone
    }
}

impl Alone {
    /// Number of the first worker that these clients did not use.
    pub(super) fn next_worker(&self) -> u32 {
        self.workers.end
    }

    /// Writes that were tried, and each that was acknowledged while the side was alone, in words.
    pub(super) fn judge(&self, history: &History) -> (u64, Vec<String>) {
        let mut tried = 0;
        let mut findings = Vec::new();
        for call in history.calls.iter().filter(|call| self.workers.contains(&call.worker)) {
            let Op::Send(send) = &call.op else { continue };
            if !self.parts.contains(&send.part) || call.invoked.t >= self.until_ns {
                continue;
            }
            tried += 1;
            let acked = matches!(call.outcome, Outcome::Ok(_))
                && call.completed.is_some_and(|at| at.t < self.until_ns);
            if acked {
                findings.push(format!(
                    "minority-ack: call {} to partition {} was acknowledged by all through brokers {:?}, which were alone",
                    history.call_name(call),
                    send.part,
                    self.side
                ));
            }
        }
        (tried, findings)
    }
}

#[cfg(test)]
mod tests {
    use verify::history::{AckLevel, Answer, Send, SendAnswer, value};

    use super::*;

    /// One write to partition `part` by `worker`, acknowledged at `at`.
    fn acked(worker: u32, part: u32, at: u64) -> History {
        let now = Arc::new(std::sync::atomic::AtomicU64::new(10));
        let clock = Arc::clone(&now);
        let recorder = Recorder::memory(Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed)));
        let (producer, vals) = (u64::from(worker), vec![value(worker, 0)]);
        let send = Send { topic: "t".into(), part, producer, idem: false, acks: AckLevel::All, seq: 0, vals };
        let call = recorder.invoke(worker, Op::Send(send));
        now.store(at, std::sync::atomic::Ordering::Relaxed);
        recorder.ok(call, Answer::Send(SendAnswer { off: vec![0], ..SendAnswer::default() }));
        recorder.history().unwrap()
    }

    #[test]
    fn an_ack_by_a_side_that_was_alone_is_found() {
        let alone = Alone { side: [2].into(), parts: [1].into(), workers: 100..103, until_ns: 500 };
        let (tried, findings) = alone.judge(&acked(101, 1, 400));
        assert_eq!((tried, findings.len()), (1, 1));
        assert!(findings[0].contains("partition 1") && findings[0].contains("{2}"), "{findings:?}");
    }

    #[test]
    fn acks_after_the_mend_of_other_clients_and_of_other_partitions_are_fine() {
        let alone = Alone { side: [2].into(), parts: [1].into(), workers: 100..103, until_ns: 500 };
        for (worker, part, at) in [(101, 1, 600), (7, 1, 400), (101, 0, 400)] {
            assert!(alone.judge(&acked(worker, part, at)).1.is_empty(), "{worker} {part} {at}");
        }
    }
}
