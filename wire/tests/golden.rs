//! Formats do not move: bytes written by other encoders and by earlier versions are read the same for ever.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure there fails the test")]

use std::path::PathBuf;

use bytes::Bytes;
use wire::ids::{LeaderEpoch, Offset, ProducerId};
use wire::record::{
    BatchHeader, Compression, OwnedRecord, RecordBatchBuilder, decode_records, split_batches, stamp,
    validate_batch,
};

const LIMIT: usize = 1 << 20;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Compares with a golden file; a missing one is written when `ALTAIR_BLESS` is set, an existing one never.
fn expect_golden(name: &str, bytes: &[u8]) {
    if std::env::var_os("ALTAIR_BLESS").is_some() && !path(name).exists() {
        std::fs::write(path(name), bytes).unwrap();
    }
    assert_eq!(golden(name), bytes, "{name}");
}

/// The records in every file here.
fn expected(append_time: bool) -> Vec<OwnedRecord> {
    (0..12_u64)
        .map(|i| OwnedRecord {
            offset: Offset(i),
            timestamp_ms: 1_700_000_000_000 + if append_time { 110 } else { i.cast_signed() * 10 },
            key: (i != 0).then(|| format!("key-{i}").into()),
            value: (i != 1).then(|| format!("value {i} ").repeat(20).into()),
            headers: if i % 3 == 0 {
                vec![("trace-id".into(), Bytes::from_static(&[0, 1])), ("empty".into(), Bytes::new())]
            } else {
                Vec::new()
            },
        })
        .collect()
}

fn built(compression: Compression) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression).producer(ProducerId(4_711), 3, 100);
    for record in expected(false) {
        let headers: Vec<_> = record.headers.iter().map(|(k, v)| (k.as_str(), v.as_ref())).collect();
        builder.push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build().unwrap()
}

fn check_header(header: &BatchHeader) {
    assert_eq!(header.record_count, 12);
    assert_eq!((header.base_timestamp, header.max_timestamp), (1_700_000_000_000, 1_700_000_000_110));
    let producer = header.producer().unwrap();
    assert_eq!(
        (producer.id, producer.epoch, producer.first_sequence, producer.last_sequence),
        (ProducerId(4_711), 3, 100, 111)
    );
}

#[test]
fn batches_of_another_encoder_decode_with_every_codec() {
    for compression in Compression::ALL {
        let bytes = golden(&format!("kafka-python-{compression}.bin"));
        let header = validate_batch(&bytes).unwrap();
        assert_eq!(header.compression().unwrap(), compression);
        check_header(&header);
        assert_eq!(decode_records(&bytes, LIMIT).unwrap(), expected(false), "{compression}");
    }
}

#[test]
fn raw_snappy_decodes_like_framed_snappy() {
    let bytes = golden("kafka-python-snappy-raw.bin");
    assert_eq!(decode_records(&bytes, LIMIT).unwrap(), expected(false));
}

#[test]
fn append_time_replaces_the_time_of_every_record() {
    let bytes = golden("kafka-python-append-time.bin");
    assert!(validate_batch(&bytes).unwrap().has_append_time());
    assert_eq!(decode_records(&bytes, LIMIT).unwrap(), expected(true));
}

#[test]
fn our_uncompressed_batch_is_the_other_encoders_byte_for_byte() {
    let theirs = golden("kafka-python-none.bin");
    let ours = built(Compression::None);
    // kafka-python leaves the leader epoch 0, Java's producer and we write -1; it is outside the checksum.
    assert_eq!(ours[..12], theirs[..12]);
    assert_eq!(ours[12..16], (-1_i32).to_be_bytes());
    assert_eq!(ours[16..], theirs[16..]);
}

#[test]
fn our_batches_of_earlier_versions_decode_with_every_codec() {
    expect_golden("altair-none.bin", &built(Compression::None));
    for compression in Compression::ALL {
        let name = format!("altair-{compression}.bin");
        if std::env::var_os("ALTAIR_BLESS").is_some() && !path(&name).exists() {
            std::fs::write(path(&name), built(compression)).unwrap();
        }
        let bytes = golden(&name);
        check_header(&validate_batch(&bytes).unwrap());
        assert_eq!(validate_batch(&bytes).unwrap().compression().unwrap(), compression);
        assert_eq!(decode_records(&bytes, LIMIT).unwrap(), expected(false), "{compression}");
    }
}

