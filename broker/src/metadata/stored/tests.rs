//! Goal: what is stored reads back, is the same on every replica, and garbage is refused.

use proptest::prelude::*;
use uuid::Uuid;
use wire::ids::{GroupId, TopicId};

use super::*;
use crate::group::GroupCommand;
use crate::metadata::codec::{decode_commands, encode_commands};
use crate::metadata::command::{Command, CommandReply};
use crate::metadata::state::tests::{Cluster, create, registration};
use crate::metadata::topic_config::TopicSetting;

fn commands() -> Vec<Command> {
    let id = TopicId(Uuid::from_u128(2));
    vec![
        Command::CreateTopic(create(1, "orders", 3, 3)),
        Command::CreateTopic(create(2, "old", 2, 1)),
        Command::DeleteTopic { id, time_ms: 7 },
        Command::CreateTopic(create(3, "gone", 1, 1)),
        Command::DeleteTopic { id: TopicId(Uuid::from_u128(3)), time_ms: 8 },
        Command::PurgeTopic { id: TopicId(Uuid::from_u128(3)) },
        Command::AlterTopic {
            id: TopicId(Uuid::from_u128(1)),
            set: vec![TopicSetting::RetentionBytes(Some(9))],
            reset: vec![],
        },
        Command::AllocateProducerIds { count: 5 },
    ]
}

fn applied() -> Applied {
    let mut cluster = Cluster::of(3);
    for command in commands() {
        cluster.fine(command);
    }
    let mut applied = Applied { state: cluster.state, ..Applied::default() };
    let voters = BTreeSet::from([1000, 2000]);
    let nodes = [1, 2, 3].map(|n: u32| (u64::from(n) * 1000, raft_store::BrokerRef { broker: n }));
    let membership = Membership::new_with_defaults(vec![voters], []);
    assert_eq!(membership.learner_ids().count(), 0);
    let membership = Membership::new(vec![BTreeSet::from([1000, 2000])], BTreeMap::from(nodes)).unwrap();
    let at = LogPosition { term: 2, index: 3 };
    applied.set_membership(StoredMembership::new(Some(at.log_id()), membership));
    let index = applied.state.image().version;
    applied.last = Some(LogPosition { term: 4, index });
    applied
}

fn same(a: &Applied, b: &Applied) {
    assert_eq!(a.state.image(), b.state.image());
    assert_eq!(a.state.counters(), b.state.counters());
    assert_eq!((a.last, &a.membership), (b.last, &b.membership));
}

#[test]
fn snapshot_reads_back_and_is_the_same_on_every_replica() {
    let (one, other) = (applied(), applied());
    let bytes = one.encode_snapshot().unwrap();
    assert_eq!(bytes, other.encode_snapshot().unwrap());
    same(&Applied::decode_snapshot(&bytes).unwrap(), &one);
    let members: Vec<u32> = one.state.image().metadata_voters.iter().map(|m| m.broker.0).collect();
    assert_eq!(members, [1, 2]);
    assert_eq!(one.state.image().metadata_learners.len(), 1);
}

#[test]
fn state_that_went_through_a_snapshot_goes_on_exactly_like_one_that_did_not() {
    let mut straight = applied();
    let mut restored = Applied::decode_snapshot(&straight.encode_snapshot().unwrap()).unwrap();
    for (at, command) in commands().iter().enumerate() {
        let index = 100 + at as u64;
        assert_eq!(straight.state.apply(index, command), restored.state.apply(index, command));
    }
    let more = Command::CreateTopic(create(9, "more", 5, 3));
    assert!(matches!(straight.state.apply(200, &more), Ok(CommandReply::TopicCreated { .. })));
    restored.state.apply(200, &more).unwrap();
    assert_eq!(straight.encode_snapshot().unwrap(), restored.encode_snapshot().unwrap());
}

#[test]
fn keyed_pairs_follow_every_command_and_read_back() {
    let mut cluster = Cluster::of(3);
    let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for command in commands() {
        cluster.fine(command);
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
        same(&read, &Applied { last: Some(last), ..applied });
    }
}

#[test]
fn pairs_that_contradict_each_other_are_refused() {
    let applied = applied();
    let writes = applied.writes(&applied.state.entities()).unwrap();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> =
        writes.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect();
    let last = LogPosition { term: 4, index: applied.state.image().version };
    same(&Applied::from_pairs(last, &pairs).unwrap(), &applied);
    for missing in [b'c', b't', b'p'] {
        let mut part = pairs.clone();
        let at = part.iter().position(|(key, _)| key[0] == missing).unwrap();
        part.remove(at);
        assert!(Applied::from_pairs(last, &part).is_err(), "without a {}", char::from(missing));
    }
    let mut strange = pairs;
    strange.push((b"z".to_vec(), vec![]));
    assert!(Applied::from_pairs(last, &strange).is_err());
}

