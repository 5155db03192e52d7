//! Goal: consumer groups are stored as they are, next to everything that was stored before there were any.

use wire::ids::{LeaderEpoch, MemberEpoch, MemberId, Offset, PartitionIndex, TopicIdPartition};
use wire::topic_pattern::TopicPattern;

use super::*;
use crate::group::{
    Assignor, Commit, CommitOffset, GROUPS_BYTES_MAX, GroupError, GroupReply, Join, Refused, Subscription,
};
use crate::metadata::command::Replies;
use crate::metadata::error::MetaError;

fn member(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(n))
}

fn at(topic: u128, partition: u32) -> TopicIdPartition {
    TopicIdPartition { topic: TopicId(Uuid::from_u128(topic)), partition: PartitionIndex(partition) }
}

fn join(n: u128) -> Join {
    Join {
        member: member(n),
        instance: (n == 1).then(|| "pod-1".into()),
        client_id: format!("c{n}"),
        host: "10.0.0.1".into(),
        subscription: Subscription {
            topics: BTreeSet::from(["orders".to_owned()]),
            patterns: BTreeSet::from([TopicPattern::parse("pay.>").unwrap()]),
        },
        assignor: (n == 2).then_some(Assignor::Range),
        session_timeout_ms: 10_000,
        take_over: false,
        time_ms: 3,
    }
}

fn offset(at: TopicIdPartition, offset: u64, text: &str) -> CommitOffset {
    let leader_epoch = offset.is_multiple_of(2).then_some(LeaderEpoch(7));
    CommitOffset { at, offset: Offset(offset), leader_epoch, metadata: text.to_owned() }
}

fn commit(by: Option<(MemberId, MemberEpoch)>, offsets: Vec<CommitOffset>) -> GroupCommand {
    GroupCommand::Commit(Commit { by, offsets, time_ms: 5 })
}

/// One of each variant, in the order of their numbers.
fn every_command() -> Vec<GroupCommand> {
    vec![
        GroupCommand::Join(join(1)),
        GroupCommand::Release { member: member(1), epoch: MemberEpoch(2), partitions: vec![at(1, 300)] },
        GroupCommand::Leave { member: member(1), keep_place: true, time_ms: 9 },
        GroupCommand::Expire { member: member(1), time_ms: 9 },
        commit(Some((member(1), MemberEpoch(2))), vec![offset(at(1, 0), 300, "m")]),
        GroupCommand::Reset { offsets: vec![(at(1, 0), Offset(4))], time_ms: 9 },
        GroupCommand::DeleteOffsets { partitions: vec![at(1, 0)] },
        GroupCommand::Delete,
        GroupCommand::SetPaused { paused: true },
        GroupCommand::Forget { idle_since_ms: -1 },
    ]
}

/// A history with topics that come, grow, go and are purged around three groups.
fn history() -> Vec<Command> {
    let of = |id: &str, command| Command::Group { id: GroupId(id.into()), command };
    let topic = |id| TopicId(Uuid::from_u128(id));
    vec![
        of("billing", GroupCommand::Join(join(1))),
        Command::CreateTopic(create(1, "orders", 300, 1)),
        of("billing", GroupCommand::Join(join(2))),
        Command::CreateTopic(create(2, "pay.eu", 2, 1)),
        Command::AddPartitions { id: topic(2), total: 4 },
        of("billing", commit(Some((member(1), MemberEpoch(5))), vec![offset(at(2, 3), 9, "")])),
        of(
            "tool",
            commit(None, vec![offset(at(1, 0), 3, "x"), offset(at(1, 299), 4, ""), offset(at(2, 0), 5, "y")]),
        ),
        of("tool", GroupCommand::DeleteOffsets { partitions: vec![at(1, 299)] }),
        of("billing", GroupCommand::SetPaused { paused: true }),
        Command::DeleteTopic { id: topic(2), time_ms: 20 },
        Command::PurgeTopic { id: topic(2) },
        of("gone", commit(None, vec![offset(at(1, 1), 1, "")])),
        of("gone", GroupCommand::Delete),
        of("billing", GroupCommand::Expire { member: member(2), time_ms: 30 }),
        of("billing", GroupCommand::Reset { offsets: vec![(at(1, 256), Offset(4))], time_ms: 31 }),
    ]
}

