//! Goal: every command does what its doc says and refuses what it must; a refusal changes nothing.
//! Method: tables on one group, and random histories against naive members that act on what they were told, late.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, MemberEpoch, MemberId, Offset, PartitionIndex, TopicId, TopicIdPartition};
use wire::topic_pattern::TopicPattern;

use super::*;

/// Topics by name.
#[derive(Debug, Clone, Default)]
struct Table(BTreeMap<String, TopicShape>);

impl TopicCatalog for Table {
    fn by_name(&self, name: &str) -> Option<TopicShape> {
        self.0.get(name).copied()
    }

    fn by_id(&self, id: TopicId) -> Option<TopicShape> {
        self.0.values().find(|topic| topic.id == id).copied()
    }

    fn each(&self, visit: &mut dyn FnMut(&str, TopicShape)) {
        self.0.iter().for_each(|(name, topic)| visit(name, *topic));
    }
}

fn member(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(n))
}

fn at(topic: u128, partition: u32) -> TopicIdPartition {
    TopicIdPartition { topic: TopicId(Uuid::from_u128(1_000 + topic)), partition: PartitionIndex(partition) }
}

fn join(n: u128, topics: &[&str]) -> Join {
    let (patterns, topics): (Vec<&str>, Vec<&str>) =
        topics.iter().partition(|text| TopicPattern::is_pattern(text));
    Join {
        member: member(n),
        instance: None,
        client_id: format!("c{n}"),
        host: "127.0.0.1".into(),
        subscription: Subscription {
            topics: topics.into_iter().map(str::to_owned).collect(),
            patterns: patterns.into_iter().map(|text| TopicPattern::parse(text).unwrap()).collect(),
        },
        assignor: None,
        session_timeout_ms: 10_000,
        take_over: false,
        time_ms: 1,
    }
}

fn commit(by: Option<(u128, u64)>, offsets: &[(TopicIdPartition, u64)]) -> GroupCommand {
    let offsets = offsets.iter().map(|(at, offset)| CommitOffset {
        at: *at,
        offset: Offset(*offset),
        leader_epoch: None,
        metadata: String::new(),
    });
    let by = by.map(|(n, epoch)| (member(n), MemberEpoch(epoch)));
    GroupCommand::Commit(Commit { by, offsets: offsets.collect(), time_ms: 5 })
}

/// One group over a few topics.
#[derive(Clone)]
struct World {
    topics: Table,
    groups: Groups,
    id: GroupId,
}

impl World {
    fn new(topics: &[(&str, u128, u32)]) -> Self {
        let mut world = Self { topics: Table::default(), groups: Groups::default(), id: GroupId("g".into()) };
        for (name, id, partitions) in topics {
            world.set_topic(name, *id, Some(*partitions));
        }
        world
    }

    fn set_topic(&mut self, name: &str, id: u128, partitions: Option<u32>) {
        let id = at(id, 0).topic;
        match partitions {
            Some(partitions) => self.topics.0.insert(name.into(), TopicShape { id, partitions }),
            None => self.topics.0.remove(name),
        };
        self.groups.topic_changed(name, id, Some(9), &self.topics);
    }

    fn apply(&mut self, command: &GroupCommand) -> Result<(GroupReply, Changes), GroupError> {
        self.groups.apply(&self.id, command, &self.topics)
    }

    fn fine(&mut self, command: &GroupCommand) -> GroupReply {
        self.apply(command).unwrap().0
    }

    fn refused(&mut self, command: &GroupCommand) -> ErrorCode {
        let before = self.groups.clone();
        let error = self.apply(command).unwrap_err();
        assert_eq!(self.groups, before, "{error}: a refusal changes nothing");
        error.code()
    }

    /// Code of each refused partition of a commit.
    fn refusals(&mut self, command: &GroupCommand) -> Vec<(u32, ErrorCode)> {
        let GroupReply::Committed { refused } = self.fine(command) else { panic!("no commit") };
        refused.iter().map(|refused| (refused.at, refused.error.code())).collect()
    }

    fn join(&mut self, join: Join) -> u64 {
        let GroupReply::Joined { epoch, .. } = self.fine(&GroupCommand::Join(join)) else {
            panic!("no join")
        };
        epoch.0
    }

    fn group(&self) -> &Group {
        &self.groups.get(&self.id).unwrap().group
    }

