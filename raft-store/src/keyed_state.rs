//! Keyed state of a state machine that can be rebuilt: from the last fsynced snapshot and the WAL.
//!
//! A cache on disk and nothing more. It spares a restart the replay of everything, and it is thrown away whenever there
//! is doubt: after a stop that was not clean, after an error, when it is behind. sled never holds the only copy of
//! anything: its flush does not reach the device on Linux, so it cannot promise what a vote or an entry needs.
//!
//! [`SledState`] is the production form. [`MemoryState`] is the twin for simulation and for `storage: memory`, lost at
//! every stop. The only file that names sled, and the only place where files are touched behind [`Disk`]'s back: sled
//! opens its own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use disk::{Disk, DiskError, OpenOptions};

use crate::types::LogPosition;

/// Page cache of sled in bytes: the state machines hold their state in memory themselves.
const CACHE_BYTES: u64 = 16 << 20;
/// How often and at what distance a database is looked at that its last user may still be letting go of: 2 s in all.
const LOCK_LOOKS: u32 = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// Key of the applied position; keys of the state machine follow [`ENTRY_PREFIX`].
const APPLIED_KEY: &[u8] = b"a";
const ENTRY_PREFIX: u8 = b'k';

/// One key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);
/// One key and its new value; `None` removes it.
pub type KeyedWrite = (Vec<u8>, Option<Vec<u8>>);

/// Why keyed state could not be used. The answer is always the same: reset it and rebuild.
#[derive(Debug, thiserror::Error)]
pub enum KeyedError {
    /// sled failed.
    #[error("keyed state in sled")]
    Sled(#[from] sled::Error),
    /// The marker of a clean stop could not be read or written.
    #[error("marker of the keyed state")]
    Disk(#[from] DiskError),
    /// The applied position is not readable.
    #[error("keyed state has no readable applied position")]
    Damaged,
    /// It was closed.
    #[error("keyed state is closed")]
    Closed,
}

/// Keys and values of a state machine with the position up to which they are applied, changed together.
pub trait KeyedState: Send + Debug {
    /// All that is there with its applied position; `None` if there is nothing to begin from.
    ///
    /// # Errors
    /// [`KeyedError`].
    fn load(&mut self) -> Result<Option<(LogPosition, Vec<KeyValue>)>, KeyedError>;
    /// Applies writes together with the position that they belong to.
    ///
    /// # Errors
    /// [`KeyedError`].
    fn apply(&mut self, applied: LogPosition, writes: Vec<KeyedWrite>) -> Result<(), KeyedError>;
    /// Forgets everything.
    ///
    /// # Errors
    /// [`KeyedError`].
    fn reset(&mut self) -> Result<(), KeyedError>;
    /// Ends the use in order: what is there may be loaded at the next start.
    ///
    /// # Errors
    /// [`KeyedError`].
    fn close_clean(&mut self) -> Result<(), KeyedError>;
}

/// Keyed state in sled.
#[derive(Debug)]
pub struct SledState {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    db: Option<sled::Db>,
}

impl SledState {
    /// Opens the state in `directory`. What an unclean stop left is thrown away.
    ///
    /// # Errors
    /// [`KeyedError`]; a database that does not open is thrown away first, so this is the disk's fault.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, KeyedError> {
        disk.create_dir_all(directory)?;
        let mut state = Self { disk, directory: directory.to_path_buf(), db: None };
        let clean = state.disk.exists(&state.marker());
        if clean {
            // From here on a stop is unclean until `close_clean` says otherwise.
            state.disk.remove(&state.marker())?;
            state.disk.sync_dir(&state.directory)?;
            match state.reopen_sled() {
                Ok(db) => state.db = Some(db),
                Err(error) => {
                    tracing::warn!(%error, "keyed state does not open and is rebuilt");
                    state.reset()?;
                }
            }
        } else {
            state.reset()?;
        }
        Ok(state)
    }

    fn marker(&self) -> PathBuf {
        self.directory.join("clean")
    }

    fn open_sled(&self) -> Result<sled::Db, sled::Error> {
        sled::Config::new()
            .path(self.directory.join("db"))
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
    }

    /// Opens what an earlier use closed. sled's own threads may hold its lock for a moment after the handle is gone.
    fn reopen_sled(&self) -> Result<sled::Db, sled::Error> {
        for _ in 0..LOCK_LOOKS {
            match self.open_sled() {
                Err(sled::Error::Io(_)) => std::thread::sleep(BETWEEN_LOOKS),
                opened => return opened,
            }
        }
        self.open_sled()
    }

    fn db(&self) -> Result<&sled::Db, KeyedError> {
        self.db.as_ref().ok_or(KeyedError::Closed)
    }
}

fn encode_position(position: LogPosition) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.term.to_le_bytes());
    bytes[8..].copy_from_slice(&position.index.to_le_bytes());
    bytes
}

