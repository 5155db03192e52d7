//! Figures of the WAL on this machine's disk: `cargo bench -p raft-store`.
//!
//! 1. One group with one append of 1 KiB in flight, against the bare rate of a 4 KiB write and `fdatasync` in a zeroed
//!    file, in turns, so that both see the same machine.
//! 2. Appends per `fdatasync` with 1,000 groups that each have one append in flight.
//! 3. Time to recover 1 GiB of WAL.
//!
//! The directory is a fresh one under `ALTAIR_BENCH_DIR`, or under the system's temporary directory.
#![expect(clippy::print_stdout, reason = "a bench reports on the terminal")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot run should say where")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Log, append, entry, spec};
use disk::{AlignedBuf, Disk, Io, OpenOptions, OsDisk};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use raft_store::{Wal, WalConfig, WalThread, drive_in_thread};
use tokio::time::Instant;

const TURN: Duration = Duration::from_millis(700);
const TURNS: usize = 4;
const GROUPS: u64 = 1000;
const RECOVERED: u64 = 1 << 30;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let parent = std::env::var_os("ALTAIR_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let root = tempfile::tempdir_in(parent).unwrap();
    runtime.block_on(async {
        one_group(&root.path().join("one")).await;
        many_groups(&root.path().join("many")).await;
        recovery(&root.path().join("recovery")).await;
    });
}

fn open(root: &Path, config: WalConfig) -> (Wal, WalThread) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    disk.create_dir_all(root).unwrap();
    let (wal, writer, _) = Wal::open(disk, Io::inline(), root, config, common::salts(1)).unwrap();
    (wal, drive_in_thread(writer).unwrap())
}

async fn log_of(wal: &Wal, group: u64) -> Log {
    wal.create_group(spec(group)).await.unwrap();
    wal.log(group, spec(group).replica).unwrap()
}

async fn one_group(root: &Path) {
    let (wal, _thread) = open(root, WalConfig::default());
    let mut log = log_of(&wal, 1).await;
    // The first file was made in a hurry; the figure is that of zeroed ones.
    let body = vec![7; 1 << 20];
    for index in 0..64 {
        append(&mut log, vec![entry(1, index, &body)]).await.unwrap();
    }
    let (mut bare, mut appends, mut index) = (0.0, 0.0, 64);
    for _ in 0..TURNS {
        bare += bare_rate(root);
        let begun = Instant::now();
        let mut count = 0.0;
        while begun.elapsed() < TURN {
            append(&mut log, vec![entry(1, index, &body[..1024])]).await.unwrap();
            index += 1;
            count += 1.0;
        }
        appends += count / begun.elapsed().as_secs_f64();
    }
    let (bare, appends) = (bare / TURNS as f64, appends / TURNS as f64);
    println!("bare write + fdatasync      {bare:9.0} /s");
    println!(
        "one group, one in flight    {appends:9.0} appends/s   {:5.1} % of bare (wanted: 60 %)",
        appends / bare * 100.0
    );
}

/// Rate of a 4 KiB write and `fdatasync` in a zeroed file, by direct I/O where it is to be had.
fn bare_rate(root: &Path) -> f64 {
    let disk = OsDisk::new();
    let path = root.join("bare");
    let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
    let file = disk.open(&path, options).unwrap();
    file.zero(0, 16 << 20).unwrap();
    file.sync_data().unwrap();
    let direct = disk.open(&path, OpenOptions { direct: true, ..options });
    let file = direct.unwrap_or(file);
    let buf = AlignedBuf::zeroed(4096);
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < TURN {
        file.write_at(buf.as_slice(), u64::from(count % 4096) * 4096).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

async fn many_groups(root: &Path) {
    let (wal, _thread) = open(root, WalConfig { outstanding_max: 4 << 30, ..WalConfig::default() });
    let mut logs = Vec::new();
    for group in 1..=GROUPS {
        logs.push((log_of(&wal, group).await, 0_u64));
    }
    let metrics = wal.metrics();
    let (writes, entries) = (metrics.writes.get(), metrics.entries.get());
    let begun = Instant::now();
    let body = vec![7; 1024];
    let busy: FuturesUnordered<_> = logs
        .iter_mut()
        .map(|(log, index)| {
            let body = &body;
            async move {
                while begun.elapsed() < 3 * TURN {
                    append(log, vec![entry(1, *index, body)]).await.unwrap();
                    *index += 1;
                }
            }
        })
        .collect();
    busy.collect::<Vec<()>>().await;
    let seconds = begun.elapsed().as_secs_f64();
    let (writes, entries) = (metrics.writes.get() - writes, metrics.entries.get() - entries);
    let per_write = entries as f64 / writes as f64;
    println!(
        "{GROUPS} groups, one each        {:9.0} appends/s   {per_write:5.1} appends per fsync (wanted: 20)",
        entries as f64 / seconds
    );
}

async fn recovery(root: &Path) {
    let config = WalConfig { outstanding_max: 4 << 30, ..WalConfig::default() };
    let (wal, thread) = open(root, config.clone());
    let mut logs = Vec::new();
    for group in 1..=100 {
        logs.push(log_of(&wal, group).await);
    }
    let body = vec![7; 16 << 10];
    let mut index = 0;
    while wal.pressure().outstanding < RECOVERED {
        let all: FuturesUnordered<_> =
            logs.iter_mut().map(|log| append(log, vec![entry(1, index, &body)])).collect();
        all.collect::<Vec<_>>().await;
        index += 1;
    }
    drop(logs);
    thread.close();
    drop(wal);
    let begun = Instant::now();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let (_, _, recovery) = Wal::open(disk, Io::inline(), root, config, common::salts(2)).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let report = recovery.report;
    assert_eq!((recovery.groups.len(), report.damaged_groups.len()), (100, 0));
    println!(
        "recovery of {:5.0} MiB       {seconds:9.2} s           {} frames (wanted: 3 s)",
        report.bytes as f64 / f64::from(1 << 20),
        report.frames
    );
}
