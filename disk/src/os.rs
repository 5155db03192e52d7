//! The operating system's files.
//!
//! The only place of the workspace that touches `std::fs`. Interrupted calls are repeated and short writes continued;
//! a failed sync is reported and never repeated (I3).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, statvfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev};

use crate::{
    AlignedBuf, DIRECT_ALIGN, DirEntry, Disk, DiskError, DiskFile, DiskLock, OpenOptions, Result, Space,
};

#[expect(clippy::disallowed_types, reason = "this module is the door to files")]
type File = std::fs::File;

/// Buffers of one vectored write; the kernel's own limit (`IOV_MAX`).
const VECTORS_MAX: usize = 1024;

/// Bytes of one write of zeros: large enough to stream, small enough to stay in the L2 cache.
const ZERO_CHUNK: usize = 1 << 20;

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl OsDisk {
    /// The operating system's files.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn DiskFile>> {
        let file = open_file(path, options).map_err(|error| {
            // Filesystems without direct I/O (tmpfs, some overlays) say so with EINVAL; others only at the first
            // write, see `OsFile::failed_write`.
            if options.direct && error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
                return DiskError::DirectRefused { path: path.to_path_buf() };
            }
            failed("open", path, error)
        })?;
        Ok(Arc::new(OsFile { file, path: path.to_path_buf(), direct: options.direct }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(|error| failed("create directory", path, error))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let directory = File::open(path).map_err(|error| failed("open directory", path, error))?;
        directory.sync_all().map_err(|error| failed("fsync directory", path, error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|error| failed("rename", from, error))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path).map_err(|error| failed("remove", path, error))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| failed("remove directory", path, error)),
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let wrap = |error| failed("list", path, error);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(wrap)? {
            let entry = entry.map_err(wrap)?;
            let metadata = match entry.metadata() {
                // Removed between the two calls.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(wrap)?,
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir,
                len: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let found = statvfs(path).map_err(|error| failed("statvfs", path, error.into()))?;
        Ok(Space {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
        let file = open_file(path, options).map_err(|error| failed("open", path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(OsLock { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Err(DiskError::Locked { path: path.to_path_buf() }),
            Err(std::fs::TryLockError::Error(error)) => Err(failed("lock", path, error)),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// The kernel releases the lock when the descriptor is closed.
#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl DiskLock for OsLock {}

#[derive(Debug)]
struct OsFile {
    file: File,
    path: PathBuf,
    direct: bool,
}

impl OsFile {
    fn failed(&self, operation: &'static str, error: io::Error) -> DiskError {
        failed(operation, &self.path, error)
    }

    fn failed_write(&self, error: io::Error, aligned: bool) -> DiskError {
        if self.direct && aligned && error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
            return DiskError::DirectRefused { path: self.path.clone() };
        }
        self.failed("pwrite", error)
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("pread", error)),
            }
            // A direct read that stops within a block met the end of the file; going on would be misaligned.
            if self.direct && !done.is_multiple_of(DIRECT_ALIGN) {
                break;
            }
        }
        Ok(done)
    }

    fn read_nowait(&self, buf: &mut [u8], offset: u64) -> Result<Option<usize>> {
        let mut done = 0;
        while done < buf.len() {
            let mut rest = [IoSliceMut::new(&mut buf[done..])];
            match preadv2(&self.file, &mut rest, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                // The kernel or the filesystem does not know the flag: every read may wait, so none is done here.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(self.failed("preadv2", error.into())),
            }
        }
        Ok(Some(done))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.write_at(&buf[done..], offset + done as u64) {
                Ok(0) => return Err(self.failed("pwrite", ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed_write(error, is_aligned(buf, offset))),
            }
        }
        Ok(())
    }

    fn write_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> Result<()> {
        let mut slices: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        let mut rest = slices.as_mut_slice();
        // Empty buffers at the front would look like a write of nothing.
        IoSlice::advance_slices(&mut rest, 0);
        let mut at = offset;
        while !rest.is_empty() {
            let group = &rest[..rest.len().min(VECTORS_MAX)];
            match pwritev(&self.file, group, at) {
                Ok(0) => return Err(self.failed("pwritev", ErrorKind::WriteZero.into())),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    let aligned = bufs.iter().all(|buf| is_aligned(buf, offset));
                    return Err(self.failed_write(error.into(), aligned));
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.failed("fdatasync", error))
    }

    fn start_writeback(&self, offset: u64, len: u64) -> Result<()> {
        // Linux starts write-back of the dirty pages of the range at once and does not wait (mm/fadvise.c). Pages that
        // are clean leave the cache, so callers name ranges that they have just written.
        let Some(len) = NonZeroU64::new(len) else { return Ok(()) };
        match fadvise(&self.file, offset, Some(len), Advice::DontNeed) {
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(self.failed("fadvise", error.into())),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| self.failed("ftruncate", error))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), offset, len) {
            // Only a hint to lay the blocks out together: the zeros below are what counts.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {}
            Err(error) => return Err(self.failed("fallocate", error.into())),
        }
        let chunk = usize::try_from(len).unwrap_or(ZERO_CHUNK).min(ZERO_CHUNK);
        let zeros = AlignedBuf::zeroed(chunk);
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(chunk).min(chunk);
            self.write_at(&zeros.as_slice()[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|error| self.failed("fstat", error))?.len())
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

fn open_file(path: &Path, options: OpenOptions) -> io::Result<File> {
    let flags = if options.direct { OFlags::DIRECT } else { OFlags::empty() };
    let flags = i32::try_from(flags.bits()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    let creates = options.create || options.create_new;
    File::options()
        .read(true)
        .write(options.write || creates)
        .create(options.create)
        .create_new(options.create_new)
        .truncate(false)
        .custom_flags(flags)
        .open(path)
}

fn is_aligned(buf: &[u8], offset: u64) -> bool {
    buf.as_ptr().align_offset(DIRECT_ALIGN) == 0
        && buf.len().is_multiple_of(DIRECT_ALIGN)
        && offset.is_multiple_of(DIRECT_ALIGN as u64)
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> DiskError {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound => DiskError::NotFound { path },
        ErrorKind::AlreadyExists => DiskError::AlreadyExists { path },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskError::Full { path },
        _ => DiskError::Io { operation, path, source },
    }
}
