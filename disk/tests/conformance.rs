//! One suite of facts for every disk: what holds for the operating system must hold for its simulated twin.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::faulty::FaultyDisk;
use disk::frame::{FrameError, read_framed, write_framed};
use disk::{AlignedBuf, DIRECT_ALIGN, Disk, DiskError, DiskFile, OpenOptions, OsDisk};

/// A directory that lasts as long as the test.
struct Place {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn os() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().to_path_buf();
        Self { disk: Arc::new(OsDisk::new()), root, _temporary: Some(temporary) }
    }

    fn simulated(disk: FaultyDisk) -> Self {
        let root = PathBuf::from("/data/broker-1");
        disk.create_dir_all(&root).unwrap();
        Self { disk: Arc::new(disk), root, _temporary: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create(&self, name: &str) -> Arc<dyn DiskFile> {
        let options = OpenOptions { create_new: true, write: true, ..OpenOptions::default() };
        self.disk.open(&self.path(name), options).unwrap()
    }
}

macro_rules! on_every_disk {
    ($($fact:ident),* $(,)?) => {
        mod os {
            $(#[test] fn $fact() { super::$fact(&super::Place::os()); })*
        }
        mod faulty {
            $(#[test] fn $fact() { super::$fact(&super::Place::simulated(disk::faulty::FaultyDisk::new(1))); })*
        }
        mod quiet {
            $(#[test] fn $fact() { super::$fact(&super::Place::simulated(disk::faulty::FaultyDisk::quiet())); })*
        }
    };
}

on_every_disk! {
    written_bytes_are_read_back,
    reads_stop_at_the_end,
    vectored_writes_are_one_run_of_bytes,
    gaps_and_growth_read_as_zeros,
    a_cut_file_forgets_what_it_held,
    zeroed_ranges_are_zero,
    opening_follows_its_options,
    names_follow_rename_and_remove,
    an_open_file_outlives_its_name,
    lists_are_sorted_and_shallow,
    trees_are_removed_whole,
    a_lock_has_one_holder,
    space_is_reported,
    direct_files_take_aligned_blocks,
    framed_files_are_replaced_whole,
    a_damaged_framed_file_is_refused,
}

fn written_bytes_are_read_back(place: &Place) {
    let file = place.create("a");
    let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    file.write_at(&bytes, 3).unwrap();
    file.start_writeback(3, bytes.len() as u64).unwrap();
    file.start_writeback(0, 0).unwrap();
    file.sync_data().unwrap();
    let mut read = vec![0; bytes.len()];
    file.read_exact_at(&mut read, 3).unwrap();
    assert_eq!(read, bytes);
    assert_eq!(file.len().unwrap(), 3 + bytes.len() as u64);
    let mut cached = vec![0; bytes.len()];
    // Not every filesystem knows cached reads; those that do must tell the truth.
    if let Some(count) = file.read_nowait(&mut cached, 3).unwrap() {
        assert_eq!(cached[..count], bytes[..count]);
    }
}

fn reads_stop_at_the_end(place: &Place) {
    let file = place.create("a");
    assert!(file.is_empty().unwrap());
    file.write_at(b"abcdef", 0).unwrap();
    let mut buf = [0; 10];
    assert_eq!(file.read_at(&mut buf, 4).unwrap(), 2);
    assert_eq!(&buf[..2], b"ef");
    assert_eq!(file.read_at(&mut buf, 6).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 600).unwrap(), 0);
    match file.read_exact_at(&mut buf, 4) {
        Err(DiskError::ShortRead { offset: 4, wanted: 10, len: 6, .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn vectored_writes_are_one_run_of_bytes(place: &Place) {
    // More buffers than one system call takes, and empty ones in every place.
    let file = place.create("a");
    let pieces: Vec<Vec<u8>> = (0..3000_usize).map(|i| vec![u8::try_from(i % 251).unwrap(); i % 7]).collect();
    let mut slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    slices.push(b"");
    file.write_vectored_at(&slices, 11).unwrap();
    file.write_vectored_at(&[], 0).unwrap();
    file.write_vectored_at(&[b"", b""], 0).unwrap();
    let wanted = pieces.concat();
    let mut read = vec![0; wanted.len()];
    file.read_exact_at(&mut read, 11).unwrap();
    assert_eq!(read, wanted);
    assert_eq!(file.len().unwrap(), 11 + wanted.len() as u64);
}

fn gaps_and_growth_read_as_zeros(place: &Place) {
    let file = place.create("a");
    file.write_at(b"x", 10_000).unwrap();
    file.set_len(30_000).unwrap();
    let mut read = vec![1; 30_000];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read.iter().filter(|&&byte| byte != 0).count(), 1);
    assert_eq!(read[10_000], b'x');
}

fn a_cut_file_forgets_what_it_held(place: &Place) {
    let file = place.create("a");
    file.write_at(&[7; 9000], 0).unwrap();
    file.set_len(5000).unwrap();
    file.set_len(9000).unwrap();
    let mut read = vec![1; 9000];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read[..5000].iter().all(|&byte| byte == 7));
    assert!(read[5000..].iter().all(|&byte| byte == 0));
}

fn zeroed_ranges_are_zero(place: &Place) {
    let file = place.create("a");
    file.write_at(&[7; 100], 0).unwrap();
    file.zero(50, 200_000).unwrap();
    file.zero(0, 0).unwrap();
    assert_eq!(file.len().unwrap(), 200_050);
    let mut read = vec![1; 200_050];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read[..50].iter().all(|&byte| byte == 7));
    assert!(read[50..].iter().all(|&byte| byte == 0));
}

fn opening_follows_its_options(place: &Place) {
    let (disk, path) = (&place.disk, place.path("a"));
    let missing = disk.open(&path, OpenOptions::default());
    assert!(matches!(missing, Err(DiskError::NotFound { .. })), "{missing:?}");
    let write = OpenOptions { write: true, ..OpenOptions::default() };
    assert!(matches!(disk.open(&path, write), Err(DiskError::NotFound { .. })));
    let create = OpenOptions { create: true, ..write };
    disk.open(&path, create).unwrap().write_at(b"abc", 0).unwrap();
    // Creating what is there opens it as it is.
    assert_eq!(disk.open(&path, create).unwrap().len().unwrap(), 3);
    let create_new = OpenOptions { create_new: true, ..write };
    assert!(matches!(disk.open(&path, create_new), Err(DiskError::AlreadyExists { .. })));
    let read_only = disk.open(&path, OpenOptions::default()).unwrap();
    assert!(matches!(read_only.write_at(b"x", 0), Err(DiskError::Io { .. })));
    assert_eq!(read_only.path(), path);
    let orphan = disk.open(&place.path("no-such-directory/a"), create);
    assert!(matches!(orphan, Err(DiskError::NotFound { .. })), "{orphan:?}");
}

fn names_follow_rename_and_remove(place: &Place) {
    let (disk, a, b) = (&place.disk, place.path("a"), place.path("b"));
    place.create("a").write_at(b"new", 0).unwrap();
    place.create("b").write_at(b"older", 0).unwrap();
    disk.rename(&a, &b).unwrap();
    disk.sync_dir(&place.root).unwrap();
    assert!(!disk.exists(&a) && disk.exists(&b));
    assert_eq!(disk.open(&b, OpenOptions::default()).unwrap().len().unwrap(), 3);
    assert!(matches!(disk.rename(&a, &b), Err(DiskError::NotFound { .. })));
    disk.remove(&b).unwrap();
    assert!(matches!(disk.remove(&b), Err(DiskError::NotFound { .. })));
    assert!(!disk.exists(&b));
    disk.create_dir_all(&place.path("old/deep")).unwrap();
    disk.rename(&place.path("old"), &place.path("new")).unwrap();
    assert!(disk.exists(&place.path("new/deep")) && !disk.exists(&place.path("old")));
}

fn an_open_file_outlives_its_name(place: &Place) {
    let file = place.create("a");
    file.write_at(b"abc", 0).unwrap();
    place.disk.remove(&place.path("a")).unwrap();
    place.disk.sync_dir(&place.root).unwrap();
    let mut read = [0; 3];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"abc");
}

fn lists_are_sorted_and_shallow(place: &Place) {
    let disk = &place.disk;
    disk.create_dir_all(&place.path("m/inner")).unwrap();
    disk.create_dir_all(&place.path("m/inner")).unwrap();
    place.create("z").write_at(b"12", 0).unwrap();
    place.create("a");
    let found = disk.list(&place.root).unwrap();
    let shown: Vec<_> = found.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.len)).collect();
    assert_eq!(shown, [("a", false, 0), ("m", true, 0), ("z", false, 2)]);
    assert!(matches!(disk.list(&place.path("nothing")), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.sync_dir(&place.path("nothing")), Err(DiskError::NotFound { .. })));
}

fn trees_are_removed_whole(place: &Place) {
    let disk = &place.disk;
    disk.create_dir_all(&place.path("m/inner")).unwrap();
    place.create("m/inner/a");
    place.create("m-sibling");
    disk.remove_dir_all(&place.path("m")).unwrap();
    disk.remove_dir_all(&place.path("m")).unwrap();
    let names: Vec<_> = disk.list(&place.root).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["m-sibling"]);
}

