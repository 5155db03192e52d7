//! Kafka's key hash, so that a key lands in the same partition whichever client wrote it.

use crate::ids::PartitionIndex;

/// Kafka's seed.
const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// MurmurHash2, 32 bits, with Kafka's seed; signed as Kafka returns it.
///
/// Source of the algorithm: Austin Appleby's public-domain MurmurHash2; of the seed and vectors: Kafka's
/// `org.apache.kafka.common.utils.Utils`.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    // Keys are shorter than 4 GiB; the length is mixed in modulo 2³² as everywhere.
    let length = u32::try_from(data.len() & 0xffff_ffff).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(word);
        let mut k = u32::from_le_bytes(bytes).wrapping_mul(MULTIPLIER);
        k ^= k >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let mut bytes = [0; 4];
        bytes[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(bytes)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 15)).cast_signed()
}

/// The partition of a key in a topic of `partitions` partitions: the positive hash modulo their number.
///
/// # Panics
/// If `partitions` is 0: there is no such topic.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> PartitionIndex {
    assert!(partitions > 0, "a topic has at least one partition");
    PartitionIndex((murmur2(key) & i32::MAX).cast_unsigned() % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_own_vectors_hash_the_same() {
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key), hash, "{:?}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_negative_hash_gives_a_partition_in_range() {
        assert_eq!(
            partition_for_key(b"21", 12),
            PartitionIndex(((-973_932_308_i32 & i32::MAX) % 12).unsigned_abs())
        );
        for n in 1..50 {
            assert!(partition_for_key(b"foobar", n).0 < n);
        }
    }
}
