//! Settings of one partition log.

use crate::segment_cache::SegmentCache;

/// Settings of one partition log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A segment that would grow beyond this is sealed first. Unit: bytes. Default 1 GiB. At least 1, at most 4 GiB − 1,
    /// because positions in the index have 32 bits; larger values count as that.
    pub segment_bytes: u64,
    /// Log bytes between two index entries. Unit: bytes. Default 4096.
    pub index_interval_bytes: u32,
    /// Newest batches kept in memory. Unit: bytes. Default 1 MiB; 0 keeps none.
    pub tail_cache_bytes: usize,
    /// Records older than this may go. Unit: ms. Default none: they stay.
    pub retention_ms: Option<u64>,
    /// Size above which the oldest segments may go. Unit: bytes. Default none: they stay.
    pub retention_bytes: Option<u64>,
    /// Open files and indexes of sealed segments; clones share it, so that a broker has one for all partitions.
    pub cache: SegmentCache,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            index_interval_bytes: 4096,
            tail_cache_bytes: 1 << 20,
            retention_ms: None,
            retention_bytes: None,
            cache: SegmentCache::default(),
        }
    }
}