    fn epoch(&self, n: u128) -> u64 {
        self.group().members[&member(n)].epoch.0
    }

    /// What a member may read, as the coordinator would tell it now.
    fn reads(&self, n: u128) -> Vec<TopicIdPartition> {
        let owned = self.group().assignment.owned_by(member(n));
        owned.filter(|(_, owner)| owner.revoking.is_none()).map(|(at, _)| at).collect()
    }

    fn to_release(&self, n: u128) -> Vec<TopicIdPartition> {
        let owned = self.group().assignment.owned_by(member(n));
        owned.filter(|(_, owner)| owner.revoking.is_some()).map(|(at, _)| at).collect()
    }

    fn release_all(&mut self, n: u128) {
        let (epoch, partitions) = (MemberEpoch(self.epoch(n)), self.to_release(n));
        self.fine(&GroupCommand::Release { member: member(n), epoch, partitions });
    }

    fn committed(&self, at: TopicIdPartition) -> Option<u64> {
        self.groups.get(&self.id)?.committed(at).map(|committed| committed.offset.0)
    }
}

#[test]
fn a_second_member_gets_a_partition_only_when_the_first_has_released_it() {
    let mut world = World::new(&[("t", 1, 4)]);
    world.join(join(1, &["t"]));
    assert_eq!(world.reads(1), [at(1, 0), at(1, 1), at(1, 2), at(1, 3)]);
    assert_eq!(world.group().phase(), Phase::Stable);
    world.join(join(2, &["t"]));
    assert_eq!((world.reads(2), world.to_release(1)), (vec![], vec![at(1, 2), at(1, 3)]));
    assert_eq!(world.reads(1), [at(1, 0), at(1, 1)], "it keeps reading what it keeps");
    assert_eq!(world.group().phase(), Phase::Rebalancing);
    world.release_all(1);
    assert_eq!(world.reads(2), [at(1, 2), at(1, 3)]);
    assert_eq!((world.group().phase(), world.group().generation.0), (Phase::Stable, 2));
    let last = world.group().last_rebalance.clone().unwrap();
    assert_eq!((last.cause.to_string().as_str(), last.moved), ("member \"c2\" joined", 2));
}

#[test]
fn an_expired_or_leaving_member_frees_its_partitions_at_once() {
    for expire in [true, false] {
        let mut world = World::new(&[("t", 1, 2)]);
        world.join(join(1, &["t"]));
        world.join(join(2, &["t"]));
        let gone = if expire {
            GroupCommand::Expire { member: member(1), time_ms: 7 }
        } else {
            GroupCommand::Leave { member: member(1), keep_place: true, time_ms: 7 }
        };
        world.fine(&gone);
        assert_eq!(world.reads(2), [at(1, 0), at(1, 1)]);
        assert_eq!(world.fine(&gone), GroupReply::Done, "a second attempt finds it done");
        world.fine(&GroupCommand::Expire { member: member(2), time_ms: 8 });
        assert_eq!(world.groups.get(&world.id).unwrap().idle_since_ms(), Some(8));
    }
}

#[test]
fn commits_are_fenced_by_member_epoch_and_owner_and_never_go_back() {
    let mut world = World::new(&[("t", 1, 2)]);
    let first = world.join(join(1, &["t"]));
    let (p0, p1) = (at(1, 0), at(1, 1));
    assert_eq!(world.refusals(&commit(Some((1, first)), &[(p0, 10), (p1, 20)])), []);
    assert_eq!(
        world.refusals(&commit(Some((1, first)), &[(p0, 9), (p1, 20)])),
        [(0, ErrorCode::CommitGoesBack)]
    );
    assert_eq!(world.refused(&commit(Some((9, 1)), &[(p0, 11)])), ErrorCode::UnknownMember);
    assert_eq!(world.refused(&commit(Some((1, first + 1)), &[(p0, 11)])), ErrorCode::FencedMemberEpoch);
    assert_eq!(world.refused(&commit(Some((1, 0)), &[(p0, 11)])), ErrorCode::FencedMemberEpoch);
    assert_eq!(world.refused(&commit(None, &[(p0, 11)])), ErrorCode::NotOwner);
    let second = world.join(join(2, &["t"]));
    assert_eq!(
        world.refusals(&commit(Some((1, first)), &[(p1, 21)])),
        [],
        "what it must release it may commit"
    );
    assert_eq!(world.refusals(&commit(Some((2, second)), &[(p1, 22)])), [(0, ErrorCode::NotOwner)]);
    world.release_all(1);
    assert_eq!(world.refusals(&commit(Some((1, first)), &[(p1, 22)])), [(0, ErrorCode::NotOwner)]);
    assert_eq!(world.refusals(&commit(Some((2, second)), &[(p1, 22)])), [(0, ErrorCode::StaleGeneration)]);
    let told = world.epoch(2);
    assert_eq!(
        world.refusals(&commit(Some((2, told)), &[(p1, 22), (at(1, 7), 1)])),
        [(1, ErrorCode::UnknownPartition)]
    );
    assert_eq!((world.committed(p0), world.committed(p1)), (Some(10), Some(22)));
}

