//! Tells the metadata group promptly who leads: for each replica that leads here, its epoch.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::registry::Shared;
use super::replica::Replica;
use crate::metadata::command::{Command, LeaderReport};
use crate::metadata::image::MetadataImage;

/// Elections come in bursts, when a broker dies: reports wait this long for each other.
const GATHER: Duration = Duration::from_millis(5);
/// Leadership is looked at this often even if nobody said that it changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Reports in one proposal.
const BATCH_MAX: usize = 2000;
/// A proposal that takes longer is given up and made again.
const PROPOSE_WITHIN: Duration = Duration::from_secs(3);

/// Runs until the scope stops.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let changed = shared.leadership_changed();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = changed => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let image = shared.metadata().image();
        let reports: Vec<LeaderReport> =
            shared.replicas().iter().filter_map(|replica| due(replica, &image)).take(BATCH_MAX).collect();
        if reports.is_empty() {
            continue;
        }
        let count = reports.len();
        match shared.metadata().propose(Command::ReportLeaders(reports), PROPOSE_WITHIN).await {
            Ok(_) => tracing::debug!(count, "leaders reported"),
            Err(error) => tracing::debug!(count, error = %error, "leaders not reported yet"),
        }
    }
}

/// The report that the image lacks, if this replica leads.
fn due(replica: &Replica, image: &MetadataImage) -> Option<LeaderReport> {
    if !replica.is_leader() {
        return None;
    }
    let (_, partition) = image.group(replica.group())?;
    let report =
        LeaderReport { group: replica.group(), replica: replica.id(), epoch: replica.leader_epoch() };
    let known = partition.leader == Some(report.replica) && partition.leader_epoch == report.epoch;
    let stale = partition.leader_epoch > report.epoch || partition.replica(report.replica).is_none();
    (!known && !stale).then_some(report)
}
