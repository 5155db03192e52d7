//! What a leader does to its group: hands leadership to the preferred replica, and lets one replica take another's place.
//!
//! One change at a time in a group (I10), one transfer at a time on a broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use raft_store::BrokerRef;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wire::ids::ReplicaId;

use super::registry::Shared;
use super::replica::Replica;
use super::returns::Returns;
use super::storage_gate::Room;
use crate::metadata::command::Command;
use crate::metadata::image::{MetadataImage, Partition, Replica as MetaReplica};
use crate::raft::{GroupStatus, Member, Verdict};

/// How often the led groups are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A change of members that the leader before this one left half-way is taken up after this long.
const TAKEN_UP_AFTER: Duration = Duration::from_secs(3);
/// Pause between two transfers of one broker: at most ten a second.
const TRANSFER_PAUSE: Duration = Duration::from_millis(100);
/// Time for one transfer.
const TRANSFER_WITHIN: Duration = Duration::from_secs(2);
/// Time for one membership change; one that takes longer goes on by itself and is looked at again.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);
/// A learner this many entries behind is near enough to become a voter.
const PROMOTE_WITHIN_ENTRIES: u64 = 64;

/// Runs until the scope stops.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut returns = Returns::default();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let image = shared.metadata().image();
        for replica in shared.replicas() {
            if stop.is_cancelled() {
                return;
            }
            if replica.is_leader() {
                look(&shared, &image, &replica, &mut returns).await;
            }
        }
    }
}

async fn look(shared: &Arc<Shared>, image: &MetadataImage, replica: &Replica, returns: &mut Returns) {
    let Some((_, partition)) = image.group(replica.group()) else { return };
    let Some(status) = shared.groups().status(replica.group()).filter(GroupStatus::is_leader) else { return };
    if let Some(adding) = partition.adding {
        replace(shared, image, replica, (partition, adding), &status).await;
    } else if drop_strays(replica, image, partition, &status).await {
    } else if let Some(to) = heir(shared, (image, partition), &status, replica, returns) {
        transfer(shared, replica, to).await;
        if to == partition.preferred {
            returns.note(replica.group(), Instant::now());
        }
        tokio::time::sleep(TRANSFER_PAUSE).await;
    }
}

/// The next step of a replacement.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Let the new replica receive entries.
    AddLearner,
    /// It is not near enough yet.
    Wait,
    /// Make exactly these the voters.
    Vote(BTreeSet<u64>),
    /// Tell the metadata group that it is done.
    Complete,
}

/// What to do next so that `new` is a voter and `goes` holds for no voter; each step is safe to repeat, so a leader that
/// takes over goes on where the last one was.
fn next_step(status: &GroupStatus, new: ReplicaId, goes: impl Fn(ReplicaId) -> bool) -> Step {
    let Some(member) = status.members.iter().find(|member| member.replica == new) else {
        return Step::AddLearner;
    };
    let all_gone = !status.members.iter().any(|member| member.votes && goes(member.replica));
    if member.votes && all_gone && !status.changing {
        return Step::Complete;
    }
    let matched = status.matched.get(&new).copied().flatten();
    let near =
        matched.is_some_and(|matched| matched + PROMOTE_WITHIN_ENTRIES >= status.last_index.unwrap_or(0));
    if !member.votes && !near {
        return Step::Wait;
    }
    let voters = status.members.iter().filter(|member| member.votes && !goes(member.replica));
    Step::Vote(voters.map(|member| member.replica.0).chain([new.0]).collect())
}

/// True if a member has no place in its group: it is being replaced, or it is of a replacement that another one took
/// over. A group that let such members vote on would count disks that are gone, until they outvote the living. One whose
/// id is newer than the image is left alone.
fn has_no_place(image: &MetadataImage, partition: &Partition, id: ReplicaId) -> bool {
    let unlisted = id < image.next_replica && partition.replica(id).is_none();
    unlisted || partition.removing == Some(id)
}

