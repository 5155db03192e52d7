//! What applying and fetching cost in the log itself, without Raft and network: `cargo bench -p partition-log`. Batches of
//! 64 KiB, in a fresh directory under `ALTAIR_BENCH_DIR` or the system's temporary directory.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run should say where")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time, and no simulation drives it")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disk::OsDisk;
use partition_log::{LogConfig, PartitionLog, ReadOutcome};
use wire::ids::{LeaderEpoch, Offset};
use wire::record::{Compression, RecordBatchBuilder};

const RECORDS: u64 = 64;
const FETCH: usize = 256 << 10;
/// A log of this many batches is read round and round.
const BATCHES: u64 = 1 << 10;
/// A log that has grown to this is begun anew.
const GROWS_TO: u64 = 1 << 30;

/// A little less than 64 KiB, so that four of them fit into a fetch.
fn batch() -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for _ in 0..RECORDS {
        builder.push(7, None, Some(&[7; 980]), &[]);
    }
    builder.build().unwrap()
}

fn open(dir: &Path, tail_cache_bytes: usize) -> PartitionLog {
    let config = LogConfig { tail_cache_bytes, ..LogConfig::default() };
    PartitionLog::open(Arc::new(OsDisk::new()), dir, config, None, None).unwrap().0
}

fn fresh_dir() -> tempfile::TempDir {
    let parent = std::env::var_os("ALTAIR_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(parent).unwrap()
}

fn append(log: &mut PartitionLog, batch: &Bytes) {
    log.append(batch.clone(), LeaderEpoch(1), 7).unwrap();
}

/// Appends, counted in time without what making a log anew takes.
fn appends(count: u64, batch: &Bytes) -> Duration {
    let (mut spent, mut left) = (Duration::ZERO, count);
    while left > 0 {
        let dir = fresh_dir();
        let mut log = open(dir.path(), 4 << 20);
        let now = left.min(GROWS_TO / batch.len() as u64);
        let begun = Instant::now();
        (0..now).for_each(|_| append(&mut log, batch));
        spent += begun.elapsed();
        left -= now;
    }
    spent
}

fn log(criterion: &mut Criterion) {
    let batch = batch();
    let mut group = criterion.benchmark_group("log, batches of 64 KiB");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(batch.len() as u64));
    group.bench_function("append", |bench| bench.iter_custom(|count| appends(count, &batch)));

    group.throughput(Throughput::Bytes(FETCH as u64));
    for (name, tail_cache_bytes) in [("fetch from memory", 128 << 20), ("fetch from the page cache", 0)] {
        let dir = fresh_dir();
        let mut log = open(dir.path(), tail_cache_bytes);
        // Each batch in memory of its own, as they come from producers.
        (0..BATCHES).for_each(|_| append(&mut log, &Bytes::copy_from_slice(&batch)));
        let (reader, end) = (log.reader(), log.next_offset());
        let mut at = Offset(0);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let ReadOutcome::Data(read) = reader.read(at, end, FETCH, false).unwrap() else {
                    unreachable!("a read that may wait does");
                };
                at = Offset((at.0 + RECORDS * read.len() as u64) % end.0);
                read
            });
        });
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
