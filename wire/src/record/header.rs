//! The fixed part of a batch: parse, check, stamp, split. Nothing here inflates or copies.

use bytes::Bytes;

use super::decode::walk;
use super::{BATCH_HEADER_LEN, Compression, MAGIC, RECORD_LEN_MIN, RecordError, inflate_limit};
use crate::ids::{LeaderEpoch, Offset, ProducerId};
use crate::limits::INFLATED_BYTES_MAX;

/// Bytes before the part that the batch length counts.
const LENGTH_PREFIX: usize = 12;
/// Where the checksummed part begins.
const CRC_START: usize = 21;
const ATTRIBUTE_COMPRESSION: i16 = 0b111;
const ATTRIBUTE_APPEND_TIME: i16 = 1 << 3;
/// Transactions and control batches come later; until then no bit but the lowest four means anything.
const ATTRIBUTES_KNOWN: i16 = ATTRIBUTE_COMPRESSION | ATTRIBUTE_APPEND_TIME;

/// The fixed part of a batch, field by field as in the layout of [`crate::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: u64,
    /// Bytes after this field; not negative.
    pub batch_length: i32,
    /// Epoch under which it was appended; −1 before that.
    pub leader_epoch: i32,
    /// Always [`MAGIC`].
    pub magic: i8,
    /// CRC-32C over all that follows it.
    pub crc: u32,
    /// Compression and flags.
    pub attributes: i16,
    /// Record count − 1.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, ms.
    pub base_timestamp: i64,
    /// Largest timestamp, ms.
    pub max_timestamp: i64,
    /// −1 = not idempotent.
    pub producer_id: i64,
    /// −1 = not idempotent.
    pub producer_epoch: i16,
    /// Of the first record; −1 = not idempotent.
    pub base_sequence: i32,
    /// At least 1.
    pub record_count: i32,
}

/// Who wrote a batch and where it stands in that producer's sequence for the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Given by the metadata group.
    pub id: ProducerId,
    /// Raised to fence an older incarnation of the same producer.
    pub epoch: u16,
    /// Sequence of the first record, at most 2³¹ − 1.
    pub first_sequence: u32,
    /// Sequence of the last record; after 2³¹ − 1 comes 0.
    pub last_sequence: u32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may go on beyond the batch or end before it.
    ///
    /// Checks what the header alone can show (magic, that length and counts are possible and agree), neither the
    /// checksum nor the records.
    ///
    /// # Errors
    /// [`RecordError::Truncated`] if fewer than [`BATCH_HEADER_LEN`] bytes are there, otherwise what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let fixed: &[u8; BATCH_HEADER_LEN] = bytes
            .first_chunk()
            .ok_or(RecordError::Truncated { needed: BATCH_HEADER_LEN, have: bytes.len() })?;
        let header = Self {
            base_offset: u64::from_be_bytes(field(fixed, 0)),
            batch_length: i32::from_be_bytes(field(fixed, 8)),
            leader_epoch: i32::from_be_bytes(field(fixed, 12)),
            magic: i8::from_be_bytes(field(fixed, 16)),
            crc: u32::from_be_bytes(field(fixed, 17)),
            attributes: i16::from_be_bytes(field(fixed, CRC_START)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_timestamp: i64::from_be_bytes(field(fixed, 27)),
            max_timestamp: i64::from_be_bytes(field(fixed, 35)),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            record_count: i32::from_be_bytes(field(fixed, 57)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.magic != MAGIC {
            return Err(RecordError::Magic(self.magic));
        }
        if usize::try_from(self.batch_length).is_ok_and(|n| n >= BATCH_HEADER_LEN - LENGTH_PREFIX) {
            self.check_counts()
        } else {
            Err(RecordError::Malformed("the batch length is shorter than the header"))
        }
    }

    fn check_counts(&self) -> Result<(), RecordError> {
        let declared = self.record_count;
        if declared < 1 {
            return Err(RecordError::Count { declared, reason: "at least one is needed" });
        }
        if self.last_offset_delta != declared - 1 {
            return Err(RecordError::Count { declared, reason: "its last offset delta says otherwise" });
        }
        // Offsets are signed in the format, and the one after the last must be expressible too.
        if self.base_offset > i64::MAX.cast_unsigned() - u64::from(declared.cast_unsigned()) {
            return Err(RecordError::Malformed("the base offset is out of range"));
        }
        let idempotent = self.producer_id >= 0;
        if idempotent != (self.producer_epoch >= 0) || idempotent != (self.base_sequence >= 0) {
            return Err(RecordError::Malformed(
                "producer id, epoch and sequence are neither all set nor all absent",
            ));
        }
        Ok(())
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::try_from(self.batch_length).unwrap_or(0) + LENGTH_PREFIX
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset + u64::from(self.last_offset_delta.cast_unsigned()))
    }

    /// Offset after the last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset + u64::from(self.record_count.cast_unsigned()))
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`RecordError::UnknownCompression`]; never for a batch that [`validate_batch`] passed.
    pub fn compression(&self) -> Result<Compression, RecordError> {
        let id = (self.attributes & ATTRIBUTE_COMPRESSION).to_le_bytes()[0];
        Compression::from_id(id).ok_or(RecordError::UnknownCompression(id))
    }

    /// True if every record has the time of its append ([`Self::max_timestamp`]) instead of its own.
    #[must_use]
    pub fn has_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_APPEND_TIME != 0
    }

    /// The idempotent producer that wrote it, if one did.
    #[must_use]
    pub fn producer(&self) -> Option<ProducerStamp> {
        let id = u64::try_from(self.producer_id).ok()?;
        let epoch = u16::try_from(self.producer_epoch).ok()?;
        let first_sequence = u32::try_from(self.base_sequence).ok()?;
        let last = u64::from(first_sequence) + u64::from(self.last_offset_delta.cast_unsigned());
        // Sequences have 31 bits: after i32::MAX comes 0 (KIP-98).
        let last_sequence = u32::try_from(last & u64::from(i32::MAX.cast_unsigned())).ok()?;
        Some(ProducerStamp { id: ProducerId(id), epoch, first_sequence, last_sequence })
    }
}

