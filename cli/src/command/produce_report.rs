//! What `produce` says at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Acks, DeliveryError, RecordMetadata};
use serde_json::{Value, json};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::produce::Outcome;
use super::shown::ids;
use crate::convert::{count_text, size_text};
use crate::exit::Failure;
use crate::output::{Column, Kind, Row};

pub(super) const RECEIPT: Kind = Kind {
    many: "receipts",
    columns: &[
        Column::text("TOPIC"),
        Column::number("PARTITION"),
        Column::number("OFFSET"),
        Column::text("LEVEL"),
        Column::text("ON DISK OF"),
        Column::number("EPOCH").wide(),
        Column::number("RAFT INDEX").wide(),
        Column::text("DUPLICATE").wide(),
    ],
    fields: &[
        ("topic", "string", "where it was written"),
        ("partition", "number", "where it was written"),
        ("offset", "number or null", "its place; only acks=all knows it"),
        ("level", "string", "all (committed on a quorum), leader (on the leader's disk) or none"),
        ("provisional", "boolean", "true while a quorum does not have it"),
        ("duplicate", "boolean", "an earlier attempt had written it already"),
        ("leader_epoch", "number", "of the leader that took it"),
        ("raft_index", "number", "entry that carries it"),
        ("on_disk_brokers", "array of number", "brokers that had it on disk when it was committed"),
        ("timestamp_ms", "number", "timestamp of the record"),
    ],
};

pub(super) const SUMMARY: Kind = Kind {
    many: "summaries",
    columns: &[
        Column::text("TOPIC"),
        Column::number("WRITTEN"),
        Column::number("FAILED"),
        Column::number("UNKNOWN"),
        Column::number("BYTES"),
        Column::number("SECONDS"),
        Column::number("RECORDS/S"),
        Column::text("OFFSETS"),
    ],
    fields: &[
        ("topic", "string", "where the records were written"),
        ("sent", "number", "records read and given to the cluster"),
        ("written", "number", "of these: acknowledged"),
        ("failed", "number", "of these: certainly not written"),
        ("unknown", "number", "of these: may have been written"),
        ("duplicates", "number", "written by an earlier attempt, recognised"),
        ("bytes", "number", "of keys and values, before compression"),
        ("elapsed_ms", "number", "from the first byte read to the last receipt"),
        ("partitions", "array of object", "partition, records, first_offset, last_offset"),
    ],
};

fn level(level: Acks) -> &'static str {
    match level {
        Acks::None => "none",
        Acks::Leader => "leader",
        Acks::All => "all",
    }
}

/// The receipt of one record.
pub(super) fn receipt(written: &RecordMetadata) -> Row {
    let offset = written.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    Row {
        name: format!("{}/{}@{offset}", written.topic, written.partition),
        cells: vec![
            written.topic.to_string(),
            written.partition.to_string(),
            offset,
            if written.provisional {
                format!("{} (provisional)", level(written.level))
            } else {
                level(written.level).to_owned()
            },
            ids(&written.on_disk_brokers),
            written.leader_epoch.to_string(),
            written.raft_index.to_string(),
            if written.duplicate { "yes" } else { "no" }.to_owned(),
        ],
        json: json!({
            "topic": &*written.topic, "partition": written.partition, "offset": written.offset,
            "level": level(written.level), "provisional": written.provisional, "duplicate": written.duplicate,
            "leader_epoch": written.leader_epoch, "raft_index": written.raft_index,
            "on_disk_brokers": &*written.on_disk_brokers, "timestamp_ms": written.timestamp_ms,
        }),
    }
}

#[derive(Debug, Default)]
struct PartitionReport {
    records: u64,
    first: Option<u64>,
    last: Option<u64>,
}

/// Counts what became of a stream of records.
#[derive(Debug)]
pub(super) struct Report {
    topic: String,
    pub(super) sent: u64,
    bytes: u64,
    failed: u64,
    unknown: u64,
    duplicates: u64,
    partitions: BTreeMap<u32, PartitionReport>,
    first_error: Option<DeliveryError>,
    elapsed: Duration,
}

