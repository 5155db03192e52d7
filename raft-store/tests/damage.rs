//! Damage in durable data is told from a torn tail, and told as that of the groups that lost frames.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on must stop"
)]

mod common;
#[path = "common/sim.rs"]
mod sim;

use std::collections::BTreeSet;
use std::path::Path;

use disk::faulty::FaultyDisk;
use disk::{Disk, OpenOptions};
use raft_store::inspect::{self, FrameContent};
use raft_store::{Wait, WalError, layout};
use sim::{ROOT, Sim, State};

const GROUPS: u64 = 4;
const BLOCK: u64 = 4096;

/// A directory with some history, closed in order; what each group was at the end.
fn history(seed: u64) -> (FaultyDisk, Vec<State>) {
    let disk = FaultyDisk::new(seed);
    let (mut sim, _) = Sim::open(&disk, seed).unwrap();
    for _ in 0..60 {
        assert!(sim.act());
    }
    while sim.step(Wait::No) != raft_store::Step::Idle {}
    sim.step(Wait::Mark);
    let states = (0..GROUPS).map(|group| sim.models[&group].now().clone()).collect();
    drop(sim);
    disk.kill();
    (disk, states)
}

/// Extents of the frames of a file: offset, length, and the group whose durable state the body holds, if any.
fn extents(disk: &FaultyDisk, seq: u64) -> Vec<(u64, u64, Option<u64>)> {
    let mut extents = Vec::new();
    let visit = |frame: inspect::FrameView| {
        let counts = matches!(
            frame.content,
            FrameContent::Entry { .. } | FrameContent::Vote(_) | FrameContent::GroupCreate { .. }
        );
        extents.push((frame.offset, frame.len, counts.then_some(frame.group)));
        true
    };
    inspect::frames(disk, Path::new(ROOT), seq, visit).unwrap();
    extents
}

fn reopen(disk: &FaultyDisk) -> (BTreeSet<u64>, Vec<State>) {
    let (sim, recovery) = Sim::open(disk, 77).unwrap();
    let damaged: BTreeSet<u64> = recovery.report.damaged_groups.iter().copied().collect();
    let state = |group: u64| {
        if damaged.contains(&group) { State::default() } else { Sim::state_of(&sim.wal, &recovery, group) }
    };
    (damaged.clone(), (0..GROUPS).map(state).collect())
}

#[test]
fn a_flipped_bit_damages_at_most_the_group_whose_frame_it_hit() {
    let mut told = 0;
    for case in 0..400_u64 {
        let (disk, states) = history(case % 8);
        let files = inspect::wal_files(&disk, Path::new(ROOT)).unwrap();
        let mut random = common::salts(case);
        let file = files[usize::try_from(random() % files.len() as u64).unwrap()].seq;
        let extents = extents(&disk, file);
        let Some((last, ..)) = extents.iter().rev().find(|(offset, ..)| offset % BLOCK == 0) else {
            continue;
        };
        if *last <= BLOCK {
            continue;
        }
        // Not the last write of all: nothing can prove that it was durable.
        let offset = random() % last;
        let bit = u8::try_from(random() % 8).unwrap();
        assert!(disk.flip_bit(&layout::wal_file(Path::new(ROOT), file), offset, bit));
        let hit = extents.iter().find(|(start, len, _)| (*start..start + len).contains(&offset));
        let expected: Option<u64> = hit.and_then(|(_, _, group)| *group);
        let (damaged, found) = reopen(&disk);
        assert!(
            damaged.iter().all(|group| Some(*group) == expected),
            "case {case}: {damaged:?} for {expected:?}"
        );
        told += damaged.len();
        for (group, (found, state)) in found.iter().zip(&states).enumerate() {
            let group = group as u64;
            assert!(
                damaged.contains(&group) || found == state,
                "case {case}: group {group} changed silently"
            );
        }
    }
    assert!(told > 20, "the test hit too little: {told}");
}

#[test]
fn lost_sectors_never_change_a_group_silently() {
    let mut told = 0;
    for case in 0..300_u64 {
        let (disk, states) = history(100 + case % 8);
        let files = inspect::wal_files(&disk, Path::new(ROOT)).unwrap();
        let mut random = common::salts(case);
        let file = files[usize::try_from(random() % files.len() as u64).unwrap()].seq;
        let extents = extents(&disk, file);
        let Some((last, ..)) = extents.iter().rev().find(|(offset, ..)| offset % BLOCK == 0) else {
            continue;
        };
        let sectors = last / 512;
        if sectors == 0 {
            continue;
        }
        let offset = random() % sectors * 512;
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        let handle = disk.open(&layout::wal_file(Path::new(ROOT), file), options).unwrap();
        let len = (512 << (random() % 3)).min(last - offset);
        handle.write_at(&vec![0xee; usize::try_from(len).unwrap()], offset).unwrap();
        handle.sync_data().unwrap();
        drop(handle);
        let (damaged, found) = reopen(&disk);
        told += damaged.len();
        for (group, (found, state)) in found.iter().zip(&states).enumerate() {
            let group = group as u64;
            assert!(
                damaged.contains(&group) || found == state,
                "case {case}: group {group} changed silently"
            );
        }
    }
    assert!(told > 20, "the test hit too little: {told}");
}

