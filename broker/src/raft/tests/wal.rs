//! A real WAL on a disk in memory.

use std::path::Path;
use std::sync::Arc;

use disk::faulty::FaultyDisk;
use raft_store::{Wal, WalConfig, WalThread, drive_in_thread};

pub(super) struct TestWal {
    disk: FaultyDisk,
    pub(super) wal: Wal,
    thread: WalThread,
}

impl TestWal {
    pub(super) fn new() -> Self {
        Self::open(FaultyDisk::quiet())
    }

    fn open(disk: FaultyDisk) -> Self {
        let config = WalConfig { file_bytes: 1 << 20, pool_files: 2, ..WalConfig::default() };
        let root = Path::new("/data");
        let mut seed = 1_u64;
        let random = move || {
            seed += 1;
            seed
        };
        let shared = Arc::new(disk.clone());
        let io = crate::runtime::disk_io();
        let (wal, writer, _) = Wal::open(shared, io, root, config, random).unwrap();
        Self { disk, wal, thread: drive_in_thread(writer).unwrap() }
    }

    /// What a restart of the process does.
    pub(super) fn reopen(self) -> Self {
        let Self { disk, wal, thread } = self;
        wal.close();
        drop(wal);
        drop(thread);
        Self::open(disk)
    }
}