fn a_lock_has_one_holder(place: &Place) {
    let path = place.path("LOCK");
    let held = place.disk.lock(&path).unwrap();
    assert!(matches!(place.disk.lock(&path), Err(DiskError::Locked { .. })));
    drop(held);
    drop(place.disk.lock(&path).unwrap());
    assert!(place.disk.exists(&path));
}

fn space_is_reported(place: &Place) {
    let space = place.disk.space(&place.root).unwrap();
    assert!(space.free > 0 && space.free <= space.total, "{space:?}");
}

fn direct_files_take_aligned_blocks(place: &Place) {
    let options = OpenOptions { create: true, write: true, direct: true, ..OpenOptions::default() };
    let path = place.path("direct");
    let mut block = AlignedBuf::with_capacity(DIRECT_ALIGN);
    block.extend_from_slice(b"block");
    block.pad_to(DIRECT_ALIGN);
    // A filesystem may refuse at the opening or at the first write; either way it says so by the same error.
    let written = place.disk.open(&path, options).and_then(|file| {
        file.write_at(block.as_slice(), DIRECT_ALIGN as u64)?;
        Ok(file)
    });
    let file = match written {
        Ok(file) => file,
        Err(DiskError::DirectRefused { .. }) => return,
        Err(other) => panic!("{other:?}"),
    };
    file.zero(0, DIRECT_ALIGN as u64).unwrap();
    file.sync_data().unwrap();
    let mut read = AlignedBuf::zeroed(4 * DIRECT_ALIGN);
    assert_eq!(file.read_at(read.as_mut_slice(), 0).unwrap(), 2 * DIRECT_ALIGN);
    assert!(read.as_slice()[..DIRECT_ALIGN].iter().all(|&byte| byte == 0));
    assert_eq!(&read.as_slice()[DIRECT_ALIGN..2 * DIRECT_ALIGN], block.as_slice());
}