async fn replace(
    shared: &Shared,
    image: &MetadataImage,
    replica: &Replica,
    (partition, new): (&Partition, MetaReplica),
    status: &GroupStatus,
) {
    // A change of the leader before this one may have stopped half-way; it is taken up after a while.
    if status.changing && replica.led_for().is_none_or(|led| led < TAKEN_UP_AFTER) {
        return;
    }
    let group = &replica.core().group;
    let step = next_step(status, new.id, |id| has_no_place(image, partition, id));
    let change = async {
        match &step {
            Step::Wait => Ok(()),
            Step::AddLearner => {
                let node = BrokerRef { broker: new.broker.0 };
                group.add_learner(new.id.0, node, false).await.map(drop).map_err(|error| error.to_string())
            }
            Step::Vote(voters) => {
                let done = group.change_membership(voters.clone(), false).await;
                done.map(drop).map_err(|error| error.to_string())
            }
            Step::Complete => {
                let command = Command::CompleteReplace { group: replica.group(), new: new.id };
                let done = shared.metadata().propose(command, CHANGE_WITHIN).await;
                done.map(drop).map_err(|error| error.to_string())
            }
        }
    };
    match timeout(CHANGE_WITHIN, change).await {
        Ok(Ok(())) if step == Step::Wait => {}
        Ok(Ok(())) => {
            tracing::info!(partition = %replica.name(), new = %new.id, ?step, "replacement goes on")
        }
        Ok(Err(error)) => {
            tracing::warn!(partition = %replica.name(), new = %new.id, error, "replacement waits")
        }
        Err(_) => {
            tracing::warn!(partition = %replica.name(), new = %new.id, "replacement waits for a majority")
        }
    }
}

/// Removes members that a replacement left behind when it was given up, and ends a change that was left half-way. True
/// if there was anything to do.
async fn drop_strays(
    replica: &Replica,
    image: &MetadataImage,
    partition: &Partition,
    status: &GroupStatus,
) -> bool {
    let stray = |member: &&Member| has_no_place(image, partition, member.replica);
    // A change that the leader before this one left half-way is taken up after a while.
    let half_way = status.changing && replica.led_for().is_some_and(|led| led >= TAKEN_UP_AFTER);
    let strays = status.members.iter().any(|member| stray(&member));
    if !half_way && (status.changing || !strays) {
        return false;
    }
    let voters: BTreeSet<u64> = ids(status.members.iter().filter(|member| member.votes && !stray(member)));
    let outvoted = status.members.iter().any(|member| member.votes && stray(&member));
    let change = if half_way || outvoted {
        ChangeMembers::ReplaceAllVoters(voters)
    } else {
        ChangeMembers::RemoveNodes(ids(status.members.iter().filter(stray)))
    };
    let change = replica.core().group.change_membership(change, false);
    if let Ok(Err(error)) = timeout(CHANGE_WITHIN, change).await {
        tracing::warn!(partition = %replica.name(), error = %error, "members without a place were not removed");
    }
    true
}

fn ids<'a>(members: impl Iterator<Item = &'a Member>) -> BTreeSet<u64> {
    members.map(|member| member.replica.0).collect()
}

/// Who should lead instead of this replica; `None` if all is well.
fn heir(
    shared: &Shared,
    (image, partition): (&MetadataImage, &Partition),
    status: &GroupStatus,
    replica: &Replica,
    returns: &Returns,
) -> Option<ReplicaId> {
    let me = image.broker(shared.broker());
    let draining = me.is_some_and(|broker| broker.draining);
    // Records that cannot be read cannot be given to a follower that needs them either.
    let damaged = replica.core().log.damage().found().is_some();
    if draining || damaged || shared.gate().room() == Room::Critical {
        return best_other(shared, image, partition, status);
    }
    let preferred = partition.preferred;
    let wait = returns.wait(replica.group(), Instant::now());
    let settled = replica.led_for().is_some_and(|led| led >= wait);
    (preferred != replica.id() && settled && fit(shared, image, partition, status, preferred))
        .then_some(preferred)
}

/// The replica to hand leadership to when this broker must not lead: the preferred one, else the furthest.
pub(crate) fn best_other(
    shared: &Shared,
    image: &MetadataImage,
    partition: &Partition,
    status: &GroupStatus,
) -> Option<ReplicaId> {
    let mut candidates: Vec<ReplicaId> = partition
        .replicas
        .iter()
        .map(|replica| replica.id)
        .filter(|id| *id != status.replica && fit(shared, image, partition, status, *id))
        .collect();
    candidates.sort_by_key(|id| {
        (*id != partition.preferred, std::cmp::Reverse(status.matched.get(id).copied().flatten()))
    });
    candidates.first().copied()
}

