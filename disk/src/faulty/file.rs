//! Handles of the simulated disk.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::content::{Content, PAGE};
use super::plan::OpKind;
use super::{FaultyDisk, failed, lock};
use crate::{DIRECT_ALIGN, DiskError, DiskFile, DiskLock, Result};

/// Zeros are written in pieces of this size.
const ZERO_CHUNK: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct FaultyFile {
    pub(super) disk: FaultyDisk,
    pub(super) content: Arc<Mutex<Content>>,
    pub(super) path: PathBuf,
    pub(super) life: u64,
    pub(super) writable: bool,
    pub(super) direct: bool,
}

impl FaultyFile {
    fn check_direct(&self, kind: OpKind, buf: &[u8], offset: u64) -> Result<()> {
        let aligned = buf.as_ptr().align_offset(DIRECT_ALIGN) == 0
            && buf.len().is_multiple_of(DIRECT_ALIGN)
            && offset.is_multiple_of(DIRECT_ALIGN as u64);
        if self.direct && !aligned {
            return Err(failed(kind, &self.path, "direct I/O must be aligned"));
        }
        Ok(())
    }

    fn check_writable(&self, kind: OpKind) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        let source = io::Error::from(ErrorKind::PermissionDenied);
        Err(DiskError::Io { operation: kind.name(), path: self.path.clone(), source })
    }

    /// Writes the pieces one after the other as one operation.
    fn write(&self, pieces: &[&[u8]], offset: u64) -> Result<()> {
        self.check_writable(OpKind::Write)?;
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut world = self.disk.begin(OpKind::Write, &self.path, Some(self.life))?;
        let fails = world.plan.write_fails();
        let landing =
            if fails { usize::try_from(world.seed.below(total as u64 + 1)).unwrap_or(0) } else { total };
        let mut content = lock(&self.content);
        let added = content.pages_added(offset, landing as u64);
        if (world.pages_used + added) * PAGE as u64 > world.plan.capacity {
            return Err(DiskError::Full { path: self.path.clone() });
        }
        world.pages_used += added;
        world.plan.stats.bytes_written += landing as u64;
        drop(world);
        let (mut at, mut left) = (offset, landing);
        for piece in pieces {
            let count = piece.len().min(left);
            content.write(&piece[..count], at, self.disk.shared.track);
            at += count as u64;
            left -= count;
        }
        if fails {
            return Err(failed(OpKind::Write, &self.path, "planned failure"));
        }
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.check_direct(OpKind::Read, buf, offset)?;
        let mut world = self.disk.begin(OpKind::Read, &self.path, Some(self.life))?;
        if world.plan.read_fails() {
            return Err(failed(OpKind::Read, &self.path, "planned failure"));
        }
        drop(world);
        Ok(lock(&self.content).read(buf, offset))
    }

    fn read_nowait(&self, buf: &mut [u8], offset: u64) -> Result<Option<usize>> {
        if self.disk.world().plan.cold {
            return Ok(None);
        }
        self.read_at(buf, offset).map(Some)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_vectored_at(&[buf], offset)
    }

    fn write_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> Result<()> {
        for buf in bufs {
            self.check_direct(OpKind::Write, buf, offset)?;
        }
        self.write(bufs, offset)
    }

    fn sync_data(&self) -> Result<()> {
        let mut world = self.disk.begin(OpKind::Sync, &self.path, Some(self.life))?;
        let mut content = lock(&self.content);
        if world.plan.sync_fails(&self.path) {
            content.fail_sync();
            return Err(failed(OpKind::Sync, &self.path, "planned failure"));
        }
        content.sync();
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> Result<()> {
        // A hint without a promise: an unsynced sector may land at a crash anyway.
        drop(self.disk.begin(OpKind::Open, &self.path, Some(self.life))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.check_writable(OpKind::SetLen)?;
        let mut world = self.disk.begin(OpKind::SetLen, &self.path, Some(self.life))?;
        let mut content = lock(&self.content);
        let before = content.pages();
        content.set_len(len, self.disk.shared.track);
        let freed = before.saturating_sub(content.pages());
        world.pages_used = world.pages_used.saturating_sub(freed);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let zeros = [0; ZERO_CHUNK];
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        let mut pieces: Vec<&[u8]> = vec![&zeros; count / ZERO_CHUNK];
        pieces.push(&zeros[..count % ZERO_CHUNK]);
        self.write(&pieces, offset)
    }

    fn len(&self) -> Result<u64> {
        drop(self.disk.begin(OpKind::Read, &self.path, Some(self.life))?);
        Ok(lock(&self.content).len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.read_at(buf, offset)?;
        if read < buf.len() {
            let (path, wanted) = (self.path.clone(), buf.len());
            return Err(DiskError::ShortRead { path, offset, wanted, len: offset + read as u64 });
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Debug)]
pub(super) struct FaultyLock {
    pub(super) disk: FaultyDisk,
    pub(super) path: PathBuf,
    pub(super) life: u64,
}

impl DiskLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.life == self.life {
            world.locks.remove(&self.path);
        }
    }
}