#[test]
fn a_stamped_batch_has_offset_and_epoch_in_their_places() {
    let mut bytes = golden("altair-zstd.bin");
    let before = bytes.clone();
    stamp(&mut bytes, Offset(0x0102_0304_0506), LeaderEpoch(0x0a0b));
    assert_eq!(bytes[..8], [0, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(bytes[8..12], before[8..12]);
    assert_eq!(bytes[12..16], [0, 0, 0x0a, 0x0b]);
    assert_eq!(bytes[16..], before[16..]);
    assert_eq!(decode_records(&bytes, LIMIT).unwrap()[2].offset, Offset(0x0102_0304_0508));
}

#[test]
fn concatenated_batches_split_where_they_meet() {
    let one = golden("kafka-python-none.bin");
    let two = golden("altair-lz4.bin");
    let both = Bytes::from([one.as_slice(), two.as_slice()].concat());
    let parts: Vec<_> = split_batches(both).map(|part| part.unwrap().1).collect();
    assert_eq!(parts, [Bytes::from(one), Bytes::from(two)]);
}

#[cfg(feature = "grpc")]
mod protobuf {
    use prost::Message;
    use wire::api_error::{ApiError, LeaderHint};
    use wire::error_code::ErrorCode;
    use wire::ids::BrokerId;
    use wire::pb;

    use super::*;

    fn holds<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str, message: &M) {
        expect_golden(name, &message.encode_to_vec());
        assert_eq!(&M::decode(golden(name).as_slice()).unwrap(), message, "{name}");
    }

    fn error() -> pb::ErrorDetail {
        ApiError::new(ErrorCode::NotLeader, "broker 2 leads orders/3")
            .reason("elected 3 s ago")
            .hint("ask broker 2")
            .retry_after_ms(20)
            .leader(LeaderHint { broker: BrokerId(2), address: "host:7400".into(), epoch: LeaderEpoch(5) })
            .into()
    }

    fn record() -> pb::Record {
        pb::Record {
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"v")),
            headers: vec![pb::Header { key: "h".into(), value: Bytes::from_static(b"1") }],
            timestamp_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn error_detail_keeps_its_fields() {
        holds("error-detail.bin", &error());
    }

    #[test]
    fn produce_request_keeps_its_fields() {
        let partition = pb::PartitionProduce {
            topic: "orders".into(),
            partition: Some(3),
            batches: golden("kafka-python-none.bin").into(),
            records: vec![record()],
        };
        let acks = pb::Acks::Leader.into();
        holds(
            "produce-request.bin",
            &pb::ProduceRequest { correlation_id: 9, acks, timeout_ms: 1_500, partitions: vec![partition] },
        );
    }

    #[test]
    fn fetch_response_keeps_its_fields() {
        let partition = pb::PartitionFetched {
            topic: "orders".into(),
            partition: 3,
            error: Some(error()),
            high_watermark: 1_000,
            log_start_offset: 10,
            batches: golden("kafka-python-lz4.bin").into(),
            records: vec![pb::StoredRecord { offset: 12, record: Some(record()) }],
            leader_epoch: 7,
        };
        holds("fetch-response.bin", &pb::FetchResponse { partitions: vec![partition] });
    }

    #[test]
    fn topic_info_keeps_its_fields() {
        let topic = pb::TopicInfo {
            name: "orders".into(),
            topic_id: "0190b5a0-0000-7000-8000-000000000001".into(),
            error: None,
            replication_factor: 3,
            partitions: vec![pb::PartitionInfo {
                partition: 0,
                leader: Some(1),
                leader_epoch: 4,
                preferred_leader: 1,
                replicas: vec![1, 2, 3],
                isr: vec![1, 3],
                raft_group: 17,
            }],
            config: [("retention_ms".into(), "604800000".into()), ("segment_bytes".into(), "1".into())]
                .into(),
            overridden: vec!["segment_bytes".into()],
        };
        holds("topic-info.bin", &topic);
    }
}
