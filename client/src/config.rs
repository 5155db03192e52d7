//! Settings of the client, its producers and its consumers.
//!
//! Every setting is a plain field with a default; [`Settings::from_pairs`] reads them from names and values as other
//! brokers' clients write them.

mod pairs;

use std::fmt;
use std::sync::Arc;

use wire::limits;
use wire::record::Compression;

use crate::connection::{Connect, TcpConnect};
use crate::error::{ConfigProblem, ConfigProblems};
use crate::group::config::GroupConfig;
use crate::producer::partitioner::{KeyHashOrSticky, Partitioner};

/// Source of record timestamps. Everything else in the client runs on `tokio::time`.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The wall clock of the machine.
    pub fn system() -> Self {
        Self(Arc::new(system_time_ms))
    }

    /// A clock that someone else drives; returns ms since the Unix epoch.
    pub fn from_fn(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door of the client to the wall clock, behind Clock")]
fn system_time_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How failed calls are repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryConfig {
    /// Wait before the first repetition; doubles from there. Unit: ms. Default 25. Range 1..=60_000.
    pub backoff_ms: u32,
    /// Longest wait between two attempts. Unit: ms. Default 200, so that writes resume soon after an election.
    /// Range `backoff_ms`..=600_000.
    pub backoff_max_ms: u32,
    /// Repetitions of one call or batch. Default: no limit but its deadline. Aliases `retries`, `maxRetries`.
    pub retries: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { backoff_ms: 25, backoff_max_ms: 200, retries: u32::MAX }
    }
}

/// Settings of the connections to a cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// gRPC addresses (`host:port`) of some brokers; one that answers is enough. Default `127.0.0.1:7400`.
    /// Alias `bootstrap.servers`.
    pub bootstrap: Vec<String>,
    /// Name of this client in the brokers' logs. Default "altair-client".
    pub client_id: String,
    /// Time to establish a connection. Unit: ms. Default 1_000. Range 1..=60_000.
    pub connect_timeout_ms: u32,
    /// Time for one attempt of a call; the whole call with its repetitions has three times as long. Unit: ms.
    /// Default 10_000. Range 1..=600_000.
    pub request_timeout_ms: u32,
    /// Age at which metadata is fetched again even if nothing failed. Unit: ms. Default 60_000. Range 100..=3_600_000.
    pub metadata_refresh_ms: u32,
    /// Silence on a connection after which it is probed, and the time the probe may take. Unit: ms. Default 3_000.
    /// Range 100..=600_000.
    pub keep_alive_ms: u32,
    /// Largest message sent or accepted. Unit: bytes. Default 16 MiB, the brokers' own bound. Range 64 KiB..=1 GiB.
    pub message_bytes_max: u32,
    /// How failed calls are repeated.
    pub retry: RetryConfig,
    /// Seed of jitter and first choices; `None` takes one from the system. A simulation sets it.
    pub random_seed: Option<u64>,
    /// How connections are made. Default: TCP.
    pub connect: Arc<dyn Connect>,
    /// Where record timestamps come from. Default: the wall clock.
    pub clock: Clock,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:7400".to_owned()],
            client_id: "altair-client".to_owned(),
            connect_timeout_ms: 1_000,
            request_timeout_ms: 10_000,
            metadata_refresh_ms: 60_000,
            keep_alive_ms: 3_000,
            message_bytes_max: u32::try_from(limits::MESSAGE_BYTES_MAX).unwrap_or(u32::MAX),
            retry: RetryConfig::default(),
            random_seed: None,
            connect: Arc::new(TcpConnect),
            clock: Clock::system(),
        }
    }
}