#[test]
fn a_commit_held_back_over_two_moves_of_the_partition_is_stale() {
    let mut world = World::new(&[("t", 1, 1)]);
    let first = world.join(join(1, &["t"]));
    world.join(join(2, &["t"]));
    // The partition goes to the second and comes back to the first under a new id of the same process.
    world.fine(&GroupCommand::Expire { member: member(1), time_ms: 2 });
    world.join(join(1, &["t"]));
    world.fine(&GroupCommand::Expire { member: member(2), time_ms: 3 });
    assert_eq!(world.reads(1), [at(1, 0)]);
    assert_eq!(world.refused(&commit(Some((1, first)), &[(at(1, 0), 5)])), ErrorCode::FencedMemberEpoch);
}

#[test]
fn a_late_release_of_an_earlier_assignment_is_passed_over() {
    let mut world = World::new(&[("t", 1, 2)]);
    world.join(join(1, &["t"]));
    world.join(join(2, &["t"]));
    let late = GroupCommand::Release {
        member: member(1),
        epoch: MemberEpoch(world.epoch(1)),
        partitions: world.to_release(1),
    };
    // Before the release arrives the other one goes, the partition stays, and is asked for once more.
    world.fine(&GroupCommand::Expire { member: member(2), time_ms: 2 });
    assert_eq!(world.to_release(1), []);
    world.join(join(3, &["t"]));
    let asked = world.to_release(1);
    assert_eq!(asked.len(), 1);
    world.fine(&late);
    assert_eq!((world.to_release(1), world.reads(3)), (asked, vec![]), "it may still be reading it");
    world.release_all(1);
    assert_eq!(world.reads(3).len(), 1);
}

#[test]
fn patterns_take_up_topics_that_appear_grow_and_go() {
    let mut world = World::new(&[("orders.eu", 1, 1), ("other", 2, 1)]);
    world.join(join(1, &["orders.*", "later"]));
    assert_eq!(world.reads(1), [at(1, 0)]);
    world.set_topic("orders.us", 3, Some(2));
    world.set_topic("later", 4, Some(1));
    world.set_topic("orders.eu.de", 5, Some(1));
    assert_eq!(world.reads(1), [at(1, 0), at(3, 0), at(3, 1), at(4, 0)]);
    world.set_topic("orders.us", 3, Some(3));
    assert_eq!(world.reads(1).len(), 5);
    world.fine(&commit(Some((1, world.epoch(1))), &[(at(3, 0), 4)]));
    let told = world.epoch(1);
    world.set_topic("orders.us", 3, None);
    assert_eq!(world.reads(1), [at(1, 0), at(4, 0)]);
    assert!(world.epoch(1) > told, "the member hears of it");
    assert_eq!(world.committed(at(3, 0)), Some(4), "kept until the data is purged");
    let gone = world.groups.topic_purged(at(3, 0).topic);
    assert_eq!(gone, [(world.id.clone(), BTreeSet::from([OffsetBlock::of(at(3, 0))]))]);
    assert_eq!(world.committed(at(3, 0)), None);
}

