//! No byte from outside crashes, hangs or bloats the process (I14): every decoder is tried with garbage of three kinds,
//! random, a valid batch damaged, and a valid batch that lies with a correct checksum.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure there fails the test")]

use bytes::Bytes;
use proptest::prelude::*;
use wire::ids::ProducerId;
use wire::record::{
    BATCH_HEADER_LEN, BatchHeader, Compression, RecordBatchBuilder, RecordError, decode_records,
    inflate_limit, split_batches, validate_batch,
};

const LIMIT: usize = 4 << 20;

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.as_slice())
}

type PlainRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn record() -> impl Strategy<Value = PlainRecord> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    (
        any::<i64>(),
        prop::option::of(bytes()),
        prop::option::of(bytes()),
        prop::collection::vec((".{0,8}", bytes()), 0..3),
    )
}

fn build(compression: Compression, records: &[PlainRecord]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression).producer(ProducerId(3), 0, 5);
    for (time, key, value, headers) in records {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
        builder.push(*time, key.as_deref(), value.as_deref(), &headers);
    }
    builder.build().unwrap()
}

/// Makes length and checksum true again, so that the damage is met behind them.
fn reseal(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A sealed batch with this record section, whatever it is.
fn batch_with(compression: Compression, count: i32, section: &[u8]) -> Vec<u8> {
    let mut batch = build(Compression::None, &[(0, None, None, Vec::new())]).to_vec();
    batch.truncate(BATCH_HEADER_LEN);
    batch[22] = compression.id();
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(section);
    reseal(&mut batch);
    batch
}

fn try_everything(bytes: &[u8]) {
    let _ = BatchHeader::parse(bytes);
    let _ = validate_batch(bytes);
    if let Ok(records) = decode_records(bytes, LIMIT) {
        assert!(!records.is_empty());
    }
    let parts = split_batches(Bytes::copy_from_slice(bytes)).count();
    assert!(parts <= bytes.len() / BATCH_HEADER_LEN + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn records_read_back_as_they_were_written(
        compression in codec(), records in prop::collection::vec(record(), 1..20),
    ) {
        let batch = build(compression, &records);
        let read = decode_records(&batch, LIMIT).unwrap();
        prop_assert_eq!(read.len(), records.len());
        for (i, (got, (time, key, value, headers))) in read.iter().zip(&records).enumerate() {
            prop_assert_eq!(got.offset.0, i as u64);
            prop_assert_eq!(got.timestamp_ms, *time);
            prop_assert_eq!(got.key.as_deref(), key.as_deref());
            prop_assert_eq!(got.value.as_deref(), value.as_deref());
            let got: Vec<_> = got.headers.iter().map(|(k, v)| (k.clone(), v.to_vec())).collect();
            prop_assert_eq!(&got, headers);
        }
    }

    #[test]
    fn random_bytes_are_an_error_or_a_batch(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        try_everything(&bytes);
    }

    #[test]
    fn any_flipped_bit_behind_the_checksum_is_found(
        compression in codec(), records in prop::collection::vec(record(), 1..5), at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut batch = build(compression, &records).to_vec();
        let at = 17 + at.index(batch.len() - 17);
        batch[at] ^= 1 << bit;
        prop_assert!(validate_batch(&batch).is_err());
        try_everything(&batch);
    }

    #[test]
    fn a_lying_batch_with_a_true_checksum_does_no_harm(
        compression in codec(), records in prop::collection::vec(record(), 1..8), at in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 1..12), cut in any::<prop::sample::Index>(),
    ) {
        let mut batch = build(compression, &records).to_vec();
        let at = 21 + at.index(batch.len() - 21);
        for (byte, noise) in batch[at..].iter_mut().zip(&noise) {
            *byte = *noise;
        }
        reseal(&mut batch);
        try_everything(&batch);
        batch.truncate(BATCH_HEADER_LEN + cut.index(batch.len() - BATCH_HEADER_LEN + 1));
        reseal(&mut batch);
        try_everything(&batch);
    }

    #[test]
    fn a_random_block_of_any_codec_does_no_harm(
        compression in codec(), count in 1..1_000_i32, section in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        try_everything(&batch_with(compression, count, &section));
    }

    #[test]
    fn a_cut_batch_says_how_much_is_missing(records in prop::collection::vec(record(), 1..5), cut in any::<prop::sample::Index>()) {
        let batch = build(Compression::None, &records);
        let have = cut.index(batch.len());
        let refused = matches!(validate_batch(&batch[..have]), Err(RecordError::Truncated { .. }));
        prop_assert!(refused);
    }
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_without_inflating() {
    for compression in Compression::ALL {
        let batch = batch_with(compression, i32::MAX, &[0; 40]);
        assert!(matches!(validate_batch(&batch), Err(RecordError::Count { .. })), "{compression}");
    }
}

#[test]
fn a_snappy_block_that_declares_gigabytes_is_refused() {
    // Varint of 2^32 - 1 as the declared length, then nothing worth inflating.
    let batch = batch_with(Compression::Snappy, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    assert!(matches!(decode_records(&batch, LIMIT), Err(RecordError::InflatedTooLarge { .. })));
    // 1 MiB is within the limit, but seven bytes cannot make it.
    let batch = batch_with(Compression::Snappy, 1, &[0x80, 0x80, 0x40, 0, 0, 0, 0]);
    assert!(matches!(decode_records(&batch, LIMIT), Err(RecordError::Inflate { .. })));
}

#[test]
fn a_zstd_window_above_eight_mebibytes_is_refused() {
    // Magic, a frame header without content size, window descriptor of 2^30.
    let batch = batch_with(Compression::Zstd, 1, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0, 0]);
    assert!(matches!(decode_records(&batch, LIMIT), Err(RecordError::Inflate { .. })));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    // 64 MiB of zeros in a few KiB: what each codec makes of it, as the section of a batch.
    use std::io::Write;
    let zeros = vec![0; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&zeros).unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&zeros).unwrap();
    let bombs = [
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Lz4, lz4.finish().unwrap()),
        (Compression::Zstd, zstd::bulk::compress(&zeros, 3).unwrap()),
        (Compression::Snappy, snap::raw::Encoder::new().compress_vec(&zeros).unwrap()),
    ];
    for (compression, bomb) in bombs {
        let batch = batch_with(compression, 1, &bomb);
        let limit = inflate_limit(bomb.len(), LIMIT);
        assert!(limit <= LIMIT);
        match decode_records(&batch, LIMIT) {
            Err(RecordError::InflatedTooLarge { limit: hit }) => assert_eq!(hit, limit, "{compression}"),
            other => panic!("{compression}: {other:?}"),
        }
    }
}

