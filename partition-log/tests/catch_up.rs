//! A lagging or new replica takes over the segments of a peer, and readers live through retention.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Host, Input, Model, append, read_all, small};
use disk::Disk;
use disk::faulty::FaultyDisk;
use partition_log::{
    LogConfig, LogError, OpenReport, PartitionLog, ReadOutcome, SegmentInfo, SegmentWriter, StateSnapshot,
    Verdict, discard_incoming,
};
use wire::ids::{Offset, ProducerId};
use wire::record::ProducerStamp;

fn host(seed: u64) -> Host {
    let config = LogConfig { index_interval_bytes: 4096, ..small(0) };
    let host = Host::new(FaultyDisk::new(seed), config);
    host.prepare().unwrap();
    host
}

fn input(n: u32) -> Input {
    Input { epoch: 1 + n / 10, timestamps: vec![i64::from(n)], value_len: 150 }
}

fn stamp_of(n: u32) -> ProducerStamp {
    ProducerStamp { id: ProducerId(5), epoch: 0, first_sequence: n, last_sequence: n }
}

fn write(log: &mut PartitionLog, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let base = log.next_offset();
        assert_eq!(log.producers().check(&stamp_of(n)), Verdict::Append);
        append(log, &input(n)).unwrap();
        log.producers_mut().record(&stamp_of(n), base, i64::from(n));
    }
}

/// A leader with 40 records, 7 of them trimmed.
fn leader() -> (Host, PartitionLog, StateSnapshot) {
    let host = host(1);
    let (mut log, _) = host.open().unwrap();
    write(&mut log, 0..40);
    log.set_log_start(Offset(7)).unwrap();
    host.flush(&mut log).unwrap();
    let state = log.state();
    assert!(state.segments.len() > 3);
    (host, log, state)
}

/// Pulls a segment in small pieces, going on from what is there.
fn pull(from: &PartitionLog, to: &Host, info: &SegmentInfo, upto: u64) -> SegmentWriter {
    let writer = SegmentWriter::open(Arc::new(to.disk.clone()), &to.dir, info.base).unwrap();
    let mut at = writer.collected().unwrap();
    while at < upto {
        let piece = from.reader().read_segment_range(info.base, at, 64).unwrap();
        writer.write_at(at, &piece).unwrap();
        at += piece.len() as u64;
    }
    writer
}

fn install(to: &Host, state: &StateSnapshot) -> Result<(PartitionLog, OpenReport), LogError> {
    PartitionLog::install(Arc::new(to.disk.clone()), &to.dir, to.config.clone(), state.clone())
}

#[test]
fn a_new_replica_holds_what_its_peer_held() {
    let (_, leader, state) = leader();
    let follower = host(2);
    drop(follower.open().unwrap());
    for info in &state.segments {
        // Interrupted half-way by the death of the process, then gone on.
        drop(pull(&leader, &follower, info, info.len / 2));
        follower.disk.kill();
        pull(&leader, &follower, info, info.len).finish(info).unwrap();
    }
    let (mut log, report) = install(&follower, &state).unwrap();
    assert_eq!(report.segments_rescanned, 0, "the pulled indexes are good");
    assert_eq!(read_all(&log).unwrap(), read_all(&leader).unwrap());
    assert_eq!(log.state(), state);
    assert_eq!(log.producers().check(&stamp_of(39)), Verdict::Duplicate { base_offset: Offset(39) });
    assert!(!follower.disk.exists(&follower.dir.join("incoming")));
    // It goes on and survives a loss of power.
    follower.flush(&mut log).unwrap();
    write(&mut log, 40..50);
    follower.flush(&mut log).unwrap();
    follower.disk.crash();
    let (log, _) = follower.open().unwrap();
    assert_eq!((log.log_start(), log.next_offset()), (Offset(7), Offset(50)));
    assert_eq!(read_all(&log).unwrap().len(), 43);
}

#[test]
fn segments_that_are_held_need_not_be_pulled() {
    let (_, leader, state) = leader();
    let follower = host(2);
    let (mut log, _) = follower.open().unwrap();
    write(&mut log, 0..25);
    follower.flush(&mut log).unwrap();
    let reader = log.reader();
    let (held, missing): (Vec<SegmentInfo>, Vec<SegmentInfo>) =
        state.segments.iter().copied().partition(|info| reader.holds(info));
    assert!(held.len() > 1 && missing.len() > 1);
    drop((log, reader));
    // Nothing is changed as long as something is missing.
    assert!(matches!(install(&follower, &state), Err(LogError::Unrestorable { .. })));
    for info in &missing {
        pull(&leader, &follower, info, info.len).finish(info).unwrap();
    }
    let (log, _) = install(&follower, &state).unwrap();
    assert_eq!(read_all(&log).unwrap(), read_all(&leader).unwrap());
}

#[test]
fn a_segment_that_is_not_what_the_peer_named_is_refused() {
    let (_, leader, state) = leader();
    let follower = host(2);
    drop(follower.open().unwrap());
    let info = &state.segments[1];
    let writer = pull(&leader, &follower, info, info.len);
    writer.write_at(info.len / 2, b"?").unwrap();
    assert!(matches!(writer.finish(info), Err(LogError::Corrupt { .. })));
    // A whole segment with another checksum than the peer's is another segment.
    let other = SegmentInfo { crc: info.crc ^ 1, ..*info };
    assert!(matches!(pull(&leader, &follower, info, info.len).finish(&other), Err(LogError::Corrupt { .. })));
    // What was refused is gone, so that it is pulled again from the start.
    let writer = SegmentWriter::open(Arc::new(follower.disk.clone()), &follower.dir, info.base).unwrap();
    assert_eq!(writer.collected().unwrap(), 0);
    pull(&leader, &follower, info, info.len).finish(info).unwrap();
    discard_incoming(&follower.disk, &follower.dir).unwrap();
    assert!(!follower.disk.exists(&follower.dir.join("incoming")));
}

