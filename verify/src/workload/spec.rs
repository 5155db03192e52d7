//! What a workload does: who writes, who reads, where, how fast.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client::{ClientConfig, ProducerConfig};

use super::value;

/// Configuration of one worker's client, by worker number. Each worker has a client, and so connections, of its own.
pub type Clients = Arc<dyn Fn(u32) -> ClientConfig + Send + Sync>;

/// Numbers of workers end below this: a value has 24 bits for its worker, and the last number is the foreign value's.
const WORKERS_END: u32 = (1 << 24) - 1;

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicTarget {
    /// Its name.
    pub name: String,
    /// Its number of partitions, at least 1.
    pub partitions: u32,
}

impl TopicTarget {
    /// A topic by name and number of partitions.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        Self { name: name.into(), partitions }
    }
}

/// Who chooses the partition of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The writer, one partition after the other.
    RoundRobin,
    /// The writer, at random.
    Random,
    /// The SDK, by the hash of one of this many keys, drawn at random. At least 1.
    Keyed(u32),
    /// The writer, always this partition of the first topic: its window is full of no other partition's records, so its
    /// acks tell when this one took writes.
    Pinned(u32),
}

/// One writer.
#[derive(Debug, Clone)]
pub struct WriterSpec {
    /// Settings of its producer: acks, batching, timeouts. The default partitioner must stay.
    pub producer: ProducerConfig,
    /// Who chooses partitions.
    pub placement: Placement,
    /// Records on their way at once. Range 1..=10_000.
    pub window: u32,
    /// Time between two sends; zero: as fast as the window allows.
    pub pace: Duration,
    /// Size of a value; what exceeds the 16 digits of its number is padding. Unit: bytes. Range 16..=1 MiB.
    pub value_bytes: u32,
    /// The writer drops its client after about this many records and goes on with a new one, as an application that
    /// restarts does; what was on its way then has an unknown outcome. `None`: never.
    pub restart_after: Option<u32>,
}

impl Default for WriterSpec {
    /// An idempotent producer with acks=all, eight records on their way, 100 a second, round robin.
    fn default() -> Self {
        Self {
            // An outcome that takes longer than this is unknown; short, so that a run of seconds sees such outcomes.
            producer: ProducerConfig {
                delivery_timeout_ms: 20_000,
                max_block_ms: 20_000,
                ..ProducerConfig::default()
            },
            placement: Placement::RoundRobin,
            window: 8,
            pace: Duration::from_millis(10),
            value_bytes: 64,
            restart_after: None,
        }
    }
}

/// One reader: a consumer of all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderSpec {
    /// Longest wait of one poll.
    pub poll: Duration,
    /// Mean time between two seeks; zero: it never seeks but reads on from the start.
    pub seek_every: Duration,
}

impl Default for ReaderSpec {
    fn default() -> Self {
        Self { poll: Duration::from_millis(500), seek_every: Duration::ZERO }
    }
}

/// One observer: it asks for the ends of partitions and for metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObserverSpec {
    /// Time between two questions.
    pub pace: Duration,
}

impl Default for ObserverSpec {
    fn default() -> Self {
        Self { pace: Duration::from_millis(100) }
    }
}

/// One member of a consumer group that reads all topics. It commits what it was given after each poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// The group.
    pub group: String,
    /// Longest wait of one poll.
    pub poll: Duration,
    /// Silence after which the group gives its partitions to others. Range 1_000..=1_800_000.
    pub session_timeout_ms: u32,
    /// Mean time after which it ends, every other time without a word, and another comes in its place; zero: never.
    pub restart_every: Duration,
}

impl Default for MemberSpec {
    fn default() -> Self {
        Self {
            group: "verify".to_owned(),
            poll: Duration::from_millis(200),
            session_timeout_ms: 3_000,
            restart_every: Duration::ZERO,
        }
    }
}

/// One writer that does without the SDK's producer: each batch is one request to one broker, sent once, with a short
/// patience. It has an idempotent producer a partition, and now and then sends two batches in the wrong order, as a network
/// may: the later one must be refused until the earlier one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BareSpec {
    /// Time between two batches.
    pub pace: Duration,
    /// Time that a broker has for a batch; what has no outcome then is unknown. Unit: ms. At least 1.
    pub timeout_ms: u32,
    /// One time in this many it sends two batches in the wrong order. At least 1.
    pub overtake_every: u32,
}

impl Default for BareSpec {
    fn default() -> Self {
        Self { pace: Duration::from_millis(50), timeout_ms: 300, overtake_every: 4 }
    }
}