fn framed_files_are_replaced_whole(place: &Place) {
    let (disk, path) = (place.disk.as_ref(), place.path("state"));
    assert!(matches!(read_framed(disk, &path, *b"ALTRTEST"), Err(FrameError::Missing { .. })));
    write_framed(disk, &path, *b"ALTRTEST", 1, &[9; 10_000]).unwrap();
    write_framed(disk, &path, *b"ALTRTEST", 2, b"short").unwrap();
    assert_eq!(read_framed(disk, &path, *b"ALTRTEST").unwrap(), (2, b"short".to_vec()));
    assert_eq!(disk.list(&place.root).unwrap().len(), 1, "the temporary file stayed");
}

fn a_damaged_framed_file_is_refused(place: &Place) {
    let (disk, path) = (place.disk.as_ref(), place.path("state"));
    write_framed(disk, &path, *b"ALTRTEST", 1, b"payload").unwrap();
    assert!(matches!(read_framed(disk, &path, *b"ALTRELSE"), Err(FrameError::Damaged { .. })));
    let write = OpenOptions { write: true, ..OpenOptions::default() };
    disk.open(&path, write).unwrap().write_at(b"q", 26).unwrap();
    assert!(matches!(read_framed(disk, &path, *b"ALTRTEST"), Err(FrameError::Damaged { .. })));
}

#[test]
fn relative_paths_work_on_the_simulated_disk() {
    let disk = FaultyDisk::quiet();
    disk.create_dir_all(Path::new("data/wal")).unwrap();
    write_framed(&disk, Path::new("data/x"), *b"ALTRTEST", 1, b"x").unwrap();
    write_framed(&disk, Path::new("x"), *b"ALTRTEST", 1, b"x").unwrap();
    assert_eq!(disk.list(Path::new("data")).unwrap().len(), 2);
}
