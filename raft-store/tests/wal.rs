//! What the WAL promises besides surviving crashes.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on must stop"
)]

mod common;
#[path = "common/sim.rs"]
mod sim;

use std::path::Path;
use std::sync::Arc;

use common::{Log, Types, append, collect, entry, open, open_with_thread, small_config, spec};
use disk::faulty::FaultyDisk;
use futures::FutureExt;
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use raft_store::{
    DurableToken, EntryData, GroupMark, LogPosition, Payload, Step, Vote, Wait, WalConfig, drive_in_task,
    inspect,
};
use sim::{ROOT, Sim, sim_config};

fn root() -> &'static Path {
    Path::new(ROOT)
}

#[tokio::test]
async fn a_failed_fsync_ends_the_wal_for_everybody() {
    let disk = FaultyDisk::new(1);
    let (wal, _thread, _) = open_with_thread(Arc::new(disk.clone()), root(), small_config());
    wal.create_group(spec(1)).await.unwrap();
    let mut log: Log = wal.log(1, 101).unwrap();
    let mut failed = wal.failed();
    disk.fail_sync(1);
    assert!(append(&mut log, vec![entry(1, 0, b"lost")]).await.is_err());
    let reason = failed.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(reason.contains("fdatasync"), "{reason}");
    assert!(append(&mut log, vec![entry(1, 1, b"later")]).await.is_err());
    assert!(log.save_vote(&Vote::new(2, 1)).await.is_err());
    assert!(wal.create_group(spec(2)).await.is_err());
    assert!(wal.checkpoint(Vec::new()).await.is_err());
}

#[tokio::test]
async fn an_own_committed_vote_comes_back_as_a_candidates() {
    let disk = FaultyDisk::new(1);
    let (wal, thread, _) = open_with_thread(Arc::new(disk.clone()), root(), small_config());
    for (group, voted_for) in [(1, 101), (2, 7)] {
        wal.create_group(spec(group)).await.unwrap();
        let mut log: Log = wal.log(group, group + 100).unwrap();
        log.save_vote(&Vote::new_committed(5, voted_for)).await.unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(5, voted_for)));
    }
    thread.close();
    disk.crash();
    let (wal, _thread, _) = open_with_thread(Arc::new(disk), root(), small_config());
    let mut own: Log = wal.log(1, 101).unwrap();
    assert_eq!(own.read_vote().await.unwrap(), Some(Vote::new(5, 101)));
    let mut other: Log = wal.log(2, 102).unwrap();
    assert_eq!(other.read_vote().await.unwrap(), Some(Vote::new_committed(5, 7)));
}

#[tokio::test]
async fn files_are_released_only_behind_the_older_checkpoint() {
    let disk = FaultyDisk::new(1);
    let (wal, _thread, _) = open_with_thread(Arc::new(disk.clone()), root(), sim_config());
    wal.create_group(spec(1)).await.unwrap();
    let mut log: Log = wal.log(1, 101).unwrap();
    for index in 0..20 {
        append(&mut log, vec![entry(1, index, &[1; 20_000])]).await.unwrap();
    }
    let files = || inspect::wal_files(&disk, root()).unwrap().len();
    let before = files();
    assert!(before > 5);
    let applied = LogPosition { term: 1, index: 19 };
    log.purge(applied.log_id()).await.unwrap();
    let mark = GroupMark { group: 1, replica: 101, applied, ..GroupMark::default() };
    assert_eq!(wal.checkpoint(vec![mark]).await.unwrap().released_files, 0);
    let before = files().max(before);
    let outstanding = wal.budget().outstanding();
    assert_eq!(wal.checkpoint(Vec::new()).await.unwrap().released_files, before - 1);
    assert_eq!(files(), 1);
    assert!(wal.budget().outstanding() < outstanding / 4);
    assert_eq!(wal.oldest_mark(1), Some(mark));
}