/// True if a replica can lead at once: alive, in sync and caught up (a transfer to a dead one would block the group).
fn fit(
    shared: &Shared,
    image: &MetadataImage,
    partition: &Partition,
    status: &GroupStatus,
    id: ReplicaId,
) -> bool {
    let Some(target) = partition.replica(id) else { return false };
    let alive = shared.groups().peers().verdict(target.broker) == Verdict::Alive;
    let eligible = image.broker(target.broker).is_some_and(|broker| broker.is_eligible());
    let votes = status.members.iter().any(|member| member.replica == id && member.votes);
    let matched = status.matched.get(&id).copied().flatten();
    let near =
        matched.is_some_and(|matched| matched + PROMOTE_WITHIN_ENTRIES >= status.last_index.unwrap_or(0));
    alive && eligible && votes && near && partition.isr.contains(&id) && !image.is_lost(target)
}

/// Hands the leadership of a replica to whoever can take it, if anyone can.
pub(crate) async fn give_away(shared: &Shared, replica: &Replica) {
    let image = shared.metadata().image();
    let Some((_, partition)) = image.group(replica.group()) else { return };
    let Some(status) = shared.groups().status(replica.group()).filter(GroupStatus::is_leader) else { return };
    if let Some(to) = best_other(shared, &image, partition, &status) {
        transfer(shared, replica, to).await;
    }
}

/// Hands one leadership over.
async fn transfer(shared: &Shared, replica: &Replica, to: ReplicaId) {
    match shared.groups().transfer(replica.group(), to, TRANSFER_WITHIN).await {
        Ok(()) => tracing::info!(partition = %replica.name(), to = %to, "leadership handed over"),
        Err(error) => {
            tracing::warn!(partition = %replica.name(), to = %to, error = %error, "leadership stays")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wire::ids::BrokerId;

    use super::*;
    use crate::raft::{Member, Role};

    fn status(members: &[(u64, bool)], matched: &[(u64, u64)], changing: bool) -> GroupStatus {
        GroupStatus {
            replica: ReplicaId(1),
            role: Role::Leader,
            term: 1,
            leader: None,
            last_index: Some(1000),
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            members: members
                .iter()
                .map(|(id, votes)| Member { replica: ReplicaId(*id), broker: BrokerId(1), votes: *votes })
                .collect(),
            changing,
            membership_index: None,
            running: Ok(()),
            matched: matched
                .iter()
                .map(|(id, index)| (ReplicaId(*id), Some(*index)))
                .collect::<BTreeMap<_, _>>(),
            quorum_age_ms: None,
        }
    }

    #[test]
    fn a_replacement_goes_from_learner_to_voter_to_done() {
        let (new, goes) = (ReplicaId(4), |id| id == ReplicaId(3));
        let three = [(1, true), (2, true), (3, true)];
        let step =
            |members: &[(u64, bool)], matched| next_step(&status(members, &[(4, matched)], false), new, goes);
        assert_eq!(step(&three, 0), Step::AddLearner);
        let with_learner = [three.as_slice(), &[(4, false)]].concat();
        assert_eq!(step(&with_learner, 10), Step::Wait);
        assert_eq!(step(&with_learner, 990), Step::Vote(BTreeSet::from([1, 2, 4])));
        assert_eq!(step(&[(1, true), (2, true), (4, true)], 990), Step::Complete);
    }

    #[test]
    fn a_change_that_stopped_half_way_is_taken_up() {
        let joint = status(&[(1, true), (2, true), (3, true), (4, true)], &[(4, 1000)], true);
        let step = next_step(&joint, ReplicaId(4), |id| id == ReplicaId(3));
        assert_eq!(step, Step::Vote(BTreeSet::from([1, 2, 4])));
    }

    #[test]
    fn a_replacement_that_was_overtaken_by_another_does_not_stay_a_voter() {
        // The disk of replica 3 was lost, 4 had begun to take its place, and its disk was lost as well.
        let goes = |id| [ReplicaId(3), ReplicaId(4)].contains(&id);
        let half = [(1, true), (2, true), (3, true), (4, true), (5, false)];
        let step = next_step(&status(&half, &[(5, 1000)], true), ReplicaId(5), goes);
        assert_eq!(step, Step::Vote(BTreeSet::from([1, 2, 5])));
        let left = [(1, true), (2, true), (4, true), (5, true)];
        let step = next_step(&status(&left, &[(5, 1000)], false), ReplicaId(5), goes);
        assert_eq!(step, Step::Vote(BTreeSet::from([1, 2, 5])));
    }
}