#[test]
fn what_the_builder_writes_is_never_taken_for_a_bomb() {
    // 5 MiB of zeros compress a thousandfold; the builder then keeps them as they are.
    for compression in Compression::ALL {
        let zeros = vec![0; 5 << 20];
        let batch = build(compression, &[(0, None, Some(zeros.clone()), Vec::new())]);
        let records = decode_records(&batch, 8 << 20).unwrap();
        assert_eq!(records[0].value.as_deref(), Some(zeros.as_slice()), "{compression}");
    }
}

#[test]
fn large_ordinary_text_stays_compressed_and_reads_back() {
    let text: Vec<u8> =
        (0..600_000_u32).flat_map(|i| format!("{} ", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let batch = build(compression, &[(0, None, Some(text.clone()), Vec::new())]);
        assert_eq!(validate_batch(&batch).unwrap().compression().unwrap(), compression);
        assert_eq!(decode_records(&batch, 16 << 20).unwrap()[0].value.as_deref(), Some(text.as_slice()));
    }
}

#[test]
fn a_split_ends_at_the_first_damage() {
    let good = build(Compression::None, &[(0, None, None, Vec::new())]);
    let bytes = Bytes::from([good.as_ref(), &[0xff; 100], good.as_ref()].concat());
    let parts: Vec<_> = split_batches(bytes).collect();
    assert_eq!(parts.len(), 2);
    assert!(parts[0].is_ok() && parts[1].is_err());
}

#[cfg(feature = "grpc")]
mod protobuf {
    use prost::Message;
    use wire::pb;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn random_messages_are_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = pb::ProduceRequest::decode(bytes.as_slice());
            let _ = pb::FetchRequest::decode(bytes.as_slice());
            let _ = pb::FetchResponse::decode(bytes.as_slice());
            let _ = pb::CreateTopicRequest::decode(bytes.as_slice());
            let _ = pb::GetMetadataResponse::decode(bytes.as_slice());
            if let Ok(detail) = pb::ErrorDetail::decode(bytes.as_slice()) {
                let _ = wire::api_error::ApiError::from(detail).to_string();
            }
        }
    }
}