#[test]
fn entries_that_hold_an_old_file_back_are_moved_and_survive() {
    let disk = FaultyDisk::new(1);
    let (mut sim, _) = Sim::open(&disk, 1).unwrap();
    let wal = sim.wal.clone();
    for group in [1, 2] {
        sim.drive(async { wal.create_group(spec(group)).await }).unwrap();
    }
    let write = |sim: &mut Sim, group: u64, index: u64, len: usize| {
        let mut log: Log = wal.log(group, group + 100).unwrap();
        let (sender, _receiver) = Types::oneshot();
        let appended = log.append(vec![entry(1, index, &vec![9; len])], IOFlushed::signal(sender));
        appended.now_or_never().unwrap().unwrap();
        while sim.step(Wait::No) != Step::Idle {}
    };
    write(&mut sim, 1, 0, 10);
    for index in 0..20 {
        write(&mut sim, 2, index, 20_000);
    }
    assert!(wal.pressure().oldest_groups.contains(&1));
    let mut other: Log = wal.log(2, 102).unwrap();
    other.purge(LogPosition { term: 1, index: 19 }.log_id()).now_or_never().unwrap().unwrap();
    let moved = sim.drive(async { wal.checkpoint(Vec::new()).await }).unwrap().relocated;
    assert_eq!(moved, 1);
    assert!(sim.drive(async { wal.checkpoint(Vec::new()).await }).unwrap().released_files > 3);
    drop(sim);
    disk.crash();
    let (sim, recovery) = Sim::open(&disk, 2).unwrap();
    assert!(recovery.report.damaged_groups.is_empty());
    assert_eq!(Sim::state_of(&sim.wal, &recovery, 1).entries, vec![(0, 1, vec![9; 10])]);
}

