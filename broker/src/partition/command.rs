//! The body of a partition's Raft entry: what is proposed, kept in the WAL, sent to followers and applied.
//!
//! Written once by the proposer; the same bytes go to the WAL, over the wire and into `apply`, where batches are cut out
//! of them without a copy. Offsets and leader epochs are *not* in here: `apply` gives them (architecture 14.10).

use bytes::{BufMut, Bytes, BytesMut};
use wire::ids::Offset;

/// Format version that this build writes.
const VERSION: u8 = 1;
/// Bytes before the first item.
pub(crate) const HEADER_LEN: usize = 16;
/// Bytes before each item.
pub(crate) const ITEM_HEADER_LEN: usize = 4;

const KIND_APPEND: u8 = 1;
const KIND_SET_LOG_START: u8 = 2;

/// A decoded entry body.
///
/// | offset | size | field, little endian |
/// |---|---|---|
/// | 0 | 1 | version = 1 |
/// | 1 | 1 | kind: 1 append, 2 set log start |
/// | 2 | 2 | flags = 0 |
/// | 4 | 8 | time_ms i64: the leader's wall clock at the proposal |
/// | 12 | 4 | count of items |
/// | 16 | … | count × (length u32, bytes) |
///
/// An item is one RecordBatch v2 for an append, and the new log start (u64) for a set log start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Append batches in this order.
    Append {
        /// The leader's wall clock, in ms since 1970.
        time_ms: i64,
        /// One RecordBatch v2 each, checked at the edge.
        batches: Vec<Bytes>,
    },
    /// Move the log start; whole segments below it go.
    SetLogStart {
        /// The leader's wall clock, in ms since 1970.
        time_ms: i64,
        /// The new log start offset; one below the present start changes nothing.
        log_start: Offset,
    },
}

/// Why an entry body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Written by a newer version.
    #[error("entry body has version {0}, this build reads {VERSION}")]
    Version(u8),
    /// A kind that this version does not have.
    #[error("entry body has the unknown kind {0}")]
    Kind(u8),
    /// Flags that this version does not have.
    #[error("entry body has unknown flags {0:#06x}")]
    Flags(u16),
    /// Fewer bytes than the fields declare.
    #[error("entry body ends after {have} bytes, {wanted} are declared")]
    Short {
        /// Bytes that are there.
        have: usize,
        /// Bytes that are declared.
        wanted: usize,
    },
    /// Bytes behind the last item, or an item of a wrong length.
    #[error("entry body has items that do not fit its kind")]
    Shape,
}

impl Command {
    /// Encodes the command in one allocation.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Append { time_ms, batches } => encode_append(*time_ms, batches),
            Self::SetLogStart { time_ms, log_start } => {
                let mut body = header(KIND_SET_LOG_START, *time_ms, 1, ITEM_HEADER_LEN + 8);
                body.put_u32_le(8);
                body.put_u64_le(log_start.0);
                body.freeze()
            }
        }
    }

    /// Decodes a body; batches are slices of it.
    ///
    /// # Errors
    /// [`CommandError`]; nothing is allocated by a count whose items are not there.
    pub fn decode(body: &Bytes) -> Result<Self, CommandError> {
        let Some((head, _)) = body.split_first_chunk::<HEADER_LEN>() else {
            return Err(CommandError::Short { have: body.len(), wanted: HEADER_LEN });
        };
        let [version, kind, f0, f1, t0, t1, t2, t3, t4, t5, t6, t7, c0, c1, c2, c3] = *head;
        if version != VERSION {
            return Err(CommandError::Version(version));
        }
        let flags = u16::from_le_bytes([f0, f1]);
        if flags != 0 {
            return Err(CommandError::Flags(flags));
        }
        let time_ms = i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        let batches = items(body, count)?;
        match kind {
            KIND_APPEND => Ok(Self::Append { time_ms, batches }),
            KIND_SET_LOG_START => {
                let [item] = batches.as_slice() else { return Err(CommandError::Shape) };
                let raw: [u8; 8] = item.as_ref().try_into().map_err(|_| CommandError::Shape)?;
                Ok(Self::SetLogStart { time_ms, log_start: Offset(u64::from_le_bytes(raw)) })
            }
            other => Err(CommandError::Kind(other)),
        }
    }
}

