//! Where a run keeps its data: a directory of its own, removed at the end; what a killed run left is removed by the next one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Beginning of the names of such directories.
const PREFIX: &str = "altair-chaos-run-";
/// File whose lock is held while the run lives.
const LOCK: &str = "lock";

/// A directory of one run. Dropping it removes it with everything in it.
#[derive(Debug)]
pub struct WorkDir {
    dir: tempfile::TempDir,
    #[expect(clippy::disallowed_types, reason = "a lock on a file is one of the operating system's")]
    _lock: std::fs::File,
}

impl WorkDir {
    /// Makes a directory below the system's one for temporary files.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make() -> Result<Self> {
        Self::make_in(&std::env::temp_dir())
    }

    #[expect(clippy::disallowed_types, reason = "a lock on a file is one of the operating system's")]
    fn make_in(parent: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
        let dir = dir.with_context(|| format!("making a directory in {}", parent.display()))?;
        let lock = std::fs::File::create(dir.path().join(LOCK)).context("making a lock")?;
        lock.try_lock().context("taking a lock")?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes directories of runs that were killed; returns them.
///
/// # Errors
/// If the directory for temporary files cannot be listed.
pub fn clear_stale() -> Result<Vec<PathBuf>> {
    clear_stale_in(&std::env::temp_dir())
}

fn clear_stale_in(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let entries = std::fs::read_dir(parent).with_context(|| format!("listing {}", parent.display()))?;
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Another user's run cannot be removed, and is not ours to remove.
        if is_ours && is_free(&entry.path()) && remove(&entry.path()).is_ok() {
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

/// Removes the directory of a run. The lock goes last: where something cannot be removed now, a later run still sees whose it is.
///
/// # Errors
/// The operating system's.
pub fn remove(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten().filter(|entry| entry.file_name() != LOCK) {
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir_all(dir)
}

/// Whether the run in this directory may still live: its lock is held, or it is just being made.
#[must_use]
pub fn is_alive(dir: &Path) -> bool {
    dir.exists() && !is_free(dir)
}

/// Whether nobody holds the lock; a directory without one is just being made.
#[expect(clippy::disallowed_types, reason = "a lock on a file is one of the operating system's")]
fn is_free(dir: &Path) -> bool {
    std::fs::File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_a_live_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let live = WorkDir::make_in(parent.path()).unwrap();
        let stale = parent.path().join(format!("{PREFIX}gone"));
        std::fs::create_dir_all(stale.join("round-1")).unwrap();
        std::fs::write(stale.join(LOCK), "").unwrap();
        let foreign = parent.path().join("somebody-elses");
        std::fs::create_dir(&foreign).unwrap();
        assert_eq!(clear_stale_in(parent.path()).unwrap(), std::slice::from_ref(&stale));
        assert!(live.path().exists() && foreign.exists() && !stale.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }
}
