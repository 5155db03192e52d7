//! The broker's configuration: what can be set, its defaults and ranges, and where each value came from.
//!
//! File < environment < flag. Code takes its own section, not the root. Nothing here reads the clock, the network or,
//! but for the config file itself, the disk.

mod docs;
mod error;
mod kind;
mod load;
mod section;
mod tree;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use docs::reference;
pub use error::{ConfigError, Problem};
pub use kind::{LogFormat, Range, StorageMode};
pub use load::{LoadArgs, Loaded, Origin, Setting, load};
pub use section::KeyInfo;

use section::section;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

section! {
    /// Who this broker is.
    pub struct NodeConfig = "node" {
        /// Number of this broker, unique in the cluster and kept for life.
        pub id: u32 as Number [Range::AtLeast(1)] = 1;
        /// Failure domain (rack, zone, host). Replicas of a partition are spread over different ones.
        pub rack: String as Text [Range::Any] = String::new();
        /// Threads that serve requests. More than the machine has cores gains nothing.
        pub worker_threads: u32 as Number [Range::Between(1, 256)] = 2;
    }
}

section! {
    /// How this broker finds its cluster.
    pub struct ClusterConfig = "cluster" {
        /// Name for people; brokers of different names refuse each other.
        pub name: String as Text [Range::Any] = "altair".to_owned();
        /// Peer addresses (`host:port`) of some brokers of the cluster, this one may be among them. Empty: a cluster of one.
        pub seeds: Vec<String> as TextList [Range::Any] = Vec::new();
        /// How many fresh brokers must see each other before a new cluster is begun. Without seeds it is 1; with seeds it must be set.
        pub bootstrap_expect: Option<u32> as OptionalNumber [Range::Between(1, 9)] = None;
        /// How many brokers vote in the metadata group; odd. The others learn from them.
        pub metadata_voters: u32 as Number [Range::Between(1, 9)] = 3;
    }
}

section! {
    /// The door for clients and tools.
    pub struct GrpcConfig = "grpc" {
        /// Address to listen on; port 0 takes a free one.
        pub addr: SocketAddr as Listen [Range::Any] = SocketAddr::from(([127, 0, 0, 1], 7400));
        /// Address (`host:port`) that clients are told to use. Empty: the address listened on.
        pub advertise: String as Text [Range::Any] = String::new();
    }
}

section! {
    /// Health, metrics and REST.
    pub struct HttpConfig = "http" {
        /// Address to listen on; port 0 takes a free one.
        pub addr: SocketAddr as Listen [Range::Any] = SocketAddr::from(([127, 0, 0, 1], 8080));
        /// Address (`host:port`) that others are told to use. Empty: the address listened on.
        pub advertise: String as Text [Range::Any] = String::new();
    }
}

section! {
    /// Broker to broker.
    pub struct PeerConfig = "peer" {
        /// Address to listen on; port 0 takes a free one. Never open it to clients.
        pub addr: SocketAddr as Listen [Range::Any] = SocketAddr::from(([127, 0, 0, 1], 7500));
        /// Address (`host:port`) under which the other brokers reach this one. Empty: the address listened on.
        pub advertise: String as Text [Range::Any] = String::new();
        /// Time between two signs of life to each other broker.
        pub beat_ms: u64 as Millis [Range::Between(10, 10 * SECOND)] = 100;
        /// Silence after which another broker counts as dead and its leaderships are taken over. At least three beats.
        pub dead_ms: u64 as Millis [Range::Between(50, 60 * SECOND)] = 700;
    }
}

