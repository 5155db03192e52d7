//! What clients do in a round: the same real SDK clients as everywhere, with their default timeouts.

use std::sync::Arc;
use std::time::Duration;

use client::{Acks, ClientConfig, ProducerConfig};
use verify::workload::{DrainSpec, MemberSpec, Placement, TopicTarget, WorkloadSpec, WriterSpec};

use crate::chaos::plan::RoundPlan;

/// The workload's topic.
pub(super) const TOPIC: &str = "orders";
/// Records after which one of the writers starts anew, as an application that is deployed again does.
const RESTARTS_AFTER: u32 = 400;

/// The workload's consumer group.
const GROUP: &str = "billing";
/// Number of the worker that reads what the group left.
const DRAINER: u32 = 9_000;
/// Time for that: sessions of members that died have to end first.
const DRAIN_WITHIN: Duration = Duration::from_secs(45);

/// The topic as a workload's target.
pub(super) fn topic(plan: &RoundPlan) -> TopicTarget {
    TopicTarget::new(TOPIC, plan.partitions)
}

/// A writer for each partition, whose acks tell when it took writes; one that restarts, one with keys, one for each weaker
/// level; readers, an observer, and a consumer group one of whose members comes and goes.
pub(super) fn workload(plan: &RoundPlan, client: ClientConfig) -> WorkloadSpec {
    let seed = plan.seed;
    let clients = Arc::new(move |worker: u32| ClientConfig {
        random_seed: Some(seed ^ u64::from(worker)),
        ..client.clone()
    });
    let steady = WriterSpec { value_bytes: plan.value_bytes, ..WriterSpec::default() };
    let pinned = (0..plan.partitions).map(|part| WriterSpec {
        placement: Placement::Pinned(part),
        pace: Duration::from_millis(25),
        ..steady.clone()
    });
    let weak = |acks| WriterSpec {
        producer: ProducerConfig { acks, ..steady.producer.clone() },
        placement: Placement::Random,
        pace: Duration::from_millis(40),
        ..steady.clone()
    };
    let others = [
        WriterSpec { restart_after: Some(RESTARTS_AFTER), ..steady.clone() },
        WriterSpec { placement: Placement::Keyed(20), pace: Duration::from_millis(20), ..steady.clone() },
        weak(Acks::Leader),
        weak(Acks::None),
    ];
    let mut spec = WorkloadSpec::new(seed, clients, vec![topic(plan)]);
    spec.writers = pinned.chain(others).collect();
    let member = MemberSpec { group: GROUP.to_owned(), ..MemberSpec::default() };
    let restless = MemberSpec { restart_every: Duration::from_secs(8), ..member.clone() };
    spec.members = vec![member.clone(), member, restless];
    spec
}

/// What the group has to read in the end.
pub(super) fn drain(plan: &RoundPlan, client: ClientConfig) -> DrainSpec {
    let (group, topics) = (GROUP.to_owned(), vec![topic(plan)]);
    DrainSpec { client, worker: DRAINER, group, topics, patience: DRAIN_WITHIN }
}