#[test]
fn a_missing_file_damages_every_group() {
    let (disk, _) = history(3);
    remove_oldest_needed(&disk);
    let (sim, recovery) = Sim::open(&disk, 5).unwrap();
    assert!(!recovery.groups.is_empty());
    assert_eq!(recovery.report.damaged_groups.len(), recovery.groups.len());
    for (group, recovered) in &recovery.groups {
        let log = sim.wal.log::<common::Types>(*group, recovered.replica);
        assert!(matches!(log, Err(WalError::Damaged { .. })));
    }
}

#[test]
fn damage_stays_known_after_a_checkpoint_until_the_group_is_replaced() {
    let (disk, _) = history(3);
    remove_oldest_needed(&disk);
    let (mut sim, recovery) = Sim::open(&disk, 5).unwrap();
    assert!(sim.checkpoint() && sim.checkpoint());
    drop(sim);
    disk.crash();
    let (mut sim, again) = Sim::open(&disk, 6).unwrap();
    assert_eq!(again.report.damaged_groups, recovery.report.damaged_groups);
    let group = recovery.report.damaged_groups[0];
    let spec = raft_store::GroupSpec { replica: 9_999, ..common::spec(group) };
    let wal = sim.wal.clone();
    assert!(sim.drive(async { wal.create_group(spec).await }).is_none());
    assert!(sim.drive(async { wal.delete_group(group, recovery.groups[&group].replica).await }).is_some());
    assert!(sim.drive(async { wal.create_group(spec).await }).is_some());
    assert!(wal.log::<common::Types>(group, 9_999).is_ok());
}

#[test]
fn a_damaged_newest_checkpoint_costs_nothing() {
    for seed in 0..20 {
        let (disk, states) = history(200 + seed);
        let checkpoints = inspect::checkpoints(&disk, Path::new(ROOT)).unwrap();
        let Some(newest) = checkpoints.last() else { continue };
        assert!(disk.flip_bit(&layout::checkpoint_file(Path::new(ROOT), newest.id), 60, 3));
        let opened = Sim::open(&disk, 5);
        if checkpoints.len() < 2 {
            // Nothing was released behind a single checkpoint.
            assert!(opened.is_ok());
        }
        let (sim, recovery) = opened.unwrap();
        assert_eq!(recovery.report.damaged_checkpoints, 1);
        assert!(recovery.report.damaged_groups.is_empty());
        for (group, state) in (0..GROUPS).zip(&states) {
            let found = Sim::state_of(&sim.wal, &recovery, group);
            // What was purged behind the damaged one may be back: the older one may not cover it.
            assert!(found.entries.ends_with(&state.entries), "seed {seed}, group {group}");
            assert!(found.purged <= state.purged, "seed {seed}, group {group}");
            assert_eq!(
                (found.replica, found.vote),
                (state.replica, state.vote),
                "seed {seed}, group {group}"
            );
        }
    }
}

#[test]
fn losing_both_checkpoints_after_a_release_is_refused() {
    let disk = FaultyDisk::new(1);
    let (mut sim, _) = Sim::open(&disk, 1).unwrap();
    // Until the first file is gone.
    while inspect::wal_files(&disk, Path::new(ROOT)).unwrap()[0].seq == 1 {
        assert!(sim.act());
    }
    drop(sim);
    disk.kill();
    for checkpoint in inspect::checkpoints(&disk, Path::new(ROOT)).unwrap() {
        disk.flip_bit(&layout::checkpoint_file(Path::new(ROOT), checkpoint.id), 60, 3);
    }
    assert!(matches!(Sim::open(&disk, 2), Err(WalError::Unrecoverable { .. })));
}

#[test]
fn garbage_files_never_panic() {
    for case in 0..60_u64 {
        let (disk, _) = history(case % 4);
        let mut random = common::salts(case);
        for name in [
            "00000000000000000999.wal",
            "00000000000000000001.wal",
            "recycle-000777.wal",
            "x",
            "recycle-.wal",
        ] {
            write_garbage(&disk, &layout::wal_dir(Path::new(ROOT)).join(name), &mut random);
        }
        for name in ["0000000000000999.ckpt", "0000000000000001.ckpt.tmp", "nonsense"] {
            write_garbage(&disk, &layout::checkpoint_dir(Path::new(ROOT)).join(name), &mut random);
        }
        let _ = Sim::open(&disk, 1);
        for file in inspect::wal_files(&disk, Path::new(ROOT)).unwrap() {
            inspect::frames(&disk, Path::new(ROOT), file.seq, |_| true).unwrap();
        }
        inspect::checkpoints(&disk, Path::new(ROOT)).unwrap();
    }
}

/// Removes the oldest file that the newest checkpoint needs.
fn remove_oldest_needed(disk: &FaultyDisk) {
    let floor =
        inspect::checkpoints(disk, Path::new(ROOT)).unwrap().last().map_or(1, |newest| newest.floor_file);
    disk.remove(&layout::wal_file(Path::new(ROOT), floor)).unwrap();
}

fn write_garbage(disk: &FaultyDisk, path: &Path, random: &mut impl FnMut() -> u64) {
    let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
    let file = disk.open(path, options).unwrap();
    let bytes: Vec<u8> = (0..random() % 2000).flat_map(|_| random().to_le_bytes()).collect();
    file.write_at(&bytes, 0).unwrap();
}