fn decode_position(bytes: &[u8]) -> Option<LogPosition> {
    let (term, index) = bytes.split_first_chunk::<8>()?;
    let index = <[u8; 8]>::try_from(index).ok()?;
    Some(LogPosition { term: u64::from_le_bytes(*term), index: u64::from_le_bytes(index) })
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(ENTRY_PREFIX);
    full.extend_from_slice(key);
    full
}

impl KeyedState for SledState {
    fn load(&mut self) -> Result<Option<(LogPosition, Vec<KeyValue>)>, KeyedError> {
        let db = self.db()?;
        let Some(applied) = db.get(APPLIED_KEY)? else { return Ok(None) };
        let applied = decode_position(&applied).ok_or(KeyedError::Damaged)?;
        let mut entries = Vec::new();
        for entry in db.scan_prefix([ENTRY_PREFIX]) {
            let (key, value) = entry?;
            entries.push((key.get(1..).unwrap_or_default().to_vec(), value.to_vec()));
        }
        Ok(Some((applied, entries)))
    }

    fn apply(&mut self, applied: LogPosition, writes: Vec<KeyedWrite>) -> Result<(), KeyedError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(entry_key(&key), value),
                None => batch.remove(entry_key(&key)),
            }
        }
        // One batch: the position never says more or less than the keys (I7).
        batch.insert(APPLIED_KEY, &encode_position(applied));
        Ok(self.db()?.apply_batch(batch)?)
    }

    fn reset(&mut self) -> Result<(), KeyedError> {
        // The files must be closed before they go.
        self.db = None;
        self.disk.remove_dir_all(&self.directory.join("db"))?;
        self.db = Some(self.open_sled()?);
        Ok(())
    }

    fn close_clean(&mut self) -> Result<(), KeyedError> {
        let db = self.db.take().ok_or(KeyedError::Closed)?;
        db.flush()?;
        drop(db);
        let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
        self.disk.open(&self.marker(), options)?.sync_data()?;
        Ok(self.disk.sync_dir(&self.directory)?)
    }
}

/// Keyed state in memory.
#[derive(Debug, Default)]
pub struct MemoryState {
    applied: Option<LogPosition>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl KeyedState for MemoryState {
    fn load(&mut self) -> Result<Option<(LogPosition, Vec<KeyValue>)>, KeyedError> {
        let entries = self.entries.iter().map(|(key, value)| (key.clone(), value.clone()));
        Ok(self.applied.map(|applied| (applied, entries.collect())))
    }

    fn apply(&mut self, applied: LogPosition, writes: Vec<KeyedWrite>) -> Result<(), KeyedError> {
        self.applied = Some(applied);
        for (key, value) in writes {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), KeyedError> {
        *self = Self::default();
        Ok(())
    }

    fn close_clean(&mut self) -> Result<(), KeyedError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::OsDisk;

    fn at(index: u64) -> LogPosition {
        LogPosition { term: 1, index }
    }

    fn write(key: &str, value: &str) -> KeyedWrite {
        (key.into(), Some(value.into()))
    }

    fn behaves(state: &mut dyn KeyedState) {
        assert!(state.load().unwrap().is_none());
        state.apply(at(1), vec![write("b", "1"), write("a", "2")]).unwrap();
        state.apply(at(2), vec![write("b", "3"), ("a".into(), None), write("", "4")]).unwrap();
        let (applied, entries) = state.load().unwrap().unwrap();
        assert_eq!(applied, at(2));
        assert_eq!(entries, vec![(vec![], b"4".to_vec()), (b"b".to_vec(), b"3".to_vec())]);
    }

    #[test]
    fn memory_and_sled_behave_alike() {
        behaves(&mut MemoryState::default());
        let directory = tempfile::tempdir().unwrap();
        behaves(&mut SledState::open(Arc::new(OsDisk::new()), directory.path()).unwrap());
    }

    #[test]
    fn state_survives_a_clean_stop_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let open = || SledState::open(Arc::new(OsDisk::new()), directory.path()).unwrap();
        let mut state = open();
        behaves(&mut state);
        state.close_clean().unwrap();
        drop(state);
        let mut state = open();
        assert_eq!(state.load().unwrap().unwrap().0, at(2));
        drop(state);
        assert!(open().load().unwrap().is_none());
    }

    #[test]
    fn a_database_of_garbage_is_rebuilt() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        let mut state = SledState::open(Arc::new(OsDisk::new()), directory.path()).unwrap();
        behaves(&mut state);
        state.close_clean().unwrap();
        drop(state);
        for item in disk.list(&directory.path().join("db")).unwrap() {
            if !item.is_dir {
                let path = directory.path().join("db").join(item.name);
                let file = disk.open(&path, OpenOptions { write: true, ..OpenOptions::default() }).unwrap();
                file.write_at(&[0xa5; 512], 0).unwrap();
            }
        }
        let mut state = SledState::open(Arc::new(OsDisk::new()), directory.path()).unwrap();
        // Whatever sled made of it, the answer is to reset and go on.
        let _ = state.load();
        state.reset().unwrap();
        behaves(&mut state);
    }
}