impl ClientConfig {
    /// The defaults, with these brokers to start from.
    pub fn new<S: Into<String>>(bootstrap: impl IntoIterator<Item = S>) -> Self {
        Self { bootstrap: bootstrap.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Finds everything that cannot work.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigProblems> {
        let mut check = Check::default();
        check.that(!self.bootstrap.is_empty(), "bootstrap", "needs at least one host:port");
        for address in &self.bootstrap {
            check.that(is_address(address), "bootstrap", &format!("`{address}` is not host:port"));
        }
        check.range("connect_timeout_ms", u64::from(self.connect_timeout_ms), 1, 60_000);
        check.range("request_timeout_ms", u64::from(self.request_timeout_ms), 1, 600_000);
        check.range("metadata_refresh_ms", u64::from(self.metadata_refresh_ms), 100, 3_600_000);
        check.range("keep_alive_ms", u64::from(self.keep_alive_ms), 100, 600_000);
        check.range("message_bytes_max", u64::from(self.message_bytes_max), 64 << 10, 1 << 30);
        check.range("retry.backoff_ms", u64::from(self.retry.backoff_ms), 1, 60_000);
        check.range(
            "retry.backoff_max_ms",
            u64::from(self.retry.backoff_max_ms),
            u64::from(self.retry.backoff_ms),
            600_000,
        );
        check.done()
    }
}

/// How far a record must have come before its receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// In the leader's queue; nothing is promised.
    None,
    /// On the leader's own disk; lost if the leader dies before a quorum has it. Receipts carry no offset.
    Leader,
    /// Committed by the quorum, on disk on each of it, and applied on the leader.
    #[default]
    All,
}

/// Settings of a producer.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// What a receipt means. Default `All`. Values: `0`/`none`, `1`/`leader`, `all`/`-1`.
    pub acks: Acks,
    /// A retry never writes a record twice. Default: on exactly when `acks` is `All`; the other levels are answered
    /// before the broker checks for duplicates, so asking for both is an error. Alias `enable.idempotence`.
    pub idempotent: Option<bool>,
    /// Bytes at which a batch is sent without waiting. Unit: bytes. Default 16_384. Range 1..=8 MiB.
    pub batch_size: u32,
    /// How long a batch waits for more records. Unit: ms. Default 5: an ack takes a disk sync on a quorum anyway, 5 ms
    /// fill batches of busy producers and still feel immediate to an interactive one. 100 suits bulk loads. Range 0..=60_000.
    pub linger_ms: u32,
    /// Compression of batches. Default none. Values: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub compression: Compression,
    /// Bytes of records accepted and not yet resolved. Unit: bytes. Default 32 MiB. Range 1 KiB..=1 GiB.
    /// Alias `buffer.memory`.
    pub buffer_bytes: u32,
    /// Records accepted and not yet resolved; 0 = bounded by bytes alone. Default 0. Alias `queueSize`.
    pub buffer_records: u32,
    /// How long `send` waits for room or for a topic's metadata; 0 = fail at once. Unit: ms. Default 60_000.
    /// Range 0..=3_600_000.
    pub max_block_ms: u32,
    /// Time from `send` to the final outcome, all retries included. Unit: ms. Default 120_000. Range 1..=86_400_000.
    pub delivery_timeout_ms: u32,
    /// Time for one produce request. Unit: ms. Default 10_000. Range 1..=600_000.
    pub request_timeout_ms: u32,
    /// Largest request, and so the largest record. Unit: bytes. Default 8 MiB. Range 1 KiB..=15 MiB.
    pub max_request_bytes: u32,
    /// Batches of one partition on their way at once. Default 5, the number that brokers remember for duplicates.
    /// Range 1..=5. Without idempotence it is 1, which keeps the order over retries.
    pub max_in_flight: u32,
    /// Records a second that `send` lets through; 0 = no limit. Default 0.
    pub rate_limit_per_s: u32,
    /// Chooses partitions of records that name none. Default: key hash, without a key sticky.
    pub partitioner: Arc<dyn Partitioner>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: None,
            batch_size: 16_384,
            linger_ms: 5,
            compression: Compression::None,
            buffer_bytes: 32 << 20,
            buffer_records: 0,
            max_block_ms: 60_000,
            delivery_timeout_ms: 120_000,
            request_timeout_ms: 10_000,
            max_request_bytes: 8 << 20,
            max_in_flight: 5,
            rate_limit_per_s: 0,
            partitioner: Arc::new(KeyHashOrSticky::default()),
        }
    }
}

impl ProducerConfig {
    /// Whether retries are free of duplicates with these settings.
    pub fn is_idempotent(&self) -> bool {
        self.idempotent.unwrap_or(self.acks == Acks::All)
    }

