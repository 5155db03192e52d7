//! Bytes of a WAL file. Little endian throughout.
//!
//! A file begins with one block of [`BLOCK`] bytes that holds four copies of its header, 1024 bytes apart, so that one
//! lost sector does not take the salt and with it the whole file:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `ALTRWAL1` |
//! | 8 | 2 | format version = 1 |
//! | 10 | 2 | header block length / 64 |
//! | 12 | 4 | flags, bit 0 = written by direct I/O |
//! | 16 | 8 | sequence number of the file |
//! | 24 | 8 | salt: random, new whenever a file is used again |
//! | 32 | 8 | LSN of the first frame |
//! | 40 | 8 | LSN of the last frame of the file before |
//! | 48 | 24 | reserved, 0 |
//! | 72 | 4 | CRC-32C of bytes 0..72 |
//!
//! Frames follow. Each write begins on a block border with a `GroupStart` frame and ends with a `Pad` frame on one. A
//! frame is this header, its body, and zeros to a multiple of 8 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of the body |
//! | 4 | 1 | type, see [`FrameKind`] |
//! | 5 | 1 | flags: bit 1 = entry of openraft itself, bit 2 = relocated, bits 4–5 = payload kind |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 8 | LSN: one more than that of the frame before |
//! | 16 | 8 | group |
//! | 24 | 8 | raft index |
//! | 32 | 8 | raft term |
//! | 40 | 4 | CRC-32C of the body |
//! | 44 | 4 | CRC-32C of the file's salt and bytes 0..44 |
//!
//! | type | index and term | body |
//! |---|---|---|
//! | 0 GroupStart | – | durable LSN u64, first LSN of the write before u64, count u32 (`u32::MAX` = not listed), count × group u64 of the write before |
//! | 1 Entry | of the entry | payload (see `crate::entry`) |
//! | 2 Vote | term of the vote | vote |
//! | 3 Truncate | first index removed | – |
//! | 4 Purge | last entry purged | – |
//! | 5 Committed | last entry known committed | – |
//! | 6 GroupCreate | – | replica u64, topic 16 bytes, partition u32 |
//! | 7 GroupDelete | – | replica u64 |
//! | 255 Pad | – | zeros |
//!
//! The salt in the checksum of every frame makes frames of an earlier use of a file invalid for ever. The list of groups
//! in `GroupStart` tells recovery whose frames a damaged write held.

use bytes::{Buf, BufMut};

/// Size in bytes of a block: the unit in which a file is written.
pub(crate) const BLOCK: usize = disk::DIRECT_ALIGN;
/// Size in bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 48;
/// `count` of a `GroupStart` whose groups are not listed.
const NOT_LISTED: u32 = u32::MAX;
const FILE_MAGIC: &[u8; 8] = b"ALTRWAL1";
const FILE_VERSION: u16 = 1;
const FILE_HEADER: usize = 76;
const HEADER_COPIES: usize = 4;
const HEADER_COPY_STEP: usize = BLOCK / HEADER_COPIES;

