//! Goal: every command does what its doc says and refuses what it must, and a refusal changes nothing.
//! Method: tables on a cluster of a few brokers, and random sequences against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;
use wire::ids::{BrokerId, LeaderEpoch, PartitionIndex, RaftGroupId, ReplicaId, TopicId};

use super::{Entity, MetadataState};
use crate::metadata::command::{
    BrokerRegistration, Command, CommandReply, CreateTopic, IsrReport, LeaderReport,
};
use crate::metadata::error::MetaError;
use crate::metadata::image::{BrokerState, Partition, Replica};
use crate::metadata::topic_config::{TopicConfig, TopicSetting};

pub(crate) fn registration(id: u32, disk: u128) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        incarnation: Uuid::from_u128(disk),
        metadata_replica: ReplicaId(u64::from(id) * 1000),
        grpc: format!("b{id}:7400"),
        http: format!("b{id}:8080"),
        peer: format!("b{id}:7500"),
        rack: String::new(),
        version: "0.1.0".into(),
    }
}

pub(crate) fn create(id: u128, name: &str, partitions: u32, factor: u32) -> CreateTopic {
    CreateTopic {
        id: TopicId(Uuid::from_u128(id)),
        name: name.into(),
        partitions,
        replication_factor: factor,
        config: TopicConfig::default(),
        overridden: BTreeSet::new(),
        time_ms: 5,
    }
}

/// A formed cluster of `n` brokers, and the index of the next entry.
pub(crate) struct Cluster {
    pub(crate) state: MetadataState,
    index: u64,
}

impl Cluster {
    pub(crate) fn of(n: u32) -> Self {
        let mut cluster = Self { state: MetadataState::default(), index: 0 };
        let form = Command::FormCluster { cluster_id: Uuid::from_u128(77), name: "altair".into() };
        cluster.fine(form);
        for id in 1..=n {
            cluster.fine(register(registration(id, u128::from(id))));
        }
        cluster
    }

    pub(crate) fn apply(&mut self, command: Command) -> Result<CommandReply, MetaError> {
        self.index += 1;
        self.state.apply(self.index, &command)
    }

    pub(crate) fn fine(&mut self, command: Command) -> CommandReply {
        self.apply(command).unwrap()
    }

    /// Applies a command that must be refused, and checks that nothing but the version moved.
    fn refused(&mut self, command: Command) -> MetaError {
        let before = (self.state.image().clone(), self.state.counters());
        self.state.take_dirty();
        let error = self.apply(command).unwrap_err();
        let mut after = self.state.image().clone();
        after.version = before.0.version;
        assert_eq!((after, self.state.counters()), before, "{error}: a refusal changes nothing");
        error
    }

    fn partition(&self, group: u64) -> Partition {
        Partition::clone(self.state.image().group(RaftGroupId(group)).unwrap().1)
    }

    fn lead(&mut self, group: u64, replica: ReplicaId, epoch: u32) -> CommandReply {
        let report = LeaderReport { group: RaftGroupId(group), replica, epoch: LeaderEpoch(epoch) };
        self.fine(Command::ReportLeaders(vec![report]))
    }
}

fn register(broker: BrokerRegistration) -> Command {
    Command::RegisterBroker { broker, time_ms: 1 }
}

fn fence(id: u32, disk: u128) -> Command {
    Command::FenceBroker { broker: BrokerId(id), incarnation: Uuid::from_u128(disk), time_ms: 9 }
}

const ACCEPTED: CommandReply = CommandReply::Reported { accepted: 1, stale: 0 };
const STALE: CommandReply = CommandReply::Reported { accepted: 0, stale: 1 };

#[test]
fn nothing_comes_before_the_cluster_is_formed_and_its_identity_stays() {
    let mut state = MetadataState::default();
    assert_eq!(state.apply(1, &register(registration(1, 1))), Err(MetaError::NotFormed));
    let form = |id| Command::FormCluster { cluster_id: Uuid::from_u128(id), name: "a".into() };
    assert!(state.apply(2, &form(0)).is_err());
    assert_eq!(state.apply(3, &form(1)), Ok(CommandReply::Done));
    assert_eq!(state.apply(4, &form(1)), Ok(CommandReply::Done), "a retry is fine");
    assert!(matches!(state.apply(5, &form(2)), Err(MetaError::WrongCluster { .. })));
    assert_eq!(state.image().version, 5);
}

