//! One flipped bit anywhere in a segment: reads say so or are right, and never give wrong bytes.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use common::{Host, Input, Model, append, read_all, small};
use disk::faulty::FaultyDisk;
use disk::{Disk, OpenOptions};
use partition_log::{LogConfig, LogError, PartitionLog, ReadOutcome, SegmentCache};
use wire::ids::Offset;

fn written() -> (Host, PartitionLog, Model) {
    // Without a tail cache every read goes to the disk; with one cached segment sealed ones are opened again and again.
    let config = LogConfig { cache: SegmentCache::new(1), ..small(0) };
    let host = Host::new(FaultyDisk::new(1), config);
    host.prepare().unwrap();
    let (mut log, _) = host.open().unwrap();
    let mut model = Model::default();
    for n in 0..12_u32 {
        let input = Input { epoch: 1 + n / 5, timestamps: vec![i64::from(n), i64::from(n)], value_len: 100 };
        append(&mut log, &input).unwrap();
        model.push(&input);
    }
    host.flush(&mut log).unwrap();
    assert!(log.segment_count() >= 2);
    (host, log, model)
}

fn files(host: &Host, suffix: &str) -> Vec<(std::path::PathBuf, u64)> {
    let entries = host.disk.list(&host.dir).unwrap();
    let ours = entries.into_iter().filter(|entry| entry.name.ends_with(suffix));
    ours.map(|entry| (host.dir.join(&entry.name), entry.len)).collect()
}

#[test]
fn any_flipped_bit_of_a_log_file_is_corrupt_and_never_read() {
    let (host, log, model) = written();
    let whole = model.read(0, model.next(), usize::MAX).unwrap();
    for (path, len) in files(&host, ".log") {
        for at in 0..len {
            let bit = u8::try_from(at % 8).unwrap();
            assert!(host.disk.flip_bit(&path, at, bit));
            assert!(matches!(read_all(&log), Err(LogError::Corrupt { .. })), "{} at {at}", path.display());
            let base = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            assert!(matches!(log.reader().check_segment(Offset(base)), Err(LogError::Corrupt { .. })));
            for from in (0..model.next()).step_by(5) {
                match log.reader().read(Offset(from), log.next_offset(), 1, false) {
                    Ok(ReadOutcome::Data(found)) => {
                        assert_eq!(found, model.read(from, model.next(), 1).unwrap())
                    }
                    Err(LogError::Corrupt { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            host.disk.flip_bit(&path, at, bit);
        }
    }
    assert_eq!(read_all(&log).unwrap(), whole);
    log.reader().check_segment(log.log_start()).unwrap();
}

#[test]
fn what_stands_before_the_damage_is_still_read() {
    let (host, log, model) = written();
    let (path, len) = files(&host, ".log").pop().unwrap();
    assert!(host.disk.flip_bit(&path, len - 1, 0));
    let upto = log.next_offset();
    let before_last = model.next() - 2;
    let read = |from: u64| log.reader().read(Offset(from), upto, usize::MAX, false);
    assert_eq!(read(0).unwrap(), ReadOutcome::Data(model.read(0, before_last, usize::MAX).unwrap()));
    assert!(matches!(read(before_last), Err(LogError::Corrupt { .. })));
}

/// Opens anew and compares every read and every look-up by time with the model.
fn reopened_is_right(host: &Host, model: &Model) {
    let (log, _) = host.open().unwrap();
    for from in 0..model.next() {
        let found = log.reader().read(Offset(from), log.next_offset(), 400, false).unwrap();
        assert_eq!(found, ReadOutcome::Data(model.read(from, model.next(), 400).unwrap()));
        let time = i64::try_from(from / 2).unwrap();
        let since = log.reader().offset_for_time(time, log.next_offset()).unwrap();
        assert_eq!(since.map(|(at, time)| (at.0, time)), model.since(time, model.next()));
    }
}

#[test]
fn damaged_or_missing_hints_are_made_anew() {
    for suffix in [".index", ".timeindex", ".sealed"] {
        let (host, ..) = written();
        for (path, len) in files(&host, suffix) {
            for at in 0..len {
                let (host, log, model) = written();
                drop(log);
                assert!(host.disk.flip_bit(&path, at, 3));
                reopened_is_right(&host, &model);
            }
            let (host, log, model) = written();
            drop(log);
            host.disk.remove(&path).unwrap();
            reopened_is_right(&host, &model);
        }
    }
}

#[test]
fn a_file_that_lost_its_end_is_corrupt() {
    let (host, log, _) = written();
    let (path, len) = files(&host, ".log").pop().unwrap();
    let write = OpenOptions { write: true, ..OpenOptions::default() };
    host.disk.open(&path, write).unwrap().set_len(len - 1).unwrap();
    assert!(matches!(read_all(&log), Err(LogError::Corrupt { .. })));
}
