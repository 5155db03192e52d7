//! Watches the lag of the followers of each replica that leads here, and tells the metadata group when the ISR changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::ids::{RaftGroupId, ReplicaId};

use super::isr::{LagHistory, LagLimits, VoterProgress};
use super::registry::Shared;
use super::replica::Replica;
use crate::metadata::command::{Command, IsrReport};
use crate::metadata::image::MetadataImage;
use crate::raft::{GroupStatus, Verdict};
use crate::runtime::ProbeEvent;

/// How often lag is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(200);
/// Proposals of changed sets are at least this far apart.
const REPORT_EVERY: Duration = Duration::from_millis(400);
/// Reports in one proposal.
const BATCH_MAX: usize = 2000;
/// A proposal that takes longer is given up and made again.
const PROPOSE_WITHIN: Duration = Duration::from_secs(3);

/// Lag of one led replica, kept for one term.
struct Watched {
    term: u64,
    history: LagHistory,
}

/// Runs until the scope stops.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let began = Instant::now();
    let mut watched: BTreeMap<RaftGroupId, Watched> = BTreeMap::new();
    let mut next_report = began;
    let mut ticks = tokio::time::interval(MEASURE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // At most one proposal is on its way. Lag is measured meanwhile: what is not seen of it cannot be made up for later.
    let mut proposal: Option<BoxFuture<'_, ()>> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = OptionFuture::from(proposal.as_mut()) => {
                proposal = None;
                continue;
            }
            _ = ticks.tick() => {}
        }
        let now_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let image = shared.metadata().image();
        let replicas = shared.replicas();
        let mut reports = Vec::new();
        for replica in &replicas {
            reports.extend(measure(&shared, &image, replica, &mut watched, now_ms));
        }
        let open: BTreeSet<RaftGroupId> = replicas.iter().map(|replica| replica.group()).collect();
        watched.retain(|group, _| open.contains(group));
        if reports.is_empty() || Instant::now() < next_report || proposal.is_some() {
            continue;
        }
        reports.truncate(BATCH_MAX);
        next_report = Instant::now() + REPORT_EVERY;
        proposal = Some(report(&shared, reports).boxed());
    }
}

async fn report(shared: &Shared, reports: Vec<IsrReport>) {
    if let Err(error) = shared.metadata().propose(Command::ReportIsr(reports), PROPOSE_WITHIN).await {
        tracing::debug!(error = %error, "in-sync replicas not reported yet");
    }
}

/// Measures one replica; the report is what the image lacks.
fn measure(
    shared: &Shared,
    image: &MetadataImage,
    replica: &Replica,
    watched: &mut BTreeMap<RaftGroupId, Watched>,
    now_ms: u64,
) -> Option<IsrReport> {
    let group = replica.group();
    let core = replica.core();
    let status = if replica.is_leader() { shared.groups().status(group) } else { None };
    let Some(status) = status.filter(GroupStatus::is_leader) else {
        watched.remove(&group);
        core.in_sync.store(1, Ordering::Relaxed);
        return None;
    };
    let (_, partition) = image.group(group)?;
    let fresh =
        |term| Watched { term, history: LagHistory::new(now_ms, partition.isr.iter().copied().collect()) };
    let lag = watched.entry(group).or_insert_with(|| fresh(status.term));
    if lag.term != status.term {
        *lag = fresh(status.term);
    }
    lag.history.sample(now_ms, status.last_index.unwrap_or(0), core.proposed_bytes.load(Ordering::Relaxed));
    let in_sync = lag.history.in_sync(now_ms, replica.id(), &voters(shared, &status), shared.lag_limits());
    core.in_sync.store(in_sync.len(), Ordering::Relaxed);
    core.log.probe().note(|of| ProbeEvent::InSync {
        of,
        term: status.term,
        replicas: in_sync.iter().map(|replica| replica.0).collect(),
    });
    let isr: Vec<ReplicaId> = in_sync.into_iter().filter(|id| partition.replica(*id).is_some()).collect();
    let mut known = partition.isr.clone();
    known.sort_unstable();
    let epoch = replica.leader_epoch();
    // The leader is reported first: a set of a leader that the metadata group does not know is refused as stale.
    let reported = partition.leader == Some(replica.id()) && partition.leader_epoch == epoch;
    (reported && known != isr).then_some(IsrReport { group, leader: replica.id(), epoch, isr })
}

fn voters(shared: &Shared, status: &GroupStatus) -> Vec<VoterProgress> {
    status
        .members
        .iter()
        .filter(|member| member.votes)
        .map(|member| VoterProgress {
            replica: member.replica,
            matched: status.matched.get(&member.replica).copied().flatten(),
            alive: shared.groups().peers().verdict(member.broker) != Verdict::Dead,
        })
        .collect()
}

/// Limits from the configuration.
pub(crate) fn limits(config: &crate::config::ReplicaConfig) -> LagLimits {
    LagLimits { max_bytes: config.lag_max_bytes, max_ms: config.lag_max_ms }
}
