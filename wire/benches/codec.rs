//! Encoding, checking and decoding of record batches: `cargo bench -p wire`. A batch has 64 records of 1 KiB, half of each
//! record noise and half text, so that compression has something to do.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run should say where")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wire::record::{Compression, RecordBatchBuilder, decode_records, validate_batch};

const RECORDS: usize = 64;
const RECORD: usize = 1 << 10;
const INFLATED_MAX: usize = 1 << 20;

/// Values of records, the same in every run (xorshift64).
fn values() -> Vec<Vec<u8>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let value = |_| {
        let mut value: Vec<u8> = (0..RECORD / 16).flat_map(|_| noise()).collect();
        value.extend(b"{\"order\":1}     ".iter().copied().cycle().take(RECORD / 2));
        value
    };
    (0..RECORDS).map(value).collect()
}

fn encoded(values: &[Vec<u8>], compression: Compression) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression);
    for value in values {
        builder.push(7, None, Some(value), &[]);
    }
    builder.build().unwrap()
}

fn codec(criterion: &mut Criterion) {
    let values = values();
    let mut group = criterion.benchmark_group("batch of 64 x 1 KiB");
    group.throughput(Throughput::Bytes((RECORDS * RECORD) as u64));
    for compression in Compression::ALL {
        let batch = encoded(&values, compression);
        group.bench_function(BenchmarkId::new("encode", compression), |bench| {
            bench.iter(|| encoded(black_box(&values), compression));
        });
        group.bench_function(BenchmarkId::new("decode", compression), |bench| {
            bench.iter(|| decode_records(black_box(&batch), INFLATED_MAX).unwrap());
        });
    }
    let batch = encoded(&values, Compression::None);
    group.bench_function("validate", |bench| bench.iter(|| validate_batch(black_box(&batch)).unwrap()));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
