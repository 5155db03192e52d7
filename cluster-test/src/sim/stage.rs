//! What the world and the clients tell each other.

use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use verify::workload::{FinalReads, Progress, ProgressWatch, WorkerProgress};

/// Signals and counters between the world, which steps, and the clients, which run in it.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// The topic is there.
    pub(super) ready: CancellationToken,
    /// Ends the workload.
    pub(super) stop: CancellationToken,
    /// Begins the final read.
    pub(super) last_look: CancellationToken,
    /// Machines whose workload has ended.
    pub(super) ended: AtomicU32,
    watches: Mutex<Vec<ProgressWatch>>,
    final_reads: Mutex<Option<Result<FinalReads, String>>>,
}

impl Stage {
    /// Counts a workload in.
    pub(super) fn watch(&self, watch: ProgressWatch) {
        lock(&self.watches).push(watch);
    }

    /// How far all workloads have come.
    pub(super) fn progress(&self) -> Snapshot {
        Snapshot(lock(&self.watches).iter().map(ProgressWatch::snapshot).collect())
    }

    /// Says what came of the final read.
    pub(super) fn set_final_reads(&self, reads: Result<FinalReads, String>) {
        *lock(&self.final_reads) = Some(reads);
    }

    /// What came of the final read; `None` before its end.
    pub(super) fn final_reads(&self) -> Option<Result<FinalReads, String>> {
        lock(&self.final_reads).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The counters of all workloads at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot(Vec<Progress>);

impl Snapshot {
    /// Records with a receipt.
    pub(super) fn acked(&self) -> u64 {
        self.0.iter().map(|progress| progress.total(|worker| worker.acked)).sum()
    }

    /// Workers that have done nothing useful since.
    pub(super) fn idle_workers(&self, earlier: &Self) -> Vec<WorkerProgress> {
        self.0.iter().zip(&earlier.0).flat_map(|(now, before)| now.idle_workers(before)).collect()
    }

    /// Partitions to which no workload has written with acks=all since.
    pub(super) fn idle_partitions(&self, earlier: &Self) -> Vec<String> {
        let mut idle: Option<Vec<(String, u32)>> = None;
        for (now, before) in self.0.iter().zip(&earlier.0) {
            let here = now.idle_partitions(before);
            idle = Some(match idle {
                Some(others) => others.into_iter().filter(|at| here.contains(at)).collect(),
                None => here,
            });
        }
        idle.unwrap_or_default().into_iter().map(|(topic, part)| format!("{topic}/{part}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use verify::workload::PartitionProgress;

    use super::*;

    fn acked(counts: [u64; 2]) -> Progress {
        let at = |(part, acked)| (("t".to_owned(), part), PartitionProgress { acked, ..Default::default() });
        Progress { workers: Vec::new(), partitions: (0..).zip(counts).map(at).collect() }
    }

    #[test]
    fn a_partition_is_idle_if_no_workload_writes_to_it() {
        let before = Snapshot(vec![acked([1, 1]), acked([5, 5])]);
        let now = Snapshot(vec![acked([1, 1]), acked([5, 6])]);
        assert_eq!(now.idle_partitions(&before), ["t/0"]);
        let later = Snapshot(vec![acked([2, 1]), acked([5, 6])]);
        assert_eq!(later.idle_partitions(&before), Vec::<String>::new());
    }
}
