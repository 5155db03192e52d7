//! Builds a lagging or new replica from its peer's segments.
//!
//! The leader offers a manifest: what a state file says. The replica pulls the segments that it lacks, in ranges over the
//! bulk link, into `incoming/` beside its own; each segment is checked by length and CRC-32C. An interrupted transfer goes
//! on where it stopped, because finished segments and written ranges stay. Only a complete set is installed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use disk::{Disk, DiskError, Io};
use futures::FutureExt;
use futures::future::BoxFuture;
use partition_log::{LogError, LogReader, SegmentInfo, SegmentWriter};
use tokio::time::Instant;
use wire::ids::{BrokerId, Offset};

use super::PartitionKind;
use super::manifest::Manifest;
use super::replica_log::ReplicaLog;
use super::state_machine::PartitionMachine;
use crate::raft::{RANGE_MAX, RangePuller, SnapshotDoor, SnapshotMeta};

/// Bytes a second that one replica pulls: catching up must not starve the traffic of the broker.
const PULL_BYTES_PER_SECOND: u64 = 64 << 20;

/// A range of one segment.
///
/// | offset | size | field, little endian |
/// |---|---|---|
/// | 0 | 8 | first offset of the segment |
/// | 8 | 8 | position in its log file |
/// | 16 | 4 | bytes wanted; 0 asks the replica to check the whole segment, because what it sent did not pass |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    base: Offset,
    position: u64,
    length: u32,
}

impl Range {
    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(20);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.position);
        out.put_u32_le(self.length);
        out.freeze()
    }

    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a range request has 20 bytes");
        let (base, rest) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (position, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        let length: [u8; 4] = rest.try_into().map_err(|_| wrong())?;
        Ok(Self {
            base: Offset(u64::from_le_bytes(*base)),
            position: u64::from_le_bytes(*position),
            length: u32::from_le_bytes(length),
        })
    }
}

/// How snapshots leave and enter one replica.
#[derive(Debug)]
pub(crate) struct Door {
    log: Arc<ReplicaLog>,
    io: Io,
}

impl Door {
    pub(crate) fn new(log: Arc<ReplicaLog>, io: Io) -> Self {
        Self { log, io }
    }
}

impl SnapshotDoor<PartitionKind, PartitionMachine> for Door {
    fn offer(&self, data: &Arc<Manifest>) -> Bytes {
        Bytes::from(data.encode())
    }

    fn receive(
        &self,
        from: BrokerId,
        meta: SnapshotMeta,
        offer: Bytes,
        pull: RangePuller,
    ) -> BoxFuture<'static, io::Result<Arc<Manifest>>> {
        let (log, io) = (self.log.clone(), self.io.clone());
        async move {
            let manifest = Manifest::decode(&offer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if manifest.last != meta.last_log_id {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the manifest is of another entry than the snapshot"));
            }
            tracing::info!(raft_group = %log.group(), %from, segments = manifest.state.segments.len(), "pulling segments");
            for segment in &manifest.state.segments {
                pull_segment(&log, &io, &pull, *segment).await?;
            }
            Ok(Arc::new(manifest))
        }
        .boxed()
    }

    fn read_range(&self, request: Bytes) -> BoxFuture<'static, io::Result<Bytes>> {
        let (log, io) = (self.log.clone(), self.io.clone());
        async move {
            let range = Range::decode(&request)?;
            let length = usize::try_from(range.length).unwrap_or(RANGE_MAX).min(RANGE_MAX);
            let reader = log.reader();
            let read = io.run(move || match length {
                0 => reader.check_segment(range.base).map(|()| Bytes::new()),
                _ => reader.read_segment_range(range.base, range.position, length),
            });
            read.await.map_err(|error| {
                log.damage().note(&error);
                io::Error::other(error)
            })
        }
        .boxed()
    }
}

/// Pulls what is missing of one segment, and checks the whole.
async fn pull_segment(
    log: &Arc<ReplicaLog>,
    io: &Io,
    pull: &RangePuller,
    segment: SegmentInfo,
) -> io::Result<()> {
    let (disk, dir, reader) = (log.disk().clone(), log.identity().dir.clone(), log.reader());
    let opened = io.run(move || open_writer(disk, &dir, &reader, &segment)).await;
    let Some((writer, mut position)) = opened.map_err(|error| stored(log, error))? else { return Ok(()) };
    let writer = Arc::new(writer);
    while position < segment.len {
        let began = Instant::now();
        let left = segment.len - position;
        let length =
            u32::try_from(left.min(u64::try_from(RANGE_MAX).unwrap_or(u64::MAX))).unwrap_or(u32::MAX);
        let bytes = pull.pull(Range { base: segment.base, position, length }.encode()).await?;
        if bytes.is_empty() || bytes.len() > usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer sent a range of a wrong length",
            ));
        }
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let target = writer.clone();
        let written = io.run(move || target.write_at(position, &bytes)).await;
        written.map_err(|error| stored(log, error))?;
        position += count;
        tokio::time::sleep_until(began + pause_of(count)).await;
    }
    let writer = Arc::into_inner(writer).ok_or_else(|| io::Error::other("a range is still being written"))?;
    let finished = io.run(move || writer.finish(&segment)).await;
    if let Err(LogError::Corrupt { .. }) = &finished {
        // The peer may not know that its own copy is damaged, and would offer it for ever. Its answer changes nothing here.
        drop(pull.pull(Range { base: segment.base, position: 0, length: 0 }.encode()).await);
    }
    finished.map_err(|error| stored(log, error))
}

/// A write or sync that failed ends the broker: nobody knows what the files hold, and a later sync that works proves
/// nothing (I3). A full disk and what is wrong with the peer's bytes do not: the leader offers again.
fn stored(log: &ReplicaLog, error: LogError) -> io::Error {
    if let LogError::Disk(cause) = &error
        && !matches!(cause, DiskError::Full { .. })
    {
        log.stop(&format!("pulled segments of group {} cannot be stored: {error}: {cause}", log.group()));
    }
    io::Error::other(error)
}

/// The writer of a segment and where to go on; `None` if this replica has the very bytes already.
fn open_writer(
    disk: Arc<dyn Disk>,
    dir: &Path,
    reader: &LogReader,
    segment: &SegmentInfo,
) -> Result<Option<(SegmentWriter, u64)>, LogError> {
    if reader.holds(segment) {
        return Ok(None);
    }
    let writer = SegmentWriter::open(disk, dir, segment.base)?;
    let collected = writer.collected()?;
    if collected > segment.len {
        // Left over from another manifest: what is there is longer than what is wanted, so it is pulled anew.
        return Ok(Some((writer, 0)));
    }
    Ok(Some((writer, collected)))
}

/// Time that a range of this many bytes may take at full speed.
fn pause_of(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / PULL_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn range_has_its_golden_bytes() {
        let range = Range { base: Offset(1), position: 258, length: 3 };
        let golden = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
        assert_eq!(range.encode().as_ref(), golden);
        assert_eq!(Range::decode(&golden).expect("whole"), range);
    }

    proptest! {
        #[test]
        fn garbage_ranges_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Range::decode(&bytes).is_ok(), bytes.len() == 20);
        }
    }
}
