//! What the clients do: the recorded workload of [`verify::workload`], drawn from the seed.

use std::time::Duration;

use broker::runtime::Random;
use client::{Acks, ProducerConfig};
use verify::workload::{
    BareSpec, Clients, MemberSpec, ObserverSpec, Placement, ReaderSpec, TopicTarget, WorkloadSpec, WriterSpec,
};
use wire::record::Compression;

use super::plan::pick;

/// Topic of the workload.
pub(super) const TOPIC: &str = "t";
/// Machines with clients, which faults may separate.
pub(super) const MACHINES: u32 = 2;
/// Numbers of workers on one machine, used or not.
const WORKERS_PER_MACHINE: u32 = 100;
/// Consumer group of the workload.
pub(super) const GROUP: &str = "g";
/// Time for outcomes of what was sent before the end. Unit: simulated.
const SETTLE: Duration = Duration::from_secs(30);

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Load {
    /// Partitions of the topic.
    pub partitions: u32,
    /// Replicas that must be in sync before a write with acks=all is begun.
    pub min_insync: u32,
    /// The workers, by machine.
    pub machines: Vec<Workers>,
}

/// The workers of one machine.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    writers: Vec<WriterSpec>,
    readers: Vec<ReaderSpec>,
    observers: Vec<ObserverSpec>,
    members: Vec<MemberSpec>,
    bare: Vec<BareSpec>,
}

impl Load {
    pub(super) fn draw(random: &Random) -> Self {
        let reader = |seek_every| ReaderSpec { poll: Duration::from_millis(200), seek_every };
        // One writer is always there whose acks prove that every partition takes writes.
        let first = Workers {
            writers: vec![steady(random)],
            readers: vec![reader(Duration::ZERO)],
            observers: vec![ObserverSpec { pace: Duration::from_millis(pick(random, &[50, 100, 300])) }],
            members: vec![member(Duration::ZERO)],
            bare: Vec::new(),
        };
        let second = Workers {
            writers: vec![any_writer(random)],
            readers: vec![reader(Duration::from_millis(pick(random, &[500, 1_000, 3_000])))],
            observers: Vec::new(),
            members: vec![
                member(Duration::ZERO),
                member(Duration::from_millis(pick(random, &[3_000, 6_000, 12_000]))),
            ],
            bare: vec![BareSpec::default()],
        };
        Self {
            partitions: pick(random, &[1, 3, 3, 6]),
            min_insync: pick(random, &[1, 1, 2]),
            machines: vec![first, second],
        }
    }

    /// The topic and its partitions.
    pub(super) fn topics(&self) -> Vec<TopicTarget> {
        vec![TopicTarget::new(TOPIC, self.partitions)]
    }

    /// The workload of one machine.
    pub(super) fn spec(&self, machine: u32, seed: u64, clients: Clients) -> WorkloadSpec {
        let at = usize::try_from(machine).unwrap_or(usize::MAX);
        let workers = self.machines.get(at).cloned();
        let Workers { writers, readers, observers, members, bare } = workers.unwrap_or_default();
        WorkloadSpec {
            first_worker: 1 + machine * WORKERS_PER_MACHINE,
            writers,
            readers,
            observers,
            members,
            bare,
            settle: SETTLE,
            ..WorkloadSpec::new(seed, clients, self.topics())
        }
    }
}

/// A member of the group. Its session is short, so that faults end sessions.
fn member(restart_every: Duration) -> MemberSpec {
    MemberSpec { group: GROUP.to_owned(), session_timeout_ms: 2_000, restart_every, ..MemberSpec::default() }
}

/// An idempotent writer with acks=all that goes round all partitions.
fn steady(random: &Random) -> WriterSpec {
    WriterSpec {
        producer: producer(random, Acks::All),
        placement: Placement::RoundRobin,
        window: pick(random, &[6, 12, 32]),
        restart_after: None,
        ..any_pace(random)
    }
}

fn any_writer(random: &Random) -> WriterSpec {
    let acks = pick(random, &[Acks::All, Acks::All, Acks::All, Acks::Leader, Acks::None]);
    WriterSpec {
        producer: producer(random, acks),
        placement: pick(random, &[Placement::RoundRobin, Placement::Random, Placement::Keyed(5)]),
        window: pick(random, &[1, 8, 32]),
        restart_after: pick(random, &[None, None, Some(50), Some(400)]),
        ..any_pace(random)
    }
}

fn any_pace(random: &Random) -> WriterSpec {
    WriterSpec {
        pace: Duration::from_millis(pick(random, &[10, 20, 50])),
        value_bytes: pick(random, &[16, 64, 400, 2_000]),
        ..WriterSpec::default()
    }
}

fn producer(random: &Random, acks: Acks) -> ProducerConfig {
    let delivery_timeout_ms = pick(random, &[3_000, 8_000, 20_000]);
    ProducerConfig {
        acks,
        // Without it, acks=all may write a record twice, which the checks then allow.
        idempotent: (acks == Acks::All && random.range(0..5) == 0).then_some(false),
        linger_ms: pick(random, &[0, 5, 20]),
        batch_size: pick(random, &[1_024, 16_384]),
        compression: pick(
            random,
            &[Compression::None, Compression::None, Compression::Lz4, Compression::Zstd],
        ),
        max_in_flight: pick(random, &[1, 5, 5]),
        delivery_timeout_ms,
        max_block_ms: delivery_timeout_ms,
        request_timeout_ms: 2_000,
        ..ProducerConfig::default()
    }
}
