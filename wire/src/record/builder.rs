//! Encoding: records into one batch.

use bytes::Bytes;

use super::compression::{Compression, deflate, inflate_limit};
use super::header::seal;
use super::{BATCH_HEADER_LEN, MAGIC, RecordError, varint};
use crate::ids::ProducerId;
use crate::limits::INFLATED_BYTES_MAX;

/// Collects records and encodes them as one batch.
///
/// ```
/// use wire::record::{Compression, RecordBatchBuilder, validate_batch};
/// let mut builder = RecordBatchBuilder::new(Compression::Lz4);
/// builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[("trace", b"42")]);
/// let batch = builder.build()?;
/// assert_eq!(validate_batch(&batch)?.record_count, 1);
/// # Ok::<(), wire::record::RecordError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RecordBatchBuilder {
    compression: Compression,
    producer: Option<(ProducerId, u16, u32)>,
    records: Vec<u8>,
    count: usize,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl RecordBatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            producer: None,
            records: Vec::new(),
            count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
        }
    }

    /// Marks the batch as written by an idempotent producer; `base_sequence` (at most 2³¹ − 1) is the first record's.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: u16, base_sequence: u32) -> Self {
        self.producer = Some((id, epoch, base_sequence));
        self
    }

    /// Adds a record; `timestamp_ms` is since the Unix epoch.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
            self.max_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        // Wrapping: two timestamps may lie 2⁶⁴ ms apart, and the decoder adds the delta the same way.
        let delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        let body = 1
            + varint::len(delta)
            + varint::len(signed(self.count))
            + nullable_len(key)
            + nullable_len(value)
            + varint::len(signed(headers.len()))
            + headers
                .iter()
                .map(|(name, value)| nullable_len(Some(name.as_bytes())) + nullable_len(Some(value)))
                .sum::<usize>();
        let out = &mut self.records;
        out.reserve(body + 5);
        varint::put(out, signed(body));
        out.push(0);
        varint::put(out, delta);
        varint::put(out, signed(self.count));
        put_nullable(out, key);
        put_nullable(out, value);
        varint::put(out, signed(headers.len()));
        for (name, value) in headers {
            put_nullable(out, Some(name.as_bytes()));
            put_nullable(out, Some(value));
        }
        self.count += 1;
    }

    /// Records so far.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.count
    }

    /// True before the first [`push`](Self::push).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch if nothing could be compressed: an upper bound but for a few bytes of codec framing.
    #[must_use]
    pub fn estimated_bytes(&self) -> usize {
        BATCH_HEADER_LEN + self.records.len()
    }

    /// Encodes the batch, with base offset 0 and leader epoch −1.
    ///
    /// Records that compression does not make smaller, or makes so small that a reader would take them for a
    /// decompression bomb ([`inflate_limit`]), are stored uncompressed.
    ///
    /// # Errors
    /// [`RecordError::Empty`], [`RecordError::TooLarge`], [`RecordError::Deflate`].
    pub fn build(self) -> Result<Bytes, RecordError> {
        if self.count == 0 {
            return Err(RecordError::Empty);
        }
        let (compression, block) = self.compressed()?;
        let count = i32::try_from(self.count).map_err(|_| RecordError::TooLarge)?;
        let length = i32::try_from(BATCH_HEADER_LEN - 12 + block.len()).map_err(|_| RecordError::TooLarge)?;
        let (id, epoch, sequence) = match self.producer {
            None => (-1, -1, -1),
            Some((id, epoch, sequence)) => (
                i64::try_from(id.0).map_err(|_| RecordError::Malformed("the producer id exceeds 63 bits"))?,
                i16::try_from(epoch)
                    .map_err(|_| RecordError::Malformed("the producer epoch exceeds 15 bits"))?,
                i32::try_from(sequence)
                    .map_err(|_| RecordError::Malformed("the sequence exceeds 31 bits"))?,
            ),
        };
        let mut out = Vec::with_capacity(BATCH_HEADER_LEN + block.len());
        out.extend_from_slice(&0_u64.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&i16::from(compression.id()).to_be_bytes());
        out.extend_from_slice(&(count - 1).to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        debug_assert_eq!(out.len(), BATCH_HEADER_LEN);
        out.extend_from_slice(&block);
        seal(&mut out);
        Ok(out.into())
    }

    fn compressed(&self) -> Result<(Compression, std::borrow::Cow<'_, [u8]>), RecordError> {
        let raw = self.records.as_slice();
        if self.compression == Compression::None {
            return Ok((Compression::None, raw.into()));
        }
        let block = deflate(self.compression, raw)?;
        if block.len() >= raw.len() || raw.len() > inflate_limit(block.len(), INFLATED_BYTES_MAX) {
            return Ok((Compression::None, raw.into()));
        }
        Ok((self.compression, block.into()))
    }
}

/// Lengths of things in memory fit in 63 bits.
fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varint::len(signed(b.len())) + b.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(b) => {
            varint::put(out, signed(b.len()));
            out.extend_from_slice(b);
        }
    }
}