    /// Finds everything that cannot work.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigProblems> {
        let mut check = Check::default();
        check.that(
            self.idempotent != Some(true) || self.acks == Acks::All,
            "idempotent",
            "needs acks=all: the weaker levels are answered before duplicates are known",
        );
        check.range("batch_size", u64::from(self.batch_size), 1, 8 << 20);
        check.range("linger_ms", u64::from(self.linger_ms), 0, 60_000);
        check.range("buffer_bytes", u64::from(self.buffer_bytes), 1 << 10, 1 << 30);
        check.range("max_block_ms", u64::from(self.max_block_ms), 0, 3_600_000);
        check.range("delivery_timeout_ms", u64::from(self.delivery_timeout_ms), 1, 86_400_000);
        check.range("request_timeout_ms", u64::from(self.request_timeout_ms), 1, 600_000);
        check.range("max_request_bytes", u64::from(self.max_request_bytes), 1 << 10, 15 << 20);
        check.range("max_in_flight", u64::from(self.max_in_flight), 1, 5);
        check.that(
            self.batch_size <= self.max_request_bytes,
            "batch_size",
            "must not exceed max_request_bytes",
        );
        check.done()
    }
}

/// What a consumer does when its position is not in the partition's log any more (or not yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// Goes on at the oldest record.
    #[default]
    Earliest,
    /// Goes on after the newest record.
    Latest,
    /// Reports `OffsetOutOfRange` from `poll` and stops reading the partition until a seek.
    Error,
}

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Where an assigned partition starts, and what happens when its position is out of range. Default `Earliest`.
    /// Values: `earliest`, `latest`, `none`. Alias `auto.offset.reset`.
    pub offset_reset: OffsetReset,
    /// Bytes a broker waits for before it answers. Unit: bytes. Default 1. Range 1..=8 MiB.
    pub fetch_min_bytes: u32,
    /// Longest such wait. Unit: ms. Default 500. Range 0..=60_000.
    pub fetch_max_wait_ms: u32,
    /// Largest answer of one broker. Unit: bytes. Default 8 MiB. Range 1 KiB..=15 MiB.
    pub fetch_max_bytes: u32,
    /// Part of it for one partition; a larger batch is still returned whole. Unit: bytes. Default 1 MiB.
    /// Range 1 KiB..=15 MiB. Alias `max.partition.fetch.bytes`.
    pub partition_fetch_bytes: u32,
    /// Bytes fetched ahead of `poll`; the last answers may exceed it. Unit: bytes. Default 16 MiB. Range 1 KiB..=1 GiB.
    pub prefetch_bytes: u32,
    /// Most records of one `poll`. Default 1_000. Range 1..=1_000_000.
    pub max_poll_records: u32,
    /// Checks the CRC-32C of each batch. Default true. Alias `check.crcs`.
    pub check_crc: bool,
    /// Most that one batch may inflate to. Unit: bytes. Default 16 MiB. Range 1 KiB..=1 GiB.
    pub inflated_bytes_max: u32,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            offset_reset: OffsetReset::Earliest,
            fetch_min_bytes: 1,
            fetch_max_wait_ms: 500,
            fetch_max_bytes: 8 << 20,
            partition_fetch_bytes: 1 << 20,
            prefetch_bytes: 16 << 20,
            max_poll_records: 1_000,
            check_crc: true,
            inflated_bytes_max: u32::try_from(limits::INFLATED_BYTES_MAX).unwrap_or(u32::MAX),
        }
    }
}

impl ConsumerConfig {
    /// Finds everything that cannot work.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigProblems> {
        let mut check = Check::default();
        check.range("fetch_min_bytes", u64::from(self.fetch_min_bytes), 1, 8 << 20);
        check.range(
            "fetch_max_wait_ms",
            u64::from(self.fetch_max_wait_ms),
            0,
            u64::from(limits::FETCH_WAIT_MS_MAX),
        );
        check.range("fetch_max_bytes", u64::from(self.fetch_max_bytes), 1 << 10, 15 << 20);
        check.range("partition_fetch_bytes", u64::from(self.partition_fetch_bytes), 1 << 10, 15 << 20);
        check.range("prefetch_bytes", u64::from(self.prefetch_bytes), 1 << 10, 1 << 30);
        check.range("max_poll_records", u64::from(self.max_poll_records), 1, 1_000_000);
        check.range("inflated_bytes_max", u64::from(self.inflated_bytes_max), 1 << 10, 1 << 30);
        check.done()
    }
}

/// All settings of an application that is given one list of names and values.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// For [`Client::connect`](crate::Client::connect).
    pub client: ClientConfig,
    /// For [`Client::producer`](crate::Client::producer).
    pub producer: ProducerConfig,
    /// For [`Client::consumer`](crate::Client::consumer).
    pub consumer: ConsumerConfig,
    /// For [`Client::group_consumer`](crate::Client::group_consumer), with the settings of `consumer`.
    pub group: GroupConfig,
}

