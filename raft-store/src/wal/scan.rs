//! Walks the frames of one WAL file. Reads only what it needs, in large pieces.

use std::sync::Arc;

use disk::mutant::{self, Mutant};
use disk::{DiskError, DiskFile};

use super::frame::{BLOCK, FRAME_HEADER, FrameHeader, FrameKind, GroupStart};

/// Bytes read at a time.
const PIECE: usize = 4 << 20;

/// One file, as far as it was read.
pub(crate) struct FileImage {
    file: Arc<dyn DiskFile>,
    bytes: Vec<u8>,
    filled: usize,
    length: usize,
}

/// What stands at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// A frame whose checksums hold.
    Good(FrameHeader),
    /// A header that holds with a body that does not.
    BadBody(FrameHeader),
    /// No header.
    Bad,
}

impl FileImage {
    /// `buffer` is used again from file to file.
    pub(crate) fn new(file: Arc<dyn DiskFile>, buffer: Vec<u8>) -> Result<Self, DiskError> {
        let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let mut bytes = buffer;
        if bytes.len() < length.min(PIECE) {
            bytes.resize(length.min(PIECE), 0);
        }
        Ok(Self { file, bytes, filled: 0, length })
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Up to `len` bytes from `position`; fewer at the end of the file.
    pub(crate) fn bytes(&mut self, position: usize, len: usize) -> Result<&[u8], DiskError> {
        let end = position.saturating_add(len).min(self.length);
        while self.filled < end {
            let next = (self.filled + PIECE).min(self.length);
            if self.bytes.len() < next {
                self.bytes.resize(next, 0);
            }
            let read = self.file.read_at(&mut self.bytes[self.filled..next], self.filled as u64)?;
            if read < next - self.filled {
                self.length = self.filled + read;
            }
            self.filled += read;
            if read == 0 {
                break;
            }
        }
        let end = end.min(self.filled);
        Ok(self.bytes.get(position..end).unwrap_or(&[]))
    }

    /// The frame at `position`.
    pub(crate) fn frame(&mut self, position: usize, salt: u64) -> Result<Candidate, DiskError> {
        let Some(header) = self.bytes(position, FRAME_HEADER)?.first_chunk().copied() else {
            return Ok(Candidate::Bad);
        };
        match FrameHeader::decode(&header, salt) {
            Some(header) => self.check_body(position, header),
            None => Ok(Candidate::Bad),
        }
    }

    fn check_body(&mut self, position: usize, header: FrameHeader) -> Result<Candidate, DiskError> {
        // A header that holds was written by us, so its length is honest; it may still lead behind a file that was cut.
        let body = self.body(position, &header)?;
        let whole = body.len() == usize::try_from(header.body_len).unwrap_or(usize::MAX);
        let sound = crc32c::crc32c(body) == header.body_crc || mutant::on(Mutant::BadCrcAccepted);
        let good = whole && sound;
        Ok(if good { Candidate::Good(header) } else { Candidate::BadBody(header) })
    }

    pub(crate) fn body(&mut self, position: usize, header: &FrameHeader) -> Result<&[u8], DiskError> {
        self.bytes(position + FRAME_HEADER, usize::try_from(header.body_len).unwrap_or(usize::MAX))
    }

    /// The frame at `position` if one flipped bit in its header explains why nothing stands there.
    ///
    /// 384 candidates against a checksum of 32 bits and a known LSN: a wrong one is a matter of 2^-87.
    pub(crate) fn mend(&mut self, position: usize, salt: u64, lsn: u64) -> Result<Candidate, DiskError> {
        let Some(bytes) = self.bytes(position, FRAME_HEADER)?.first_chunk::<FRAME_HEADER>().copied() else {
            return Ok(Candidate::Bad);
        };
        for bit in 0..FRAME_HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let header = FrameHeader::decode(&flipped, salt).filter(|header| header.lsn == lsn);
            if let Some(header) = header {
                return self.check_body(position, header);
            }
        }
        Ok(Candidate::Bad)
    }

    /// A write after `position` that began when `lsn` was durable already.
    pub(crate) fn proves_durable(&mut self, position: usize, salt: u64, lsn: u64) -> Result<bool, DiskError> {
        let mut at = (position + 1).next_multiple_of(BLOCK);
        while at + FRAME_HEADER <= self.length {
            if let Candidate::Good(header) = self.frame(at, salt)?
                && header.kind == FrameKind::GroupStart
                && header.lsn > lsn
            {
                let start = GroupStart::decode(self.body(at, &header)?);
                if start.is_some_and(|start| start.durable_lsn >= lsn) {
                    return Ok(true);
                }
            }
            at += BLOCK;
        }
        Ok(false)
    }

    /// The next frame after `position` with an LSN in `lsns`.
    pub(crate) fn next_frame(
        &mut self,
        position: usize,
        salt: u64,
        lsns: std::ops::Range<u64>,
    ) -> Result<Option<(usize, FrameHeader)>, DiskError> {
        let mut at = position + 8;
        while at + FRAME_HEADER <= self.length {
            match self.frame(at, salt)? {
                Candidate::Good(header) | Candidate::BadBody(header) if lsns.contains(&header.lsn) => {
                    return Ok(Some((at, header)));
                }
                _ => at += 8,
            }
        }
        Ok(None)
    }
}
