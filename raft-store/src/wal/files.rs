//! The files of the WAL: which are in use, which wait to be used, and how they are read back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::{Disk, DiskError, DiskFile, OpenOptions};

use super::{DirectMode, WalConfig};
use crate::layout;
use crate::observe::{Observer, WalEvent};

/// This many files are made ready before they are needed. More are kept once they were used, up to the configured pool:
/// zeroing the whole pool at the first start would delay it by seconds.
pub(crate) const READY_MIN: usize = 2;

/// A file with frames that may be needed.
#[derive(Debug, Clone)]
pub(crate) struct UsedFile {
    pub(crate) first_lsn: u64,
    /// Bytes written, with the header.
    pub(crate) bytes: u64,
    reader: Option<Arc<dyn DiskFile>>,
}

impl UsedFile {
    pub(crate) fn new(first_lsn: u64, bytes: u64) -> Self {
        Self { first_lsn, bytes, reader: None }
    }
}

#[derive(Debug, Default)]
struct Table {
    used: BTreeMap<u64, UsedFile>,
    ready: BTreeSet<u64>,
    next_number: u64,
    making: usize,
    /// The last attempt to make a file met a full disk.
    full: bool,
}

/// All files of one WAL.
#[derive(Debug)]
pub(crate) struct WalFiles {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    file_bytes: u64,
    pool_max: usize,
    /// Files are zeroed past the page cache where the filesystem lets them.
    direct: bool,
    observer: Observer,
    table: Mutex<Table>,
}

/// A file to write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It waited, zeroed or used.
    Ready(u64),
    /// None waited: it does not exist yet.
    Hurried(u64),
}

/// Opens a file to be written, by direct I/O if that is wanted and the filesystem lets it; says whether it does.
pub(crate) fn open_file(
    disk: &dyn Disk,
    path: &Path,
    direct: bool,
) -> Result<(Arc<dyn DiskFile>, bool), DiskError> {
    let options = OpenOptions { create: true, write: true, direct, ..OpenOptions::default() };
    match disk.open(path, options) {
        Err(DiskError::DirectRefused { .. }) => {
            tracing::info!("the filesystem refuses direct I/O, the WAL goes through the page cache");
            Ok((disk.open(path, OpenOptions { direct: false, ..options })?, false))
        }
        opened => Ok((opened?, direct)),
    }
}

/// Numbers for metrics and the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileCounts {
    pub(crate) used: usize,
    pub(crate) ready: usize,
    pub(crate) full: bool,
}

impl WalFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf, config: &WalConfig) -> Self {
        Self {
            disk,
            root,
            file_bytes: config.file_bytes,
            pool_max: config.pool_files.max(READY_MIN),
            direct: config.direct == DirectMode::Auto,
            observer: config.observer.clone(),
            table: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> FileCounts {
        let table = self.lock();
        FileCounts { used: table.used.len(), ready: table.ready.len(), full: table.full }
    }

    /// Tells of a file that recovery found.
    pub(crate) fn add_used(&self, seq: u64, file: UsedFile) {
        self.lock().used.insert(seq, file);
    }

    /// Tells of a waiting file that recovery found.
    pub(crate) fn add_ready(&self, number: u64) {
        let mut table = self.lock();
        table.next_number = table.next_number.max(number.saturating_add(1));
        table.ready.insert(number);
    }

    pub(crate) fn wrote(&self, seq: u64, bytes: u64) {
        if let Some(file) = self.lock().used.get_mut(&seq) {
            file.bytes += bytes;
        }
    }

    pub(crate) fn first_lsn(&self, seq: u64) -> Option<u64> {
        self.lock().used.get(&seq).map(|file| file.first_lsn)
    }

    pub(crate) fn oldest(&self) -> Option<u64> {
        self.lock().used.keys().next().copied()
    }

    /// Takes a waiting file for use, or the number of one to be made in a hurry.
    pub(crate) fn take_ready(&self) -> Taken {
        let mut table = self.lock();
        match table.ready.pop_first() {
            Some(number) => Taken::Ready(number),
            None => {
                table.next_number += 1;
                Taken::Hurried(table.next_number - 1)
            }
        }
    }

    /// The newest file in use.
    pub(crate) fn newest(&self) -> u64 {
        self.lock().used.keys().next_back().copied().unwrap_or(0)
    }

    /// Takes one file to be made, if one is wanted: its number.
    pub(crate) fn want_file(&self) -> Option<u64> {
        let mut table = self.lock();
        if table.ready.len() + table.making >= READY_MIN {
            return None;
        }
        table.making += 1;
        table.next_number += 1;
        Some(table.next_number - 1)
    }

    /// Makes the file that [`WalFiles::want_file`] named: zeros, synced, so that writes into it need no journal.
    pub(crate) fn make_file(&self, number: u64) -> Result<(), DiskError> {
        let path = layout::recycle_file(&self.root, number);
        let made = self.zeroed_file(&path);
        let mut table = self.lock();
        table.making = table.making.saturating_sub(1);
        table.full = matches!(made, Err(DiskError::Full { .. }));
        if made.is_ok() {
            table.ready.insert(number);
        } else {
            drop(table);
            // Half a file is of no use, and holds room that somebody may need.
            let _ = self.disk.remove(&path);
        }
        made
    }

    fn zeroed_file(&self, path: &Path) -> Result<(), DiskError> {
        let (file, _) = open_file(self.disk.as_ref(), path, self.direct)?;
        file.zero(0, self.file_bytes)?;
        file.sync_data()
    }

    /// Takes files before `floor` out of use; they become waiting files or go. Returns how many bytes they held.
    pub(crate) fn release(&self, floor: u64) -> Result<(usize, u64), DiskError> {
        let (mut count, mut bytes) = (0, 0);
        loop {
            let seq = {
                let mut table = self.lock();
                match table.used.first_key_value() {
                    Some((&seq, file)) if seq < floor => {
                        bytes += file.bytes;
                        table.used.remove(&seq);
                        seq
                    }
                    _ => break,
                }
            };
            self.retire(seq)?;
            count += 1;
        }
        Ok((count, bytes))
    }

    /// Makes a waiting file of a file that nobody needs, or removes it.
    pub(crate) fn retire(&self, seq: u64) -> Result<(), DiskError> {
        self.observer.note(|| WalEvent::FileReleased { file: seq });
        let path = &layout::wal_file(&self.root, seq);
        let length = self.disk.open(path, OpenOptions::default())?.len()?;
        let number = {
            let mut table = self.lock();
            let wanted = length == self.file_bytes && table.ready.len() < self.pool_max;
            wanted.then(|| {
                table.next_number += 1;
                table.next_number - 1
            })
        };
        let Some(number) = number else { return self.disk.remove(path) };
        self.disk.rename(path, &layout::recycle_file(&self.root, number))?;
        self.lock().ready.insert(number);
        Ok(())
    }

    /// Reads from a file in use. Blocks.
    pub(crate) fn read(&self, seq: u64, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let path = layout::wal_file(&self.root, seq);
        let opened = {
            let table = self.lock();
            let file = table.used.get(&seq).ok_or(DiskError::NotFound { path: path.clone() })?;
            file.reader.clone()
        };
        let reader = match opened {
            Some(reader) => reader,
            None => {
                let reader = self.disk.open(&path, OpenOptions::default())?;
                if let Some(file) = self.lock().used.get_mut(&seq) {
                    file.reader = Some(Arc::clone(&reader));
                }
                reader
            }
        };
        reader.read_exact_at(buf, offset)
    }
}
