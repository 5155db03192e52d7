//! Proposes a new log start when the oldest segments may go. Only the leader does, and every replica follows the entry.

use std::sync::Arc;
use std::time::Duration;

use raft_store::EntryData;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::registry::Shared;
use super::replica::Replica;
use super::storage_gate::Room;

/// How often retention is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Retention is looked at this often while the disk is short of room.
const LOOK_EVERY_WHEN_LOW: Duration = Duration::from_secs(1);
/// Time for one proposal.
const PROPOSE_WITHIN: Duration = Duration::from_secs(5);

/// Runs until the scope stops.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let pause = if shared.gate().room() == Room::Ample { LOOK_EVERY } else { LOOK_EVERY_WHEN_LOW };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        for replica in shared.replicas() {
            if replica.is_leader() {
                look(&replica).await;
            }
        }
    }
}

async fn look(replica: &Replica) {
    let core = replica.core();
    let now_ms = core.now_ms();
    let target = core.log.lock().log.retention_target(now_ms);
    let Some(log_start) = target.filter(|target| *target > core.log.log_start()) else { return };
    core.warm(PROPOSE_WITHIN).await;
    let body = Command::SetLogStart { time_ms: now_ms, log_start }.encode();
    match timeout(PROPOSE_WITHIN, core.group.client_write(EntryData::new(body))).await {
        Ok(Ok(_)) => {
            tracing::info!(partition = %replica.name(), log_start = %log_start, "old records removed")
        }
        Ok(Err(error)) => {
            tracing::debug!(partition = %replica.name(), error = %error, "retention not proposed")
        }
        Err(_) => tracing::debug!(partition = %replica.name(), "retention waits for a majority"),
    }
}