#[test]
fn a_member_that_stops_reading_a_topic_keeps_it_until_it_says_so() {
    let mut world = World::new(&[("a", 1, 1), ("b", 2, 1)]);
    world.join(join(1, &["a", "b"]));
    world.join(join(1, &["a"]));
    assert_eq!((world.reads(1), world.to_release(1)), (vec![at(1, 0)], vec![at(2, 0)]));
    world.join(join(2, &["b"]));
    assert_eq!(world.reads(2), []);
    world.release_all(1);
    assert_eq!(world.reads(2), [at(2, 0)]);
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    let mut world = World::new(&[("t", 1, 4)]);
    let named = |n, take_over| Join { instance: Some("pod-1".into()), take_over, ..join(n, &["t"]) };
    let old = world.join(named(1, false));
    world.join(join(2, &["t"]));
    world.release_all(1);
    let (generation, kept) = (world.group().generation, world.reads(1));
    assert_eq!(world.refused(&GroupCommand::Join(named(3, false))), ErrorCode::InstanceIdInUse);
    world.fine(&GroupCommand::Leave { member: member(1), keep_place: true, time_ms: 4 });
    assert_eq!((world.group().generation, world.reads(2).len()), (generation, 2), "nobody takes its place");
    let back = world.join(named(3, false));
    assert_eq!((world.group().generation, world.reads(3)), (generation, kept.clone()));
    assert_eq!(world.refused(&commit(Some((1, old)), &[(kept[0], 1)])), ErrorCode::UnknownMember);
    assert_eq!(world.refusals(&commit(Some((3, back)), &[(kept[0], 1)])), []);
    // A crash: the coordinator saw the holder silent.
    world.join(named(4, true));
    assert_eq!((world.group().generation, world.reads(4)), (generation, kept));
}

#[test]
fn a_reset_moves_offsets_back_and_what_was_under_way_is_stale() {
    let mut world = World::new(&[("t", 1, 2)]);
    let told = world.join(join(1, &["t"]));
    world.fine(&commit(Some((1, told)), &[(at(1, 0), 50), (at(1, 1), 60)]));
    world.fine(&GroupCommand::Reset { offsets: vec![(at(1, 0), Offset(5))], time_ms: 6 });
    assert_eq!((world.committed(at(1, 0)), world.committed(at(1, 1))), (Some(5), Some(60)));
    let late = commit(Some((1, told)), &[(at(1, 0), 51), (at(1, 1), 61)]);
    assert_eq!(world.refusals(&late), [(0, ErrorCode::StaleGeneration)]);
    assert_eq!(world.refusals(&commit(Some((1, world.epoch(1))), &[(at(1, 0), 6)])), []);
    let nowhere =
        GroupCommand::Reset { offsets: vec![(at(1, 0), Offset(1)), (at(9, 0), Offset(1))], time_ms: 6 };
    assert_eq!(world.refused(&nowhere), ErrorCode::UnknownPartition);
}

#[test]
fn groups_and_offsets_are_deleted_only_when_nobody_uses_them() {
    let mut world = World::new(&[("t", 1, 2)]);
    let (delete, p0) = (GroupCommand::Delete, at(1, 0));
    let offsets = GroupCommand::DeleteOffsets { partitions: vec![p0] };
    assert_eq!(world.refused(&delete), ErrorCode::UnknownGroup);
    assert_eq!(world.refused(&offsets), ErrorCode::UnknownGroup);
    assert_eq!(world.refusals(&commit(None, &[(p0, 3), (at(1, 1), 4)])), [], "a tool may begin a group");
    world.join(join(1, &["t"]));
    assert_eq!(world.refused(&delete), ErrorCode::GroupNotEmpty);
    assert_eq!(world.refused(&offsets), ErrorCode::GroupNotEmpty);
    world.fine(&GroupCommand::Leave { member: member(1), keep_place: false, time_ms: 8 });
    world.fine(&offsets);
    assert_eq!((world.committed(p0), world.committed(at(1, 1))), (None, Some(4)));
    assert_eq!(world.refused(&GroupCommand::Forget { idle_since_ms: 7 }), ErrorCode::Conflict);
    world.fine(&GroupCommand::Forget { idle_since_ms: 8 });
    assert_eq!(world.refused(&delete), ErrorCode::UnknownGroup);
}

#[test]
fn pausing_tells_every_member_and_moves_nothing() {
    let mut world = World::new(&[("t", 1, 2)]);
    assert_eq!(world.refused(&GroupCommand::SetPaused { paused: true }), ErrorCode::UnknownGroup);
    world.join(join(1, &["t"]));
    world.join(join(2, &["t"]));
    world.release_all(1);
    let before = (world.epoch(1), world.epoch(2), world.reads(1), world.group().generation);
    world.fine(&GroupCommand::SetPaused { paused: true });
    assert!(world.group().paused && world.epoch(1) > before.0 && world.epoch(2) > before.1);
    assert_eq!((world.reads(1), world.group().generation), (before.2, before.3));
    let again = world.apply(&GroupCommand::SetPaused { paused: true }).unwrap().1;
    assert_eq!(again, Changes::default(), "nothing new the second time");
}

