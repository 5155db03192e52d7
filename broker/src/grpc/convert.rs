//! Between the messages of `altair.v1` and the structs of `api`.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{LeaderEpoch, Offset, PartitionIndex};
use wire::limits::INFLATED_BYTES_MAX;
use wire::pb;
use wire::record::{OwnedRecord, decode_records};

use crate::api::{
    Acks, FetchItem, Fetched, FetchedItem, OffsetItem, OffsetQuery, OffsetSpec, PlainRecord, ProduceItem,
    ProduceOutcome, ProducePayload, ProduceRequest,
};

/// Partitions that one request may name; the message limit alone would let through millions.
const ITEMS_MAX: usize = 10_000;
/// What a fetched partition gets when the client asked for no bound.
const PARTITION_BYTES_DEFAULT: usize = 1 << 20;

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

/// At most [`ITEMS_MAX`] and at least one.
fn bounded(count: usize) -> Result<(), ApiError> {
    if count == 0 {
        return Err(invalid("the request names no partition"));
    }
    if count > ITEMS_MAX {
        return Err(invalid(format!(
            "the request names {count} partitions, at most {ITEMS_MAX} are allowed"
        )));
    }
    Ok(())
}

fn acks_in(acks: i32) -> Result<Acks, ApiError> {
    match pb::Acks::try_from(acks) {
        Ok(pb::Acks::Unspecified | pb::Acks::All) => Ok(Acks::All),
        Ok(pb::Acks::Leader) => Ok(Acks::Leader),
        Ok(pb::Acks::None) => Ok(Acks::None),
        Err(_) => Err(invalid(format!("acks {acks} is none of none, leader and all"))),
    }
}

fn acks_out(acks: Acks) -> pb::Acks {
    match acks {
        Acks::None => pb::Acks::None,
        Acks::Leader => pb::Acks::Leader,
        Acks::All => pb::Acks::All,
    }
}

/// A produce request, checked for shape.
pub(super) fn produce_in(request: pb::ProduceRequest, deadline: Instant) -> Result<ProduceRequest, ApiError> {
    bounded(request.partitions.len())?;
    let acks = acks_in(request.acks)?;
    let items = request.partitions.into_iter().map(produce_item_in).collect::<Result<_, _>>()?;
    Ok(ProduceRequest { acks, deadline, items })
}

fn produce_item_in(item: pb::PartitionProduce) -> Result<ProduceItem, ApiError> {
    let payload = match (item.batches.is_empty(), item.records.is_empty()) {
        (false, false) => return Err(invalid("give either batches or records, not both")),
        (false, true) => ProducePayload::Batches(item.batches),
        (true, _) => ProducePayload::Records(item.records.into_iter().map(record_in).collect()),
    };
    Ok(ProduceItem { topic: item.topic, partition: item.partition.map(PartitionIndex), payload })
}

fn record_in(record: pb::Record) -> PlainRecord {
    PlainRecord {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
        timestamp_ms: record.timestamp_ms,
    }
}

/// The receipt of one partition.
pub(super) fn produce_out(outcome: ProduceOutcome) -> pb::ProduceResult {
    let ProduceOutcome { topic, partition, result } = outcome;
    let blank = pb::ProduceResult { topic, partition: partition.0, ..Default::default() };
    match result {
        Err(error) => pb::ProduceResult { error: Some(error.into()), ..blank },
        Ok(receipt) => pb::ProduceResult {
            level: acks_out(receipt.level).into(),
            base_offset: receipt.base_offset.map(|offset| offset.0),
            record_count: u32::try_from(receipt.record_count).unwrap_or(u32::MAX),
            leader_epoch: receipt.leader_epoch.map_or(0, |epoch| epoch.0),
            raft_index: receipt.raft_index.map_or(0, |index| index.0),
            provisional: receipt.provisional,
            duplicate: receipt.duplicate,
            on_disk_brokers: receipt.on_disk.iter().map(|broker| broker.0).collect(),
            ..blank
        },
    }
}

/// The partitions of a fetch, checked for shape.
pub(super) fn fetch_in(partitions: Vec<pb::PartitionFetch>) -> Result<Vec<FetchItem>, ApiError> {
    bounded(partitions.len())?;
    let items = partitions.into_iter().map(|item| FetchItem {
        topic: item.topic,
        partition: PartitionIndex(item.partition),
        offset: Offset(item.offset),
        max_bytes: match item.max_bytes {
            0 => PARTITION_BYTES_DEFAULT,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        },
        leader_epoch: (item.leader_epoch != 0).then_some(LeaderEpoch(item.leader_epoch)),
    });
    Ok(items.collect())
}

