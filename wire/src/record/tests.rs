//! Batches that are built read back the same; batches that lie are refused.

use bytes::Bytes;

use super::*;
use crate::ids::{LeaderEpoch, Offset, ProducerId};

fn sample(compression: Compression) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression).producer(ProducerId(7), 2, 40);
    for i in 0..20_u8 {
        builder.push(
            1_700_000_000_000 + i64::from(i),
            Some(&[i]),
            Some(b"the same text again and again"),
            &[],
        );
    }
    builder.build().unwrap()
}

#[test]
fn what_is_built_reads_back_the_same_with_every_codec() {
    for compression in Compression::ALL {
        let batch = sample(compression);
        let header = validate_batch(&batch).unwrap();
        assert_eq!(header.compression().unwrap(), compression);
        assert_eq!(header.record_count, 20);
        let stamp = header.producer().unwrap();
        assert_eq!((stamp.id, stamp.epoch), (ProducerId(7), 2));
        assert_eq!((stamp.first_sequence, stamp.last_sequence), (40, 59));
        let records = decode_records(&batch, 1 << 20).unwrap();
        assert_eq!(records.len(), 20);
        assert_eq!(records[3].key.as_deref(), Some(&[3][..]));
        assert_eq!(records[3].timestamp_ms, 1_700_000_000_003);
    }
}

#[test]
fn a_stamp_leaves_the_checksum_valid() {
    let mut bytes = sample(Compression::None).to_vec();
    stamp(&mut bytes, Offset(1_000), LeaderEpoch(9));
    let header = validate_batch(&bytes).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (1_000, 9));
    assert_eq!((header.last_offset(), header.next_offset()), (Offset(1_019), Offset(1_020)));
    assert_eq!(decode_records(&bytes, 1 << 20).unwrap()[19].offset, Offset(1_019));
}