section! {
    /// Where and how records are kept.
    pub struct StorageConfig = "storage" {
        /// Directory of this broker alone.
        pub data_dir: PathBuf as Directory [Range::Any] = PathBuf::from("data");
        /// `memory` keeps nothing when the process ends; for development and tests.
        pub mode: StorageMode as StorageModeKind [Range::Any] = StorageMode::Disk;
        /// Size at which a partition begins its next segment file. Topics may set their own.
        pub segment_bytes: u64 as Size [Range::Between(64 * KIB, 2 * GIB - 1)] = GIB;
        /// Wait for the disk before anything is acknowledged. `false` loses acknowledged records on a power failure.
        pub fsync: bool as Switch [Range::Any] = true;
        /// Bytes of the shared write-ahead log that may wait for segments to be flushed before producers are slowed down.
        pub wal_outstanding_max: u64 as Size [Range::Between(128 * MIB, 64 * GIB)] = GIB;
        /// Size of one file of the write-ahead log.
        pub wal_file_bytes: u64 as Size [Range::Between(32 * MIB, GIB)] = 64 * MIB;
        /// How many used files of the write-ahead log are kept for the next round instead of being deleted.
        pub wal_pool_files: u32 as Number [Range::Between(1, 256)] = 8;
        /// Longest time between two flushes of segments, after which write-ahead files can go.
        pub flush_interval_ms: u64 as Millis [Range::Between(50, 60 * SECOND)] = SECOND;
        /// Produces are refused when less than this is free on the disk, or less than `storage.reject_free_percent`, whichever is smaller.
        pub reject_free_bytes: u64 as Size [Range::Any] = GIB;
        /// Produces are refused when less than this share of the disk is free, or less than `storage.reject_free_bytes`, whichever is smaller.
        pub reject_free_percent: u32 as Number [Range::Between(0, 50)] = 5;
    }
}

section! {
    /// Defaults of topics.
    pub struct TopicsConfig = "topics" {
        /// Partitions of a topic that does not say how many.
        pub default_partitions: u32 as Number [Range::Between(1, 10_000)] = 10;
        /// Replicas of a topic that does not say how many; fewer if the cluster has fewer brokers.
        pub default_rf: u32 as Number [Range::Between(1, 7)] = 3;
        /// Create a topic when the first record for it comes.
        pub auto_create: bool as Switch [Range::Any] = false;
        /// How long records are kept; `none` for ever.
        pub retention_ms: Option<u64> as OptionalMillis [Range::AtLeast(SECOND)] = Some(7 * DAY);
        /// How many bytes of a partition are kept; `none` for no bound.
        pub retention_bytes: Option<u64> as OptionalSize [Range::AtLeast(MIB)] = None;
        /// Largest record batch.
        pub max_batch_bytes: u64 as Size [Range::Between(KIB, 8 * MIB)] = MIB;
        /// In-sync replicas that must be there before a write with `acks=all` is begun.
        pub min_insync_replicas: u32 as Number [Range::Between(1, 7)] = 1;
        /// How long the data of a deleted topic stays on disk.
        pub delete_retention_ms: u64 as Millis [Range::Any] = HOUR;
    }
}

section! {
    /// When a replica counts as in sync.
    pub struct ReplicaConfig = "replica" {
        /// Most bytes that a replica may be behind its leader.
        pub lag_max_bytes: u64 as Size [Range::AtLeast(KIB)] = 4 * MIB;
        /// Longest time that a replica may be behind its leader.
        pub lag_max_ms: u64 as Millis [Range::Between(100, HOUR)] = 10 * SECOND;
    }
}

section! {
    /// Consumer groups.
    pub struct GroupsConfig = "groups" {
        /// Silence after which a member is expelled that did not say how long. A consumer that dies is replaced this much later.
        pub session_timeout_ms: u64 as Millis [Range::Between(SECOND, 30 * MINUTE)] = 10 * SECOND;
        /// How often members are told to send a heartbeat. At most a third of the session timeout.
        pub heartbeat_interval_ms: u64 as Millis [Range::Between(100, 10 * MINUTE)] = 3 * SECOND;
        /// How long the committed offsets of a group are kept that has neither members nor commits.
        pub offset_retention_ms: u64 as Millis [Range::AtLeast(MINUTE)] = 7 * DAY;
    }
}