#[tokio::test]
async fn one_entry_does_not_hold_a_wal_of_a_few_files_for_ever() {
    let disk = FaultyDisk::new(1);
    let config = WalConfig { outstanding_max: 512 << 10, reserve: 128 << 10, ..small_config() };
    let (wal, _thread, _) = open_with_thread(Arc::new(disk), root(), config);
    for group in [1, 2] {
        wal.create_group(spec(group)).await.unwrap();
    }
    let mut quiet: Log = wal.log(1, 101).unwrap();
    append(&mut quiet, vec![entry(1, 0, &[9; 10])]).await.unwrap();
    let mut busy: Log = wal.log(2, 102).unwrap();
    let mut index = 0;
    while wal.budget().available() > 0 {
        append(&mut busy, vec![entry(1, index, &[1; 20_000])]).await.unwrap();
        index += 1;
    }
    let applied = LogPosition { term: 1, index: index - 1 };
    busy.purge(applied.log_id()).await.unwrap();
    let mark = GroupMark { group: 2, replica: 102, applied, ..GroupMark::default() };
    assert_eq!(wal.checkpoint(vec![mark]).await.unwrap().relocated, 1);
    for _ in 0..2 {
        wal.checkpoint(Vec::new()).await.unwrap();
    }
    assert!(wal.budget().available() > 0, "{:?}", wal.pressure());
    assert_eq!(quiet.try_get_log_entries(0..1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_new_bytes_and_not_votes() {
    let disk = FaultyDisk::new(1);
    let config = WalConfig { tail_cache_bytes: 1 << 20, ..sim_config() };
    let (wal, writer, _) = open(Arc::new(disk.clone()), root(), config, 1).unwrap();
    // No room for another file beyond those that wait.
    disk.set_capacity(disk.bytes_used());
    let driver = drive_in_task(writer);
    let work = async {
        wal.create_group(spec(1)).await.unwrap();
        let mut log: Log = wal.log(1, 101).unwrap();
        let mut index = 0;
        while wal.budget().try_acquire(1000).is_some() {
            append(&mut log, vec![entry(1, index, &[1; 1000])]).await.unwrap();
            index += 1;
            assert!(index < 1000, "the full disk is not noticed");
        }
        assert!(wal.pressure().disk_full);
        log.save_vote(&Vote::new(9, 1)).await.unwrap();
        // Room comes back, and so do the producers.
        disk.set_capacity(1 << 40);
        wal.ask_for_files();
        assert!(wal.budget().try_acquire(1000).is_some());
        assert!(!wal.pressure().disk_full);
        wal.close();
    };
    tokio::join!(driver, work);
}

#[tokio::test]
async fn a_token_fires_when_the_entry_is_durable_and_is_not_stored() {
    let (wal, mut writer, _) = open(Arc::new(FaultyDisk::new(1)), root(), sim_config(), 1).unwrap();
    let create = wal.create_group(spec(1));
    let mut create = Box::pin(create);
    assert!((&mut create).now_or_never().is_none());
    writer.step(Wait::No);
    create.now_or_never().unwrap().unwrap();
    let mut log: Log = wal.log(1, 101).unwrap();
    let (token, mut fired) = DurableToken::new();
    let mut with_token = entry(3, 0, b"x");
    with_token.payload = Payload::Normal(EntryData::with_token(bytes::Bytes::from_static(b"x"), token));
    let (sender, receiver) = Types::oneshot();
    log.append(vec![with_token], IOFlushed::signal(sender)).await.unwrap();
    // Readable at once, told later.
    let read = log.try_get_log_entries(0..).await.unwrap();
    let Payload::Normal(data) = &read[0].payload else { panic!("a normal entry was written") };
    assert!(data.durable.is_none());
    assert!(fired.try_recv().is_err());
    writer.step(Wait::No);
    assert_eq!(fired.try_recv(), Ok(LogPosition { term: 3, index: 0 }));
    receiver.await.unwrap().unwrap();
}

#[test]
fn an_idle_wal_marks_its_last_write_once_and_then_rests() {
    let disk = FaultyDisk::new(1);
    let (mut sim, _) = Sim::open(&disk, 1).unwrap();
    let wal = sim.wal.clone();
    sim.drive(async { wal.create_group(spec(1)).await }).unwrap();
    assert!(sim.writer.mark_owed());
    assert!(matches!(sim.step(Wait::Mark), Step::Wrote { .. }));
    assert!(!sim.writer.mark_owed());
    let before = disk.stats();
    assert_eq!(sim.step(Wait::Mark), Step::Idle);
    assert_eq!(disk.stats(), before);
}

#[tokio::test]
async fn reads_are_bounded_and_never_empty() {
    let disk = Arc::new(FaultyDisk::new(1));
    let config = WalConfig { file_bytes: 4 << 20, tail_cache_bytes: 0, ..small_config() };
    let (wal, _thread, _) = open_with_thread(disk, root(), config);
    wal.create_group(spec(1)).await.unwrap();
    let mut log: Log = wal.log(1, 101).unwrap();
    for index in 0..30 {
        append(&mut log, vec![entry(1, index, &[index as u8; 300_000])]).await.unwrap();
    }
    let some = log.limited_get_log_entries(2, 30).await.unwrap();
    assert_eq!(some.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), vec![2, 3, 4]);
    assert!(log.limited_get_log_entries(30, 31).await.is_err());
    log.purge(LogPosition { term: 1, index: 4 }.log_id()).await.unwrap();
    assert!(log.limited_get_log_entries(4, 30).await.is_err());
    let all = collect(log.entries_stream(5..30).await).await;
    assert_eq!(all.len(), 25);
    for entry in all {
        let Payload::Normal(data) = entry.payload else { panic!("normal entries were written") };
        assert!(data.body.iter().all(|byte| u64::from(*byte) == entry.log_id.index));
    }
}

#[tokio::test]
async fn one_write_serves_all_groups() {
    let disk = FaultyDisk::new(1);
    let (wal, mut writer, _) = open(Arc::new(disk.clone()), root(), sim_config(), 1).unwrap();
    let create = futures::future::join_all((0..50).map(|group| wal.create_group(spec(group))));
    let mut create = Box::pin(create);
    assert!((&mut create).now_or_never().is_none());
    let before = disk.stats().syncs;
    writer.step(Wait::No);
    assert_eq!(disk.stats().syncs, before + 1);
    assert!(create.await.into_iter().all(|created| created.is_ok()));
}

#[tokio::test]
async fn requests_after_close_fail_and_those_before_are_written() {
    let disk = FaultyDisk::new(1);
    let (wal, thread, _) = open_with_thread(Arc::new(disk.clone()), root(), small_config());
    wal.create_group(spec(1)).await.unwrap();
    let mut log: Log = wal.log(1, 101).unwrap();
    let (sender, receiver) = Types::oneshot();
    log.append(vec![entry(1, 0, b"x")], IOFlushed::signal(sender)).await.unwrap();
    thread.close();
    receiver.await.unwrap().unwrap();
    assert!(append(&mut log, vec![entry(1, 1, b"y")]).await.is_err());
    assert!(wal.checkpoint(Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_gap_between_entries_is_refused() {
    let (wal, _thread, _) = open_with_thread(Arc::new(FaultyDisk::new(1)), root(), small_config());
    wal.create_group(spec(1)).await.unwrap();
    let mut log: Log = wal.log(1, 101).unwrap();
    append(&mut log, vec![entry(1, 0, b"x")]).await.unwrap();
    assert!(append(&mut log, vec![entry(1, 2, b"z")]).await.is_err());
    append(&mut log, vec![entry(1, 1, b"y")]).await.unwrap();
}
