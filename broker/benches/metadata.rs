//! What one command costs the metadata state machine: `cargo bench -p broker`. Everything that the cluster knows goes through
//! it, one command at a time.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run should say where")]

use std::collections::BTreeSet;

use broker::metadata::command::{BrokerRegistration, Command, CreateTopic, LeaderReport};
use broker::metadata::state::MetadataState;
use broker::metadata::topic_config::TopicConfig;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use uuid::Uuid;
use wire::ids::{BrokerId, LeaderEpoch, ReplicaId, TopicId};

const BROKERS: u32 = 3;
/// Partitions of the cluster that commands come to.
const PARTITIONS: u32 = 1_000;

fn registration(id: u32) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        incarnation: Uuid::from_u128(u128::from(id)),
        metadata_replica: ReplicaId(u64::from(id) * 1_000),
        grpc: format!("b{id}:7400"),
        http: format!("b{id}:8080"),
        peer: format!("b{id}:7500"),
        rack: String::new(),
        version: "0.1.0".into(),
    }
}

fn create(id: u128, partitions: u32) -> Command {
    Command::CreateTopic(CreateTopic {
        id: TopicId(Uuid::from_u128(id)),
        name: format!("topic-{id}"),
        partitions,
        replication_factor: BROKERS,
        config: TopicConfig::default(),
        overridden: BTreeSet::new(),
        time_ms: 5,
    })
}

/// A cluster with a topic of 1,000 partitions, and the index of its last entry.
fn cluster() -> (MetadataState, u64) {
    let (mut state, mut index) = (MetadataState::default(), 0);
    let form = Command::FormCluster { cluster_id: Uuid::from_u128(77), name: "altair".into() };
    let brokers = (1..=BROKERS).map(|id| Command::RegisterBroker { broker: registration(id), time_ms: 1 });
    for command in std::iter::once(form).chain(brokers).chain([create(1, PARTITIONS)]) {
        index += 1;
        state.apply(index, &command).unwrap();
    }
    state.take_dirty();
    (state, index)
}

fn metadata(criterion: &mut Criterion) {
    let (state, index) = cluster();
    let mut group = criterion.benchmark_group("metadata with 1,000 partitions, apply");
    let mut measured = |name: &str, command: Command| {
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                || state.clone(),
                |state| state.apply(index + 1, &command).unwrap(),
                BatchSize::SmallInput,
            );
        });
    };
    measured("a topic of 12 partitions", create(2, 12));
    let lead = |epoch| {
        let topic = state.image().topic("topic-1").unwrap();
        let report = |partition: &std::sync::Arc<broker::metadata::image::Partition>| LeaderReport {
            group: partition.group,
            replica: partition.preferred,
            epoch: LeaderEpoch(epoch),
        };
        Command::ReportLeaders(topic.partitions.iter().map(report).collect())
    };
    measured("leaders of all 1,000 partitions", lead(1));
    measured("producer ids", Command::AllocateProducerIds { count: 1 });
    group.finish();
}

criterion_group!(benches, metadata);
criterion_main!(benches);