#[test]
fn a_range_of_a_segment_that_is_gone_is_not_there() {
    let (_, mut leader, state) = leader();
    let first = state.segments[0];
    let reader = leader.reader();
    assert_eq!(reader.read_segment_range(first.base, first.len, 10).unwrap().len(), 0);
    let past = reader.read_segment_range(first.base, first.len + 1, 10);
    assert!(matches!(past, Err(LogError::NoSuchRange { .. })));
    leader.set_log_start(Offset(20)).unwrap();
    let gone = reader.read_segment_range(first.base, 0, 10);
    assert!(matches!(gone, Err(LogError::NoSuchRange { .. })));
}

#[test]
fn files_below_the_log_start_go_at_a_flush_and_stay_gone() {
    let (host, mut log, state) = leader();
    let first = host.dir.join(format!("{:020}.log", state.segments[0].base.0));
    let used = log.size_bytes();
    log.set_log_start(Offset(30)).unwrap();
    assert!(host.disk.exists(&first), "nothing is removed before the flush");
    host.flush(&mut log).unwrap();
    assert!(!host.disk.exists(&first) && log.size_bytes() < used);
    // The state of before still names them; it is restorable all the same.
    host.disk.crash();
    host.fall_back().unwrap();
    let (log, _) = host.open().unwrap();
    assert_eq!(log.next_offset(), Offset(40));
    assert!(read_all(&log).is_ok());
}

#[test]
fn a_log_trimmed_to_its_end_is_empty_and_goes_on() {
    let (host, mut log, _) = leader();
    log.set_log_start(Offset(999)).unwrap();
    assert_eq!((log.log_start(), log.segment_count(), log.size_bytes()), (Offset(40), 0, 0));
    host.flush(&mut log).unwrap();
    host.disk.crash();
    let (mut log, _) = host.open().unwrap();
    write(&mut log, 40..42);
    assert_eq!((read_all(&log).unwrap().len(), log.next_offset()), (2, Offset(42)));
    assert_eq!(log.epochs().epoch_at(Offset(41)).map(|epoch| epoch.0), Some(5));
}

#[test]
fn retention_names_whole_old_segments_and_slow_trickles_are_rolled() {
    let host = host(1);
    let config = LogConfig { retention_ms: Some(800), segment_bytes: 1 << 30, ..small(0) };
    let mut log =
        PartitionLog::open(Arc::new(host.disk.clone()), Path::new("/data/x"), config, None, None).unwrap().0;
    for n in 0..20 {
        // One record every 50 ms: a new segment every 100 ms, an eighth of the retention.
        append(&mut log, &Input { epoch: 1, timestamps: vec![50 * n], value_len: 10 }).unwrap();
    }
    assert_eq!(log.segment_count(), 10);
    assert_eq!(log.retention_target(800), None);
    assert_eq!(log.retention_target(1000), Some(Offset(4)));
    log.set_log_start(log.retention_target(1000).unwrap()).unwrap();
    assert_eq!((log.segment_count(), log.retention_target(1000)), (8, None));
    assert_eq!(log.retention_target(100_000), Some(Offset(20)));
}

#[test]
fn readers_live_through_appends_seals_and_retention() {
    // A reader thread walks the log again and again while the writer appends, flushes and trims.
    let host = host(3);
    let (mut log, _) = host.open().unwrap();
    let mut model = Model::default();
    (0..400).for_each(|n| model.push(&input(n)));
    let (reader, done) = (log.reader(), Arc::new(AtomicBool::new(false)));
    let (model_of_reader, done_of_reader) = (model.clone(), done.clone());
    let (first_read, has_read) = std::sync::mpsc::channel();
    let walk = std::thread::spawn(move || {
        let mut batches = 0_usize;
        while !done_of_reader.load(Ordering::Acquire) {
            let mut at = reader.log_start();
            while let Ok(ReadOutcome::Data(found)) = reader.read(at, reader.next_offset(), 700, false) {
                for batch in &found {
                    let stored = &model_of_reader.batches[usize::try_from(at.0).unwrap()];
                    assert_eq!(*batch, stored.bytes);
                    at = Offset(stored.next);
                    batches += 1;
                    if batches == 1 {
                        // Nobody waits for this once the writer has failed, and then it says so itself.
                        let _ = first_read.send(());
                    }
                }
                if found.is_empty() {
                    break;
                }
            }
            match reader.read(at, reader.next_offset(), 1, false) {
                Ok(_) | Err(LogError::OffsetOutOfRange { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        batches
    });
    for n in 0..400 {
        append(&mut log, &input(n)).unwrap();
        if n % 10 == 9 {
            log.set_log_start(Offset(u64::from(n).saturating_sub(60))).unwrap();
            host.flush(&mut log).unwrap();
        }
        if n == 99 {
            // However slowly its thread starts, the reader walks beside the rest of the writes.
            has_read.recv().unwrap();
        }
    }
    done.store(true, Ordering::Release);
    assert!(walk.join().unwrap() > 0, "the reader read nothing");
    host.flush(&mut log).unwrap();
    let files =
        host.disk.list(&host.dir).unwrap().iter().filter(|entry| entry.name.ends_with(".log")).count();
    assert_eq!(files, log.segment_count(), "files of dead segments stayed");
}