#[test]
fn bounds_hold() {
    let mut world = World::new(&[("t", 1, 1)]);
    let names: Vec<String> = (0..=SUBSCRIPTIONS_MAX).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(world.refused(&GroupCommand::Join(join(1, &names))), ErrorCode::GroupLimit);
    let told = world.join(join(1, &["t"]));
    let GroupCommand::Commit(mut long) = commit(Some((1, told)), &[(at(1, 0), 1)]) else { panic!() };
    long.offsets[0].metadata = "x".repeat(COMMIT_METADATA_BYTES_MAX + 1);
    assert_eq!(world.refusals(&GroupCommand::Commit(long)), [(0, ErrorCode::CommitMetadataTooLarge)]);
    let crowd = (1..=MEMBERS_MAX as u128).map(|n| (member(n), world.group().members[&member(1)].clone()));
    let group = Group { members: crowd.collect(), ..Group::default() };
    let entry = GroupEntry::new(group, BTreeMap::new());
    world.groups = Groups::restored(BTreeMap::from([(world.id.clone(), entry)]));
    assert_eq!(world.refused(&GroupCommand::Join(join(5_000, &["t"]))), ErrorCode::GroupLimit);
    let many = (0..GROUPS_MAX).map(|n| (GroupId(n.to_string()), GroupEntry::default()));
    world.groups = Groups::restored(many.collect());
    assert_eq!(world.refused(&GroupCommand::Join(join(1, &["t"]))), ErrorCode::GroupLimit);
    assert_eq!(world.refused(&commit(None, &[(at(1, 0), 1)])), ErrorCode::GroupLimit);
}

#[test]
fn all_groups_together_have_a_bound_in_bytes() {
    let mut world = World::new(&[("t", 1, 100_000)]);
    let long = "x".repeat(wire::limits::TOPIC_NAME_LEN_MAX);
    let names: Vec<String> = (0..300).map(|n| format!("{n}{}", &long[4..])).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(
        world.refused(&GroupCommand::Join(join(1, &names))),
        ErrorCode::GroupLimit,
        "one subscription"
    );
    for n in 0.. {
        let joined = world.apply(&GroupCommand::Join(join(n, &names[..200])));
        let Err(error) = joined else { continue };
        assert_eq!(error.code(), ErrorCode::GroupLimit, "one group");
        break;
    }
    assert!(world.group().bytes() <= GROUP_BYTES_MAX);
    world.id = GroupId("other".into());
    let text = "x".repeat(COMMIT_METADATA_BYTES_MAX);
    let mut taken = 0;
    let refused = (0..100_000).step_by(1_000).find_map(|first| {
        let offsets = (first..first + 1_000).map(|n| CommitOffset {
            at: at(1, n),
            offset: Offset(1),
            leader_epoch: None,
            metadata: text.clone(),
        });
        let refused = world.refusals(&GroupCommand::Commit(Commit {
            by: None,
            offsets: offsets.collect(),
            time_ms: 1,
        }));
        taken += 1_000 - refused.len();
        refused.first().copied()
    });
    assert_eq!(refused.map(|(_, code)| code), Some(ErrorCode::GroupLimit));
    assert!(taken > 10_000 && world.groups.bytes() <= GROUPS_BYTES_MAX);
    assert_eq!(world.refusals(&commit(None, &[(at(1, 0), 2)])), [], "less than before is always fine");
    world.id = GroupId("third".into());
    assert_eq!(world.refused(&GroupCommand::Join(join(1, &names[..200]))), ErrorCode::GroupLimit);
}

#[test]
fn a_commit_of_which_nothing_is_taken_begins_no_group() {
    let mut world = World::new(&[("t", 1, 1)]);
    assert_eq!(world.refusals(&commit(None, &[(at(9, 0), 1)])), [(0, ErrorCode::UnknownPartition)]);
    assert!(world.groups.all().is_empty());
    assert_eq!(world.groups, Groups::default());
}

