//! Which operations of the simulated disk fail, and how many there were.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::failed;
use crate::{DiskError, Result};

/// Kind of a disk operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Opening a file or taking a lock.
    Open,
    /// Creating a file or directory.
    Create,
    /// Reading bytes, lengths or names.
    Read,
    /// Writing bytes or zeros.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file or tree.
    Remove,
    /// Changing a file's length.
    SetLen,
}

impl OpKind {
    /// True if the operation changes what a crash could leave behind.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "fdatasync",
            Self::SyncDir => "fsync directory",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SetLen => "ftruncate",
        }
    }
}

/// An operation that is about to happen.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// Its kind.
    pub kind: OpKind,
    /// The file or directory.
    pub path: &'a Path,
    /// Number of the changing operation, from 1; reads and opens carry the number of the last one before them.
    pub number: u64,
}

/// What a hook wants to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The operation goes on.
    Proceed,
    /// It fails with an input/output error and has no effect.
    Fail,
    /// It fails for want of space and has no effect.
    Full,
    /// Power goes off: this and every later operation fails, until a crash or a kill.
    PowerOff,
}

/// Counts of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStats {
    /// Operations that change something, see [`OpKind::changes`].
    pub changes: u64,
    /// Reads of bytes, lengths or names.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
}

type Hook = Arc<dyn Fn(&Op<'_>) -> Verdict + Send + Sync>;

pub(super) struct Plan {
    pub(super) off: bool,
    pub(super) off_in: Option<u64>,
    pub(super) sync_fails_in: Option<u64>,
    /// Only syncs of files below it count, if it is set.
    pub(super) sync_fails_below: Option<PathBuf>,
    pub(super) write_fails_in: Option<u64>,
    pub(super) read_fails_in: Option<u64>,
    pub(super) capacity: u64,
    pub(super) direct_refused: bool,
    pub(super) cold: bool,
    pub(super) slow: Duration,
    pub(super) hook: Option<Hook>,
    pub(super) stats: DiskStats,
}

impl Plan {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            off: false,
            off_in: None,
            sync_fails_in: None,
            sync_fails_below: None,
            write_fails_in: None,
            read_fails_in: None,
            capacity,
            direct_refused: false,
            cold: false,
            slow: Duration::ZERO,
            hook: None,
            stats: DiskStats::default(),
        }
    }

    /// Ends what does not outlive a process.
    pub(super) fn reset(&mut self) {
        self.off = false;
        self.off_in = None;
        self.sync_fails_in = None;
        self.write_fails_in = None;
        self.read_fails_in = None;
    }

    /// Counts the operation and says whether it may happen.
    pub(super) fn admit(&mut self, kind: OpKind, path: &Path) -> Result<()> {
        self.count(kind);
        if kind.changes() && count_down(&mut self.off_in) {
            self.off = true;
        }
        if self.off {
            return Err(failed(kind, path, "power is off"));
        }
        let Some(hook) = &self.hook else { return Ok(()) };
        match hook(&Op { kind, path, number: self.stats.changes }) {
            Verdict::Proceed => Ok(()),
            Verdict::Fail => Err(failed(kind, path, "the hook's failure")),
            Verdict::Full => Err(DiskError::Full { path: path.to_path_buf() }),
            Verdict::PowerOff => {
                self.off = true;
                Err(failed(kind, path, "power is off"))
            }
        }
    }

    pub(super) fn sync_fails(&mut self, path: &Path) -> bool {
        let counts = self.sync_fails_below.as_ref().is_none_or(|directory| path.starts_with(directory));
        counts && count_down(&mut self.sync_fails_in)
    }

    pub(super) fn write_fails(&mut self) -> bool {
        count_down(&mut self.write_fails_in)
    }

    pub(super) fn read_fails(&mut self) -> bool {
        count_down(&mut self.read_fails_in)
    }

    fn count(&mut self, kind: OpKind) {
        let stats = &mut self.stats;
        stats.changes += u64::from(kind.changes());
        match kind {
            OpKind::Read => stats.reads += 1,
            OpKind::Write => stats.writes += 1,
            OpKind::Sync => stats.syncs += 1,
            OpKind::SyncDir => stats.dir_syncs += 1,
            OpKind::Open | OpKind::Create | OpKind::Rename | OpKind::Remove | OpKind::SetLen => {}
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("off", &self.off).field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// True when the counter reaches its end; it is then cleared.
fn count_down(counter: &mut Option<u64>) -> bool {
    let Some(left) = counter else { return false };
    *left = left.saturating_sub(1);
    let over = *left == 0;
    if over {
        *counter = None;
    }
    over
}
