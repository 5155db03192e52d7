//! How far the workers have come, for whoever decides whether a cluster lives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::spec::{TopicTarget, WorkloadSpec};

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends records.
    Writer,
    /// Polls and seeks.
    Reader,
    /// Asks for offsets and metadata.
    Observer,
    /// Is a member of a consumer group.
    Member,
}

/// Counters of one worker. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerProgress {
    /// Its number.
    pub worker: u32,
    /// What it does.
    pub role: Role,
    /// Records handed to the SDK.
    pub sent: u64,
    /// Records with a receipt of any level.
    pub acked: u64,
    /// Records that were certainly not written.
    pub failed: u64,
    /// Records of which it is not known.
    pub unknown: u64,
    /// Records read.
    pub read: u64,
    /// Questions answered: offsets, metadata, polls that ended without an error (of a member: while it was one).
    pub answers: u64,
    /// Questions and polls that ended with an error.
    pub errors: u64,
}

/// Counters of one partition over all workers. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionProgress {
    /// Receipts that a quorum stands behind (acks=all).
    pub acked: u64,
    /// Records read.
    pub read: u64,
    /// One past the highest offset that an ack or a read named.
    pub end: u64,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// One for each worker, by number.
    pub workers: Vec<WorkerProgress>,
    /// One for each partition of the workload's topics.
    pub partitions: BTreeMap<(String, u32), PartitionProgress>,
}

impl Progress {
    /// Sum of a counter over all workers.
    pub fn total(&self, counter: impl Fn(&WorkerProgress) -> u64) -> u64 {
        self.workers.iter().map(counter).sum()
    }

    /// Workers that have done nothing useful since `earlier`: writers without an ack, readers and members without a successful
    /// poll, observers without an answer.
    #[must_use]
    pub fn idle_workers(&self, earlier: &Self) -> Vec<WorkerProgress> {
        let done = |worker: &WorkerProgress| match worker.role {
            Role::Writer => worker.acked,
            Role::Reader => worker.read + worker.answers,
            Role::Observer | Role::Member => worker.answers,
        };
        let before: BTreeMap<u32, u64> =
            earlier.workers.iter().map(|worker| (worker.worker, done(worker))).collect();
        self.workers
            .iter()
            .filter(|now| done(now) <= before.get(&now.worker).copied().unwrap_or(0))
            .copied()
            .collect()
    }

    /// Partitions without a new ack since `earlier`.
    #[must_use]
    pub fn idle_partitions(&self, earlier: &Self) -> Vec<(String, u32)> {
        let idle = |(at, now): (&(String, u32), &PartitionProgress)| {
            let before = earlier.partitions.get(at).copied().unwrap_or_default();
            (now.acked <= before.acked).then(|| at.clone())
        };
        self.partitions.iter().filter_map(idle).collect()
    }
}

/// A cheap handle to the counters of a running workload.
#[derive(Debug, Clone)]
pub struct ProgressWatch {
    first_worker: u32,
    now: Arc<Mutex<Progress>>,
}

impl ProgressWatch {
    pub(super) fn new(spec: &WorkloadSpec) -> Self {
        let roles = [
            (Role::Writer, spec.writers.len()),
            (Role::Reader, spec.readers.len()),
            (Role::Observer, spec.observers.len()),
            (Role::Member, spec.members.len()),
            (Role::Writer, spec.bare.len()),
        ];
        let roles = roles.into_iter().flat_map(|(role, count)| std::iter::repeat_n(role, count));
        let workers = (spec.first_worker..).zip(roles).map(|(worker, role)| WorkerProgress {
            worker,
            role,
            sent: 0,
            acked: 0,
            failed: 0,
            unknown: 0,
            read: 0,
            answers: 0,
            errors: 0,
        });
        let partitions = |topic: &TopicTarget| {
            let name = topic.name.clone();
            (0..topic.partitions)
                .map(move |partition| ((name.clone(), partition), PartitionProgress::default()))
        };
        let partitions = spec.topics.iter().flat_map(partitions).collect();
        let now = Progress { workers: workers.collect(), partitions };
        Self { first_worker: spec.first_worker, now: Arc::new(Mutex::new(now)) }
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Progress {
        self.lock().clone()
    }

    /// Changes the counters of one worker.
    pub(super) fn of(&self, worker: u32, change: impl FnOnce(&mut WorkerProgress)) {
        let at = worker.saturating_sub(self.first_worker) as usize;
        if let Some(counters) = self.lock().workers.get_mut(at) {
            change(counters);
        }
    }

    /// Changes the counters of one partition.
    pub(super) fn at(&self, topic: &str, partition: u32, change: impl FnOnce(&mut PartitionProgress)) {
        if let Some(counters) = self.lock().partitions.get_mut(&(topic.to_owned(), partition)) {
            change(counters);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::ClientConfig;

    use super::*;

    fn watch() -> ProgressWatch {
        let clients = Arc::new(|_| ClientConfig::default());
        ProgressWatch::new(&WorkloadSpec {
            first_worker: 7,
            ..WorkloadSpec::new(1, clients, vec![TopicTarget::new("t", 2)])
        })
    }

    #[test]
    fn workers_are_numbered_from_the_first_writers_then_readers_then_observers() {
        let workers = watch().snapshot().workers;
        let roles: Vec<(u32, Role)> = workers.iter().map(|worker| (worker.worker, worker.role)).collect();
        let expected = [
            (7, Role::Writer),
            (8, Role::Writer),
            (9, Role::Reader),
            (10, Role::Reader),
            (11, Role::Observer),
        ];
        assert_eq!(roles, expected);
    }

    #[test]
    fn who_did_nothing_since_is_named() {
        let watch = watch();
        watch.of(7, |worker| worker.acked = 3);
        let before = watch.snapshot();
        watch.of(7, |worker| worker.acked += 1);
        watch.of(8, |worker| worker.failed += 1);
        watch.of(9, |worker| worker.answers += 1);
        watch.of(11, |worker| worker.answers += 1);
        watch.at("t", 1, |partition| partition.acked += 1);
        let now = watch.snapshot();
        let idle: Vec<u32> = now.idle_workers(&before).iter().map(|worker| worker.worker).collect();
        assert_eq!(idle, [8, 10]);
        assert_eq!(now.idle_partitions(&before), [("t".to_owned(), 0)]);
        assert_eq!(now.total(|worker| worker.acked), 4);
    }
}
