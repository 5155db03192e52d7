//! The newest batches, in memory: what consumers at the end of the log read.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::stamped::StampedBatch;

/// Shorter batches are copied: a slice keeps the whole buffer alive that it was read into from a peer, four times as long as
/// this, and a quiet partition keeps its batches for days.
const COPIED_BELOW: usize = 16 << 10;

/// A run of batches without gaps that ends at the log end, bounded in bytes.
#[derive(Debug)]
pub(crate) struct TailCache {
    batches: VecDeque<StampedBatch>,
    bytes: usize,
    bytes_max: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn push(&mut self, batch: StampedBatch) {
        if self.bytes_max == 0 {
            return;
        }
        let bytes = match batch.len() < COPIED_BELOW {
            true => Bytes::copy_from_slice(&batch.batch),
            false => batch.batch,
        };
        self.bytes += bytes.len();
        self.batches.push_back(StampedBatch { batch: bytes, ..batch });
        self.shrink();
    }

    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.shrink();
    }

    /// Drops batches that end at or below an offset.
    pub(crate) fn drop_below(&mut self, offset: u64) {
        while self.batches.front().is_some_and(|first| first.next <= offset) {
            self.drop_first();
        }
    }

    /// Batches from the one that holds `from`, as long as they end at or below `upto` and fit in `room` bytes; with `first`
    /// one is given even if it does not fit. `None` if `from` is not cached.
    pub(crate) fn collect(
        &self,
        from: u64,
        upto: u64,
        room: usize,
        first: bool,
    ) -> Option<Vec<StampedBatch>> {
        if self.batches.front().is_none_or(|first| first.base > from) {
            return None;
        }
        let start = self.batches.partition_point(|cached| cached.next <= from);
        let (mut out, mut used) = (Vec::new(), 0);
        for cached in self.batches.range(start..) {
            used += cached.len();
            if cached.next > upto || (used > room && !(first && out.is_empty())) {
                break;
            }
            out.push(cached.clone());
        }
        Some(out)
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.batches.pop_front() {
            self.bytes -= first.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::ids::LeaderEpoch;

    use super::*;

    /// Batches of two records and ten bytes each, from offset 10 on; room for three.
    fn example() -> TailCache {
        let mut cache = TailCache::new(35);
        for n in 0..5_u8 {
            let base = 10 + 2 * u64::from(n);
            let batch = Bytes::from(vec![n; 10]);
            cache.push(StampedBatch { base, next: base + 2, epoch: LeaderEpoch(1), batch });
        }
        cache
    }

    fn collect(from: u64, upto: u64, room: usize) -> Option<Vec<u8>> {
        let found = example().collect(from, upto, room, true)?;
        Some(found.iter().map(|cached| cached.batch[0]).collect())
    }

    #[test]
    fn only_the_newest_bytes_stay() {
        assert_eq!(collect(13, 20, 99), None);
        assert_eq!(collect(14, 20, 99), Some(vec![2, 3, 4]));
    }

    #[test]
    fn reading_begins_within_a_batch_and_ends_before_the_bound() {
        assert_eq!(collect(17, 20, 99), Some(vec![3, 4]));
        assert_eq!(collect(14, 19, 99), Some(vec![2, 3]));
        assert_eq!(collect(14, 15, 99), Some(vec![]));
        assert_eq!(collect(20, 20, 99), Some(vec![]));
    }

    #[test]
    fn the_first_batch_is_given_even_if_it_is_too_large() {
        assert_eq!(collect(14, 20, 1), Some(vec![2]));
        assert_eq!(collect(14, 20, 20), Some(vec![2, 3]));
        let behind_others = example().collect(14, 20, 1, false);
        assert!(behind_others.is_some_and(|found| found.is_empty()));
    }

    #[test]
    fn short_batches_do_not_keep_the_buffer_that_they_came_in() {
        let buffer = Bytes::from(vec![7; 64 << 10]);
        let mut cache = TailCache::new(1 << 20);
        for (base, len) in [(0, COPIED_BELOW - 1), (1, COPIED_BELOW)] {
            let (next, epoch) = (base + 1, LeaderEpoch(1));
            cache.push(StampedBatch { base, next, epoch, batch: buffer.slice(..len) });
        }
        let shared: Vec<bool> = cache.batches.iter().map(|b| b.batch.as_ptr() == buffer.as_ptr()).collect();
        assert_eq!(shared, [false, true]);
    }

    #[test]
    fn dropping_below_an_offset_keeps_the_batch_that_holds_it() {
        let mut cache = example();
        cache.drop_below(17);
        assert_eq!(cache.batches.front().map(|first| first.base), Some(16));
        cache.set_bytes_max(0);
        assert_eq!((cache.batches.len(), cache.bytes), (0, 0));
    }
}
