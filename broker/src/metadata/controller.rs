//! The metadata leader's loop: it looks at the image and its peers, and proposes what is missing. It keeps nothing that
//! is not in the image: a new leader goes on where the old one stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use raft_store::BrokerRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::machine::MetadataMachine;
use super::plan::{MemberChange, View, plan};
use super::proposer::{Attempt, propose_here};

/// Longest pause between two looks; a change of the image or of a verdict comes sooner.
const LOOK: Duration = Duration::from_millis(500);
/// Shortest pause between two looks, so that a storm of changes costs little.
const PACE: Duration = Duration::from_millis(20);
/// A new leader hears of everybody before it calls anybody dead.
const SETTLE: Duration = Duration::from_millis(1_500);
/// One proposal or membership change.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs until the token ends it; does nothing while another broker leads.
pub(crate) async fn run(core: Arc<Core>, token: CancellationToken) {
    let mut image = MetadataMachine::watch_topology(&core.shared);
    let mut verdicts = core.groups.peers().subscribe();
    let mut led_since: Option<Instant> = None;
    loop {
        if core.leads() {
            let since = *led_since.get_or_insert_with(Instant::now);
            round(&core, since.elapsed() >= SETTLE).await;
        } else {
            led_since = None;
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            changed = image.changed() => if changed.is_err() { return },
            changed = verdicts.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn round(core: &Core, settled: bool) {
    let Some(status) = core.status() else { return };
    let image = core.image();
    let health = core.groups.peers().health();
    let peers = health
        .into_iter()
        .map(|(id, health)| (id, (health.verdict, health.hello.map(|hello| hello.incarnation))))
        .collect();
    let matched: BTreeMap<_, _> =
        status.matched.iter().filter_map(|(replica, index)| Some((*replica, (*index)?))).collect();
    let delete_retention = core.config.delete_retention.as_millis();
    let view = View {
        image: &image,
        me: core.me(),
        peers,
        settled,
        last_index: status.last_index.unwrap_or(0),
        matched,
        changing: status.changing,
        joint: joint(core),
        voters_wanted: core.config.metadata_voters,
        now_ms: core.seams.clock.now_ms(),
        delete_retention_ms: i64::try_from(delete_retention).unwrap_or(i64::MAX),
    };
    let todo = plan(&view);
    if !todo.commands.is_empty() {
        let count = todo.commands.len();
        match propose_here(core, todo.commands, LIMIT).await {
            Attempt::Applied(replies) => {
                for refusal in replies.results.into_iter().filter_map(Result::err) {
                    tracing::debug!(refusal = %refusal, "a planned change was refused; the image has moved on");
                }
            }
            other => tracing::debug!(count, attempt = ?other, "planned changes were not made yet"),
        }
    }
    if let Some(change) = todo.members {
        change_members(core, change).await;
    }
}

/// The voters that a change of members leads to while the old ones still decide with them.
fn joint(core: &Core) -> Option<BTreeSet<u64>> {
    let metrics = core.group.metrics();
    let now = metrics.borrow_watched();
    match now.membership_config.membership().get_joint_config().as_slice() {
        [_, .., new] => Some(new.clone()),
        _ => None,
    }
}

async fn change_members(core: &Core, change: MemberChange) {
    tracing::info!(change = ?change, "changing the members of the metadata group");
    let group = &core.group;
    let made = async {
        match change {
            MemberChange::AddLearner(member) => {
                let node = BrokerRef { broker: member.broker.0 };
                group.add_learner(member.replica.0, node, false).await
            }
            // Voters that go are not kept as learners; whoever shall stay is a learner already or added again.
            MemberChange::SetVoters(voters) => {
                group.change_membership(ChangeMembers::ReplaceAllVoters(voters), false).await
            }
            MemberChange::RemoveLearners(gone) => {
                group.change_membership(ChangeMembers::RemoveNodes(gone), false).await
            }
        }
    };
    match tokio::time::timeout(LIMIT, made).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(error = %error, "the metadata group keeps its members for now"),
        Err(_) => tracing::warn!("the metadata group did not commit the change of members in time"),
    }
}
