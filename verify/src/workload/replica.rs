//! One replica of one partition, read whole from the broker that holds it.

use client::PinnedBroker;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::limits::INFLATED_BYTES_MAX;
use wire::pb;
use wire::record::{decode_records, split_batches, validate_batch};

use super::{Place, value};
use crate::history::{FinalReadAnswer, FinalRecord};

/// Bytes asked for at once.
const PAGE_BYTES: u32 = 4 << 20;

/// The offset that this broker itself gives: its high watermark or its log start.
pub(super) async fn bound(
    broker: &PinnedBroker,
    place: &Place,
    at: pb::partition_offset_query::At,
    linearizable: bool,
) -> Result<u64, ApiError> {
    let query =
        pb::PartitionOffsetQuery { topic: place.topic.to_string(), partition: place.part, at: Some(at) };
    let request = pb::ListOffsetsRequest { partitions: vec![query], linearizable };
    let answer = broker.list_offsets(request).await.map_err(client::ClientError::into_api)?;
    let found = answer.partitions.into_iter().next().ok_or_else(|| lacking(broker))?;
    match found.error {
        Some(detail) => Err(detail.into()),
        None => Ok(found.offset),
    }
}

/// Everything from the log start to the high watermark, as this replica knows them now.
///
/// # Errors
/// The broker's; `corrupt_batch` if a batch fails its checksum; `internal` if a page brings nothing below the watermark.
pub(super) async fn content(broker: &PinnedBroker, place: &Place) -> Result<FinalReadAnswer, ApiError> {
    let earliest = pb::partition_offset_query::At::Earliest(true);
    let start = bound(broker, place, earliest, false).await?;
    let mut read = FinalReadAnswer { start, hw: start, recs: Vec::new() };
    let mut from = start;
    loop {
        let page = page(broker, place, from).await?;
        // The first page decides how far to read: the end must not run away from the reader.
        if from == start {
            read.hw = page.high_watermark;
        }
        let next = take(&mut read, from, page.batches)?;
        if next >= read.hw {
            return Ok(read);
        }
        if next == from {
            let message =
                format!("{} gave nothing at offset {from}, below its end {}", broker.address(), read.hw);
            return Err(ApiError::new(ErrorCode::Internal, message));
        }
        from = next;
    }
}

async fn page(broker: &PinnedBroker, place: &Place, offset: u64) -> Result<pb::PartitionFetched, ApiError> {
    let request = pb::FetchRequest {
        partitions: vec![pb::PartitionFetch {
            topic: place.topic.to_string(),
            partition: place.part,
            offset,
            max_bytes: PAGE_BYTES,
            leader_epoch: 0,
        }],
        min_bytes: 1,
        max_bytes: PAGE_BYTES,
        max_wait_ms: 0,
        plain: false,
    };
    let answer = broker.fetch(request).await.map_err(client::ClientError::into_api)?;
    let fetched = answer.partitions.into_iter().next().ok_or_else(|| lacking(broker))?;
    match fetched.error.clone() {
        Some(detail) => Err(detail.into()),
        None => Ok(fetched),
    }
}

/// Adds the records of a page from `from` up to the watermark; the offset after them.
fn take(read: &mut FinalReadAnswer, from: u64, batches: bytes::Bytes) -> Result<u64, ApiError> {
    let mut next = from;
    for batch in split_batches(batches) {
        let (_, batch) = batch.map_err(ApiError::from)?;
        let header = validate_batch(&batch).map_err(ApiError::from)?;
        let epoch = u32::try_from(header.leader_epoch).unwrap_or(0);
        for record in decode_records(&batch, INFLATED_BYTES_MAX).map_err(ApiError::from)? {
            let off = record.offset.0;
            if (next..read.hw).contains(&off) {
                let val = value::decode(record.value.as_deref());
                read.recs.push(FinalRecord { off, val, epoch, sum: header.crc });
            }
        }
        next = next.max(header.next_offset().0);
    }
    Ok(next)
}

fn lacking(broker: &PinnedBroker) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the answer of {} lacks the partition", broker.address()))
}