#[test]
fn entry_of_commands_has_these_bytes() {
    let commands = vec![
        Command::RegisterBroker { broker: registration(1, 1), time_ms: 1 },
        Command::AllocateProducerIds { count: 300 },
    ];
    let bytes = encode_commands(&commands).unwrap();
    assert_eq!(hex(&bytes), GOLDEN_COMMANDS);
    assert_eq!(decode_commands(&bytes).unwrap(), commands);
}

#[test]
fn snapshot_has_these_bytes() {
    let bytes = applied().encode_snapshot().unwrap();
    assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), GOLDEN_SNAPSHOT);
    let empty = Applied::default().encode_snapshot().unwrap();
    assert_eq!(hex(&empty), GOLDEN_EMPTY_SNAPSHOT);
}

/// Order of the variants is the format: each number stands for its name for ever.
#[test]
fn every_command_keeps_its_number() {
    let id = TopicId(Uuid::nil());
    let (group, old, new) = (RaftGroupId(1), ReplicaId(1), ReplicaId(2));
    let (broker, incarnation) = (BrokerId(1), Uuid::nil());
    let all = [
        Command::FormCluster { cluster_id: Uuid::nil(), name: String::new() },
        Command::RegisterBroker { broker: registration(1, 1), time_ms: 0 },
        Command::FenceBroker { broker, incarnation, time_ms: 0 },
        Command::UnfenceBroker { broker, incarnation, time_ms: 0 },
        Command::SetDraining { broker, draining: true, time_ms: 0 },
        Command::CreateTopic(create(1, "t", 1, 1)),
        Command::DeleteTopic { id, time_ms: 0 },
        Command::PurgeTopic { id },
        Command::AlterTopic { id, set: vec![], reset: vec![] },
        Command::AddPartitions { id, total: 1 },
        Command::ReportLeaders(vec![]),
        Command::ReportIsr(vec![]),
        Command::ReplaceReplica { group, old, to: broker },
        Command::CompleteReplace { group, new },
        Command::CancelReplace { group, new },
        Command::SetInitializer { group, replica: old },
        Command::AllocateProducerIds { count: 1 },
        Command::Group { id: GroupId(String::new()), command: GroupCommand::Delete },
    ];
    for (number, command) in all.iter().enumerate() {
        let bytes = encode_commands(std::slice::from_ref(command)).unwrap();
        // Envelope of 12 bytes, count 1, then the variant.
        assert_eq!(usize::from(bytes[13]), number, "{command:?}");
        assert_eq!(decode_commands(&bytes).unwrap(), std::slice::from_ref(command));
    }
}

mod groups;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const GOLDEN_COMMANDS: &str = "414301013b00000076048e000201011000000000000000000000000000000001fbe803\
    0762313a373430300762313a383038300762313a373530300005302e312e300210fb2c01";
const GOLDEN_EMPTY_SNAPSHOT: &str =
    "4143010225000000633284b600001000000000000000000000000000000000000001010100070100000000000000000000";
const GOLDEN_SNAPSHOT: (usize, u32) = (605, 2_002_455_485);

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(bytes: Vec<u8>) {
        prop_assert!(Applied::decode_snapshot(&bytes).is_err());
        prop_assert!(decode_commands(&bytes).is_err());
    }

    #[test]
    fn garbage_payload_in_a_good_envelope_never_panics(bytes: Vec<u8>, tag in prop::sample::select(&b"cbtpxgoz"[..])) {
        // The payload of an envelope around raw bytes is a length and the bytes: wrong types of every kind.
        for kind in [codec::COMMANDS, codec::SNAPSHOT, codec::KEYED, codec::GROUPS] {
            let wrapped = codec::encode(kind, &bytes).unwrap();
            let _ = Applied::decode_snapshot(&wrapped);
            let behind = [Applied::default().encode_snapshot().unwrap(), wrapped.clone()].concat();
            let _ = Applied::decode_snapshot(&behind);
            let _ = decode_commands(&wrapped);
            let _ = Applied::from_pairs(LogPosition::default(), &[(vec![tag], wrapped)]);
        }
    }
}