#[test]
fn topic_stands_with_different_brokers_in_each_partition() {
    let mut cluster = Cluster::of(3);
    let reply = cluster.fine(Command::CreateTopic(create(1, "orders", 12, 3)));
    assert_eq!(reply, CommandReply::TopicCreated { id: TopicId(Uuid::from_u128(1)), warnings: vec![] });
    let image = cluster.state.image();
    let topic = image.topic("orders").unwrap();
    assert_eq!(topic.partitions.len(), 12);
    let mut ids = BTreeSet::new();
    for (at, partition) in topic.partitions.iter().enumerate() {
        assert_eq!(partition.index, PartitionIndex(u32::try_from(at).unwrap()));
        assert_eq!(partition.replicas, partition.initial_members);
        assert_eq!(partition.replicas.iter().map(|r| r.broker).collect::<BTreeSet<_>>().len(), 3);
        assert!(partition.replicas.iter().all(|r| ids.insert(r.id)), "replica ids are used once");
        assert_eq!(partition.initializer, partition.preferred);
        assert_eq!(image.group(partition.group).unwrap().1, partition);
    }
    let leads = |id| {
        topic.partitions.iter().filter(|p| p.replica(p.preferred).unwrap().broker == BrokerId(id)).count()
    };
    assert_eq!([leads(1), leads(2), leads(3)], [4, 4, 4]);
    assert_eq!(image.local_replicas(BrokerId(2)).len(), 12);
}

#[test]
fn a_retry_of_the_same_creation_finds_its_own_topic() {
    let mut cluster = Cluster::of(3);
    let first = cluster.fine(Command::CreateTopic(create(1, "orders", 2, 3)));
    let counters = cluster.state.counters();
    assert_eq!(cluster.fine(Command::CreateTopic(create(1, "orders", 2, 3))), first);
    assert_eq!(cluster.state.counters(), counters, "nothing was placed twice");
    let other = cluster.refused(Command::CreateTopic(create(2, "orders", 2, 3)));
    assert_eq!(other, MetaError::TopicExists { name: "orders".into() });
}

#[test]
fn impossible_topics_are_refused_each_with_its_own_error() {
    let mut cluster = Cluster::of(3);
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "ä", "a\0", long.as_str()] {
        let error = cluster.refused(Command::CreateTopic(create(1, name, 1, 1)));
        assert!(matches!(error, MetaError::InvalidTopicName { .. }), "{name:?}: {error}");
    }
    for partitions in [0, 10_001, u32::MAX] {
        let error = cluster.refused(Command::CreateTopic(create(1, "t", partitions, 1)));
        assert!(matches!(error, MetaError::InvalidPartitionCount { .. }), "{partitions}: {error}");
    }
    for factor in [0, 8, u32::MAX] {
        let error = cluster.refused(Command::CreateTopic(create(1, "t", 1, factor)));
        assert_eq!(error, MetaError::InvalidReplicationFactor { factor });
    }
    let mut strict = create(1, "t", 1, 1);
    strict.config.min_insync_replicas = 2;
    let error = cluster.refused(Command::CreateTopic(strict));
    assert!(matches!(error, MetaError::InvalidConfig { .. }), "{error}");
    assert!(cluster.apply(Command::CreateTopic(create(1, &long[..249], 10_000, 1))).is_ok());
}

#[test]
fn too_few_brokers_names_who_is_missing() {
    let mut cluster = Cluster::of(3);
    cluster.fine(fence(2, 2));
    cluster.fine(Command::SetDraining { broker: BrokerId(3), draining: true, time_ms: 8 });
    let error = cluster.refused(Command::CreateTopic(create(1, "t", 1, 3)));
    let MetaError::NotEnoughBrokers { wanted: 3, eligible: 1, ineligible, .. } = error else {
        panic!("{error}");
    };
    let named: Vec<_> = ineligible.iter().map(|b| (b.broker.0, b.draining, b.since_ms)).collect();
    assert_eq!(named, [(2, false, 9), (3, true, 8)]);
}

#[test]
fn even_replication_factors_are_accepted_with_a_warning() {
    let mut cluster = Cluster::of(5);
    for (factor, warned) in [(1, false), (2, true), (3, false), (4, true), (5, false)] {
        let topic = create(u128::from(factor), &format!("t{factor}"), 1, factor);
        let CommandReply::TopicCreated { warnings, .. } = cluster.fine(Command::CreateTopic(topic)) else {
            panic!("wrong reply");
        };
        assert_eq!(!warnings.is_empty(), warned, "rf {factor}: {warnings:?}");
    }
}

