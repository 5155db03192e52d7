//! What the metadata leader finds missing: a pure function of the image and of what it sees of its peers.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use wire::ids::{BrokerId, ReplicaId};

use super::command::Command;
use super::image::{MetadataImage, MetadataMember, Partition};
use crate::raft::Verdict;

/// Replicas of lost disks that are replaced at the same time: each pulls whole partitions.
const REPLACING_MAX: usize = 16;
/// Commands of one round; the next round sees what is left.
const COMMANDS_MAX: usize = 200;
/// A learner may be promoted when it is at most so many entries behind.
const PROMOTE_LAG: u64 = 100;

/// What the leader sees.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) image: &'a MetadataImage,
    /// This broker, which is alive.
    pub(crate) me: BrokerId,
    /// Verdict on each peer, and the disk that it greeted with last.
    pub(crate) peers: BTreeMap<BrokerId, (Verdict, Option<Uuid>)>,
    /// Long enough in office for its verdicts to mean something.
    pub(crate) settled: bool,
    /// Last entry of the metadata log, and the last entry that each member is known to have.
    pub(crate) last_index: u64,
    pub(crate) matched: BTreeMap<ReplicaId, u64>,
    /// A membership change is under way.
    pub(crate) changing: bool,
    /// If old and new voters decide together: the new ones.
    pub(crate) joint: Option<BTreeSet<u64>>,
    /// `cluster.metadata_voters`.
    pub(crate) voters_wanted: u32,
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
}

/// A change of the metadata group's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// A broker begins to receive the log.
    AddLearner(MetadataMember),
    /// These vote from now on.
    SetVoters(BTreeSet<u64>),
    /// Replicas of disks that are gone leave.
    RemoveLearners(BTreeSet<u64>),
}

/// What to do about the view.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) commands: Vec<Command>,
    pub(crate) members: Option<MemberChange>,
}

/// The plan for a view.
pub(crate) fn plan(view: &View<'_>) -> Plan {
    if !view.image.is_formed() {
        return Plan::default();
    }
    let mut commands = Vec::new();
    fence(view, &mut commands);
    initializers(view, &mut commands);
    replace_lost(view, &mut commands);
    purge(view, &mut commands);
    commands.truncate(COMMANDS_MAX);
    let members = match &view.joint {
        // Whoever began the change no longer leads, or this leader gave up waiting: it is brought to its end.
        Some(voters) if view.settled => Some(MemberChange::SetVoters(voters.clone())),
        _ if view.changing => None,
        _ => members(view),
    };
    Plan { commands, members }
}

/// Brokers that died or came back.
fn fence(view: &View<'_>, commands: &mut Vec<Command>) {
    let time_ms = view.now_ms;
    for broker in view.image.brokers.values() {
        let (id, incarnation) = (broker.id, broker.incarnation);
        let alive = if id == view.me {
            Some(true)
        } else {
            match view.peers.get(&id) {
                // A greeting of another disk is no sign of life of this one.
                Some((Verdict::Alive, Some(greeted))) if *greeted == incarnation => Some(true),
                Some((Verdict::Dead, _)) | None => Some(false),
                Some((Verdict::Alive, Some(_))) => Some(false),
                Some(_) => None,
            }
        };
        match alive {
            Some(true) if broker.fenced => {
                commands.push(Command::UnfenceBroker { broker: id, incarnation, time_ms });
            }
            Some(false) if !broker.fenced && view.settled => {
                commands.push(Command::FenceBroker { broker: id, incarnation, time_ms });
            }
            _ => {}
        }
    }
}

/// Groups that nobody led yet and whose designated first leader is down.
fn initializers(view: &View<'_>, commands: &mut Vec<Command>) {
    let usable = |partition: &Partition, id: ReplicaId| {
        let member = partition.initial_members.iter().find(|member| member.id == id);
        member.is_some_and(|member| {
            let up = view.image.broker(member.broker).is_some_and(|broker| !broker.fenced);
            up && !view.image.is_lost(*member) && partition.replica(id).is_some()
        })
    };
    for partition in partitions(view.image) {
        let never_led = partition.leader.is_none() && partition.leader_epoch.0 == 0;
        if !never_led || usable(partition, partition.initializer) {
            continue;
        }
        let next = partition.initial_members.iter().find(|member| usable(partition, member.id));
        if let Some(next) = next {
            commands.push(Command::SetInitializer { group: partition.group, replica: next.id });
        }
    }
}

