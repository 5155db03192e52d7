//! A batch and its place in the log. The fields that the log gives stand beside the bytes that came, which are shared with
//! the write-ahead log and with replication: they are joined where somebody reads them.

use bytes::{Bytes, BytesMut};
use wire::ids::{LeaderEpoch, Offset};
use wire::record::{BATCH_HEADER_LEN, stamp};

/// A batch of the log; clones share its bytes.
#[derive(Debug, Clone)]
pub(crate) struct StampedBatch {
    /// Offset of its first record, and the one after its last.
    pub(crate) base: u64,
    pub(crate) next: u64,
    pub(crate) epoch: LeaderEpoch,
    /// The batch as its producer sent it, a whole one.
    pub(crate) batch: Bytes,
}

impl StampedBatch {
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    /// The header as it stands in the log, and what follows it.
    pub(crate) fn parts(&self) -> ([u8; BATCH_HEADER_LEN], &[u8]) {
        let Some((header, rest)) = self.batch.split_first_chunk::<BATCH_HEADER_LEN>() else {
            unreachable!("only whole batches get a place");
        };
        let mut header = *header;
        stamp(&mut header, Offset(self.base), self.epoch);
        (header, rest)
    }

    /// The bytes as they stand in the log, in one piece: a copy.
    pub(crate) fn joined(&self) -> Bytes {
        let (header, rest) = self.parts();
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(rest);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use wire::record::{BatchHeader, Compression, RecordBatchBuilder, validate_batch};

    use super::*;

    #[test]
    fn what_is_read_has_its_place_and_what_came_is_left_alone() {
        let mut builder = RecordBatchBuilder::new(Compression::None);
        builder.push(5, Some(b"key"), Some(&[7; 500]), &[]);
        let batch = builder.build().expect("a batch");
        let stamped = StampedBatch { base: 70, next: 71, epoch: LeaderEpoch(3), batch: batch.clone() };
        let joined = stamped.joined();
        let header = validate_batch(&joined).expect("the checksum leaves the place out");
        assert_eq!((header.base_offset, header.leader_epoch), (70, 3));
        let (head, rest) = stamped.parts();
        assert_eq!([head.as_slice(), rest].concat(), joined);
        assert_eq!(BatchHeader::parse(&batch).expect("whole").base_offset, 0);
    }
}