#[test]
fn deleted_topic_keeps_its_data_until_purged_and_frees_its_name() {
    let mut cluster = Cluster::of(3);
    let id = TopicId(Uuid::from_u128(1));
    cluster.fine(Command::CreateTopic(create(1, "orders", 1, 3)));
    let group = cluster.partition(1);
    assert!(matches!(cluster.refused(Command::PurgeTopic { id }), MetaError::TopicState { .. }));
    cluster.fine(Command::DeleteTopic { id, time_ms: 50 });
    cluster.fine(Command::DeleteTopic { id, time_ms: 60 });
    let image = cluster.state.image();
    assert!(image.topic("orders").is_none());
    assert_eq!(image.topic_by_id(id).unwrap().deleted_ms, Some(50));
    assert!(!image.may_remove(id, group.group, group.preferred));
    cluster.fine(Command::CreateTopic(create(2, "orders", 1, 3)));
    assert!(matches!(cluster.refused(Command::AddPartitions { id, total: 9 }), MetaError::TopicState { .. }));
    cluster.fine(Command::PurgeTopic { id });
    cluster.fine(Command::PurgeTopic { id });
    let image = cluster.state.image();
    assert!(image.topic_by_id(id).is_none() && image.group(group.group).is_none());
    assert!(image.may_remove(id, group.group, group.preferred));
    assert!(image.topic("orders").is_some(), "the new topic of the same name stands");
    let unknown = TopicId(Uuid::from_u128(99));
    assert!(!image.may_remove(unknown, RaftGroupId(50), ReplicaId(50)), "absence is no permission");
    assert_eq!(cluster.refused(Command::PurgeTopic { id: unknown }), MetaError::UnknownTopic { id: unknown });
}

#[test]
fn settings_are_set_and_go_back_and_must_fit_the_replicas() {
    let mut cluster = Cluster::of(3);
    let id = TopicId(Uuid::from_u128(1));
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let set = vec![TopicSetting::RetentionMs(None), TopicSetting::MinInsyncReplicas(2)];
    cluster.fine(Command::AlterTopic { id, set, reset: vec![] });
    let topic = cluster.state.image().topic("t").unwrap().clone();
    assert_eq!((topic.config.retention_ms, topic.config.min_insync_replicas), (None, 2));
    assert_eq!(topic.overridden, BTreeSet::from(["retention_ms".to_owned(), "min_insync_replicas".into()]));
    let reset = vec![TopicSetting::RetentionMs(Some(4))];
    cluster.fine(Command::AlterTopic { id, set: vec![], reset });
    let topic = cluster.state.image().topic("t").unwrap().clone();
    assert_eq!(topic.config.retention_ms, Some(4));
    assert_eq!(topic.overridden, BTreeSet::from(["min_insync_replicas".to_owned()]));
    let set = vec![TopicSetting::MinInsyncReplicas(4)];
    let error = cluster.refused(Command::AlterTopic { id, set, reset: vec![] });
    assert!(matches!(error, MetaError::InvalidConfig { .. }));
}

#[test]
fn topics_grow_and_never_shrink() {
    let mut cluster = Cluster::of(3);
    let id = TopicId(Uuid::from_u128(1));
    cluster.fine(Command::CreateTopic(create(1, "t", 3, 3)));
    let before = cluster.state.image().topic("t").unwrap().partitions.clone();
    cluster.fine(Command::AddPartitions { id, total: 3 });
    cluster.fine(Command::AddPartitions { id, total: 7 });
    let after = cluster.state.image().topic("t").unwrap().partitions.clone();
    assert_eq!((after.len(), &after[..3]), (7, &before[..]));
    for total in [0, 6, 10_001] {
        let error = cluster.refused(Command::AddPartitions { id, total });
        assert!(matches!(error, MetaError::InvalidPartitionCount { .. }));
    }
}

#[test]
fn leader_reports_follow_raft_and_late_ones_are_stale() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let [a, b, _] = cluster.partition(1).replicas[..] else { panic!("three replicas") };
    assert_eq!(cluster.lead(1, a.id, 2), ACCEPTED);
    assert_eq!(cluster.lead(1, a.id, 2), ACCEPTED);
    assert_eq!(cluster.lead(1, b.id, 2), STALE, "one leader an epoch");
    assert_eq!(cluster.lead(1, b.id, 5), ACCEPTED);
    assert_eq!(cluster.lead(1, a.id, 4), STALE);
    assert_eq!(cluster.lead(1, ReplicaId(999), 9), STALE);
    assert_eq!(cluster.lead(7, a.id, 9), STALE, "no such group");
    let partition = cluster.partition(1);
    assert_eq!((partition.leader, partition.leader_epoch), (Some(b.id), LeaderEpoch(5)));
    assert_eq!(cluster.state.image().leader_broker(&partition).unwrap().id, b.broker);
}

