//! Bounds that both sides of a connection know (architecture section 12). What an operator may change is a config key of
//! the broker; these are its defaults and hard ends.

/// Largest gRPC message or peer frame.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Largest record batch a topic takes unless it says otherwise (`max_batch_bytes`).
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// Largest `max_batch_bytes` a topic may set: half a message, so that a batch always travels with room for its envelope.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Largest Raft entry that carries more than one batch.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Most that one batch may inflate to.
pub const INFLATED_BYTES_MAX: usize = 16 << 20;

/// A compressed block may always inflate to this much; beyond it [`INFLATE_RATIO_MAX`] holds.
pub const INFLATE_FLOOR_BYTES: usize = 1 << 20;

/// Most bytes per compressed byte, above [`INFLATE_FLOOR_BYTES`].
pub const INFLATE_RATIO_MAX: usize = 100;

/// Longest topic name, as in Kafka: it must fit in a file name with a suffix.
pub const TOPIC_NAME_LEN_MAX: usize = 249;

/// Most partitions of one topic.
pub const PARTITIONS_MAX: u32 = 10_000;

/// Most replicas of one partition.
pub const REPLICATION_FACTOR_MAX: u32 = 9;

/// Connections that a broker accepts.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Requests in flight on one connection.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 100;

/// Bytes of requests in flight on one connection.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// Longest wait of a fetch.
pub const FETCH_WAIT_MS_MAX: u32 = 60_000;
