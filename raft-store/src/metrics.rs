//! What the WAL measures.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A gauge of bytes or files.
type Level = Gauge<u64, AtomicU64>;

/// Metrics of the WAL. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct WalMetrics {
    /// Time of each `fdatasync`, in seconds.
    pub sync_seconds: Histogram,
    /// Frames of groups in each write: how well group commit works.
    pub frames_per_write: Histogram,
    /// Writes, each with one `fdatasync`.
    pub writes: Counter,
    /// Entries written.
    pub entries: Counter,
    /// Bytes written, with headers and padding.
    pub written_bytes: Counter,
    /// Entries written again because they held an old file back.
    pub relocated: Counter,
    /// Bytes in WAL files that are not released.
    pub outstanding_bytes: Level,
    /// WAL files that are not released.
    pub files: Level,
    /// Files that wait to be used.
    pub pool_files: Level,
    /// Bytes of entries kept in memory.
    pub cached_bytes: Level,
    /// Checkpoints written.
    pub checkpoints: Counter,
}

impl Default for WalMetrics {
    fn default() -> Self {
        Self {
            sync_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            frames_per_write: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            writes: Counter::default(),
            entries: Counter::default(),
            written_bytes: Counter::default(),
            relocated: Counter::default(),
            outstanding_bytes: Level::default(),
            files: Level::default(),
            pool_files: Level::default(),
            cached_bytes: Level::default(),
            checkpoints: Counter::default(),
        }
    }
}

impl WalMetrics {
    /// Names the metrics in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let wal = registry.sub_registry_with_prefix("altair_wal");
        wal.register_with_unit("sync", "Time of each fdatasync", Unit::Seconds, self.sync_seconds.clone());
        wal.register("write_frames", "Frames of groups in each write", self.frames_per_write.clone());
        wal.register("writes", "Writes, each with one fdatasync", self.writes.clone());
        wal.register("entries", "Entries written", self.entries.clone());
        wal.register_with_unit("written", "Bytes written", Unit::Bytes, self.written_bytes.clone());
        wal.register("relocated_entries", "Entries moved out of old files", self.relocated.clone());
        wal.register_with_unit(
            "outstanding",
            "Bytes in files that are not released",
            Unit::Bytes,
            self.outstanding_bytes.clone(),
        );
        wal.register("files", "Files that are not released", self.files.clone());
        wal.register("pool_files", "Files that wait to be used", self.pool_files.clone());
        wal.register_with_unit(
            "cached",
            "Bytes of entries kept in memory",
            Unit::Bytes,
            self.cached_bytes.clone(),
        );
        wal.register("checkpoints", "Checkpoints written", self.checkpoints.clone());
    }
}