section! {
    /// Bounds that keep one client from starving the others.
    pub struct LimitsConfig = "limits" {
        /// Open client connections, gRPC and HTTP together.
        pub connections: u32 as Number [Range::AtLeast(1)] = 10_000;
        /// Requests in progress on one connection.
        pub in_flight_requests: u32 as Number [Range::Between(1, 100_000)] = 100;
        /// Bytes of requests in progress on one connection.
        pub in_flight_bytes: u64 as Size [Range::AtLeast(MIB)] = 64 * MIB;
        /// Largest request or reply.
        pub message_bytes: u64 as Size [Range::Between(64 * KIB, 64 * MIB)] = 16 * MIB;
        /// Memory for recent records, shared out evenly over the partitions that the broker carries when it opens one, at most 4 MiB each; 0 = a tenth of the machine's memory.
        pub tail_cache_bytes: u64 as Size [Range::Any] = 0;
    }
}

section! {
    /// Logs.
    pub struct TelemetryConfig = "telemetry" {
        /// `error`, `warn`, `info`, `debug` or `trace`, also by module: `info,broker::raft=debug`.
        pub log_level: String as Text [Range::Any] = "info".to_owned();
        /// `text` for people, `json` for machines.
        pub log_format: LogFormat as LogFormatKind [Range::Any] = LogFormat::Text;
    }
}

macro_rules! root {
    ($( $(#[$doc:meta])+ $field:ident : $type:ident ),+ $(,)?) => {
        /// Everything that can be set on a broker.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct BrokerConfig {
            $( $(#[$doc])+ pub $field: $type, )+
        }

        impl BrokerConfig {
            /// Reads one key; `None` if there is no such key.
            fn read(&mut self, section: &str, field: &str, raw: &tree::Raw) -> Option<Result<(), String>> {
                match section {
                    $( stringify!($field) => self.$field.read(field, raw), )+
                    _ => None,
                }
            }

            fn shown(&self) -> Vec<section::Shown> {
                let mut all = Vec::new();
                $( all.extend(self.$field.shown()); )+
                all
            }

            fn out_of_range(&self) -> Vec<section::OutOfRange> {
                let mut all = Vec::new();
                $( all.extend(self.$field.out_of_range()); )+
                all
            }

            /// Names of the sections.
            const SECTIONS: &'static [&'static str] = &[$( stringify!($field) ),+];

            /// Every key with its documentation, by section.
            pub fn keys() -> Vec<(&'static str, String, Vec<KeyInfo>)> {
                vec![$( (stringify!($field), section::join_docs($type::ABOUT), $type::keys()) ),+]
            }
        }
    };
}

root! {
    /// Who this broker is.
    node: NodeConfig,
    /// How it finds its cluster.
    cluster: ClusterConfig,
    /// The door for clients and tools.
    grpc: GrpcConfig,
    /// Health, metrics and REST.
    http: HttpConfig,
    /// Broker to broker.
    peer: PeerConfig,
    /// Where and how records are kept.
    storage: StorageConfig,
    /// Defaults of topics.
    topics: TopicsConfig,
    /// When a replica counts as in sync.
    replica: ReplicaConfig,
    /// Consumer groups.
    groups: GroupsConfig,
    /// Bounds on what clients may ask for.
    limits: LimitsConfig,
    /// Logs.
    telemetry: TelemetryConfig,
}

impl ClusterConfig {
    /// How many fresh brokers must see each other before a new cluster is begun. A config that passed
    /// [`load`] with seeds has it set.
    pub fn expected(&self) -> u32 {
        self.bootstrap_expect.unwrap_or(1)
    }
}

/// The address to tell others: `advertise` if it is set, else the one listened on. A listener on every interface is
/// told as loopback, which is right for one machine and refused by `validate` for a cluster.
pub fn advertised(advertise: &str, bound: SocketAddr) -> String {
    if !advertise.is_empty() {
        return advertise.to_owned();
    }
    if bound.ip().is_unspecified() {
        return format!("127.0.0.1:{}", bound.port());
    }
    bound.to_string()
}

#[cfg(test)]
mod tests;