/// Flag of a frame whose entry belongs to openraft: blank or membership.
pub(crate) const FLAG_INTERNAL: u8 = 1 << 1;
/// Flag of a frame that repeats an older frame's entry at a newer place.
pub(crate) const FLAG_RELOCATED: u8 = 1 << 2;
const PAYLOAD_KIND_SHIFT: u8 = 4;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Begins a write.
    GroupStart = 0,
    /// One log entry.
    Entry = 1,
    /// A vote.
    Vote = 2,
    /// The log ends before an index.
    Truncate = 3,
    /// The log begins after a position.
    Purge = 4,
    /// A hint: entries up to here are committed.
    Committed = 5,
    /// A group begins; its older frames are nothing to it.
    GroupCreate = 6,
    /// A group ends.
    GroupDelete = 7,
    /// Fills a write up to a block border.
    Pad = 255,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::GroupStart,
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            6 => Self::GroupCreate,
            7 => Self::GroupDelete,
            255 => Self::Pad,
            _ => return None,
        })
    }
}

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_len: u32,
    pub(crate) kind: FrameKind,
    pub(crate) flags: u8,
    pub(crate) lsn: u64,
    pub(crate) group: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) body_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, salt: u64) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        bytes[0..4].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.group.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.index.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.term.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = header_crc(&bytes, salt);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header in these bytes if its checksum holds for this salt.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER], salt: u64) -> Option<Self> {
        let mut rest = &bytes[..];
        let body_len = rest.get_u32_le();
        let kind = rest.get_u8();
        let flags = rest.get_u8();
        rest.advance(2);
        let (lsn, group, index, term) =
            (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let body_crc = rest.get_u32_le();
        if rest.get_u32_le() != header_crc(bytes, salt) {
            return None;
        }
        Some(Self { body_len, kind: FrameKind::from_byte(kind)?, flags, lsn, group, index, term, body_crc })
    }

    /// Length of the whole frame with its padding.
    pub(crate) fn total_len(&self) -> usize {
        frame_len(usize::try_from(self.body_len).unwrap_or(usize::MAX / 2))
    }

    pub(crate) fn payload_kind(&self) -> u8 {
        (self.flags >> PAYLOAD_KIND_SHIFT) & 3
    }

    pub(crate) fn relocated(&self) -> bool {
        self.flags & FLAG_RELOCATED != 0
    }
}

/// Flags of an entry frame.
pub(crate) fn entry_flags(payload_kind: u8, relocated: bool) -> u8 {
    let internal = if payload_kind == crate::entry::KIND_NORMAL { 0 } else { FLAG_INTERNAL };
    let relocated = if relocated { FLAG_RELOCATED } else { 0 };
    (payload_kind << PAYLOAD_KIND_SHIFT) | internal | relocated
}

/// Length of a frame with a body of `body` bytes.
pub(crate) fn frame_len(body: usize) -> usize {
    (FRAME_HEADER + body).next_multiple_of(8)
}

fn header_crc(bytes: &[u8; FRAME_HEADER], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &bytes[..44])
}

/// Body of a `GroupStart`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupStart {
    /// Every frame up to this LSN was on disk before this write began.
    pub(crate) durable_lsn: u64,
    /// First LSN of the write before; 0 if there was none since the WAL was opened.
    pub(crate) previous_first_lsn: u64,
    /// Groups that had frames in the write before, sorted; `None` if they are not listed.
    pub(crate) previous_groups: Option<Vec<u64>>,
}

impl GroupStart {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.durable_lsn);
        out.put_u64_le(self.previous_first_lsn);
        let listed = self.previous_groups.as_ref();
        out.put_u32_le(listed.map_or(NOT_LISTED, |groups| u32::try_from(groups.len()).unwrap_or(NOT_LISTED)));
        for group in listed.into_iter().flatten() {
            out.put_u64_le(*group);
        }
    }

    pub(crate) fn decode(mut body: &[u8]) -> Option<Self> {
        let durable_lsn = body.try_get_u64_le().ok()?;
        let previous_first_lsn = body.try_get_u64_le().ok()?;
        let count = body.try_get_u32_le().ok()?;
        let previous_groups = if count == NOT_LISTED {
            None
        } else {
            let count = usize::try_from(count).ok()?;
            if body.len() != count.checked_mul(8)? {
                return None;
            }
            Some(body.chunks_exact(8).map(|mut group| group.get_u64_le()).collect())
        };
        Some(Self { durable_lsn, previous_first_lsn, previous_groups })
    }
}

/// Header of a WAL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) direct: bool,
    pub(crate) seq: u64,
    pub(crate) salt: u64,
    pub(crate) first_lsn: u64,
    pub(crate) previous_last_lsn: u64,
}

