//! The state files of a replica: `state-<raft index>.snap` beside its segments, two of them at a time.

use std::path::{Path, PathBuf};

use disk::frame::{FrameError, read_framed, write_framed};
use disk::{Disk, DiskError};
use partition_log::LogError;

use super::manifest::{Manifest, ManifestError};
use super::replica_log::ReplicaLog;

/// First bytes of a state file.
const MAGIC: [u8; 8] = *b"ALTRSTAT";
/// Version of the file around the manifest, which has a version of its own.
const VERSION: u16 = 1;

/// Why a state file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    /// The segments could not be fsynced.
    #[error("segments cannot be flushed")]
    Segments(#[source] LogError),
    /// The file could not be written.
    #[error("state file cannot be written")]
    Write(#[source] DiskError),
    /// The file is not there or is damaged.
    #[error("state file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// Its bytes are whole but do not decode.
    #[error("state file {path} does not decode")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

fn path_of(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("state-{index}.snap"))
}

fn parse(name: &str) -> Option<u64> {
    name.strip_prefix("state-")?.strip_suffix(".snap")?.parse().ok()
}

/// Writes the state file of a manifest; it is on disk when this returns.
pub(crate) fn write(log: &ReplicaLog, manifest: &Manifest) -> Result<(), StateFileError> {
    let index = manifest.last.map_or(0, |last| last.index);
    let path = path_of(&log.identity().dir, index);
    write_framed(log.disk().as_ref(), &path, MAGIC, VERSION, &manifest.encode())
        .map_err(StateFileError::Write)
}

/// Reads the state file that a checkpoint names.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Manifest, StateFileError> {
    let path = path_of(dir, index);
    let (_, payload) = read_framed(disk, &path, MAGIC)
        .map_err(|source| StateFileError::Read { path: path.clone(), source })?;
    Manifest::decode(&payload).map_err(|source| StateFileError::Decode { path, source })
}

/// Removes all state files but the newest two that a checkpoint names: the older one is what the older kept checkpoint
/// still names (architecture 14.1). Failing to remove one costs a few kilobytes until the next flush.
pub(crate) fn keep_two(log: &ReplicaLog, newest: u64) {
    let kept = log.note_state_file(newest);
    if let Err(error) = remove_others(log.disk().as_ref(), &log.identity().dir, &kept) {
        tracing::warn!(raft_group = %log.group(), error = %error, "old state files were not removed");
    }
}

fn remove_others(disk: &dyn Disk, dir: &Path, kept: &[u64]) -> Result<(), DiskError> {
    if kept.len() < 2 {
        return Ok(());
    }
    for entry in disk.list(dir)? {
        if parse(&entry.name).is_some_and(|index| !kept.contains(&index)) {
            disk.remove(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indexes_belong_together() {
        let path = path_of(Path::new("/g"), 42);
        assert_eq!(path, Path::new("/g/state-42.snap"));
        assert_eq!(parse("state-42.snap"), Some(42));
        assert_eq!(parse("state-42.snap.tmp"), None);
        assert_eq!(parse("00000000000000000000.log"), None);
    }
}