fn field<const N: usize>(fixed: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&fixed[at..at + N]);
    out
}

/// Checks one batch from outside: exactly `bytes`, nothing before or after it.
///
/// Magic, length, CRC-32C, attributes, and that the declared record count is true (uncompressed: every record is
/// walked) or at least possible (compressed: the broker does not inflate on the data path).
///
/// # Errors
/// The first thing found wrong.
pub fn validate_batch(bytes: &[u8]) -> Result<BatchHeader, RecordError> {
    let header = BatchHeader::parse(bytes)?;
    let total = header.total_len();
    if bytes.len() < total {
        return Err(RecordError::Truncated { needed: total, have: bytes.len() });
    }
    if bytes.len() > total {
        return Err(RecordError::Trailing { extra: bytes.len() - total });
    }
    let computed = crc32c::crc32c(&bytes[CRC_START..]);
    if computed != header.crc {
        return Err(RecordError::Crc { stored: header.crc, computed });
    }
    if header.attributes & !ATTRIBUTES_KNOWN != 0 {
        return Err(RecordError::UnsupportedAttributes(header.attributes));
    }
    let records = &bytes[BATCH_HEADER_LEN..];
    if header.compression()? == Compression::None {
        walk(&header, records, |_| Ok(()))?;
    } else {
        let fit = inflate_limit(records.len(), INFLATED_BYTES_MAX) / RECORD_LEN_MIN;
        if usize::try_from(header.record_count).map_or(true, |n| n > fit) {
            let declared = header.record_count;
            return Err(RecordError::Count { declared, reason: "its bytes cannot inflate to that many" });
        }
    }
    Ok(header)
}

/// Writes where a batch stands in its partition. Both fields lie outside the checksum, which stays valid.
///
/// # Panics
/// If `batch` is shorter than a header: the caller stamps only what [`validate_batch`] passed.
pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    assert!(batch.len() >= BATCH_HEADER_LEN, "only a whole batch is stamped");
    assert!(base_offset.0 <= i64::MAX.cast_unsigned(), "offsets have 63 bits");
    assert!(epoch.0 <= i32::MAX.cast_unsigned(), "leader epochs have 31 bits");
    batch[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.0.to_be_bytes());
}

/// The checksum of a finished batch, written in place; for the builder.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// Cuts concatenated batches into single ones, without a copy. Checks headers and lengths, not checksums
/// ([`validate_batch`] does). After the first error the iterator ends.
#[must_use]
pub fn split_batches(bytes: Bytes) -> BatchIter {
    BatchIter { rest: bytes }
}

/// Made by [`split_batches`].
#[derive(Debug, Clone)]
pub struct BatchIter {
    rest: Bytes,
}

impl Iterator for BatchIter {
    type Item = Result<(BatchHeader, Bytes), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let cut = BatchHeader::parse(&self.rest).and_then(|header| {
            let needed = header.total_len();
            if needed > self.rest.len() {
                return Err(RecordError::Truncated { needed, have: self.rest.len() });
            }
            Ok((header, self.rest.split_to(needed)))
        });
        if cut.is_err() {
            self.rest.clear();
        }
        Some(cut)
    }
}