#[test]
fn only_the_present_leader_says_who_is_in_sync() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let [a, b, c] = cluster.partition(1).replicas[..] else { panic!("three replicas") };
    cluster.lead(1, a.id, 2);
    let mut report = |leader: ReplicaId, epoch, isr: &[ReplicaId]| {
        let (group, isr) = (RaftGroupId(1), isr.to_vec());
        cluster.fine(Command::ReportIsr(vec![IsrReport { group, leader, epoch: LeaderEpoch(epoch), isr }]))
    };
    assert_eq!(report(a.id, 2, &[b.id, a.id, b.id]), ACCEPTED);
    assert_eq!(report(a.id, 1, &[a.id]), STALE);
    assert_eq!(report(b.id, 2, &[b.id]), STALE);
    assert_eq!(report(a.id, 2, &[b.id, c.id]), STALE, "a leader is in sync with itself");
    assert_eq!(report(a.id, 2, &[a.id, ReplicaId(999)]), STALE);
    assert_eq!(report(a.id, 2, &[]), STALE);
    let mut expected = vec![a.id, b.id];
    expected.sort_unstable();
    assert_eq!(cluster.partition(1).isr, expected);
}

#[test]
fn dead_broker_leaves_the_isr_and_leads_nothing_but_the_last_one_stays() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let [a, b, c] = cluster.partition(1).replicas[..] else { panic!("three replicas") };
    cluster.lead(1, a.id, 2);
    for replica in [a, b, c] {
        let id = replica.broker.0;
        assert!(matches!(cluster.refused(fence(id, 55)), MetaError::StaleIncarnation { .. }));
        cluster.fine(fence(id, u128::from(id)));
    }
    let partition = cluster.partition(1);
    assert_eq!((partition.leader, partition.leader_epoch), (None, LeaderEpoch(2)));
    assert_eq!(partition.isr, [c.id], "who died last has the data");
    assert_eq!(cluster.state.image().broker(a.broker).unwrap().state(), BrokerState::Fenced);
    assert!(matches!(cluster.refused(fence(9, 9)), MetaError::UnknownBroker { .. }));
    let incarnation = Uuid::from_u128(u128::from(a.broker.0));
    cluster.fine(Command::UnfenceBroker { broker: a.broker, incarnation, time_ms: 10 });
    assert_eq!(cluster.state.image().broker(a.broker).unwrap().state(), BrokerState::Alive);
    assert_eq!(cluster.lead(1, a.id, 2), ACCEPTED, "it may have led all the time");
}

#[test]
fn broker_comes_back_with_new_addresses_and_keeps_its_replicas() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let mut moved = registration(2, 2);
    moved.peer = "elsewhere:1".into();
    cluster.fine(register(moved));
    let image = cluster.state.image();
    assert_eq!(image.broker(BrokerId(2)).unwrap().peer, "elsewhere:1");
    assert_eq!(image.local_replicas(BrokerId(2)).len(), 1);
}

#[test]
fn second_disk_of_a_living_broker_is_refused_and_of_a_dead_one_loses_its_replicas() {
    let mut cluster = Cluster::of(4);
    cluster.fine(Command::CreateTopic(create(1, "t", 4, 3)));
    let error = cluster.refused(register(registration(2, 222)));
    assert_eq!(error, MetaError::DuplicateBroker { broker: BrokerId(2), peer: "b2:7500".into() });
    cluster.fine(fence(2, 2));
    cluster.fine(register(registration(2, 222)));
    let image = cluster.state.image();
    let lost: Vec<_> = image
        .topics
        .values()
        .flat_map(|t| &t.partitions)
        .flat_map(|p| p.all_replicas())
        .filter(|r| image.is_lost(*r))
        .collect();
    assert!(!lost.is_empty() && lost.iter().all(|r| r.broker == BrokerId(2)));
    assert!(image.local_replicas(BrokerId(2)).is_empty(), "a forgotten vote must not vote");
    cluster.fine(Command::CreateTopic(create(2, "u", 4, 4)));
    assert_eq!(cluster.state.image().local_replicas(BrokerId(2)).len(), 4, "fresh replicas are fine");
    cluster.fine(register(registration(2, 222)));
    assert_eq!(cluster.state.image().local_replicas(BrokerId(2)).len(), 4, "a restart loses nothing");
}