#[test]
fn the_assignor_that_most_members_name_is_taken() {
    let mut world = World::new(&[("t", 1, 4)]);
    let naming = |n, assignor| Join { assignor, ..join(n, &["t"]) };
    world.join(naming(1, Some(Assignor::Range)));
    assert_eq!(world.group().assignor, Assignor::Range);
    world.join(naming(2, Some(Assignor::RoundRobin)));
    world.join(naming(3, Some(Assignor::RoundRobin)));
    assert_eq!(world.group().assignor, Assignor::RoundRobin);
    world.fine(&GroupCommand::Expire { member: member(2), time_ms: 2 });
    world.fine(&GroupCommand::Expire { member: member(3), time_ms: 2 });
    world.join(naming(4, None));
    assert_eq!(world.group().assignor, Assignor::Range);
}

/// What a member believes: the epoch it was last told, what it reads, and what it stopped reading but has not said.
#[derive(Debug, Clone, Default)]
struct Client {
    told: u64,
    reading: BTreeSet<TopicIdPartition>,
    unsaid: BTreeSet<TopicIdPartition>,
}

#[derive(Debug, Clone)]
enum Step {
    Join(u128, usize, Option<Assignor>),
    Hear(u128),
    Release(u128),
    Expire(u128),
    Commit(u128, u32, u64, bool),
    Grow(u32),
    Reset(u32, u64),
    /// A message of long ago arrives once more.
    Replay(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1..5_u128;
    let assignor = prop::sample::select(vec![None, Some(Assignor::Range), Some(Assignor::RoundRobin)]);
    prop_oneof![
        3 => (who.clone(), 0..3_usize, assignor).prop_map(|(n, topics, a)| Step::Join(n, topics, a)),
        6 => who.clone().prop_map(Step::Hear),
        6 => who.clone().prop_map(Step::Release),
        1 => who.clone().prop_map(Step::Expire),
        6 => (who, 0..6_u32, 0..100_u64, any::<bool>()).prop_map(|(n, p, o, old)| Step::Commit(n, p, o, old)),
        1 => (1..6_u32).prop_map(Step::Grow),
        1 => (0..6_u32, 0..100_u64).prop_map(|(p, o)| Step::Reset(p, o)),
        2 => (0..1_000_usize).prop_map(Step::Replay),
    ]
}

/// A group, clients that act on what they were told, and what a naive observer concludes from it.
struct Model {
    world: World,
    clients: BTreeMap<u128, Client>,
    committed: BTreeMap<TopicIdPartition, u64>,
    sent: Vec<GroupCommand>,
}

const WANTS: [&[&str]; 3] = [&["t"], &["t", "u"], &["*"]];

impl Model {
    fn new() -> Self {
        let world = World::new(&[("t", 1, 4), ("u", 2, 2)]);
        Self { world, clients: BTreeMap::new(), committed: BTreeMap::new(), sent: Vec::new() }
    }

    fn is_member(&self, n: u128) -> bool {
        self.world.groups.member(&self.world.id, member(n)).is_some()
    }

    /// A heartbeat's answer: what is revoked is stopped, what is granted is begun.
    fn hear(&mut self, n: u128) {
        if !self.is_member(n) {
            self.clients.remove(&n);
            return;
        }
        let (told, reads, revoked) = (self.world.epoch(n), self.world.reads(n), self.world.to_release(n));
        let client = self.clients.entry(n).or_default();
        client.told = told;
        // It answers for what it never began to read, too: only the coordinator knows what was granted meanwhile.
        client.unsaid = revoked.into_iter().collect();
        client.reading = reads.into_iter().collect();
    }

    fn send(&mut self, command: GroupCommand) {
        self.deliver(&command);
        self.sent.push(command);
    }