impl Settings {
    /// Reads names and values over the defaults. Names are compared without case, dots, dashes and underscores
    /// (`batch.size`, `batch_size` and `batchSize` are one), and many have the aliases of other brokers' clients.
    ///
    /// # Errors
    /// All problems: unknown names with the nearest right one, values that do not parse, values out of range.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigProblems> {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        for (key, value) in pairs {
            if let Err(message) = pairs::set(&mut settings, key.as_ref(), value.as_ref()) {
                problems.push(ConfigProblem { key: key.as_ref().to_owned(), message });
            }
        }
        settings.group.consumer = settings.consumer.clone();
        let mut parts =
            vec![settings.client.validate(), settings.producer.validate(), settings.consumer.validate()];
        if !settings.group.group_id.is_empty() {
            let group = GroupConfig { consumer: ConsumerConfig::default(), ..settings.group.clone() };
            parts.push(group.validate());
        }
        problems.extend(parts.into_iter().filter_map(Result::err).flat_map(|found| found.0));
        if problems.is_empty() { Ok(settings) } else { Err(ConfigProblems(problems)) }
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[derive(Default)]
pub(crate) struct Check(Vec<ConfigProblem>);

impl Check {
    pub(crate) fn that(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            self.0.push(ConfigProblem { key: key.to_owned(), message: message.to_owned() });
        }
    }

    pub(crate) fn range(&mut self, key: &str, value: u64, least: u64, most: u64) {
        self.that(
            (least..=most).contains(&value),
            key,
            &format!("{value} is not between {least} and {most}"),
        );
    }

    /// What another part found.
    pub(crate) fn and(&mut self, part: Result<(), ConfigProblems>) {
        self.0.extend(part.err().into_iter().flat_map(|found| found.0));
    }

    pub(crate) fn done(self) -> Result<(), ConfigProblems> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigProblems(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::config::{Assignor, Guarantee};

    #[test]
    fn defaults_are_valid() {
        let settings = Settings::from_pairs([("", ""); 0]).unwrap();
        assert_eq!(settings.producer.batch_size, 16_384);
        assert!(settings.producer.is_idempotent());
    }

    #[test]
    fn spellings_of_other_clients_are_understood() {
        let settings = Settings::from_pairs([
            ("bootstrap.servers", "a:1, b:2"),
            ("batch.size", "1000"),
            ("lingerMs", "100"),
            ("maxRetries", "3"),
            ("queueSize", "1000"),
            ("acks", "1"),
            ("compression.type", "zstd"),
            ("auto.offset.reset", "latest"),
            ("group.id", "billing"),
            ("enable.auto.commit", "false"),
            ("partition.assignment.strategy", "roundrobin"),
        ])
        .unwrap();
        assert_eq!(settings.client.bootstrap, ["a:1", "b:2"]);
        assert_eq!(settings.producer.batch_size, 1_000);
        assert_eq!(settings.producer.linger_ms, 100);
        assert_eq!(settings.client.retry.retries, 3);
        assert_eq!(settings.producer.buffer_records, 1_000);
        assert_eq!(settings.producer.acks, Acks::Leader);
        assert!(!settings.producer.is_idempotent());
        assert_eq!(settings.producer.compression, Compression::Zstd);
        assert_eq!(settings.consumer.offset_reset, OffsetReset::Latest);
        assert_eq!(settings.group.consumer.offset_reset, OffsetReset::Latest);
        assert_eq!(
            (settings.group.group_id.as_str(), settings.group.guarantee),
            ("billing", Guarantee::Manual)
        );
        assert_eq!(settings.group.assignor, Some(Assignor::RoundRobin));
    }

    #[test]
    fn all_problems_are_reported_with_the_nearest_name() {
        let problems = Settings::from_pairs([
            ("batch_sise", "1"),
            ("linger_ms", "soon"),
            ("fetch_max_bytes", "0"),
            ("bootstrap", "nowhere"),
            ("idempotent", "true"),
            ("acks", "0"),
            ("group_id", "billing"),
            ("session_timeout_ms", "5"),
            ("assignor", "fair"),
        ])
        .unwrap_err()
        .0;
        assert_eq!(problems.len(), 7, "{problems:?}");
        assert!(problems[0].message.contains("`batch_size`"), "{problems:?}");
    }
}