/// Replicas whose disk is gone, on brokers that are back.
fn replace_lost(view: &View<'_>, commands: &mut Vec<Command>) {
    if view.image.brokers.values().all(|broker| broker.lost_below.0 == 0) {
        return;
    }
    let under_way = partitions(view.image)
        .filter(|partition| partition.adding.is_some_and(|adding| !view.image.is_lost(adding)))
        .count();
    let mut room = REPLACING_MAX.saturating_sub(under_way);
    for partition in partitions(view.image) {
        if partition.adding.is_some_and(|adding| !view.image.is_lost(adding)) {
            continue;
        }
        let lost = partition.replicas.iter().find(|replica| {
            let back = view.image.broker(replica.broker).is_some_and(|broker| !broker.fenced);
            back && view.image.is_lost(**replica)
        });
        if let Some(lost) = lost.filter(|_| room > 0) {
            room -= 1;
            let group = partition.group;
            commands.push(Command::ReplaceReplica { group, old: lost.id, to: lost.broker });
        }
    }
}

/// Deleted topics whose time is up.
fn purge(view: &View<'_>, commands: &mut Vec<Command>) {
    for topic in view.image.topics.values() {
        if let Some(deleted) = topic.deleted_ms
            && view.now_ms.saturating_sub(deleted) >= view.delete_retention_ms
        {
            commands.push(Command::PurgeTopic { id: topic.id });
        }
    }
}

fn partitions(image: &MetadataImage) -> impl Iterator<Item = &Partition> {
    image.live_topics().flat_map(|topic| &topic.partitions).map(|partition| &**partition)
}

/// The next change of members: first everybody receives the log, then an odd number votes, then the lost ones leave.
fn members(view: &View<'_>) -> Option<MemberChange> {
    let present: BTreeSet<ReplicaId> = all_members(view.image).map(|member| member.replica).collect();
    let missing = view
        .image
        .brokers
        .values()
        .find(|broker| !broker.fenced && !present.contains(&broker.metadata_replica));
    if let Some(broker) = missing {
        let member = MetadataMember { replica: broker.metadata_replica, broker: broker.id };
        return Some(MemberChange::AddLearner(member));
    }
    let current: BTreeSet<u64> = view.image.metadata_voters.iter().map(|member| member.replica.0).collect();
    let wanted = voters(view, &current);
    if wanted != current {
        return Some(MemberChange::SetVoters(wanted));
    }
    let gone: BTreeSet<u64> = view
        .image
        .metadata_learners
        .iter()
        .filter(|member| !is_current(view.image, **member))
        .map(|member| member.replica.0)
        .collect();
    (!gone.is_empty()).then_some(MemberChange::RemoveLearners(gone))
}

fn all_members(image: &MetadataImage) -> impl Iterator<Item = &MetadataMember> {
    image.metadata_voters.iter().chain(&image.metadata_learners)
}

/// True if the member is the registered disk of its broker.
fn is_current(image: &MetadataImage, member: MetadataMember) -> bool {
    image.broker(member.broker).is_none_or(|broker| broker.metadata_replica == member.replica)
}

