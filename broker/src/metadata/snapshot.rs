//! Snapshots of the metadata group on disk: `metadata/<index>.snap`, the newest two.
//!
//! **Invariant:** a missing or damaged snapshot never deletes data (I11): the one before it is used, whose log is still
//! there because the log is purged only behind the older of the two; with none left the broker does not start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use disk::frame::{self, FrameError};
use disk::{Disk, DiskError, Io};
use raft_store::layout;

use super::codec::DecodeError;
use super::stored::Applied;

const MAGIC: [u8; 8] = *b"ALTMETAS";
const VERSION: u16 = 1;
/// Files that are kept: the newest, and the one to fall back on.
const KEPT: usize = 2;

/// Why the snapshots on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There are files, and none is whole.
    #[error(
        "none of the {count} metadata snapshots in {dir} is whole ({reason}); nothing was deleted: restore the \
         directory, or move the whole data directory away and let the broker join as a new one"
    )]
    NoneWhole {
        /// Files found.
        count: usize,
        /// Where.
        dir: PathBuf,
        /// What is wrong with the newest.
        reason: String,
    },
    /// The disk failed.
    #[error("using the metadata snapshots")]
    Disk(#[from] DiskError),
}

/// A snapshot as it travels and rests: one envelope.
#[derive(Debug, Clone)]
pub struct MetadataSnapshot {
    /// Raft index of the last entry in it.
    pub index: u64,
    /// The envelope.
    pub bytes: Bytes,
}

/// The directory of snapshots.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFiles {
    disk: Arc<dyn Disk>,
    io: Io,
    dir: PathBuf,
}

/// The newest whole snapshot on disk.
pub(crate) struct Loaded {
    pub(crate) applied: Applied,
    pub(crate) snapshot: MetadataSnapshot,
}