impl Report {
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            sent: 0,
            bytes: 0,
            failed: 0,
            unknown: 0,
            duplicates: 0,
            partitions: BTreeMap::new(),
            first_error: None,
            elapsed: Duration::ZERO,
        }
    }

    /// A record was given to the producer.
    pub(super) fn count(&mut self, bytes: usize) {
        self.sent += 1;
        self.bytes += bytes as u64;
    }

    /// A record has its outcome.
    pub(super) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Ok(written) => {
                self.duplicates += u64::from(written.duplicate);
                let partition = self.partitions.entry(written.partition).or_default();
                partition.records += 1;
                if let Some(offset) = written.offset {
                    partition.first = Some(partition.first.map_or(offset, |first| first.min(offset)));
                    partition.last = Some(partition.last.map_or(offset, |last| last.max(offset)));
                }
            }
            Err(error) => {
                match &error {
                    DeliveryError::Failed(_) => self.failed += 1,
                    DeliveryError::Unknown(_) => self.unknown += 1,
                }
                self.first_error.get_or_insert(error);
            }
        }
    }

    pub(super) fn took(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.first_error.is_some()
    }

    pub(super) fn written(&self) -> u64 {
        self.partitions.values().map(|partition| partition.records).sum()
    }

    /// How the command ends: with the first error, and how many records it concerns.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        let Some(error) = &self.first_error else { return Ok(()) };
        let cause = error.api();
        let (code, message) = if self.unknown > 0 {
            (
                ErrorCode::OutcomeUnknown,
                format!("{} of {} records may not have been written", self.unknown, self.sent),
            )
        } else {
            (cause.code, format!("{} of {} records were not written", self.failed, self.sent))
        };
        Err(Failure::Api(ApiError::new(code, message).reason(format!("{cause:#}")).hint(cause.hint.clone())))
    }

    pub(super) fn row(&self) -> Row {
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.written() as f64 / seconds } else { 0.0 };
        let mut offsets: Vec<String> = self
            .partitions
            .iter()
            .take(4)
            .filter_map(|(index, partition)| {
                Some(format!("{index}:{}..{}", partition.first?, partition.last? + 1))
            })
            .collect();
        if self.partitions.len() > 4 {
            offsets.push(format!("and {} more partitions", self.partitions.len() - 4));
        }
        let partitions: Vec<Value> = self
            .partitions
            .iter()
            .map(|(index, p)| {
                json!({"partition": index, "records": p.records, "first_offset": p.first, "last_offset": p.last})
            })
            .collect();
        Row {
            name: self.topic.clone(),
            cells: vec![
                self.topic.clone(),
                count_text(self.written()),
                count_text(self.failed),
                count_text(self.unknown),
                size_text(self.bytes),
                format!("{seconds:.2}"),
                format!("{rate:.0}"),
                offsets.join(" "),
            ],
            json: json!({
                "topic": self.topic, "sent": self.sent, "written": self.written(), "failed": self.failed,
                "unknown": self.unknown, "duplicates": self.duplicates, "bytes": self.bytes,
                "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX), "partitions": partitions,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn written(partition: u32, offset: u64) -> Outcome {
        Ok(RecordMetadata {
            topic: Arc::from("orders"),
            partition,
            offset: Some(offset),
            leader_epoch: 1,
            raft_index: 9,
            level: Acks::All,
            provisional: false,
            duplicate: false,
            on_disk_brokers: Arc::from([1, 2]),
            timestamp_ms: 5,
        })
    }

    #[test]
    fn receipts_come_in_any_order_and_make_one_range_a_partition() {
        let mut report = Report::new("orders");
        for (partition, offset) in [(1, 7), (0, 3), (1, 5), (1, 6)] {
            report.count(10);
            report.add(written(partition, offset));
        }
        let row = report.row();
        assert_eq!(row.json["written"], 4);
        assert_eq!(row.json["bytes"], 40);
        assert_eq!(row.cells[7], "0:3..4 1:5..8");
        assert!(report.outcome().is_ok());
    }

    #[test]
    fn an_unknown_outcome_outweighs_a_failure() {
        let mut report = Report::new("orders");
        let error = |code| ApiError::new(code, "x");
        report.add(Err(DeliveryError::Failed(error(ErrorCode::RecordTooLarge))));
        let Err(Failure::Api(failed)) = report.outcome() else { panic!("a failure is an error") };
        assert_eq!(failed.code, ErrorCode::RecordTooLarge);
        report.add(Err(DeliveryError::Unknown(error(ErrorCode::ConnectionLost))));
        let Err(Failure::Api(unknown)) = report.outcome() else { panic!("a failure is an error") };
        assert_eq!(unknown.code, ErrorCode::OutcomeUnknown);
        assert_eq!(
            (report.row().json["failed"].clone(), report.row().json["unknown"].clone()),
            (json!(1), json!(1))
        );
    }
}
