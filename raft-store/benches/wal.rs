//! One append of the write-ahead log, from the call until it is durable: `cargo bench -p raft-store --bench wal`. The
//! directory is a fresh one under `ALTAIR_BENCH_DIR`, or under the system's temporary directory. `append.rs` has the ratios
//! to the bare disk.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run should say where")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use common::{append, entry, spec};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use disk::{Io, OsDisk};
use raft_store::{Wal, WalConfig, drive_in_thread};

const SIZES: [usize; 3] = [1 << 10, 64 << 10, 1 << 20];

fn wal(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let parent = std::env::var_os("ALTAIR_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let root = tempfile::tempdir_in(parent).unwrap();
    // Nothing is purged here: room for all that a bench writes.
    let config = WalConfig { outstanding_max: 64 << 30, ..WalConfig::default() };
    let (wal, writer, _) =
        Wal::open(Arc::new(OsDisk::new()), Io::inline(), root.path(), config, common::salts(1)).unwrap();
    let _thread = drive_in_thread(writer).unwrap();
    let mut log = runtime.block_on(async {
        wal.create_group(spec(1)).await.unwrap();
        wal.log(1, spec(1).replica).unwrap()
    });
    let mut index = 0;
    let mut group = criterion.benchmark_group("durable append, one in flight");
    for size in SIZES {
        let body = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                runtime.block_on(append(&mut log, vec![entry(1, index, &body)])).unwrap();
                index += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