impl SnapshotFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, io: Io, root: &Path) -> Self {
        Self { disk, io, dir: layout::metadata_dir(root) }
    }

    /// The newest whole snapshot, `None` if there is no file at all.
    ///
    /// # Errors
    /// [`SnapshotError::NoneWhole`] if there are files and none can be used.
    pub(crate) fn load(&self) -> Result<Option<Loaded>, SnapshotError> {
        if self.disk.exists(&self.dir) {
            // A process that was killed may have left a name that it had not synced; the log is purged behind what is
            // loaded here.
            self.disk.sync_dir(&self.dir)?;
        }
        let indexes = self.indexes()?;
        let mut newest_reason = None;
        for index in indexes.iter().rev() {
            match self.read(*index) {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(reason) => {
                    tracing::error!(
                        index,
                        reason,
                        "a metadata snapshot is damaged, trying the one before it"
                    );
                    newest_reason.get_or_insert(reason);
                }
            }
        }
        match newest_reason {
            None => Ok(None),
            Some(reason) => {
                Err(SnapshotError::NoneWhole { count: indexes.len(), dir: self.dir.clone(), reason })
            }
        }
    }

    /// Writes a snapshot durably and removes all but the newest two.
    ///
    /// # Errors
    /// As the disk says; the files that were there stay.
    pub(crate) async fn save(&self, snapshot: MetadataSnapshot) -> Result<(), SnapshotError> {
        let files = self.clone();
        self.io.run(move || files.save_now(snapshot.index, &snapshot.bytes)).await
    }

    /// Runs blocking work where the disk's work runs.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.io.run(work).await
    }

    /// Index of the older of the kept snapshots: the log behind it is not needed any more.
    pub(crate) fn fallback_index(&self) -> Result<Option<u64>, SnapshotError> {
        let indexes = self.indexes()?;
        Ok((indexes.len() >= KEPT).then(|| indexes.first().copied()).flatten())
    }

    pub(crate) fn save_now(&self, index: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        disk::create_dir_durably(self.disk.as_ref(), &self.dir, 1)?;
        frame::write_framed(self.disk.as_ref(), &self.file(index), MAGIC, VERSION, bytes)?;
        let indexes = self.indexes()?;
        for old in indexes.iter().rev().skip(KEPT) {
            self.disk.remove(&self.file(*old))?;
        }
        Ok(())
    }

    fn read(&self, index: u64) -> Result<Loaded, String> {
        let path = self.file(index);
        let (version, payload) =
            frame::read_framed(self.disk.as_ref(), &path, MAGIC).map_err(|error| match error {
                FrameError::Disk(source) => format!("reading {}: {source}", path.display()),
                other => other.to_string(),
            })?;
        if version != VERSION {
            return Err(format!("{} has version {version}, this build knows {VERSION}", path.display()));
        }
        let applied = Applied::decode_snapshot(&payload).map_err(|error: DecodeError| error.to_string())?;
        if applied.last.map(|last| last.index) != Some(index) {
            return Err(format!("{} holds another index than its name says", path.display()));
        }
        Ok(Loaded { applied, snapshot: MetadataSnapshot { index, bytes: payload.into() } })
    }

    /// Indexes of the files that are there, ascending; anything else in the directory is left alone.
    fn indexes(&self) -> Result<Vec<u64>, SnapshotError> {
        let entries = match self.disk.list(&self.dir) {
            Ok(entries) => entries,
            Err(DiskError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut indexes: Vec<u64> = entries.iter().filter_map(|entry| parse_name(&entry.name)).collect();
        indexes.sort_unstable();
        Ok(indexes)
    }

    fn file(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:020}.snap"))
    }
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".snap")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::OpenOptions;
    use disk::faulty::FaultyDisk;
    use raft_store::LogPosition;

    fn files(disk: &FaultyDisk) -> SnapshotFiles {
        SnapshotFiles::new(Arc::new(disk.clone()), Io::inline(), Path::new("/data"))
    }

    fn snapshot(index: u64) -> Bytes {
        let applied = Applied { last: Some(LogPosition { term: 1, index }), ..Applied::default() };
        applied.encode_snapshot().unwrap().into()
    }

    fn damage(disk: &FaultyDisk, path: &Path) {
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        disk.open(path, options).unwrap().write_at(b"rot", 40).unwrap();
    }

    fn loaded_index(files: &SnapshotFiles) -> Option<u64> {
        files.load().unwrap().and_then(|loaded| loaded.applied.last).map(|last| last.index)
    }

    #[test]
    fn newest_of_two_is_used_and_older_ones_go() {
        let disk = FaultyDisk::new(1);
        let files = files(&disk);
        assert!(files.load().unwrap().is_none());
        assert_eq!(files.fallback_index().unwrap(), None);
        for index in [5, 9, 12] {
            files.save_now(index, &snapshot(index)).unwrap();
        }
        assert_eq!(files.indexes().unwrap(), [9, 12]);
        assert_eq!(files.fallback_index().unwrap(), Some(9));
        assert_eq!(loaded_index(&files), Some(12));
    }

    #[test]
    fn damaged_newest_falls_back_and_deletes_nothing() {
        let disk = FaultyDisk::new(1);
        let files = files(&disk);
        for index in [5, 9] {
            files.save_now(index, &snapshot(index)).unwrap();
        }
        damage(&disk, &files.file(9));
        assert_eq!(loaded_index(&files), Some(5));
        damage(&disk, &files.file(5));
        let error = files.load().err().unwrap();
        assert!(matches!(error, SnapshotError::NoneWhole { count: 2, .. }), "{error}");
        assert_eq!(files.indexes().unwrap(), [5, 9], "nothing was deleted");
    }

    #[test]
    fn snapshot_under_another_index_is_not_used() {
        let disk = FaultyDisk::new(1);
        let files = files(&disk);
        files.save_now(7, &snapshot(6)).unwrap();
        assert!(matches!(files.load(), Err(SnapshotError::NoneWhole { .. })));
    }

    #[test]
    fn crash_right_after_a_save_keeps_it() {
        let disk = FaultyDisk::new(3);
        let files = files(&disk);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        files.save_now(5, &snapshot(5)).unwrap();
        disk.crash();
        assert_eq!(loaded_index(&files), Some(5));
    }
}
