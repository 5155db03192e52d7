//! Keeps the metadata log short: a snapshot from time to time, a checkpoint that names it, and the log behind it goes.
//!
//! The order is the invariant: the snapshot file is on disk before the checkpoint names it, and openraft purges only
//! behind the *older* of the two kept snapshots, so that a damaged newest one can be made up for by the log.

use std::sync::Arc;
use std::time::Duration;

use raft_store::{GroupMark, LogPosition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::ids::RaftGroupId;

use super::core::Core;

/// Entries after which a snapshot is taken at once.
const ENTRIES: u64 = 1_000;
/// A change waits at most this long for its snapshot.
const AGE: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A snapshot takes at most this long.
const BUILD: Duration = Duration::from_secs(30);

/// Runs until the token ends it.
pub(crate) async fn run(core: Arc<Core>, token: CancellationToken) {
    let mut changed: Option<(u64, Instant)> = None;
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let covered = core.shared.snapshot_position().map_or(0, |at| at.index);
        let version = core.image.borrow().version;
        if version <= covered {
            changed = None;
            continue;
        }
        let (_, since) = *changed.get_or_insert((version, Instant::now()));
        if version - covered >= ENTRIES || since.elapsed() >= AGE {
            changed = None;
            if let Err(reason) = snapshot(&core).await {
                tracing::warn!(reason, "no snapshot of the metadata was taken; it is tried again");
            }
        }
    }
}

/// Snapshot, checkpoint, purge.
async fn snapshot(core: &Core) -> Result<(), String> {
    let before = core.shared.snapshot_position();
    core.group.trigger().snapshot().await.map_err(|error| error.to_string())?;
    let Some(at) = wait_newer(core, before).await else {
        return Err("it was not written in time".to_owned());
    };
    let mark = GroupMark {
        group: RaftGroupId::METADATA.0,
        replica: core.replica().0,
        applied: at,
        next_offset: 0,
        segment_base: 0,
        synced_len: 0,
        state_index: at.index,
    };
    core.wal.checkpoint(vec![mark]).await.map_err(|error| error.to_string())?;
    let fallback = core.shared.fallback_index().map_err(|error| error.to_string())?;
    if let Some(upto) = fallback {
        core.group.trigger().purge_log(upto).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The position of a snapshot newer than `before`, once it is on disk.
async fn wait_newer(core: &Core, before: Option<LogPosition>) -> Option<LogPosition> {
    let deadline = Instant::now() + BUILD;
    while Instant::now() < deadline {
        let now = core.shared.snapshot_position();
        if now > before {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}