/// Encodes an append without building a [`Command`] first.
pub(crate) fn encode_append(time_ms: i64, batches: &[Bytes]) -> Bytes {
    let items: usize = batches.iter().map(|batch| ITEM_HEADER_LEN + batch.len()).sum();
    let count = u32::try_from(batches.len()).unwrap_or(u32::MAX);
    let mut body = header(KIND_APPEND, time_ms, count, items);
    for batch in batches {
        // A batch is at most 8 MiB (checked at the edge), so its length always fits.
        body.put_u32_le(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        body.put_slice(batch);
    }
    body.freeze()
}

fn header(kind: u8, time_ms: i64, count: u32, items: usize) -> BytesMut {
    let mut body = BytesMut::with_capacity(HEADER_LEN + items);
    body.put_u8(VERSION);
    body.put_u8(kind);
    body.put_u16_le(0);
    body.put_i64_le(time_ms);
    body.put_u32_le(count);
    body
}

fn items(body: &Bytes, count: u32) -> Result<Vec<Bytes>, CommandError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let least = count.saturating_mul(ITEM_HEADER_LEN).saturating_add(HEADER_LEN);
    if body.len() < least {
        return Err(CommandError::Short { have: body.len(), wanted: least });
    }
    let mut found = Vec::with_capacity(count);
    let mut at = HEADER_LEN;
    for _ in 0..count {
        let Some((raw, _)) = body.get(at..).and_then(|rest| rest.split_first_chunk::<ITEM_HEADER_LEN>())
        else {
            return Err(CommandError::Short { have: body.len(), wanted: at.saturating_add(ITEM_HEADER_LEN) });
        };
        let length = usize::try_from(u32::from_le_bytes(*raw)).unwrap_or(usize::MAX);
        let start = at.saturating_add(ITEM_HEADER_LEN);
        let end = start.saturating_add(length);
        if end > body.len() {
            return Err(CommandError::Short { have: body.len(), wanted: end });
        }
        found.push(body.slice(start..end));
        at = end;
    }
    if at == body.len() { Ok(found) } else { Err(CommandError::Shape) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn append_has_its_golden_bytes() {
        let command = Command::Append {
            time_ms: 0x0102_0304_0506_0708,
            batches: vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")],
        };
        let golden =
            [1, 1, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 2, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 1, 0, 0, 0, b'c'];
        assert_eq!(command.encode().as_ref(), golden);
        assert_eq!(Command::decode(&Bytes::copy_from_slice(&golden)), Ok(command));
    }

    #[test]
    fn set_log_start_has_its_golden_bytes() {
        let command = Command::SetLogStart { time_ms: 1, log_start: Offset(258) };
        let golden = [1, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(command.encode().as_ref(), golden);
        assert_eq!(Command::decode(&Bytes::copy_from_slice(&golden)), Ok(command));
    }

    #[test]
    fn a_count_without_its_items_is_refused_before_any_allocation() {
        let mut body = Command::Append { time_ms: 0, batches: Vec::new() }.encode().to_vec();
        body[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Command::decode(&Bytes::from(body)), Err(CommandError::Short { .. })));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut body = Command::SetLogStart { time_ms: 0, log_start: Offset(1) }.encode().to_vec();
        body[0] = 2;
        assert_eq!(Command::decode(&Bytes::from(body)), Err(CommandError::Version(2)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..256)) {
            drop(Command::decode(&Bytes::from(body)));
        }

        #[test]
        fn damaged_bodies_never_panic(at in 0usize..40, value in any::<u8>()) {
            let command = Command::Append { time_ms: 7, batches: vec![Bytes::from_static(b"0123456789")] };
            let mut body = command.encode().to_vec();
            if let Some(byte) = body.get_mut(at) {
                *byte = value;
            }
            drop(Command::decode(&Bytes::from(body)));
        }

        #[test]
        fn what_is_encoded_is_decoded(
            time_ms in any::<i64>(),
            batches in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8),
        ) {
            let command = Command::Append { time_ms, batches: batches.into_iter().map(Bytes::from).collect() };
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }
}
