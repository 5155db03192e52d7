//! Brings what is applied to disk, and lets the WAL go behind it.
//!
//! For each replica that applied something: its segments are fsynced, its state file is written, one checkpoint names
//! all of them, and only then may Raft purge (architecture 14.4). A WAL file goes at a later checkpoint, when nothing in
//! it is needed. Any error here is fatal (I3): nothing is retried on the same descriptor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use disk::mutant::{self, Mutant};
use openraft::async_runtime::WatchReceiver;
use raft_store::{GroupMark, Wal};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::install::mark_of;
use super::manifest::Manifest;
use super::registry::Shared;
use super::replica::Replica;
use super::replica_log::ReplicaLog;
use super::state_file;

/// Dirty segments are handed to the disk this often, so that an fsync finds little to do.
const WRITE_BACK_EVERY: Duration = Duration::from_millis(250);
/// Above this share of the WAL's bound everything is flushed and purged without regard to followers that are away.
const PRESSURE_PERCENT: u64 = 50;
/// Above this share the log says who holds the WAL, but not more often than this.
const NEARLY_FULL_PERCENT: u64 = 90;
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Applied bytes that are flushed at once, whatever the interval: what a disk writes back in about a second.
const DIRTY_BYTES_MAX: u64 = 256 << 20;
/// Time for Raft to take notice of the state on disk; else the next flush purges.
const PURGE_WITHIN: Duration = Duration::from_secs(1);

/// A replica whose state has just reached the disk.
struct Flushed {
    replica: Arc<Replica>,
    manifest: Arc<Manifest>,
    mark: GroupMark,
    /// Keeps an installation out until the checkpoint stands and old state files are gone: marks must not go back, and
    /// what an installation writes is no old file.
    files: OwnedMutexGuard<()>,
}

/// Runs until the scope stops; then flushes once more, so that a restart has nothing to apply again.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let interval = Duration::from_millis(shared.flush_interval_ms());
    let mut write_back = tokio::time::interval(WRITE_BACK_EVERY.min(interval));
    let mut next_flush = Instant::now() + interval;
    let mut next_word = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = write_back.tick() => {}
        }
        let pressed = is_above(shared.wal(), PRESSURE_PERCENT);
        if pressed && is_above(shared.wal(), NEARLY_FULL_PERCENT) && Instant::now() >= next_word {
            next_word = Instant::now() + SAY_EVERY;
            let pressure = shared.wal().pressure();
            tracing::warn!(
                ?pressure,
                "the write-ahead log is nearly full: producers wait until files of it can go"
            );
        }
        let much = shared.dirty().load(Ordering::Relaxed) >= DIRTY_BYTES_MAX;
        if Instant::now() < next_flush && !pressed && !much {
            start_write_back(&shared).await;
            continue;
        }
        shared.wal().ask_for_files();
        if let Err(reason) = flush_all(&shared, pressed).await {
            shared.fatal().stop(reason);
            return;
        }
        next_flush = Instant::now() + interval;
    }
}

/// True if more than this share of the WAL's bound is taken.
fn is_above(wal: &Wal, percent: u64) -> bool {
    let pressure = wal.pressure();
    pressure.outstanding > pressure.max / 100 * percent
}

async fn start_write_back(shared: &Arc<Shared>) {
    for replica in shared.replicas() {
        let log = &replica.core().log;
        let reader = log.reader();
        if !reader.wants_writeback() {
            continue;
        }
        if let Err(error) = shared.io().run(move || reader.start_writeback()).await {
            tracing::debug!(raft_group = %replica.group(), error = %error, "write-back was not started");
        }
    }
}

/// Flushes every replica that applied something since its last flush. One checkpoint covers all of them.
pub(crate) async fn flush_all(shared: &Arc<Shared>, pressed: bool) -> Result<(), String> {
    shared.dirty().store(0, Ordering::Relaxed);
    let mut flushed = Vec::new();
    for replica in shared.replicas() {
        let log = replica.core().log.clone();
        // Busy means that a snapshot is being installed, which brings its own checkpoint.
        let Ok(files) = log.files().try_lock_owned() else { continue };
        let done = shared.io().run(move || flush_one(&log)).await;
        if let Some((manifest, mark)) = done.map_err(|error| format!("flush: {}", chain(&error)))? {
            flushed.push(Flushed { replica, manifest, mark, files });
        }
    }
    if flushed.is_empty() && !pressed {
        return Ok(());
    }
    let marks = flushed.iter().map(|flushed| flushed.mark).collect();
    shared.wal().checkpoint(marks).await.map_err(|error| format!("checkpoint: {error}"))?;
    let mut reached = Vec::new();
    for Flushed { replica, manifest, mark, files } in flushed {
        let log = replica.core().log.clone();
        log.set_durable(manifest);
        shared.io().run(move || state_file::keep_two(&log, mark.state_index)).await;
        // Now an installation that waited may begin. Its state file would have been taken for an old one above.
        drop(files);
        drop(replica.core().group.trigger().snapshot().await);
        reached.push(replica);
    }
    if pressed {
        for replica in shared.replicas() {
            purge(&replica, pressed).await;
        }
    } else {
        for replica in &reached {
            purge(replica, pressed).await;
        }
    }
    Ok(())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Segments first, then the state file that names them.
fn flush_one(log: &ReplicaLog) -> Result<Option<(Arc<Manifest>, GroupMark)>, state_file::StateFileError> {
    let mut inner = log.lock();
    if !inner.unflushed {
        return Ok(None);
    }
    let manifest = Arc::new(inner.manifest());
    inner.unflushed = false;
    let plan = inner.log.flush_plan().map_err(state_file::StateFileError::Segments)?;
    drop(inner);
    // Applying goes on while the disk is waited for; the plan and the manifest are of the same moment.
    if !mutant::on(Mutant::CheckpointBeforeSegmentSync) {
        plan.run().map_err(state_file::StateFileError::Segments)?;
    }
    state_file::write(log, &manifest)?;
    Ok(mark_of(log, &manifest).map(|mark| (manifest, mark)))
}

/// Lets Raft drop what the state on disk covers. A leader keeps what a lagging voter still needs, as long as the WAL has
/// room: entries from memory are cheaper to send than segments.
async fn purge(replica: &Replica, pressed: bool) {
    let core = replica.core();
    let Some(index) = core.log.durable().and_then(|durable| Some(durable.last?.index)) else { return };
    let deadline = Instant::now() + PURGE_WITHIN;
    let mut metrics = core.group.metrics();
    let upto = loop {
        let (covered, upto) = {
            let now = metrics.borrow_and_update();
            let covered = now.snapshot.is_some_and(|snapshot| snapshot.index >= index);
            let slowest = now
                .replication
                .iter()
                .flatten()
                .map(|(_, matched)| matched.map_or(0, |matched| matched.index))
                .min();
            (covered, if pressed { index } else { slowest.map_or(index, |slowest| slowest.min(index)) })
        };
        if covered {
            break upto;
        }
        if !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
            // The group is stopping or slow; the next flush purges more.
            return;
        }
    };
    if upto > 0 {
        drop(core.group.trigger().purge_log(upto).await);
    }
}
