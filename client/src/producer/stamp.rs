//! Producer id and sequence of an encoded batch.
//!
//! Batches are encoded and compressed where records are sent, before their sequence is known; the sequence is written
//! when the batch takes its place in the order. A batch that certainly was not written may be stamped again.

use bytes::{Bytes, BytesMut};
use wire::ids::ProducerId;
use wire::record::BATCH_HEADER_LEN;

/// Positions in the header of a record batch v2 (big endian).
///
/// | bytes | field |
/// |---|---|
/// | 17..21 | CRC-32C of everything from byte 21 |
/// | 43..51 | producer id |
/// | 51..53 | producer epoch |
/// | 53..57 | base sequence |
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const PRODUCER_AT: usize = 43;

/// An idempotent producer as the brokers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: u16,
}

/// Writes identity and first sequence into a batch. Copies it only if someone else still holds its bytes.
pub(crate) fn stamp(batch: Bytes, identity: Identity, sequence: u32) -> Bytes {
    assert!(batch.len() >= BATCH_HEADER_LEN, "the builder makes whole batches");
    let mut bytes = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    let mut fields = [0_u8; 14];
    fields[..8].copy_from_slice(&identity.id.0.to_be_bytes());
    fields[8..10].copy_from_slice(&identity.epoch.to_be_bytes());
    fields[10..].copy_from_slice(&sequence.to_be_bytes());
    bytes[PRODUCER_AT..PRODUCER_AT + fields.len()].copy_from_slice(&fields);
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use wire::record::{Compression, RecordBatchBuilder, validate_batch};

    use super::*;

    #[test]
    fn a_stamped_batch_is_the_one_the_builder_would_have_made() {
        for compression in Compression::ALL {
            let mut plain = RecordBatchBuilder::new(compression);
            plain.push(5, Some(b"key"), Some(&[7; 500]), &[("h", b"v")]);
            let direct = plain.clone().producer(ProducerId(9), 3, 77).build().unwrap();
            let first = stamp(plain.build().unwrap(), Identity { id: ProducerId(1), epoch: 0 }, 1);
            let held = first.clone();
            let again = stamp(first, Identity { id: ProducerId(9), epoch: 3 }, 77);
            assert_eq!(again, direct);
            assert_eq!(validate_batch(&again).unwrap().base_sequence, 77);
            assert_eq!(validate_batch(&held).unwrap().base_sequence, 1, "the sent bytes stay as they were");
        }
    }
}