/// Applies it all; refusals of single commands are part of it.
fn lived() -> Applied {
    let mut cluster = Cluster::of(1);
    history().into_iter().for_each(|command| drop(cluster.apply(command)));
    let image = cluster.state.image();
    assert_eq!(image.consumer_groups.all().len(), 2);
    let last = Some(LogPosition { term: 1, index: image.version });
    Applied { state: cluster.state, last, ..Applied::default() }
}

#[test]
fn a_snapshot_with_groups_reads_back_and_goes_on_like_the_state_itself() {
    let mut straight = lived();
    let bytes = straight.encode_snapshot().unwrap();
    assert_eq!(bytes, lived().encode_snapshot().unwrap());
    let mut restored = Applied::decode_snapshot(&bytes).unwrap();
    same(&restored, &straight);
    for (at, command) in history().iter().enumerate() {
        let index = 1_000 + at as u64;
        assert_eq!(straight.state.apply(index, command), restored.state.apply(index, command));
    }
    assert_eq!(straight.encode_snapshot().unwrap(), restored.encode_snapshot().unwrap());
}

#[test]
fn a_snapshot_from_before_there_were_groups_opens_without_any() {
    let old: Vec<u8> = (0..GOLDEN_EMPTY_SNAPSHOT.len() / 2)
        .map(|at| u8::from_str_radix(&GOLDEN_EMPTY_SNAPSHOT[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let read = Applied::decode_snapshot(&old).unwrap();
    assert!(read.state.image().consumer_groups.all().is_empty());
    let groups = lived().encode_snapshot().unwrap();
    let (first, rest) = raft_store::codec::split_first(&groups).unwrap();
    assert!(!rest.is_empty());
    let read = Applied::decode_snapshot(first).unwrap();
    assert_eq!(read.state.image().topics, lived().state.image().topics, "the first envelope is what it was");
}

#[test]
fn keyed_pairs_of_groups_follow_every_command_and_read_back() {
    let mut cluster = Cluster::of(1);
    let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for command in history() {
        drop(cluster.apply(command));
        let dirty = cluster.state.take_dirty();
        let applied = Applied { state: cluster.state.clone(), ..Applied::default() };
        for (key, value) in applied.writes(&dirty).unwrap() {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        let last = LogPosition { term: 1, index: cluster.state.image().version };
        let all: Vec<_> = pairs.clone().into_iter().collect();
        let read = Applied::from_pairs(last, &all).unwrap();
        same(&read, &Applied { last: Some(last), ..applied.clone() });
        let full = applied.writes(&applied.state.entities()).unwrap();
        assert!(full.iter().all(|(key, value)| pairs.get(key) == value.as_ref()));
        assert_eq!(full.len(), pairs.len(), "nothing stays behind");
    }
}

#[test]
fn many_groups_become_several_parts_and_contradictions_are_refused() {
    let mut cluster = Cluster::of(1);
    cluster.fine(Command::CreateTopic(create(1, "orders", 1_000, 1)));
    let text = "x".repeat(4_000);
    for n in 0..3 {
        let offsets = (0..1_000).map(|p| offset(at(1, p), 1, &text)).collect();
        cluster.fine(Command::Group { id: GroupId(format!("g{n}")), command: commit(None, offsets) });
    }
    let last = Some(LogPosition { term: 1, index: cluster.state.image().version });
    let applied = Applied { state: cluster.state, last, ..Applied::default() };
    let bytes = applied.encode_snapshot().unwrap();
    same(&Applied::decode_snapshot(&bytes).unwrap(), &applied);
    let (first, mut rest) = raft_store::codec::split_first(&bytes).unwrap();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (part, behind) = raft_store::codec::split_first(rest).unwrap();
        parts.push(part.to_vec());
        rest = behind;
    }
    assert!(parts.len() >= 3, "{} parts", parts.len());
    let largest = parts.iter().map(Vec::len).max().unwrap();
    assert!(largest < 6 << 20 && bytes.len() < GROUPS_BYTES_MAX, "{largest} of {}", bytes.len());
    let twice = [first, &parts[0], &parts[0]].concat();
    assert!(Applied::decode_snapshot(&twice).is_err(), "a part stands twice");
    let without = [first, &parts[parts.len() - 1]].concat();
    assert!(Applied::decode_snapshot(&without).is_err(), "offsets without their group");
    assert!(Applied::decode_snapshot(&bytes[..bytes.len() - 1]).is_err(), "cut short");
}

/// Order of the variants is the format: each number stands for its name for ever.
#[test]
fn every_group_command_keeps_its_number_and_its_bytes() {
    let all = every_command();
    for (number, command) in all.iter().enumerate() {
        let whole = Command::Group { id: GroupId("g".into()), command: command.clone() };
        let bytes = encode_commands(std::slice::from_ref(&whole)).unwrap();
        // Envelope of 12 bytes, count 1, the command's variant 17, the id's length and letter, then the variant.
        assert_eq!((bytes[13], usize::from(bytes[16])), (17, number), "{command:?}");
        assert_eq!(decode_commands(&bytes).unwrap(), [whole]);
    }
    let all: Vec<Command> =
        all.into_iter().map(|command| Command::Group { id: GroupId("g".into()), command }).collect();
    let bytes = encode_commands(&all).unwrap();
    assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), GOLDEN_GROUP_COMMANDS);
    let one = encode_commands(&all[4..5]).unwrap();
    assert_eq!(hex(&one[12..]), GOLDEN_COMMIT);
}

#[test]
fn a_snapshot_with_groups_has_these_bytes() {
    let bytes = lived().encode_snapshot().unwrap();
    let (_, groups) = raft_store::codec::split_first(&bytes).unwrap();
    assert_eq!((groups.len(), crc32c::crc32c(groups)), GOLDEN_GROUPS);
}

#[test]
fn replies_and_refusals_of_groups_keep_their_bytes() {
    let refused = |error| Err(MetaError::Group(error));
    let (at, member) = (at(1, 2), member(3));
    let limit = GroupError::Limit { what: "w".into(), most: 6 };
    let results = vec![
        Ok(CommandReply::Group(GroupReply::Done)),
        Ok(CommandReply::Group(GroupReply::Joined { epoch: MemberEpoch(2), generation: 3.into() })),
        Ok(CommandReply::Group(GroupReply::Committed {
            refused: vec![Refused { at: 1, error: GroupError::NotOwner { at } }],
        })),
        refused(GroupError::UnknownGroup { group: GroupId("g".into()) }),
        refused(GroupError::UnknownMember { member }),
        refused(GroupError::FencedEpoch { given: MemberEpoch(1), known: MemberEpoch(2) }),
        refused(GroupError::Stale { at, given: MemberEpoch(1), since: MemberEpoch(2) }),
        refused(GroupError::NotOwner { at }),
        refused(GroupError::MembersOnly { members: 4 }),
        refused(GroupError::GoesBack { at, given: Offset(1), committed: Offset(2) }),
        refused(GroupError::InstanceInUse { instance: "i".into() }),
        refused(GroupError::NotEmpty { members: 5 }),
        refused(GroupError::Owned { at }),
        refused(limit),
        refused(GroupError::MetadataTooLarge { bytes: 7, most: 8 }),
        refused(GroupError::UnknownPartition { at }),
        refused(GroupError::NotIdle),
    ];
    let replies = Replies { index: 1, results };
    let bytes = codec::encode(codec::ANSWER, &replies).unwrap();
    assert_eq!(codec::decode::<Replies>(codec::ANSWER, &bytes).unwrap(), replies);
    assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), GOLDEN_REPLIES);
}

const GOLDEN_GROUP_COMMANDS: (usize, u32) = (274, 4_234_742_105);
const GOLDEN_COMMIT: &str = "011101670401100000000000000000000000000000000102011000000000\
    00000000000000000000000100fb2c010107016d0a";
const GOLDEN_GROUPS: (usize, u32) = (17_071, 165_471_036);
const GOLDEN_REPLIES: (usize, u32) = (212, 975_021_799);
