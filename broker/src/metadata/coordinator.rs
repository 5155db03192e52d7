//! Coordinates consumer groups on the leader of the metadata group: who was heard of, who is expelled, whose offsets
//! expire.
//!
//! A member's lease: the coordinator that hears of it tells how long it may take itself for a member. That is its session
//! timeout, less the time since a quorum last acknowledged this leader, less a margin. A later leader begins every session
//! anew, after that quorum: it expels nobody whose lease still runs.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::ids::{BrokerId, GroupId, MemberId};

use super::command::Command;
use super::core::Core;
use super::proposer::{Attempt, propose_here};
use crate::group::{GroupCommand, Groups};
use crate::raft::GroupStatus;
use crate::runtime::ProbeEvent;

/// Pause between two looks at the sessions.
const LOOK: Duration = Duration::from_millis(100);
/// The same while there are none, or another broker leads.
const LOOK_IDLE: Duration = Duration::from_millis(500);
/// The session clock stands still while no quorum has acknowledged this leader for longer.
const QUORUM_AGE_MAX_MS: u64 = 1_000;
/// Pause between two looks for offsets that expire.
const LOOK_OFFSETS: Duration = Duration::from_secs(10);
/// Groups that are forgotten in one round.
const FORGET_AT_ONCE: usize = 256;
/// One proposal.
const LIMIT: Duration = Duration::from_secs(5);
/// Part of a session that a member gives up before the coordinator does.
const MARGIN: u32 = 10;

/// What the coordinator says of members that were heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// An image of this version shows at least what the coordinator knew.
    pub(crate) index: u64,
    /// For each: how long it may take itself for a member, `None` if it is none.
    pub(crate) leases: Vec<Option<Duration>>,
}

/// Runs until the token ends it; does nothing while another broker leads.
pub(crate) async fn run(core: Arc<Core>, token: CancellationToken) {
    let mut offsets_looked: Option<Instant> = None;
    loop {
        let idle = core.sessions().is_empty();
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = tokio::time::sleep(if idle { LOOK_IDLE } else { LOOK }) => {}
        }
        if begin(&core).is_none() {
            continue;
        }
        let expired = core.sessions().expired();
        expel(&core, expired).await;
        if offsets_looked.is_none_or(|looked| looked.elapsed() >= LOOK_OFFSETS) {
            offsets_looked = Some(Instant::now());
            forget_idle(&core).await;
        }
    }
}

/// Brings the sessions up to the present time and image, if this broker leads and has applied all that earlier leaders committed.
/// Returns the time since a quorum last acknowledged it.
fn begin(core: &Core) -> Option<u64> {
    let status = core.status().filter(GroupStatus::is_leader)?;
    if core.shared.applied_term() != status.term {
        return None;
    }
    let image = core.shared.groups_image();
    let mut sessions = core.sessions();
    let quorum_age_ms = quorum_age_ms(&status);
    sessions.begin(status.term);
    sessions.advance(Instant::now(), quorum_age_ms.is_some_and(|age| age <= QUORUM_AGE_MAX_MS));
    sessions.follow(image.version, &image.consumer_groups);
    quorum_age_ms
}

/// The broker that coordinates, as far as this one knows. A leader that no quorum follows does not name itself: another one may
/// lead already.
pub(crate) fn known(core: &Core) -> Option<BrokerId> {
    let status = core.status()?;
    let (_, leader) = status.leader?;
    let is_followed =
        !status.is_leader() || quorum_age_ms(&status).is_some_and(|age| age <= QUORUM_AGE_MAX_MS);
    is_followed.then_some(leader)
}

/// Time since a quorum last acknowledged this leader.
fn quorum_age_ms(status: &GroupStatus) -> Option<u64> {
    let alone = status.members.iter().filter(|member| member.votes).count() == 1;
    if alone { Some(0) } else { status.quorum_age_ms }
}

/// Members were heard of; `None` if this broker cannot coordinate now.
pub(crate) fn hear(core: &Core, members: &[(GroupId, MemberId)]) -> Option<Heard> {
    let quorum_age = Duration::from_millis(begin(core)?);
    let index = core.image.borrow().version;
    let mut sessions = core.sessions();
    let lease = |timeout: Duration| (timeout - timeout / MARGIN).checked_sub(quorum_age);
    let mut leases = Vec::with_capacity(members.len());
    for (group, member) in members {
        leases.push(match sessions.touch(group, *member) {
            Some(timeout) => {
                let (member, lease) = (*member, lease(timeout)?);
                core.seams.probe.note(|| ProbeEvent::Leased { member, lease, index });
                Some(lease)
            }
            None => None,
        });
    }
    Some(Heard { index, leases })
}

/// Decides what only the coordinator knows, before commands are written down.
pub(crate) fn decide(core: &Core, commands: &mut [Command]) {
    let joins = commands.iter_mut().filter_map(|command| match command {
        Command::Group { id, command: GroupCommand::Join(join) } => Some((id, join)),
        _ => None,
    });
    let mut begun = None;
    for (id, join) in joins {
        let leads = *begun.get_or_insert_with(|| begin(core).is_some());
        let instance = join.instance.as_deref();
        join.take_over = leads && instance.is_some_and(|instance| core.sessions().is_silent(id, instance));
    }
}

/// Version of an image that has everything that was acknowledged before the call; `None` if this broker does not lead.
pub(crate) async fn read_index(core: &Core, limit: Duration) -> Option<u64> {
    let asked = tokio::time::timeout(limit, core.group.get_read_linearizer(ReadPolicy::ReadIndex)).await;
    let linearizer = asked.ok()?.ok()?;
    linearizer.try_await_ready(&core.group, Some(limit)).await.ok()?.ok()?;
    Some(core.image.borrow().version)
}

async fn expel(core: &Core, expired: Vec<(GroupId, MemberId)>) {
    if expired.is_empty() {
        return;
    }
    let time_ms = core.seams.clock.now_ms();
    let commands = expired.into_iter().map(|(id, member)| {
        tracing::info!(group = %id, member = %member, "a member was silent for too long and is expelled");
        Command::Group { id, command: GroupCommand::Expire { member, time_ms } }
    });
    propose(core, commands.collect()).await;
}

/// Proposes the end of groups that were without members and commits for `groups.offset_retention_ms`.
async fn forget_idle(core: &Core) {
    let retention = i64::try_from(core.config.offset_retention.as_millis()).unwrap_or(i64::MAX);
    let before_ms = core.seams.clock.now_ms().saturating_sub(retention);
    let commands = idle_groups(&core.image().consumer_groups, before_ms);
    if !commands.is_empty() {
        tracing::info!(count = commands.len(), "groups that nobody used for long are forgotten");
        propose(core, commands).await;
    }
}

fn idle_groups(groups: &Groups, before_ms: i64) -> Vec<Command> {
    let idle = groups.all().iter().filter_map(|(id, entry)| {
        let since = entry.idle_since_ms().filter(|since| *since <= before_ms)?;
        Some(Command::Group { id: id.clone(), command: GroupCommand::Forget { idle_since_ms: since } })
    });
    idle.take(FORGET_AT_ONCE).collect()
}

async fn propose(core: &Core, commands: Vec<Command>) {
    let count = commands.len();
    match propose_here(core, commands, LIMIT).await {
        Attempt::Applied(_) => {}
        other => tracing::debug!(count, attempt = ?other, "changes of groups were not made yet"),
    }
}