/// Who should vote: those who do, fresh disks in place of lost ones, and more until the wanted odd number.
fn voters(view: &View<'_>, current: &BTreeSet<u64>) -> BTreeSet<u64> {
    let image = view.image;
    let caught_up = |member: &&MetadataMember| {
        let matched = view.matched.get(&member.replica).copied().unwrap_or(0);
        let alive = image.broker(member.broker).is_some_and(|broker| !broker.fenced);
        alive && is_current(image, **member) && matched.saturating_add(PROMOTE_LAG) >= view.last_index
    };
    let mut ready: Vec<u64> = image.metadata_learners.iter().filter(caught_up).map(|m| m.replica.0).collect();
    let mut wanted = current.clone();
    // A lost voter is let go only for somebody who takes its place: fewer voters would survive fewer failures.
    for lost in image.metadata_voters.iter().filter(|member| !is_current(image, **member)) {
        if let Some(new) = ready.pop() {
            wanted.remove(&lost.replica.0);
            wanted.insert(new);
        }
    }
    let most = usize::try_from(view.voters_wanted).unwrap_or(usize::MAX).min(wanted.len() + ready.len());
    let odd = if most % 2 == 0 { most.saturating_sub(1) } else { most };
    while wanted.len() < odd {
        let Some(new) = ready.pop() else { break };
        wanted.insert(new);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::command::CommandReply;
    use crate::metadata::state::MetadataState;
    use crate::metadata::state::tests::{Cluster, create, registration};
    use wire::ids::{LeaderEpoch, RaftGroupId, TopicId};

    fn member(id: u32) -> MetadataMember {
        MetadataMember { replica: ReplicaId(u64::from(id) * 1000), broker: BrokerId(id) }
    }

    fn with_members(state: &mut MetadataState, voters: &[u32], learners: &[u32]) {
        let all = |ids: &[u32]| ids.iter().map(|id| member(*id)).collect();
        state.set_membership(all(voters), all(learners));
    }

    /// Everybody is alive and caught up.
    fn view(image: &MetadataImage) -> View<'_> {
        let alive = |b: &std::sync::Arc<crate::metadata::image::BrokerEntry>| {
            (b.id, (Verdict::Alive, Some(b.incarnation)))
        };
        View {
            image,
            me: BrokerId(1),
            peers: image.brokers.values().map(alive).collect(),
            settled: true,
            last_index: 500,
            matched: all_members(image).map(|member| (member.replica, 490)).collect(),
            changing: false,
            joint: None,
            voters_wanted: 3,
            now_ms: 1_000,
            delete_retention_ms: 100,
        }
    }

    #[test]
    fn healthy_cluster_needs_nothing() {
        let mut cluster = Cluster::of(3);
        cluster.fine(Command::CreateTopic(create(1, "t", 6, 3)));
        with_members(&mut cluster.state, &[1, 2, 3], &[]);
        assert_eq!(plan(&view(cluster.state.image())), Plan::default());
    }

    #[test]
    fn dead_broker_is_fenced_once_the_leader_is_settled_and_comes_back_by_its_own_disk() {
        let mut cluster = Cluster::of(3);
        with_members(&mut cluster.state, &[1, 2, 3], &[]);
        let (broker, incarnation) = (BrokerId(2), Uuid::from_u128(2));
        let fence = Command::FenceBroker { broker, incarnation, time_ms: 1_000 };
        let image = cluster.state.image().clone();
        let mut seen = view(&image);
        seen.peers.insert(broker, (Verdict::Dead, Some(incarnation)));
        assert_eq!(plan(&seen).commands, std::slice::from_ref(&fence));
        seen.peers.insert(broker, (Verdict::Alive, Some(Uuid::from_u128(99))));
        assert_eq!(plan(&seen).commands, std::slice::from_ref(&fence), "another disk is no sign of life");
        seen.peers.insert(broker, (Verdict::Suspect, Some(incarnation)));
        assert!(plan(&seen).commands.is_empty());
        seen.peers.insert(broker, (Verdict::Dead, Some(incarnation)));
        seen.settled = false;
        assert!(plan(&seen).commands.is_empty());
        cluster.fine(fence);
        let image = cluster.state.image();
        let unfence = Command::UnfenceBroker { broker, incarnation, time_ms: 1_000 };
        assert_eq!(plan(&view(image)).commands, [unfence]);
    }

    #[test]
    fn group_that_was_never_led_gets_another_initializer() {
        let mut cluster = Cluster::of(3);
        cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
        with_members(&mut cluster.state, &[1, 2, 3], &[]);
        let group = RaftGroupId(1);
        let first = cluster.state.image().group(group).unwrap().1.replicas[0];
        let id = first.broker.0;
        let incarnation = Uuid::from_u128(u128::from(id));
        cluster.fine(Command::FenceBroker { broker: first.broker, incarnation, time_ms: 1 });
        let mut seen = view(cluster.state.image());
        seen.peers.insert(first.broker, (Verdict::Dead, None));
        let second = cluster.state.image().group(group).unwrap().1.replicas[1];
        seen.me = second.broker;
        assert_eq!(plan(&seen).commands, [Command::SetInitializer { group, replica: second.id }]);
        let report =
            crate::metadata::command::LeaderReport { group, replica: second.id, epoch: LeaderEpoch(1) };
        cluster.fine(Command::ReportLeaders(vec![report]));
        let mut seen = view(cluster.state.image());
        seen.me = second.broker;
        seen.peers.insert(first.broker, (Verdict::Dead, None));
        assert!(plan(&seen).commands.is_empty(), "it was led");
    }

    #[test]
    fn replicas_of_a_lost_disk_are_replaced_a_few_at_a_time() {
        let mut cluster = Cluster::of(3);
        cluster.fine(Command::CreateTopic(create(1, "t", 40, 3)));
        with_members(&mut cluster.state, &[1, 2, 3], &[]);
        let (broker, incarnation) = (BrokerId(2), Uuid::from_u128(2));
        cluster.fine(Command::FenceBroker { broker, incarnation, time_ms: 1 });
        let mut fresh = registration(2, 222);
        fresh.metadata_replica = ReplicaId(2222);
        cluster.fine(Command::RegisterBroker { broker: fresh, time_ms: 2 });
        let first = plan(&view(cluster.state.image()));
        let learner = MetadataMember { replica: ReplicaId(2222), broker };
        assert_eq!(first.members, Some(MemberChange::AddLearner(learner)));
        let mut replaced = 0;
        for command in first.commands {
            let replaces = matches!(command, Command::ReplaceReplica { .. });
            let reply = cluster.fine(command);
            assert_eq!(matches!(reply, CommandReply::Replacing { new } if new.0 > 120), replaces);
            replaced += usize::from(replaces);
        }
        assert_eq!(replaced, REPLACING_MAX);
        assert!(plan(&view(cluster.state.image())).commands.is_empty(), "no more at the same time");
    }

    #[test]
    fn deleted_topic_is_purged_when_its_time_is_up() {
        let mut cluster = Cluster::of(3);
        with_members(&mut cluster.state, &[1, 2, 3], &[]);
        let id = TopicId(Uuid::from_u128(1));
        cluster.fine(Command::CreateTopic(create(1, "t", 1, 1)));
        cluster.fine(Command::DeleteTopic { id, time_ms: 950 });
        assert!(plan(&view(cluster.state.image())).commands.is_empty());
        let mut later = view(cluster.state.image());
        later.now_ms = 1_050;
        assert_eq!(plan(&later).commands, [Command::PurgeTopic { id }]);
    }

    #[test]
    fn cluster_of_one_grows_to_three_voters_in_one_step() {
        let mut cluster = Cluster::of(3);
        with_members(&mut cluster.state, &[1], &[]);
        let next = plan(&view(cluster.state.image())).members;
        assert_eq!(next, Some(MemberChange::AddLearner(member(2))));
        with_members(&mut cluster.state, &[1], &[2]);
        let next = plan(&view(cluster.state.image())).members;
        assert_eq!(next, Some(MemberChange::AddLearner(member(3))));
        with_members(&mut cluster.state, &[1], &[2, 3]);
        let image = cluster.state.image();
        let mut seen = view(image);
        assert_eq!(plan(&seen).members, Some(MemberChange::SetVoters(BTreeSet::from([1000, 2000, 3000]))));
        seen.matched.insert(ReplicaId(3000), 7);
        assert_eq!(plan(&seen).members, None, "two voters survive no more than one");
        seen.matched.insert(ReplicaId(3000), 500);
        seen.changing = true;
        assert_eq!(plan(&seen).members, None, "one change at a time");
        let new = BTreeSet::from([1000, 2000, 4000]);
        seen.joint = Some(new.clone());
        assert_eq!(plan(&seen).members, Some(MemberChange::SetVoters(new)), "one left half-way is ended");
        seen.settled = false;
        assert_eq!(plan(&seen).members, None, "it may still be under way");
        (seen.changing, seen.joint, seen.settled) = (false, None, true);
        seen.voters_wanted = 1;
        assert_eq!(plan(&seen).members, None);
    }

    #[test]
    fn voter_of_a_lost_disk_is_exchanged_and_then_leaves() {
        let mut cluster = Cluster::of(3);
        let (broker, incarnation) = (BrokerId(3), Uuid::from_u128(3));
        cluster.fine(Command::FenceBroker { broker, incarnation, time_ms: 1 });
        let mut fresh = registration(3, 333);
        fresh.metadata_replica = ReplicaId(3333);
        cluster.fine(Command::RegisterBroker { broker: fresh, time_ms: 2 });
        let new = MetadataMember { replica: ReplicaId(3333), broker };
        cluster.state.set_membership(vec![member(1), member(2), member(3)], vec![new]);
        let next = plan(&view(cluster.state.image())).members;
        assert_eq!(next, Some(MemberChange::SetVoters(BTreeSet::from([1000, 2000, 3333]))));
        cluster.state.set_membership(vec![member(1), member(2), new], vec![member(3)]);
        let next = plan(&view(cluster.state.image())).members;
        assert_eq!(next, Some(MemberChange::RemoveLearners(BTreeSet::from([3000]))));
    }
}
