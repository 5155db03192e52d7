//! Choosing the partition of a record that names none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use wire::murmur2::partition_for_key;

use crate::random::Random;

/// Chooses partitions. Called for every record, so it must be fast.
// SEAM: four strategies here, and applications bring their own.
pub trait Partitioner: fmt::Debug + Send + Sync + 'static {
    /// The partition of a record, below `partitions` (at least 1). A result out of range is refused by `send`.
    fn partition(&self, topic: &str, key: Option<&[u8]>, partitions: u32) -> u32;

    /// A batch of the topic was completed; strategies that fill one batch after the other move on.
    fn batch_done(&self, _topic: &str, _partition: u32, _partitions: u32) {}

    /// Where strategies that choose freely begin; called once when the producer starts.
    fn seed(&self, _seed: u64) {}
}

/// By key hash; records without a key fill one partition's batch after the other. The default.
///
/// The hash is Kafka's murmur2, so a key lands in the same partition whichever client wrote it.
#[derive(Debug, Default)]
pub struct KeyHashOrSticky(Sticky);

impl Partitioner for KeyHashOrSticky {
    fn partition(&self, topic: &str, key: Option<&[u8]>, partitions: u32) -> u32 {
        match key {
            Some(key) => partition_for_key(key, partitions).0,
            None => self.0.partition(topic, None, partitions),
        }
    }

    fn batch_done(&self, topic: &str, partition: u32, partitions: u32) {
        self.0.batch_done(topic, partition, partitions);
    }

    fn seed(&self, seed: u64) {
        self.0.seed(seed);
    }
}

/// Stays with one partition until its batch is complete: fewer, fuller batches than round robin, as even over time.
#[derive(Debug)]
pub struct Sticky {
    random: Mutex<Random>,
    current: Mutex<BTreeMap<String, u32>>,
}

impl Default for Sticky {
    fn default() -> Self {
        Self { random: Mutex::new(Random::new(Some(0))), current: Mutex::default() }
    }
}

impl Sticky {
    fn draw(&self, bound: u32) -> u32 {
        let random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(random.below(u64::from(bound))).unwrap_or(0)
    }
}

impl Partitioner for Sticky {
    fn partition(&self, topic: &str, _key: Option<&[u8]>, partitions: u32) -> u32 {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&partition) = current.get(topic)
            && partition < partitions
        {
            return partition;
        }
        let partition = self.draw(partitions);
        current.insert(topic.to_owned(), partition);
        partition
    }

    fn batch_done(&self, topic: &str, partition: u32, partitions: u32) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Batches of keyed records end too; only the one that is being filled makes this move.
        if let Some(at) = current.get_mut(topic)
            && *at == partition
            && partitions > 1
        {
            *at = (partition + 1 + self.draw(partitions - 1)) % partitions;
        }
    }

    fn seed(&self, seed: u64) {
        *self.random.lock().unwrap_or_else(PoisonError::into_inner) = Random::new(Some(seed));
    }
}

/// One record to each partition in turn, whatever its key.
#[derive(Debug, Default)]
pub struct RoundRobin(AtomicU64);

impl Partitioner for RoundRobin {
    fn partition(&self, _topic: &str, _key: Option<&[u8]>, partitions: u32) -> u32 {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        u32::try_from(turn % u64::from(partitions.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_land_where_kafka_puts_them() {
        // Hashes of Kafka's own test (`UtilsTest.testMurmur2`) modulo 1,000,000, made positive as its producer does.
        let vectors: [(&[u8], i32); 4] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            let expected = (hash & 0x7fff_ffff).unsigned_abs() % 1_000_000;
            assert_eq!(KeyHashOrSticky::default().partition("t", Some(key), 1_000_000), expected);
        }
    }

    #[test]
    fn sticky_moves_on_with_the_batch_and_never_to_the_same_partition() {
        let sticky = Sticky::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let partition = sticky.partition("t", None, 4);
            assert_eq!(sticky.partition("t", None, 4), partition);
            sticky.batch_done("t", partition, 4);
            assert_ne!(sticky.partition("t", None, 4), partition);
            seen.insert(partition);
        }
        assert_eq!(seen.len(), 4);
        sticky.batch_done("t", 77, 4);
        sticky.batch_done("t", 0, 1);
    }

    #[test]
    fn round_robin_visits_every_partition_in_turn() {
        let turns = RoundRobin::default();
        let visited: Vec<u32> = (0..6).map(|_| turns.partition("t", Some(b"k"), 3)).collect();
        assert_eq!(visited, [0, 1, 2, 0, 1, 2]);
    }
}
