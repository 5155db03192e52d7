//! What the simulated disk loses, keeps and refuses.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use disk::faulty::{FaultyDisk, OpKind, Verdict};
use disk::frame::{read_framed, write_framed};
use disk::{AlignedBuf, DIRECT_ALIGN, Disk, DiskError, DiskFile, OpenOptions, create_dir_durably};

const CREATE: OpenOptions = OpenOptions { create: true, create_new: false, write: true, direct: false };

fn disk(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn open(disk: &FaultyDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(&Path::new("/d").join(name), CREATE).unwrap()
}

fn content(disk: &FaultyDisk, name: &str) -> Vec<u8> {
    let file = disk.open(&Path::new("/d").join(name), OpenOptions::default()).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_crash() {
    for seed in 0..200 {
        let disk = disk(seed);
        let file = open(&disk, "a");
        file.write_at(&[7; 5000], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[9; 5000], 5000).unwrap();
        disk.crash();
        let found = content(&disk, "a");
        assert!(found.len() >= 5000 && found[..5000].iter().all(|&byte| byte == 7), "seed {seed}");
        assert!(found[5000..].iter().all(|&byte| byte == 9 || byte == 0), "seed {seed}");
    }
}

#[test]
fn unsynced_sectors_stay_go_and_tear_and_lengths_do_too() {
    let (mut kept, mut lost, mut torn, mut lengths) = (false, false, false, BTreeSet::new());
    for seed in 0..300 {
        let disk = disk(seed);
        let file = open(&disk, "a");
        file.write_at(&[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[2; 4096], 0).unwrap();
        file.write_at(&[3; 100], 6000).unwrap();
        disk.crash();
        let found = content(&disk, "a");
        lengths.insert(found.len());
        for sector in found[..4096].chunks(512) {
            match sector.iter().filter(|&&byte| byte == 2).count() {
                0 => lost = true,
                512 => kept = true,
                _ => torn = true,
            }
            assert!(sector.iter().all(|&byte| byte == 1 || byte == 2));
        }
    }
    assert!(kept && lost && torn);
    assert!(lengths.contains(&4096) && lengths.contains(&6100) && lengths.len() > 2, "{lengths:?}");
}

#[test]
fn names_without_a_directory_sync_may_go_or_stay() {
    let (mut created, mut renamed, mut removed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..100 {
        let disk = disk(seed);
        for name in ["old", "gone"] {
            open(&disk, name).sync_data().unwrap();
        }
        disk.sync_dir(Path::new("/d")).unwrap();
        open(&disk, "new");
        disk.rename(Path::new("/d/old"), Path::new("/d/moved")).unwrap();
        disk.remove(Path::new("/d/gone")).unwrap();
        disk.crash();
        created.insert(disk.exists(Path::new("/d/new")));
        renamed.insert(disk.exists(Path::new("/d/moved")));
        // A rename is whole: the file has exactly one of its names.
        assert_ne!(disk.exists(Path::new("/d/moved")), disk.exists(Path::new("/d/old")));
        removed.insert(disk.exists(Path::new("/d/gone")));
    }
    assert!([created, renamed, removed].iter().all(|seen| seen.len() == 2));
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let run = |seed| {
        let disk = disk(seed);
        let file = open(&disk, "a");
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&(0..=255).cycle().take(20_000).collect::<Vec<u8>>(), 0).unwrap();
        disk.crash();
        content(&disk, "a")
    };
    assert_eq!(run(5), run(5));
    assert!((0..20).map(run).collect::<BTreeSet<_>>().len() > 5);
}

#[test]
fn after_a_failed_sync_the_bytes_are_gone_even_if_a_second_sync_works() {
    let disk = disk(1);
    let file = open(&disk, "a");
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(b"lost", 0).unwrap();
    disk.fail_sync(1);
    assert!(matches!(file.sync_data(), Err(DiskError::Io { .. })));
    file.sync_data().unwrap();
    disk.crash();
    assert!(content(&disk, "a").iter().all(|&byte| byte == 0));
}

#[test]
fn a_sync_fails_where_it_was_planned_to() {
    let disk = disk(1);
    let file = open(&disk, "a");
    disk.fail_sync_below(Path::new("/e"), 1);
    file.sync_data().unwrap();
    disk.fail_sync_below(Path::new("/d"), 2);
    file.sync_data().unwrap();
    assert!(matches!(file.sync_data(), Err(DiskError::Io { .. })));
}

#[test]
fn handles_and_locks_die_with_their_process() {
    let disk = disk(1);
    let file = open(&disk, "a");
    file.write_at(b"cached", 0).unwrap();
    let held = disk.lock(Path::new("/d/LOCK")).unwrap();
    disk.kill();
    assert!(file.write_at(b"x", 0).is_err() && file.sync_data().is_err());
    let again = disk.lock(Path::new("/d/LOCK")).unwrap();
    drop(held);
    assert!(matches!(disk.lock(Path::new("/d/LOCK")), Err(DiskError::Locked { .. })));
    drop(again);
    // The page cache outlives the process.
    assert_eq!(content(&disk, "a"), b"cached");
}

#[test]
fn the_framed_file_is_the_old_or_the_new_one_after_a_cut_anywhere() {
    let path = Path::new("/d/state");
    let mut seen = BTreeSet::new();
    for cut in 1..8 {
        for seed in 0..40 {
            let disk = disk(seed);
            write_framed(&disk, path, *b"ALTRTEST", 1, &[1; 3000]).unwrap();
            disk.power_off_at(cut);
            let written = write_framed(&disk, path, *b"ALTRTEST", 2, &[2; 2000]);
            disk.crash();
            let (version, payload) = read_framed(&disk, path, *b"ALTRTEST").unwrap();
            assert_eq!(payload, if version == 1 { vec![1; 3000] } else { vec![2; 2000] });
            assert!(written.is_err() || version == 2, "a durable write was lost");
            seen.insert((written.is_ok(), version));
        }
    }
    assert_eq!(seen, BTreeSet::from([(false, 1), (false, 2), (true, 2)]));
}

#[test]
fn a_full_filesystem_refuses_and_takes_again_after_a_removal() {
    let disk = disk(1);
    disk.set_capacity(3 * 4096);
    let file = open(&disk, "a");
    file.write_at(&[1; 2 * 4096], 0).unwrap();
    assert!(matches!(file.write_at(&[1; 2 * 4096], 2 * 4096), Err(DiskError::Full { .. })));
    assert_eq!(disk.space(Path::new("/d")).unwrap().free, 4096);
    disk.remove(Path::new("/d/a")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    open(&disk, "b").write_at(&[1; 3 * 4096], 0).unwrap();
}

#[test]
fn planned_failures_and_hooks_hit_the_operation_they_name() {
    let disk = disk(1);
    let file = open(&disk, "a");
    disk.fail_write(2);
    file.write_at(b"1", 0).unwrap();
    assert!(file.write_at(b"2", 0).is_err());
    file.write_at(b"3", 0).unwrap();
    disk.fail_read(1);
    assert!(file.read_at(&mut [0], 0).is_err());
    file.read_at(&mut [0], 0).unwrap();
    disk.set_cold(true);
    assert_eq!(file.read_nowait(&mut [0], 0).unwrap(), None);
    disk.set_hook(|op| match op.kind {
        OpKind::Rename => Verdict::Fail,
        OpKind::Write => Verdict::Full,
        OpKind::Remove => Verdict::PowerOff,
        _ => Verdict::Proceed,
    });
    assert!(disk.rename(Path::new("/d/a"), Path::new("/d/b")).is_err());
    assert!(matches!(file.write_at(b"4", 0), Err(DiskError::Full { .. })));
    assert!(disk.remove(Path::new("/d/a")).is_err());
    disk.clear_hook();
    assert!(file.sync_data().is_err(), "the power is off");
    disk.crash();
    open(&disk, "a").sync_data().unwrap();
}

#[test]
fn misaligned_direct_access_is_refused() {
    let disk = disk(1);
    let direct = OpenOptions { direct: true, ..CREATE };
    let file = disk.open(Path::new("/d/a"), direct).unwrap();
    let block = AlignedBuf::zeroed(2 * DIRECT_ALIGN);
    file.write_at(block.as_slice(), 0).unwrap();
    assert!(file.write_at(&block.as_slice()[..512], 0).is_err());
    assert!(file.write_at(&block.as_slice()[1..=DIRECT_ALIGN], 0).is_err());
    assert!(file.write_at(block.as_slice(), 512).is_err());
    disk.set_direct_refused(true);
    assert!(matches!(disk.open(Path::new("/d/a"), direct), Err(DiskError::DirectRefused { .. })));
}

#[test]
fn a_quiet_disk_holds_no_more_memory_than_its_files() {
    let disk = FaultyDisk::quiet();
    let file = disk.open(Path::new("a"), CREATE).unwrap();
    for round in 0..50 {
        file.write_at(&[round; 40_960], 0).unwrap();
        file.sync_data().unwrap();
    }
    assert_eq!(disk.bytes_used(), 40_960);
    file.set_len(4096).unwrap();
    assert_eq!(disk.bytes_used(), 4096);
    drop(file);
    disk.remove(Path::new("a")).unwrap();
    assert_eq!(disk.bytes_used(), 0);
}

#[test]
fn a_directory_made_durably_keeps_what_is_synced_in_it() {
    let path = Path::new("/var/lib/altair");
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        // Half of the time a process before made the directories and died before it synced a name.
        if seed % 2 == 0 {
            disk.create_dir_all(path).unwrap();
            disk.kill();
        }
        create_dir_durably(&disk, path, 3).unwrap();
        let file = disk.open(&path.join("a"), CREATE).unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path).unwrap();
        disk.crash();
        assert!(disk.exists(&path.join("a")), "seed {seed}");
    }
}

#[test]
fn a_page_of_a_failed_sync_is_lost_unless_it_is_written_again() {
    for (again, kept) in [(false, 0), (true, 7)] {
        let disk = disk(1);
        let file = open(&disk, "a");
        file.write_at(&[0; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[7; 1024], 0).unwrap();
        disk.fail_sync(1);
        file.sync_data().unwrap_err();
        if again {
            // One sector makes the page dirty, and a page goes to the device as a whole.
            file.write_at(&[7; 512], 0).unwrap();
        }
        file.sync_data().unwrap();
        disk.crash();
        assert_eq!(content(&disk, "a"), [kept; 1024]);
    }
}