/// What the last member of a group reads, see [`drain`](super::drain).
#[derive(Debug, Clone)]
pub struct DrainSpec {
    /// How it reaches the cluster.
    pub client: ClientConfig,
    /// Number of the worker; no other in the history has it.
    pub worker: u32,
    /// The group.
    pub group: String,
    /// Its topics.
    pub topics: Vec<TopicTarget>,
    /// Time for all of it: the sessions of members that died have to end first.
    pub patience: Duration,
}

/// A workload. Workers are numbered from `first_worker`: writers, then readers, then observers, then members,
/// then bare writers.
#[derive(Clone)]
pub struct WorkloadSpec {
    /// Seed of every choice that the workload makes. The clients take seeds of their own from their configuration.
    pub seed: u64,
    /// Number of the first worker. Two workloads in one history, or over one topic, need numbers that do not meet.
    pub first_worker: u32,
    /// How each worker reaches the cluster.
    pub clients: Clients,
    /// Topics that are written and read; at least one.
    pub topics: Vec<TopicTarget>,
    /// The writers.
    pub writers: Vec<WriterSpec>,
    /// The readers.
    pub readers: Vec<ReaderSpec>,
    /// The observers.
    pub observers: Vec<ObserverSpec>,
    /// The members of consumer groups.
    pub members: Vec<MemberSpec>,
    /// The writers without the SDK's producer.
    pub bare: Vec<BareSpec>,
    /// Time after the stop for outcomes of what was sent before; what has none then is unknown.
    pub settle: Duration,
}

impl fmt::Debug for WorkloadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSpec")
            .field("seed", &self.seed)
            .field("first_worker", &self.first_worker)
            .field("topics", &self.topics)
            .field("writers", &self.writers)
            .field("readers", &self.readers)
            .field("observers", &self.observers)
            .field("members", &self.members)
            .field("bare", &self.bare)
            .field("settle", &self.settle)
            .finish_non_exhaustive()
    }
}

impl WorkloadSpec {
    /// Two writers, one reader from the start, one that seeks, one observer.
    pub fn new(seed: u64, clients: Clients, topics: Vec<TopicTarget>) -> Self {
        Self {
            seed,
            first_worker: 0,
            clients,
            topics,
            writers: vec![WriterSpec::default(); 2],
            readers: vec![
                ReaderSpec::default(),
                ReaderSpec { seek_every: Duration::from_secs(2), ..ReaderSpec::default() },
            ],
            observers: vec![ObserverSpec::default()],
            members: Vec::new(),
            bare: Vec::new(),
            settle: Duration::from_secs(30),
        }
    }

    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> u32 {
        let writers = self.writers.len() + self.bare.len();
        let workers = writers + self.readers.len() + self.observers.len() + self.members.len();
        u32::try_from(workers).unwrap_or(u32::MAX)
    }

    /// Finds everything that cannot work.
    ///
    /// # Errors
    /// All problems in one sentence.
    pub fn validate(&self) -> Result<(), SpecError> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        check(!self.topics.is_empty(), "a workload needs at least one topic");
        check(self.topics.iter().all(|topic| topic.partitions > 0), "a topic needs at least one partition");
        check(
            u64::from(self.first_worker) + u64::from(self.workers()) <= u64::from(WORKERS_END),
            "worker numbers end below 2^24 - 1",
        );
        for writer in &self.writers {
            check((1..=10_000).contains(&writer.window), "the window of a writer is 1 to 10,000 records");
            check((value::DIGITS..=1 << 20).contains(&writer.value_bytes), "a value has 16 bytes to 1 MiB");
            check(writer.placement != Placement::Keyed(0), "keyed placement needs at least one key");
            let partitions = self.topics.first().map_or(0, |topic| topic.partitions);
            let pinned = |part| part < partitions;
            check(
                !matches!(writer.placement, Placement::Pinned(part) if !pinned(part)),
                "a pinned writer needs a partition that the first topic has",
            );
            check(writer.restart_after != Some(0), "a writer that restarts sends at least one record before");
            if let Err(problems) = writer.producer.validate() {
                check(false, &problems.to_string());
            }
        }
        for member in &self.members {
            check(!member.group.is_empty(), "a member needs a group");
            let range = 1_000..=1_800_000;
            check(range.contains(&member.session_timeout_ms), "a session has 1,000 to 1,800,000 ms");
        }
        for bare in &self.bare {
            check(bare.timeout_ms > 0 && bare.overtake_every > 0, "a bare writer needs a timeout and turns");
        }
        for worker in (self.first_worker..).take(self.workers() as usize) {
            if let Err(problems) = (self.clients)(worker).validate() {
                check(false, &problems.to_string());
            }
        }
        wrong.dedup();
        if wrong.is_empty() { Ok(()) } else { Err(SpecError(wrong.join("; "))) }
    }
}

/// A workload that cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(String);