    /// Applies a message and draws the conclusions that the promise of a commit allows.
    fn deliver(&mut self, command: &GroupCommand) {
        let Ok((GroupReply::Committed { refused }, _)) = self.world.apply(command) else { return };
        let GroupCommand::Commit(commit) = command else { panic!("{command:?}") };
        for (place, offset) in (0..).zip(&commit.offsets) {
            if refused.iter().all(|refused| refused.at != place) {
                let before = self.committed.insert(offset.at, offset.offset.0);
                assert!(before.is_none_or(|before| before <= offset.offset.0), "a commit went back");
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join(n, wants, assignor) => {
                // Ids are drawn once: a client that was expelled is somebody new, under the same number only if it left.
                self.send(GroupCommand::Join(Join { assignor, ..join(n, WANTS[wants]) }));
                self.hear(n);
            }
            Step::Hear(n) => self.hear(n),
            Step::Release(n) => {
                let Some(client) = self.clients.get_mut(&n) else { return };
                let partitions = std::mem::take(&mut client.unsaid).into_iter().collect();
                let epoch = MemberEpoch(client.told);
                self.send(GroupCommand::Release { member: member(n), epoch, partitions });
            }
            Step::Expire(n) => {
                self.world.fine_if_there(&GroupCommand::Expire { member: member(n), time_ms: 1 });
                // It learns late, but by its own clock it has stopped reading before.
                self.clients.remove(&n);
            }
            Step::Commit(n, partition, offset, of_another) => {
                let told = self.clients.get(&n).map_or(1, |client| client.told);
                let target = at(1 + u128::from(of_another), partition);
                self.send(commit(Some((n, told)), &[(target, offset)]));
            }
            Step::Grow(partitions) => {
                let now = self.world.topics.0["u"].partitions;
                self.world.set_topic("u", 2, Some(partitions.max(now)));
            }
            Step::Reset(partition, offset) => {
                let reset =
                    GroupCommand::Reset { offsets: vec![(at(1, partition), Offset(offset))], time_ms: 1 };
                if self.world.apply(&reset).is_ok() {
                    self.committed.insert(at(1, partition), offset);
                }
            }
            Step::Replay(which) => {
                let Some(old) = self.sent.get(which.checked_rem(self.sent.len()).unwrap_or(0)).cloned()
                else {
                    return;
                };
                if !matches!(old, GroupCommand::Join(_)) {
                    self.deliver(&old);
                }
            }
        }
    }

    /// Nobody reads what another one reads, and offsets are what the observer saw acknowledged.
    fn check(&self) {
        let mut readers: BTreeMap<TopicIdPartition, u128> = BTreeMap::new();
        for (n, client) in self.clients.iter().filter(|(n, _)| self.is_member(**n)) {
            for at in &client.reading {
                if let Some(other) = readers.insert(*at, *n) {
                    panic!("{at:?} is read by {other} and {n}");
                }
            }
        }
        for (at, offset) in &self.committed {
            assert_eq!(self.world.committed(*at), Some(*offset));
        }
        let stored = self.world.groups.all().iter().map(|(id, entry)| {
            (id.clone(), GroupEntry::new(Group::clone(&entry.group), entry.offsets.clone()))
        });
        assert_eq!(Groups::restored(stored.collect()), self.world.groups, "sizes are counted as they are");
    }

    /// Everybody hears and releases until nothing moves: then every partition has a reader.
    fn settle(&mut self) {
        for _ in 0..20 {
            for n in 1..5 {
                self.take(Step::Hear(n));
                self.check();
                self.take(Step::Release(n));
                self.take(Step::Hear(n));
                self.check();
            }
        }
        let Some(entry) = self.world.groups.get(&self.world.id) else { return };
        let wanted: BTreeSet<TopicId> = entry
            .group
            .members
            .values()
            .flat_map(|member| member.subscription.resolve(&self.world.topics))
            .collect();
        let read: BTreeSet<TopicIdPartition> =
            self.clients.values().flat_map(|client| client.reading.iter().copied()).collect();
        for topic in self.world.topics.0.values().filter(|topic| wanted.contains(&topic.id)) {
            for partition in 0..topic.partitions {
                let at = TopicIdPartition { topic: topic.id, partition: PartitionIndex(partition) };
                assert!(read.contains(&at), "{at:?} is lost");
            }
        }
    }
}

impl World {
    fn fine_if_there(&mut self, command: &GroupCommand) {
        // The group may not have come into being yet.
        let _ = self.apply(command);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_happens_a_partition_has_one_reader_and_commits_never_go_back(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut model = Model::new();
        let mut generation = 0;
        for step in steps {
            model.take(step);
            model.check();
            let now = model.world.groups.get(&model.world.id).map_or(0, |entry| entry.group.generation.0);
            prop_assert!(now >= generation, "generations grow");
            generation = now;
        }
        model.settle();
    }
}
