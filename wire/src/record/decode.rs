//! Decoding: one batch into its records.

use bytes::Bytes;

use super::compression::inflate;
use super::header::{BatchHeader, validate_batch};
use super::varint::Cursor;
use super::{BATCH_HEADER_LEN, Compression, RECORD_LEN_MIN, RecordError};
use crate::ids::Offset;

/// A record as read back. The byte strings share one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Position in the partition.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch: the record's own, or of its append.
    pub timestamp_ms: i64,
    /// Absent = null key.
    pub key: Option<Bytes>,
    /// Absent = null value.
    pub value: Option<Bytes>,
    /// In the order written; a null header value reads as empty.
    pub headers: Vec<(String, Bytes)>,
}

/// A record still inside its batch.
pub(crate) struct RecordView<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    /// Header count and the headers' bytes, already checked.
    headers: (usize, Cursor<'a>),
}

/// Checks and decodes exactly one batch.
///
/// # Errors
/// As [`validate_batch`], and if the records do not inflate within `max_inflated` bytes (the ratio is bounded too, see
/// [`super::inflate_limit`]) or do not agree with the header.
pub fn decode_records(batch: &[u8], max_inflated: usize) -> Result<Vec<OwnedRecord>, RecordError> {
    let header = validate_batch(batch)?;
    let block = &batch[BATCH_HEADER_LEN..];
    let records = match header.compression()? {
        Compression::None => Bytes::copy_from_slice(block),
        compressed => Bytes::from(inflate(compressed, block, max_inflated)?),
    };
    let count = usize::try_from(header.record_count).unwrap_or(0);
    // The count is the sender's word: reserve no more than the bytes that are there can hold.
    let mut out = Vec::with_capacity(count.min(records.len() / RECORD_LEN_MIN));
    walk(&header, &records, |view| {
        out.push(owned(&header, &records, &view)?);
        Ok(())
    })?;
    Ok(out)
}

/// Visits every record of an inflated record section and checks that exactly the declared ones are there.
pub(crate) fn walk<'a>(
    header: &BatchHeader,
    records: &'a [u8],
    mut visit: impl FnMut(RecordView<'a>) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let declared = header.record_count;
    let fit = records.len() / RECORD_LEN_MIN;
    if usize::try_from(declared).map_or(true, |n| n > fit) {
        return Err(RecordError::Count { declared, reason: "its bytes cannot hold that many" });
    }
    let mut cursor = Cursor::new(records);
    for expected in 0..declared {
        let view = parse_record(&mut cursor)?;
        if view.offset_delta != expected {
            return Err(RecordError::Malformed("offset deltas do not count up from 0"));
        }
        visit(view)?;
    }
    if cursor.remaining() > 0 {
        return Err(RecordError::Count { declared, reason: "but more bytes follow them" });
    }
    Ok(())
}

fn parse_record<'a>(cursor: &mut Cursor<'a>) -> Result<RecordView<'a>, RecordError> {
    let length = usize::try_from(cursor.varint()?)
        .map_err(|_| RecordError::Malformed("the length of a record is negative"))?;
    let mut body = Cursor::new(cursor.take(length)?);
    body.byte()?;
    let timestamp_delta = body.varlong()?;
    let offset_delta = body.varint()?;
    let key = body.nullable_bytes()?;
    let value = body.nullable_bytes()?;
    let header_count = usize::try_from(body.varint()?)
        .map_err(|_| RecordError::Malformed("the header count is negative"))?;
    let headers = body;
    for _ in 0..header_count {
        next_header(&mut body)?;
    }
    if body.remaining() > 0 {
        return Err(RecordError::Malformed("bytes follow the last header of a record"));
    }
    Ok(RecordView { timestamp_delta, offset_delta, key, value, headers: (header_count, headers) })
}

fn next_header<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, &'a [u8]), RecordError> {
    let key = cursor.nullable_bytes()?.ok_or(RecordError::Malformed("a header key is null"))?;
    let key = std::str::from_utf8(key).map_err(|_| RecordError::Malformed("a header key is not UTF-8"))?;
    Ok((key, cursor.nullable_bytes()?.unwrap_or_default()))
}

fn owned(header: &BatchHeader, all: &Bytes, view: &RecordView<'_>) -> Result<OwnedRecord, RecordError> {
    let (count, mut cursor) = view.headers;
    // Each header takes at least two bytes, which parse_record has seen.
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let (key, value) = next_header(&mut cursor)?;
        headers.push((key.to_owned(), all.slice_ref(value)));
    }
    let timestamp_ms = if header.has_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(view.timestamp_delta)
    };
    Ok(OwnedRecord {
        offset: Offset(header.base_offset + u64::from(view.offset_delta.cast_unsigned())),
        timestamp_ms,
        key: view.key.map(|bytes| all.slice_ref(bytes)),
        value: view.value.map(|bytes| all.slice_ref(bytes)),
        headers,
    })
}