#[test]
fn replica_is_replaced_in_two_steps_and_its_id_is_never_used_again() {
    let mut cluster = Cluster::of(4);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let group = RaftGroupId(1);
    let before = cluster.partition(1);
    let old = before.replicas[0];
    let free = (1..=4).map(BrokerId).find(|b| before.replica_on(*b).is_none()).unwrap();
    cluster.lead(1, old.id, 2);
    let taken = before.replicas[1].broker;
    let replace = |to| Command::ReplaceReplica { group, old: old.id, to };
    assert!(matches!(cluster.refused(replace(taken)), MetaError::ReplaceConflict { .. }));
    assert!(matches!(cluster.refused(replace(BrokerId(9))), MetaError::UnknownBroker { .. }));
    let CommandReply::Replacing { new } = cluster.fine(replace(free)) else { panic!("wrong reply") };
    assert_eq!(cluster.fine(replace(free)), CommandReply::Replacing { new }, "a retry is the same");
    assert!(matches!(cluster.refused(replace(old.broker)), MetaError::ReplaceConflict { .. }));
    assert_eq!(cluster.state.image().local_replicas(free).len(), 1);
    let complete = |new| Command::CompleteReplace { group, new };
    assert!(matches!(cluster.refused(complete(ReplicaId(99))), MetaError::UnknownReplica { .. }));
    cluster.fine(complete(new));
    cluster.fine(complete(new));
    let after = cluster.partition(1);
    assert_eq!(after.replicas[0].id, new);
    assert_eq!((after.preferred, after.leader, after.adding, after.removing), (new, None, None, None));
    assert_eq!(after.initial_members, before.initial_members, "fixed for ever");
    let topic = TopicId(Uuid::from_u128(1));
    assert!(cluster.state.image().may_remove(topic, group, old.id));
    assert!(!cluster.state.image().may_remove(topic, group, new));
}

#[test]
fn a_replica_that_is_damaged_on_its_way_in_is_replaced_by_another() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let group = RaftGroupId(1);
    let Replica { id: old, broker } = cluster.partition(1).replicas[0];
    let replace = |old| Command::ReplaceReplica { group, old, to: broker };
    let CommandReply::Replacing { new: first } = cluster.fine(replace(old)) else { panic!("wrong reply") };
    let CommandReply::Replacing { new: second } = cluster.fine(replace(first)) else { panic!("wrong reply") };
    assert!(
        matches!(cluster.refused(replace(first)), MetaError::ReplaceConflict { .. }),
        "it is gone already"
    );
    let partition = cluster.partition(1);
    assert_eq!((partition.adding.unwrap().id, partition.removing), (second, Some(old)));
    assert!(cluster.state.image().may_remove(TopicId(Uuid::from_u128(1)), group, first));
    cluster.fine(Command::CompleteReplace { group, new: second });
    assert_eq!(cluster.partition(1).replicas[0].id, second);
}

#[test]
fn replacement_can_be_given_up() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let group = RaftGroupId(1);
    let before = cluster.partition(1);
    let old = before.replicas[0];
    let replace = Command::ReplaceReplica { group, old: old.id, to: old.broker };
    let CommandReply::Replacing { new } = cluster.fine(replace) else { panic!("wrong reply") };
    cluster.fine(Command::CancelReplace { group, new });
    assert_eq!(cluster.partition(1), before);
    assert!(cluster.apply(Command::CancelReplace { group, new }).is_err());
}

#[test]
fn initializer_is_one_of_the_first_members() {
    let mut cluster = Cluster::of(3);
    cluster.fine(Command::CreateTopic(create(1, "t", 1, 3)));
    let (group, second) = (RaftGroupId(1), cluster.partition(1).replicas[1].id);
    cluster.fine(Command::SetInitializer { group, replica: second });
    assert_eq!(cluster.partition(1).initializer, second);
    let stranger = Command::SetInitializer { group, replica: ReplicaId(99) };
    assert!(matches!(cluster.refused(stranger), MetaError::UnknownReplica { .. }));
}

#[test]
fn producer_ids_are_given_once() {
    let mut cluster = Cluster::of(1);
    let mut next = 1;
    for count in [1, 1000, 10_000] {
        let reply = cluster.fine(Command::AllocateProducerIds { count });
        assert_eq!(reply, CommandReply::ProducerIds { first: next.into(), count });
        next += u64::from(count);
    }
    for count in [0, 10_001] {
        let error = cluster.refused(Command::AllocateProducerIds { count });
        assert!(matches!(error, MetaError::OutOfBounds { .. }));
    }
}

