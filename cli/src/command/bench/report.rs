//! What a benchmark prints.

use serde_json::{Value, json};

use super::args::Writing;
use super::measure::{Tally, Times, whole};
use super::process::Cost;
use super::topic::Stage;
use crate::context::Context;
use crate::convert::{count_text, size_text};
use crate::exit::{ERROR, Failure};
use crate::output::{Column, Kind, Row, View};

pub(super) const RESULT: Kind = Kind {
    many: "results",
    columns: &[
        Column::text("BENCH"),
        Column::number("RECORDS/S"),
        Column::number("BYTES/S"),
        Column::number("P50 MS"),
        Column::number("P99 MS"),
        Column::number("P99.9 MS"),
        Column::number("MAX MS"),
        Column::number("FAILED"),
        Column::number("CPU-S/GB"),
        Column::number("RECORDS").wide(),
        Column::number("SECONDS").wide(),
        Column::number("BROKERS' RSS").wide(),
    ],
    fields: &[
        ("bench", "string", "produce, consume or e2e"),
        ("topic", "string", "where the records were"),
        ("partitions", "number", "of the topic"),
        (
            "settings",
            "object or null",
            "record_size, batch_size, linger_ms, in_flight, acks, compression, producers",
        ),
        ("seconds", "number", "how long it was measured"),
        ("records", "number", "acknowledged, or read, within that time"),
        ("bytes", "number", "of their values (consume: and keys)"),
        ("records_per_second", "number", "records / seconds"),
        ("bytes_per_second", "number", "bytes / seconds"),
        ("failed", "number", "certainly not written"),
        ("unknown", "number", "may have been written"),
        ("ack_ms", "object or null", "p50, p90, p99, p999, max, mean: from the send to the receipt"),
        ("end_to_end_ms", "object or null", "the same, from the send to the arrival at the consumer"),
        ("corrected", "boolean", "times count from when a record was due (coordinated omission)"),
        ("client_cpu_seconds", "number", "processor time of this command"),
        ("broker_cpu_seconds", "number", "processor time of all brokers on this machine"),
        ("broker_rss_bytes", "number", "memory of all brokers on this machine"),
        ("local_brokers", "number", "brokers found on this machine"),
        ("cpu_seconds_per_gb", "number or null", "client and local brokers, per 10^9 bytes"),
    ],
};

/// The outcome of one benchmark.
#[derive(Debug)]
pub(super) struct Result {
    bench: &'static str,
    topic: String,
    partitions: u32,
    settings: Value,
    seconds: f64,
    tally: Tally,
    arrived: Option<Times>,
    corrected: bool,
    cost: Cost,
}

impl Result {
    pub(super) fn new(bench: &'static str, stage: &Stage, seconds: f64, tally: Tally, cost: Cost) -> Self {
        Self {
            bench,
            topic: stage.name.clone(),
            partitions: stage.partitions,
            settings: Value::Null,
            seconds,
            tally,
            arrived: None,
            corrected: false,
            cost,
        }
    }

    /// Says how the records were written.
    pub(super) fn written_with(self, writing: &Writing) -> Self {
        Self { settings: settings(writing), ..self }
    }

    /// Says whether times count from when a record was due.
    pub(super) fn corrected(self, corrected: bool) -> Self {
        Self { corrected, ..self }
    }

    /// Adds the times to the arrival at a consumer.
    pub(super) fn end_to_end(self, arrived: Times) -> Self {
        Self { arrived: Some(arrived), ..self }
    }

    /// Prints it; an error if records were lost on the way.
    pub(super) fn show(self, context: &Context, next: &str) -> std::result::Result<(), Failure> {
        let lost = self.tally.failed + self.tally.unknown;
        context.out.show(View::one(&RESULT, self.row()).note(next))?;
        if lost > 0 { Err(Failure::Told(ERROR)) } else { Ok(()) }
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(f64::EPSILON)
    }

    /// CPU seconds for 10^9 bytes; `None` if nothing was moved.
    fn cpu_per_gb(&self) -> Option<f64> {
        let spent = self.cost.client_cpu_seconds + self.cost.broker_cpu_seconds;
        (self.tally.bytes > 0).then(|| spent / (self.tally.bytes as f64 / 1e9))
    }

    fn row(&self) -> Row {
        // The table has room for one time: the one that the benchmark is about.
        let times = self.arrived.as_ref().unwrap_or(&self.tally.times);
        let cell = |ms: f64| if times.count() == 0 { "-".to_owned() } else { format!("{ms:.2}") };
        Row {
            name: self.bench.to_owned(),
            cells: vec![
                self.bench.to_owned(),
                count_text(whole(self.rate(self.tally.records))),
                size_text(whole(self.rate(self.tally.bytes))),
                cell(times.quantile_ms(0.5)),
                cell(times.quantile_ms(0.99)),
                cell(times.quantile_ms(0.999)),
                cell(times.max_ms()),
                (self.tally.failed + self.tally.unknown).to_string(),
                self.cpu_per_gb().map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}")),
                count_text(self.tally.records),
                format!("{:.1}", self.seconds),
                size_text(self.cost.broker_rss_bytes),
            ],
            json: self.json(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "bench": self.bench,
            "topic": self.topic,
            "partitions": self.partitions,
            "settings": self.settings,
            "seconds": self.seconds,
            "records": self.tally.records,
            "bytes": self.tally.bytes,
            "records_per_second": self.rate(self.tally.records),
            "bytes_per_second": self.rate(self.tally.bytes),
            "failed": self.tally.failed,
            "unknown": self.tally.unknown,
            "ack_ms": quantiles(&self.tally.times),
            "end_to_end_ms": self.arrived.as_ref().map_or(Value::Null, quantiles),
            "corrected": self.corrected,
            "client_cpu_seconds": self.cost.client_cpu_seconds,
            "broker_cpu_seconds": self.cost.broker_cpu_seconds,
            "broker_rss_bytes": self.cost.broker_rss_bytes,
            "local_brokers": self.cost.brokers,
            "cpu_seconds_per_gb": self.cpu_per_gb(),
        })
    }
}

fn settings(writing: &Writing) -> Value {
    json!({
        "record_size": writing.record_size,
        "batch_size": writing.batch_size,
        "linger_ms": u64::try_from(writing.linger.as_millis()).unwrap_or(u64::MAX),
        "in_flight": writing.in_flight,
        "acks": writing.acks,
        "compression": writing.compression.to_string(),
        "producers": writing.producers,
    })
}

fn quantiles(times: &Times) -> Value {
    if times.count() == 0 {
        return Value::Null;
    }
    json!({
        "p50": times.quantile_ms(0.5),
        "p90": times.quantile_ms(0.9),
        "p99": times.quantile_ms(0.99),
        "p999": times.quantile_ms(0.999),
        "max": times.max_ms(),
        "mean": times.mean_ms(),
    })
}
