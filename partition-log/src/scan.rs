//! Walks the batches of a log file in order and checks what it hands out.

use std::sync::Arc;

use bytes::Bytes;
use disk::DiskFile;
use wire::ids::Offset;
use wire::record::{BATCH_HEADER_LEN, BatchHeader};

use crate::LogError;

/// Where the checksummed part of a batch begins (table in `wire::record`).
const CRC_START: usize = 21;

/// Least bytes read at once: few system calls, and still in the L2 cache when they are checked.
const CHUNK_MIN: usize = 64 << 10;
/// Most bytes read at once unless one batch is larger.
const CHUNK_MAX: usize = 1 << 20;

/// May the disk be waited for?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Allowed,
    /// Only what the page cache and our own caches hold.
    Never,
}

/// One step of a scan.
#[derive(Debug)]
pub(crate) enum Scanned<T> {
    Batch(T),
    End,
    WouldBlock,
}

/// A position in a log file from which batches are read.
#[derive(Debug)]
pub(crate) struct BatchScan {
    file: Arc<dyn DiskFile>,
    /// First offset of the segment, for errors.
    segment: u64,
    /// Offset that the next batch must have.
    expected: u64,
    /// Position of the next batch.
    position: u64,
    /// End of the bytes that belong to the log.
    limit: u64,
    /// Bytes from `position` on.
    chunk: Bytes,
    chunk_len: usize,
    wait: Wait,
}

impl BatchScan {
    /// A scan of `file` from `position`, where the batch with first offset `expected` begins, to `limit`.
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        segment: u64,
        expected: u64,
        position: u64,
        limit: u64,
    ) -> Self {
        let (chunk, chunk_len, wait) = (Bytes::new(), CHUNK_MAX, Wait::Allowed);
        Self { file, segment, expected, position, limit, chunk, chunk_len, wait }
    }

    /// Sets how much is read at once, within bounds.
    pub(crate) fn chunk_len(mut self, len: usize) -> Self {
        self.chunk_len = len.clamp(CHUNK_MIN, CHUNK_MAX);
        self
    }

    pub(crate) fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Offset after the last batch handed out or skipped.
    pub(crate) fn offset(&self) -> u64 {
        self.expected
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Passes over batches that end at or below `offset`. Their headers must fit in the chain, their records are not
    /// checked; a false header among them shows in the chain or in the checksum of the first batch handed out.
    pub(crate) fn skip_below(&mut self, offset: u64) -> Result<Scanned<()>, LogError> {
        loop {
            match self.peek()? {
                Scanned::Batch(header) if header.next_offset().0 <= offset => {
                    let total = header.total_len();
                    if !self.fill(total)? {
                        return Ok(Scanned::WouldBlock);
                    }
                    self.take(&header);
                }
                Scanned::Batch(_) => return Ok(Scanned::Batch(())),
                Scanned::End => return Ok(Scanned::End),
                Scanned::WouldBlock => return Ok(Scanned::WouldBlock),
            }
        }
    }

    /// The header of the next batch, which stays the next.
    pub(crate) fn peek(&mut self) -> Result<Scanned<BatchHeader>, LogError> {
        if self.position == self.limit {
            return Ok(Scanned::End);
        }
        if !self.fill(BATCH_HEADER_LEN)? {
            return Ok(Scanned::WouldBlock);
        }
        let Ok(header) = BatchHeader::parse(&self.chunk) else {
            return Err(self.corrupt("no batch header where one must be"));
        };
        if header.base_offset != self.expected {
            return Err(self.corrupt("the batch has another offset"));
        }
        if header.total_len() as u64 > self.limit - self.position {
            return Err(self.corrupt("the batch is longer than the segment"));
        }
        Ok(Scanned::Batch(header))
    }

    /// The next batch, its checksum verified.
    pub(crate) fn next(&mut self) -> Result<Scanned<(BatchHeader, Bytes)>, LogError> {
        let header = match self.peek()? {
            Scanned::Batch(header) => header,
            Scanned::End => return Ok(Scanned::End),
            Scanned::WouldBlock => return Ok(Scanned::WouldBlock),
        };
        if !self.fill(header.total_len())? {
            return Ok(Scanned::WouldBlock);
        }
        let checked = self.chunk.get(CRC_START..header.total_len()).unwrap_or_default();
        if crc32c::crc32c(checked) != header.crc {
            return Err(self.corrupt("the checksum of the batch does not match"));
        }
        let batch = self.take(&header);
        Ok(Scanned::Batch((header, batch)))
    }

    /// First offset of the segment.
    pub(crate) fn segment(&self) -> Offset {
        Offset(self.segment)
    }

    pub(crate) fn corrupt(&self, what: &'static str) -> LogError {
        LogError::Corrupt { segment: Offset(self.segment), at: Offset(self.expected), what }
    }

    fn take(&mut self, header: &BatchHeader) -> Bytes {
        let batch = self.chunk.split_to(header.total_len());
        self.position += batch.len() as u64;
        self.expected = header.next_offset().0;
        batch
    }

    /// Makes `needed` bytes present. False if that would mean waiting.
    fn fill(&mut self, needed: usize) -> Result<bool, LogError> {
        if self.chunk.len() >= needed {
            return Ok(true);
        }
        let left = usize::try_from(self.limit - self.position).unwrap_or(usize::MAX);
        if left < needed {
            return Err(self.corrupt("the segment ends within a batch"));
        }
        let mut buf = vec![0; left.min(self.chunk_len.max(needed))];
        let read = match self.wait {
            Wait::Allowed => self.file.read_at(&mut buf, self.position)?,
            Wait::Never => match self.file.read_nowait(&mut buf, self.position)? {
                Some(read) => read,
                None => return Ok(false),
            },
        };
        if read < buf.len() {
            return Err(self.corrupt("the file is shorter than the log"));
        }
        self.chunk = Bytes::from(buf);
        Ok(true)
    }
}
