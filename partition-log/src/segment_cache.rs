//! Open files and indexes of sealed segments, bounded, least recently used first out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::DiskFile;

use crate::index::SegmentIndex;

/// Segments kept open by default: 2 MiB of index each at 1 GiB, so at most about half a GiB, and far below the usual
/// limit of open files.
const SEGMENTS_DEFAULT: usize = 256;

/// A sealed segment that is ready for reads.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) index: SegmentIndex,
}

/// Keeps sealed segments open that were read lately. Clones share it.
#[derive(Debug, Clone)]
pub struct SegmentCache {
    slots: Arc<Mutex<Slots>>,
}

#[derive(Debug)]
struct Slots {
    by_key: BTreeMap<u64, (u64, Arc<OpenSegment>)>,
    by_use: BTreeMap<u64, u64>,
    next_key: u64,
    clock: u64,
    segments_max: usize,
}

impl SegmentCache {
    /// A cache of at most `segments_max` segments, at least one.
    #[must_use]
    pub fn new(segments_max: usize) -> Self {
        let (by_key, by_use) = (BTreeMap::new(), BTreeMap::new());
        let slots = Slots { by_key, by_use, next_key: 0, clock: 0, segments_max: segments_max.max(1) };
        Self { slots: Arc::new(Mutex::new(slots)) }
    }

    /// Segments that are open now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// True if no segment is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A key that no other segment has.
    pub(crate) fn new_key(&self) -> u64 {
        let mut slots = self.lock();
        slots.next_key += 1;
        slots.next_key
    }

    pub(crate) fn get(&self, key: u64) -> Option<Arc<OpenSegment>> {
        let mut slots = self.lock();
        let now = slots.tick();
        let (used, segment) = slots.by_key.get_mut(&key)?;
        let (before, segment) = (std::mem::replace(used, now), segment.clone());
        slots.by_use.remove(&before);
        slots.by_use.insert(now, key);
        Some(segment)
    }

    pub(crate) fn put(&self, key: u64, segment: Arc<OpenSegment>) {
        let mut slots = self.lock();
        slots.remove(key);
        let now = slots.tick();
        slots.by_key.insert(key, (now, segment));
        slots.by_use.insert(now, key);
        while slots.by_key.len() > slots.segments_max {
            let Some((_, oldest)) = slots.by_use.pop_first() else { break };
            slots.by_key.remove(&oldest);
        }
    }

    pub(crate) fn remove(&self, key: u64) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SegmentCache {
    fn default() -> Self {
        Self::new(SEGMENTS_DEFAULT)
    }
}

impl Slots {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn remove(&mut self, key: u64) {
        if let Some((used, _)) = self.by_key.remove(&key) {
            self.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use disk::faulty::FaultyDisk;
    use disk::{Disk, OpenOptions};

    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        let file = FaultyDisk::quiet().open(Path::new("a"), options).unwrap();
        let segment = Arc::new(OpenSegment { file, index: SegmentIndex::default() });
        let cache = SegmentCache::new(2);
        let [a, b, c] = [(); 3].map(|()| cache.new_key());
        cache.put(a, segment.clone());
        cache.put(b, segment.clone());
        assert!(cache.get(a).is_some());
        cache.put(c, segment);
        assert!(cache.get(b).is_none());
        assert!(cache.get(a).is_some() && cache.get(c).is_some());
        cache.remove(a);
        assert_eq!(cache.len(), 1);
    }
}