#[test]
fn what_a_command_touched_is_told_once() {
    let mut cluster = Cluster::of(3);
    cluster.state.take_dirty();
    cluster.fine(Command::CreateTopic(create(1, "t", 2, 3)));
    let id = TopicId(Uuid::from_u128(1));
    let groups = [1, 2].map(|g| Entity::Partition(RaftGroupId(g)));
    let expected = BTreeSet::from([Entity::Cluster, Entity::Topic(id), groups[0].clone(), groups[1].clone()]);
    assert_eq!(cluster.state.take_dirty(), expected);
    let leader = cluster.partition(2).preferred;
    cluster.lead(2, leader, 3);
    assert_eq!(cluster.state.take_dirty(), BTreeSet::from([groups[1].clone()]));
    assert!(cluster.state.take_dirty().is_empty());
}

/// What a naive reader expects of topics: a map of names and a map of ids.
#[derive(Default)]
struct Model {
    named: BTreeMap<String, u128>,
    sizes: BTreeMap<u128, (String, u32)>,
}

#[derive(Debug, Clone)]
enum Step {
    Create(u128, String, u32),
    Delete(u128),
    Grow(u128, u32),
    Describe(u128, String),
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop::sample::select(vec!["a", "b", "c", "bad name"]).prop_map(str::to_owned);
    prop_oneof![
        (1..6_u128, name.clone(), 0..5_u32).prop_map(|(id, name, n)| Step::Create(id, name, n)),
        (1..6_u128).prop_map(Step::Delete),
        (1..6_u128, 0..8_u32).prop_map(|(id, n)| Step::Grow(id, n)),
        (1..6_u128, name).prop_map(|(id, text)| Step::Describe(id, text)),
    ]
}

impl Model {
    /// Whether the step is accepted.
    fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Create(id, name, n) => {
                let own = self.named.get(name) == Some(id);
                let free = !self.named.contains_key(name) && !self.sizes.contains_key(id);
                let fine = free && *n > 0 && name != "bad name";
                if fine {
                    self.named.insert(name.clone(), *id);
                    self.sizes.insert(*id, (name.clone(), *n));
                }
                fine || own
            }
            Step::Delete(id) => {
                let Some((name, _)) = self.sizes.get(id) else { return false };
                if self.named.get(name) == Some(id) {
                    self.named.remove(name);
                }
                true
            }
            Step::Grow(id, n) => {
                let live = self.named.values().any(|live| live == id);
                let Some((_, size)) = self.sizes.get_mut(id).filter(|(_, size)| live && n >= size) else {
                    return false;
                };
                *size = *n;
                true
            }
            Step::Describe(id, _) => self.named.values().any(|live| live == id),
        }
    }
}

fn command(step: &Step) -> Command {
    let id = |n: u128| TopicId(Uuid::from_u128(n));
    match step {
        Step::Create(n, name, partitions) => Command::CreateTopic(create(*n, name, *partitions, 2)),
        Step::Delete(n) => Command::DeleteTopic { id: id(*n), time_ms: 3 },
        Step::Grow(n, total) => Command::AddPartitions { id: id(*n), total: *total },
        Step::Describe(n, text) => {
            let set = vec![TopicSetting::Description(text.clone())];
            Command::AlterTopic { id: id(*n), set, reset: vec![] }
        }
    }
}

proptest! {
    #[test]
    fn topics_are_what_a_naive_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut cluster = Cluster::of(3);
        let mut model = Model::default();
        for step in &steps {
            let accepted = cluster.apply(command(step)).is_ok();
            prop_assert_eq!(accepted, model.take(step), "{:?}", step);
            let image = cluster.state.image();
            let named: BTreeMap<String, u128> =
                image.names.iter().map(|(name, id)| (name.clone(), id.0.as_u128())).collect();
            prop_assert_eq!(&named, &model.named);
            for (id, (_, size)) in &model.sizes {
                let topic = image.topic_by_id(TopicId(Uuid::from_u128(*id))).unwrap();
                prop_assert_eq!(u32::try_from(topic.partitions.len()).unwrap(), *size);
            }
            let partitions: usize = image.topics.values().map(|topic| topic.partitions.len()).sum();
            prop_assert_eq!(image.groups.len(), partitions);
        }
    }
}
