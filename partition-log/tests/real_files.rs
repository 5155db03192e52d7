//! The log on the operating system's files: append, roll, flush, reopen, trim.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use std::sync::Arc;

use common::{Input, append, read_all, small};
use disk::{Disk, OsDisk};
use partition_log::PartitionLog;
use wire::ids::Offset;

#[test]
fn a_log_on_real_files_is_reopened_and_trimmed() {
    let place = tempfile::tempdir().unwrap();
    let (disk, dir) = (Arc::new(OsDisk::new()), place.path().join("groups/00/7-1"));
    let (mut log, _) = PartitionLog::open(disk.clone(), &dir, small(0), None, None).unwrap();
    for n in 0..60 {
        append(&mut log, &Input { epoch: 1, timestamps: vec![n], value_len: 200 }).unwrap();
        log.start_writeback().unwrap();
    }
    let (state, mark) = (log.state(), log.flush().unwrap());
    let all = read_all(&log).unwrap();
    // More than the state names: it goes.
    append(&mut log, &Input { epoch: 1, timestamps: vec![60], value_len: 2000 }).unwrap();
    drop(log);
    let (mut log, report) =
        PartitionLog::open(disk.clone(), &dir, small(0), Some(state), Some(mark)).unwrap();
    assert!(report.bytes_cut > 2000 && report.segments_rescanned == 0, "{report:?}");
    assert_eq!(read_all(&log).unwrap(), all);
    log.set_log_start(Offset(50)).unwrap();
    log.flush().unwrap();
    let files = disk.list(&dir).unwrap().iter().filter(|entry| entry.name.ends_with(".log")).count();
    assert_eq!(files, log.segment_count());
    assert_eq!(log.reader().offset_for_time(55, log.next_offset()).unwrap(), Some((Offset(55), 55)));
}