/// What was read from one partition, from `offset` on; as records if `plain`, of which at most `plain_budget` bytes.
pub(super) fn fetched_out(
    item: FetchedItem,
    offset: Offset,
    plain: bool,
    plain_budget: &mut usize,
) -> pb::PartitionFetched {
    let FetchedItem { topic, partition, result } = item;
    let blank = pb::PartitionFetched { topic, partition: partition.0, ..Default::default() };
    let fetched = match result {
        Ok(fetched) => fetched,
        Err(error) => return pb::PartitionFetched { error: Some(error.into()), ..blank },
    };
    let known = pb::PartitionFetched {
        high_watermark: fetched.high_watermark.0,
        log_start_offset: fetched.log_start.0,
        leader_epoch: fetched.leader_epoch.0,
        ..blank
    };
    if !plain {
        return pb::PartitionFetched { batches: join(fetched), ..known };
    }
    match plain_records(&fetched, offset, plain_budget) {
        Ok(records) => pb::PartitionFetched { records, ..known },
        Err(error) => pb::PartitionFetched { error: Some(error.into()), ..known },
    }
}

/// Batches one after the other; a single one is not copied.
fn join(fetched: Fetched) -> Bytes {
    match <[Bytes; 1]>::try_from(fetched.batches) {
        Ok([only]) => only,
        Err(batches) => {
            let mut joined = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
            batches.iter().for_each(|batch| joined.extend_from_slice(batch));
            joined.freeze()
        }
    }
}

fn plain_records(
    fetched: &Fetched,
    offset: Offset,
    budget: &mut usize,
) -> Result<Vec<pb::StoredRecord>, ApiError> {
    let mut records = Vec::new();
    for batch in &fetched.batches {
        for record in decode_records(batch, INFLATED_BYTES_MAX)? {
            if record.offset < offset {
                continue;
            }
            let bytes = record_bytes(&record);
            // The first record of an answer comes even if it is larger than what is left.
            if bytes > *budget && !records.is_empty() {
                return Ok(records);
            }
            *budget = budget.saturating_sub(bytes);
            records.push(record_out(record));
        }
    }
    Ok(records)
}

/// About what a record takes in an answer.
fn record_bytes(record: &OwnedRecord) -> usize {
    const AROUND: usize = 32;
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + value.len() + AROUND / 4).sum();
    AROUND + headers + record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
}

fn record_out(record: OwnedRecord) -> pb::StoredRecord {
    let headers = record.headers.into_iter().map(|(key, value)| pb::Header { key, value }).collect();
    let plain =
        pb::Record { key: record.key, value: record.value, headers, timestamp_ms: record.timestamp_ms };
    pb::StoredRecord { offset: record.offset.0, record: Some(plain) }
}

/// The questions of a list-offsets, checked for shape.
pub(super) fn offsets_in(partitions: Vec<pb::PartitionOffsetQuery>) -> Result<Vec<OffsetQuery>, ApiError> {
    use pb::partition_offset_query::At;
    bounded(partitions.len())?;
    let queries = partitions.into_iter().map(|item| {
        let at = match item.at {
            Some(At::Earliest(true)) => OffsetSpec::Earliest,
            Some(At::Latest(true)) => OffsetSpec::Latest,
            Some(At::TimestampMs(ms)) => OffsetSpec::Timestamp(ms),
            Some(At::Earliest(false) | At::Latest(false)) | None => {
                return Err(invalid("each partition needs one of earliest, latest and timestamp_ms"));
            }
        };
        Ok(OffsetQuery { topic: item.topic, partition: PartitionIndex(item.partition), at })
    });
    queries.collect()
}

/// One partition's offset; `high_watermark` stands in where no record is as new as the timestamp.
pub(super) fn offset_out(item: OffsetItem) -> pb::PartitionOffset {
    let OffsetItem { topic, partition, result } = item;
    let blank = pb::PartitionOffset { topic, partition: partition.0, ..Default::default() };
    match result {
        Err(error) => pb::PartitionOffset { error: Some(error.into()), ..blank },
        Ok(listed) => pb::PartitionOffset {
            offset: listed.offset.0,
            timestamp_ms: listed.timestamp_ms.unwrap_or_default(),
            leader_epoch: listed.leader_epoch.0,
            ..blank
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_wrong_shape_are_invalid() {
        let now = Instant::now();
        let code = |request: pb::ProduceRequest| produce_in(request, now).expect_err("invalid").code;
        assert_eq!(code(pb::ProduceRequest::default()), ErrorCode::InvalidRequest);
        let item = pb::PartitionProduce { topic: "t".into(), ..Default::default() };
        let absurd = pb::ProduceRequest { acks: 77, partitions: vec![item.clone()], ..Default::default() };
        assert_eq!(code(absurd), ErrorCode::InvalidRequest);
        let both = pb::PartitionProduce {
            batches: Bytes::from_static(b"x"),
            records: vec![pb::Record::default()],
            ..item.clone()
        };
        assert_eq!(
            code(pb::ProduceRequest { partitions: vec![both], ..Default::default() }),
            ErrorCode::InvalidRequest
        );
        let many = pb::ProduceRequest { partitions: vec![item; ITEMS_MAX + 1], ..Default::default() };
        assert_eq!(code(many), ErrorCode::InvalidRequest);
        assert!(fetch_in(Vec::new()).is_err());
        assert!(offsets_in(vec![pb::PartitionOffsetQuery::default()]).is_err());
    }
}