impl FileHeader {
    /// The first block of a file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(HEADER_COPY_STEP);
        copy.put_slice(FILE_MAGIC);
        copy.put_u16_le(FILE_VERSION);
        copy.put_u16_le(64);
        copy.put_u32_le(u32::from(self.direct));
        copy.put_u64_le(self.seq);
        copy.put_u64_le(self.salt);
        copy.put_u64_le(self.first_lsn);
        copy.put_u64_le(self.previous_last_lsn);
        copy.put_bytes(0, 24);
        copy.put_u32_le(crc32c::crc32c(&copy));
        copy.resize(HEADER_COPY_STEP, 0);
        copy.repeat(HEADER_COPIES)
    }

    /// The header of a file, from whichever copy is whole.
    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        block.chunks(HEADER_COPY_STEP).take(HEADER_COPIES).find_map(Self::decode_copy)
    }

    fn decode_copy(copy: &[u8]) -> Option<Self> {
        let (fields, crc) = copy.get(..FILE_HEADER)?.split_at(FILE_HEADER - 4);
        let mut rest = fields;
        let mut crc = crc;
        if crc.get_u32_le() != crc32c::crc32c(fields) || &fields[..8] != FILE_MAGIC {
            return None;
        }
        rest.advance(8);
        if rest.get_u16_le() != FILE_VERSION {
            return None;
        }
        rest.advance(2);
        let direct = rest.get_u32_le() & 1 == 1;
        Some(Self {
            direct,
            seq: rest.get_u64_le(),
            salt: rest.get_u64_le(),
            first_lsn: rest.get_u64_le(),
            previous_last_lsn: rest.get_u64_le(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> FrameHeader {
        FrameHeader {
            body_len: 3,
            kind: FrameKind::Entry,
            flags: entry_flags(crate::entry::KIND_NORMAL, false),
            lsn: 5,
            group: 6,
            index: 7,
            term: 8,
            body_crc: crc32c::crc32c(b"abc"),
        }
    }

    #[test]
    fn golden_bytes_of_a_frame_header() {
        let bytes = header().encode(0x0102_0304);
        assert_eq!(
            bytes,
            [
                3, 0, 0, 0, 1, 0x10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0,
                0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 183, 63, 75, 54, 171, 179, 251, 30
            ]
        );
    }

    #[test]
    fn a_frame_of_another_salt_is_nothing() {
        let bytes = header().encode(1);
        assert_eq!(FrameHeader::decode(&bytes, 1), Some(header()));
        assert_eq!(FrameHeader::decode(&bytes, 2), None);
        assert_eq!(FrameHeader::decode(&[0; FRAME_HEADER], 0), None);
    }

    #[test]
    fn a_file_header_survives_the_loss_of_three_copies() {
        let header = FileHeader { direct: true, seq: 4, salt: 9, first_lsn: 100, previous_last_lsn: 99 };
        let mut block = header.encode();
        assert_eq!(block.len(), BLOCK);
        for copy in 0..HEADER_COPIES - 1 {
            block[copy * HEADER_COPY_STEP..][..HEADER_COPY_STEP].fill(0xff);
            assert_eq!(FileHeader::decode(&block), Some(header));
        }
        block.fill(0);
        assert_eq!(FileHeader::decode(&block), None);
    }

    #[test]
    fn group_start_round_trips() {
        for previous_groups in [None, Some(vec![]), Some(vec![1, 9])] {
            let start = GroupStart { durable_lsn: 4, previous_first_lsn: 2, previous_groups };
            let mut body = Vec::new();
            start.encode(&mut body);
            assert_eq!(GroupStart::decode(&body), Some(start));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: [u8; FRAME_HEADER], block: Vec<u8>, salt: u64) {
            let _ = FrameHeader::decode(&bytes, salt);
            let _ = FileHeader::decode(&block);
            let _ = GroupStart::decode(&block);
        }
    }
}
