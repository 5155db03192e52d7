//! Record batches in the layout of Kafka's message format v2: how records travel and rest.
//!
//! A batch is encoded once, by the SDK or at the edge, checked once at the edge ([`validate_batch`]) and never encoded
//! again. Only the base offset and the leader epoch are written later ([`stamp`]); both lie outside the checksum.
//!
//! All integers are big endian; `varint` and `varlong` are zigzag base-128 as in protocol buffers. Source of the layout:
//! <https://kafka.apache.org/documentation/#messageformat> and KIP-98.
//!
//! | Offset | Bytes | Field | In Altair |
//! |---:|---:|---|---|
//! | 0 | 8 | base offset | 0 from producers; stamped at apply |
//! | 8 | 4 | batch length | bytes after this field: the whole batch is this + 12 |
//! | 12 | 4 | leader epoch | −1 from producers; stamped at apply |
//! | 16 | 1 | magic | 2 |
//! | 17 | 4 | CRC-32C | over everything from byte 21 to the end |
//! | 21 | 2 | attributes | bits 0–2 compression, bit 3 timestamp type (1 = append time), bit 4 transactional, bit 5 control |
//! | 23 | 4 | last offset delta | record count − 1 |
//! | 27 | 8 | base timestamp | of the first record, ms since the Unix epoch |
//! | 35 | 8 | max timestamp | largest in the batch |
//! | 43 | 8 | producer id | −1 = not idempotent |
//! | 51 | 2 | producer epoch | −1 = not idempotent |
//! | 53 | 4 | base sequence | of the first record; −1 = not idempotent |
//! | 57 | 4 | record count | at least 1 |
//! | 61 | … | records | compressed as one block if the attributes say so |
//!
//! One record, inside the (inflated) record section:
//!
//! | Field | Type | Note |
//! |---|---|---|
//! | length | varint | bytes after this field |
//! | attributes | i8 | unused, 0 |
//! | timestamp delta | varlong | to the base timestamp |
//! | offset delta | varint | position in the batch |
//! | key length, key | varint, bytes | −1 = null |
//! | value length, value | varint, bytes | −1 = null |
//! | header count | varint | then per header: key length, key (UTF-8), value length (−1 = null), value |

mod builder;
mod compression;
mod decode;
mod header;
#[cfg(test)]
mod tests;
mod varint;

pub use builder::RecordBatchBuilder;
pub use compression::{Compression, inflate_limit};
pub use decode::{OwnedRecord, decode_records};
pub use header::{BatchHeader, BatchIter, ProducerStamp, split_batches, stamp, validate_batch};

/// Length of everything before the records.
pub const BATCH_HEADER_LEN: usize = 61;

/// The only batch format there is here; 0 and 1 are Kafka's message sets of before 2017.
pub const MAGIC: i8 = 2;

/// Shortest record there can be: length, attributes, two deltas, two lengths of −1, header count, one byte each.
pub(crate) const RECORD_LEN_MIN: usize = 7;

/// Why bytes are not a record batch, or records cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the batch does.
    #[error("record batch is cut short: {needed} bytes needed, {have} there")]
    Truncated {
        /// Bytes that the batch needs, as far as is known.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// There are bytes after the batch.
    #[error("{extra} bytes follow the record batch")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Not format version 2.
    #[error("record batch has format version {0}, only 2 is supported")]
    Magic(i8),
    /// The checksum does not match: the bytes were damaged.
    #[error("record batch fails its checksum: stored {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// In the header.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// Compression type 5, 6 or 7.
    #[error("record batch has unknown compression {0}")]
    UnknownCompression(u8),
    /// Transactional and control batches, and bits without a meaning.
    #[error("record batch has unsupported attributes {0:#06x}")]
    UnsupportedAttributes(i16),
    /// The declared number of records does not agree with the rest of the batch.
    #[error("record batch declares {declared} records, {reason}")]
    Count {
        /// Record count of the header.
        declared: i32,
        /// What it disagrees with.
        reason: &'static str,
    },
    /// A field holds what it cannot hold.
    #[error("record batch is malformed: {0}")]
    Malformed(&'static str),
    /// The compressed block does not inflate.
    #[error("record batch does not inflate as {compression}")]
    Inflate {
        /// As declared.
        compression: Compression,
        /// From the codec.
        #[source]
        source: std::io::Error,
    },
    /// The block inflates to more than allowed; see [`inflate_limit`].
    #[error("record batch inflates to more than {limit} bytes")]
    InflatedTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// A batch without records was asked for.
    #[error("a record batch needs at least one record")]
    Empty,
    /// The records do not fit in one batch (2³¹ − 1 bytes or records).
    #[error("the records do not fit in one batch")]
    TooLarge,
    /// The block could not be compressed.
    #[error("compressing with {compression}")]
    Deflate {
        /// As asked for.
        compression: Compression,
        /// From the codec.
        #[source]
        source: std::io::Error,
    },
}
