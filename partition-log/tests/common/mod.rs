//! A log under test beside the simplest thing that it could be: a vector of stamped batches.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use disk::faulty::FaultyDisk;
use disk::frame::{FrameError, read_framed, write_framed};
use disk::{Disk, DiskError};
use partition_log::{LogConfig, LogError, OpenReport, PartitionLog, ReadOutcome, StateSnapshot};
use wire::ids::{LeaderEpoch, Offset};
use wire::record::{BatchHeader, Compression, RecordBatchBuilder, stamp};

pub(crate) const STATE_MAGIC: [u8; 8] = *b"TESTSTAT";

/// What is appended: epoch, timestamps of the records, bytes of each value.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) epoch: u32,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) value_len: usize,
}

impl Input {
    pub(crate) fn batch(&self) -> Bytes {
        let mut builder = RecordBatchBuilder::new(Compression::None);
        for (n, &timestamp) in self.timestamps.iter().enumerate() {
            let value = vec![u8::try_from(n % 256).unwrap(); self.value_len];
            builder.push(timestamp, None, Some(&value), &[]);
        }
        builder.build().unwrap()
    }
}

/// A batch as it must be stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) base: u64,
    pub(crate) next: u64,
    pub(crate) bytes: Bytes,
    pub(crate) timestamps: Vec<i64>,
}

/// All that was ever appended, as the WAL would have it, and where the log begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) batches: Vec<Stored>,
    pub(crate) log_start: u64,
}

impl Model {
    pub(crate) fn next(&self) -> u64 {
        self.batches.last().map_or(0, |last| last.next)
    }

    pub(crate) fn push(&mut self, input: &Input) {
        let base = self.next();
        let mut bytes = input.batch().to_vec();
        stamp(&mut bytes, Offset(base), LeaderEpoch(input.epoch));
        let next = base + input.timestamps.len() as u64;
        self.batches.push(Stored { base, next, bytes: bytes.into(), timestamps: input.timestamps.clone() });
    }

    /// The greedy read that [`partition_log::LogReader::read`] promises. `None` if the offset is not stored.
    pub(crate) fn read(&self, from: u64, upto: u64, max_bytes: usize) -> Option<Vec<Bytes>> {
        if from < self.log_start || from > self.next() {
            return None;
        }
        let mut out: Vec<Bytes> = Vec::new();
        let mut room = max_bytes;
        for stored in self.batches.iter().filter(|stored| stored.next > from) {
            let first = out.is_empty();
            if stored.next > upto || (!first && (stored.bytes.len() > room || room == 0)) || from >= upto {
                break;
            }
            room = room.saturating_sub(stored.bytes.len());
            out.push(stored.bytes.clone());
        }
        Some(out)
    }

    /// The first record that is not older.
    pub(crate) fn since(&self, timestamp: i64, upto: u64) -> Option<(u64, i64)> {
        let records =
            self.batches.iter().flat_map(|stored| (stored.base..).zip(stored.timestamps.iter().copied()));
        let found = records.into_iter().find(|&(at, time)| at >= self.log_start && time >= timestamp);
        found.filter(|&(at, _)| at < upto)
    }
}

/// A broker's part around the log: keeps the state file that the mark belongs to.
pub(crate) struct Host {
    pub(crate) disk: FaultyDisk,
    pub(crate) dir: PathBuf,
    pub(crate) config: LogConfig,
}

impl Host {
    pub(crate) fn new(disk: FaultyDisk, config: LogConfig) -> Self {
        Self { disk, dir: PathBuf::from("/data/groups/7-1"), config }
    }

    fn state_path(&self, name: &str) -> PathBuf {
        Path::new("/data").join(name)
    }

    pub(crate) fn prepare(&self) -> Result<(), DiskError> {
        self.disk.create_dir_all(Path::new("/data"))?;
        self.disk.sync_dir(Path::new("/"))
    }

    pub(crate) fn load(&self, name: &str) -> Option<StateSnapshot> {
        match read_framed(&self.disk, &self.state_path(name), STATE_MAGIC) {
            Ok((_, bytes)) => Some(StateSnapshot::decode(&bytes).unwrap()),
            Err(FrameError::Missing { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes the newest state for damaged: the one before it is the newest now.
    pub(crate) fn fall_back(&self) -> Result<(), DiskError> {
        let (newest, before) = (self.state_path("state"), self.state_path("state-before"));
        match self.load("state-before") {
            Some(_) => self.disk.rename(&before, &newest)?,
            None if self.disk.exists(&newest) => self.disk.remove(&newest)?,
            None => {}
        }
        self.disk.sync_dir(Path::new("/data"))
    }

    /// Opens with the newest state.
    pub(crate) fn open(&self) -> Result<(PartitionLog, OpenReport), LogError> {
        let state = self.load("state");
        let mark = state.as_ref().map(StateSnapshot::mark);
        PartitionLog::open(Arc::new(self.disk.clone()), &self.dir, self.config.clone(), state, mark)
    }

    /// Flushes as the broker does: plan and state of one moment, then the state file. Keeps the state of before.
    pub(crate) fn flush(&self, log: &mut PartitionLog) -> Result<(), LogError> {
        let plan = log.flush_plan()?;
        let state = log.state();
        let mark = plan.run()?;
        assert_eq!(mark, state.mark());
        if let Some(before) = self.load("state") {
            write_framed(&self.disk, &self.state_path("state-before"), STATE_MAGIC, 1, &before.encode())?;
        }
        write_framed(&self.disk, &self.state_path("state"), STATE_MAGIC, 1, &state.encode())?;
        Ok(())
    }
}

pub(crate) fn small(tail_cache_bytes: usize) -> LogConfig {
    LogConfig { segment_bytes: 1500, index_interval_bytes: 300, tail_cache_bytes, ..LogConfig::default() }
}

/// Reads everything from the log start.
pub(crate) fn read_all(log: &PartitionLog) -> Result<Vec<Bytes>, LogError> {
    let (mut all, mut from) = (Vec::new(), log.log_start());
    while from < log.next_offset() {
        match log.reader().read(from, log.next_offset(), usize::MAX, false)? {
            ReadOutcome::Data(batches) => all.extend(batches),
            ReadOutcome::WouldBlock => panic!("a read that may wait never would block"),
        }
        from = BatchHeader::parse(all.last().unwrap()).unwrap().next_offset();
    }
    Ok(all)
}

pub(crate) fn append(log: &mut PartitionLog, input: &Input) -> Result<(), LogError> {
    let appended = log.append(input.batch(), LeaderEpoch(input.epoch), input.timestamps[0])?;
    assert_eq!(appended.next_offset.0 - appended.base_offset.0, input.timestamps.len() as u64);
    Ok(())
}

/// What the WAL does after a recovery: everything above the restored state again.
pub(crate) fn replay(log: &mut PartitionLog, model: &Model, inputs: &[Input]) -> Result<(), LogError> {
    let from = log.next_offset().0;
    assert!(from == 0 || model.batches.iter().any(|stored| stored.next == from), "cut within a batch");
    for (stored, input) in model.batches.iter().zip(inputs) {
        if stored.base >= from {
            append(log, input)?;
        }
    }
    log.set_log_start(Offset(model.log_start))
}
