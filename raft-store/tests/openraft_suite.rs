//! openraft's own conformance suite for log stores, on the real disk and on the simulated one, several groups on one WAL.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on must stop"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Log, Machine, Types, open_with_thread, small_config, spec};
use disk::OsDisk;
use disk::faulty::FaultyDisk;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use raft_store::{DirectMode, Wal, WalConfig};

/// Gives each test of the suite a fresh group on the one WAL.
struct Groups {
    wal: Wal,
    next: AtomicU64,
}

impl StoreBuilder<Types, Log, Machine> for Groups {
    async fn build(&self) -> Result<((), Log, Machine), StorageError<Types>> {
        let spec = spec(self.next.fetch_add(1, Ordering::Relaxed));
        self.wal.create_group(spec).await.unwrap();
        Ok(((), self.wal.log(spec.group, spec.replica).unwrap(), Machine::default()))
    }
}

async fn suite_passes(wal: Wal) {
    // Two runs at once: their groups share the WAL's writes.
    let one = Groups { wal: wal.clone(), next: AtomicU64::new(1) };
    let two = Groups { wal, next: AtomicU64::new(1_000_000) };
    let (one, two) = tokio::join!(Suite::test_all(one), Suite::test_all(two));
    one.unwrap();
    two.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite_passes_on_the_real_disk_with_direct_io() {
    let root = tempfile::tempdir().unwrap();
    let (wal, _thread, _) = open_with_thread(Arc::new(OsDisk::new()), root.path(), small_config());
    suite_passes(wal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite_passes_on_the_real_disk_without_direct_io() {
    let root = tempfile::tempdir().unwrap();
    let config = WalConfig { direct: DirectMode::Never, ..small_config() };
    let (wal, _thread, _) = open_with_thread(Arc::new(OsDisk::new()), root.path(), config);
    suite_passes(wal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite_passes_on_the_simulated_disk() {
    let disk = Arc::new(FaultyDisk::new(3));
    let (wal, _thread, _) = open_with_thread(disk, std::path::Path::new("/data"), small_config());
    suite_passes(wal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite_passes_with_nothing_kept_in_memory() {
    let disk = Arc::new(FaultyDisk::new(4));
    let config = WalConfig { tail_cache_bytes: 0, file_bytes: 64 << 10, ..small_config() };
    let (wal, _thread, _) = open_with_thread(disk, std::path::Path::new("/data"), config);
    suite_passes(wal).await;
}
