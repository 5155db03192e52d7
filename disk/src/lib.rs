//! The one door to files.
//!
//! Everything that Altair stores goes through [`Disk`] and [`DiskFile`]: `OsDisk` is the operating system,
//! `FaultyDisk` (feature `faulty`) an in-memory twin that loses, tears and refuses writes by a seed. Both are
//! synchronous; an async caller goes through `Io`, which is threads in production and the calling task in simulation.
//!
//! **Invariant:** no other crate touches `std::fs`.

mod aligned;
mod durable_dir;
#[cfg(feature = "faulty")]
pub mod faulty;
pub mod frame;
mod io;
pub mod mutant;
mod os;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use aligned::AlignedBuf;
pub use durable_dir::create_dir_durably;
pub use io::{Io, Submit};
pub use os::OsDisk;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Create the file if it is not there.
    pub create: bool,
    /// Fail with [`DiskError::AlreadyExists`] if the file is there; implies `create`.
    pub create_new: bool,
    /// Allow writes.
    pub write: bool,
    /// Bypass the page cache: buffers, offsets and lengths are multiples of [`DIRECT_ALIGN`]. Opening fails with
    /// [`DiskError::DirectRefused`] where the filesystem does not offer it.
    pub direct: bool,
}

/// Alignment in bytes of buffers, offsets and lengths of direct I/O.
pub const DIRECT_ALIGN: usize = 4096;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// File name without its directory.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// Room on the filesystem that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free for this process.
    pub free: u64,
    /// Size of the filesystem.
    pub total: u64,
}

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space is left on the device.
    #[error("no space left on the device that holds {path}")]
    Full {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file or directory is not there.
    #[error("{path} does not exist")]
    NotFound {
        /// The file or directory.
        path: PathBuf,
    },
    /// `create_new` met an existing file.
    #[error("{path} exists already")]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error("{path} is locked by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The filesystem refuses direct I/O.
    #[error("the filesystem of {path} refuses direct I/O")]
    DirectRefused {
        /// The file.
        path: PathBuf,
    },
    /// Fewer bytes than asked for were there.
    #[error("{path} ends at {len}, wanted {wanted} bytes at {offset}")]
    ShortRead {
        /// The file.
        path: PathBuf,
        /// Offset of the read.
        offset: u64,
        /// Bytes wanted.
        wanted: usize,
        /// Length of the file.
        len: u64,
    },
    /// Any other error of the operating system.
    #[error("{operation} {path}")]
    Io {
        /// Name of the operation, for example "fdatasync".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Result of a disk operation.
pub type Result<T> = std::result::Result<T, DiskError>;

/// Files of one machine. All methods block.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// [`DiskError::NotFound`], [`DiskError::AlreadyExists`], [`DiskError::DirectRefused`], [`DiskError::Full`] or
    /// [`DiskError::Io`].
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn DiskFile>>;
    /// Creates a directory and its parents; fine if it is there. Durable only after [`Disk::sync_dir`] of each parent.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// As the operating system says; the caller must treat it as fatal.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Renames a file, replacing what stands at `to`.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// [`DiskError::NotFound`] or [`DiskError::Io`].
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes a directory with all that it holds; fine if it is not there.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_dir_all(&self, path: &Path) -> Result<()>;
    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// [`DiskError::NotFound`] or [`DiskError::Io`].
    fn list(&self, path: &Path) -> Result<Vec<DirEntry>>;
    /// Room on the filesystem of `path`.
    ///
    /// # Errors
    /// As the operating system says.
    fn space(&self, path: &Path) -> Result<Space>;
    /// Takes an exclusive lock on a file (created if missing) until the guard is dropped or the process ends.
    ///
    /// # Errors
    /// [`DiskError::Locked`] if another holder has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>>;
    /// True if a file or directory stands at `path`.
    fn exists(&self, path: &Path) -> bool;
}

/// A held lock; dropping it releases it.
pub trait DiskLock: Send + Sync + std::fmt::Debug {}

/// One open file. All methods block, take explicit offsets and may be called from several threads; a file has one writer.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Reads from the page cache only: `None` if it would have to wait for the device.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_nowait(&self, buf: &mut [u8], offset: u64) -> Result<Option<usize>>;
    /// Writes all of `buf` at `offset`, extending the file if needed.
    ///
    /// # Errors
    /// [`DiskError::Full`] or [`DiskError::Io`]; how much was written is then unknown.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Writes all of `bufs`, one after the other, at `offset`. Any number of buffers is fine.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn write_vectored_at(&self, bufs: &[&[u8]], offset: u64) -> Result<()>;
    /// Makes the data and what is needed to read it back durable (fdatasync).
    ///
    /// # Errors
    /// Fatal to the broker (I3): the page cache may have dropped the data, so a second call proves nothing.
    fn sync_data(&self) -> Result<()>;
    /// Starts write-back of a range without waiting and without any promise (sync_file_range).
    ///
    /// # Errors
    /// As the operating system says.
    fn start_writeback(&self, offset: u64, len: u64) -> Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Writes zeros over a range, so that later writes into it need no journal.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn zero(&self, offset: u64, len: u64) -> Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> Result<u64>;
    /// True if the file has no bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`DiskError::ShortRead`] at the end of the file, else as [`DiskFile::read_at`].
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
    /// Path that the file was opened by.
    fn path(&self) -> &Path;
}
