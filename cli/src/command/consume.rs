//! `consume`: from a place to another, or on and on.

mod group;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use client::{Client, Clock, ConsumedRecord, Consumer, ConsumerConfig, Position};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{PartitionIndex, TopicPartition};

use crate::args::Consume;
use crate::context::Context;
use crate::convert::{base64, count_text, time_text};
use crate::exit::Failure;
use crate::offset::Place;
use crate::output::{Column, Format, Kind};
use crate::terminal;
use crate::yaml::to_yaml;

const RECORDS: Kind = Kind {
    many: "records",
    columns: &[Column::text("RECORD")],
    fields: &[
        ("topic", "string", "where it was read"),
        ("partition", "number", "where it was read"),
        ("offset", "number", "its place in the partition"),
        ("timestamp", "string", "its time, RFC 3339"),
        ("timestamp_ms", "number", "the same in ms since the Unix epoch"),
        ("key", "string or null", "if it is text"),
        ("key_base64", "string", "in place of key if it is no text"),
        ("value", "string or null", "if it is text"),
        ("value_base64", "string", "in place of value if it is no text"),
        ("headers", "array of object", "key, and value or value_base64"),
    ],
};

/// The part of a partition that is read; `end` is not included, `None` = for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    next: u64,
    end: Option<u64>,
}

pub(crate) async fn run(context: &Context, args: &Consume) -> Result<(), Failure> {
    if context.out.explain(&RECORDS)? {
        return Ok(());
    }
    if let Some(group) = &args.group {
        return group::run(context, args, group).await;
    }
    let client = context.client()?;
    let spans = plan(&client, args).await?;
    let mut consumer = context.patient_client()?.consumer(ConsumerConfig::default())?;
    let open = || spans.iter().filter(|(_, span)| span.end.is_none_or(|end| span.next < end));
    let topic = args.topic.as_str();
    if open().next().is_some() {
        consumer.assign(open().map(|(partition, _)| (topic, *partition))).await?;
    }
    for (partition, span) in open() {
        consumer.seek(topic, *partition, Position::Offset(span.next))?;
    }
    let mut printer = Printer::new(context, args);
    let outcome = tokio::select! {
        outcome = read(context, args, &mut consumer, &mut printer, spans) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    printer.finish(context)?;
    outcome
}

/// Which part of which partition is read.
async fn plan(client: &Client, args: &Consume) -> Result<BTreeMap<u32, Span>, Failure> {
    let count = client.partitions(&args.topic).await?;
    let chosen: Vec<u32> =
        if args.partition.is_empty() { (0..count).collect() } else { args.partition.clone() };
    if let Some(missing) = chosen.iter().find(|partition| **partition >= count) {
        let message =
            format!("topic {:?} has no partition {missing}, it has {count}, numbered from 0", args.topic);
        return Err(Failure::new(ErrorCode::UnknownPartition, message));
    }
    let of: Vec<TopicPartition> = chosen
        .iter()
        .map(|partition| TopicPartition { topic: args.topic.clone(), partition: PartitionIndex(*partition) })
        .collect();
    let bounds = Bounds::ask(client, &of).await?;
    let range = args.from.unwrap_or(crate::offset::Range { from: None, to: None });
    if range.to.is_some() && (args.to.is_some() || args.follow) {
        return Err(Failure::usage(
            "the range of --from ends already",
            "leave --to and --follow away, or give --from one place",
        ));
    }
    let from = range.from.unwrap_or(if args.follow { Place::Latest } else { Place::Earliest });
    let begin = bounds.resolve(client, &of, from).await?;
    let end = match range.to.or(args.to) {
        Some(place) => Some(bounds.resolve(client, &of, place).await?),
        None if args.follow => None,
        None => Some(bounds.end.clone()),
    };
    let span = |at: &TopicPartition| Span {
        next: begin.get(at).copied().unwrap_or(0),
        end: end.as_ref().map(|end| end.get(at).copied().unwrap_or(0)),
    };
    Ok(of.iter().map(|at| (at.partition.0, span(at))).collect())
}

type Offsets = BTreeMap<TopicPartition, u64>;

/// Where the partitions begin and end at the start.
struct Bounds {
    begin: Offsets,
    end: Offsets,
}

impl Bounds {
    async fn ask(client: &Client, of: &[TopicPartition]) -> Result<Self, Failure> {
        let consumer = client.consumer(ConsumerConfig::default())?;
        let (begin, end) = tokio::join!(consumer.beginning_offsets(of), consumer.end_offsets(of));
        Ok(Self { begin: begin?, end: end? })
    }

    /// A place as an offset of each partition.
    async fn resolve(
        &self,
        client: &Client,
        of: &[TopicPartition],
        place: Place,
    ) -> Result<Offsets, Failure> {
        let at_time = match place {
            Place::Earliest => return Ok(self.begin.clone()),
            Place::Latest => return Ok(self.end.clone()),
            Place::Offset(offset) => return self.each(of, |begin, end| clamp(offset, begin, end, of)),
            Place::Before(n) => return self.each(of, |begin, end| Ok(end.saturating_sub(n).max(begin))),
            Place::Time(ms) => ms,
            Place::Ago(ms) => Clock::system().now_ms().saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)),
        };
        let consumer = client.consumer(ConsumerConfig::default())?;
        Ok(consumer.offsets_for_time(of, at_time).await?)
    }

    fn each(
        &self,
        of: &[TopicPartition],
        offset: impl Fn(u64, u64) -> Result<u64, Failure>,
    ) -> Result<Offsets, Failure> {
        of.iter()
            .map(|at| {
                let begin = self.begin.get(at).copied().unwrap_or(0);
                let end = self.end.get(at).copied().unwrap_or(begin);
                Ok((at.clone(), offset(begin, end)?))
            })
            .collect()
    }
}

/// One partition's offset must exist; of several, each is read as far as it goes.
fn clamp(offset: u64, begin: u64, end: u64, of: &[TopicPartition]) -> Result<u64, Failure> {
    if of.len() > 1 || (begin..=end).contains(&offset) {
        return Ok(offset.clamp(begin, end.max(begin)));
    }
    let message = format!("offset {offset} is outside the partition, which goes from {begin} up to {end}");
    Err(Failure::Api(
        ApiError::new(ErrorCode::OffsetOutOfRange, message).hint(format!("--from {begin}..{end}")),
    ))
}

/// Reads until every span is at its end, `-n` is reached, or nothing comes for too long.
async fn read(
    context: &Context,
    args: &Consume,
    consumer: &mut Consumer,
    printer: &mut Printer,
    mut spans: BTreeMap<u32, Span>,
) -> Result<(), Failure> {
    let mut last_progress = Instant::now();
    let is_done =
        |spans: &BTreeMap<u32, Span>| spans.values().all(|span| span.end.is_some_and(|end| span.next >= end));
    while !is_done(&spans) && args.count != Some(printer.printed) {
        let records = consumer.poll(context.timeout().min(POLL)).await?;
        if !records.is_empty() {
            last_progress = Instant::now();
        }
        for record in records {
            let Some(span) = spans.get_mut(&record.partition) else { continue };
            if record.offset < span.next || span.end.is_some_and(|end| record.offset >= end) {
                continue;
            }
            span.next = record.offset + 1;
            printer.print(&record)?;
            if args.count == Some(printer.printed) {
                break;
            }
        }
        printer.flush()?;
        // Where offsets were removed, the position moves on without a record.
        for (at, position) in consumer.positions() {
            if let (Some(span), Some(position)) = (spans.get_mut(&at.partition.0), position) {
                span.next = span.next.max(position);
            }
        }
        if !args.follow && !is_done(&spans) && last_progress.elapsed() > context.timeout() {
            return Err(stuck(args, &spans, context));
        }
    }
    Ok(())
}

/// Longest wait of one poll.
const POLL: std::time::Duration = std::time::Duration::from_millis(500);

fn stuck(args: &Consume, spans: &BTreeMap<u32, Span>, context: &Context) -> Failure {
    let waiting: Vec<String> = spans
        .iter()
        .filter(|(_, span)| span.end.is_some_and(|end| span.next < end))
        .map(|(partition, span)| format!("{}/{partition} at {}", args.topic, span.next))
        .collect();
    let message = format!("no record came for {}", humantime::format_duration(context.timeout()));
    Failure::Api(
        ApiError::new(ErrorCode::Timeout, message)
            .reason(format!("still to read: {}", waiting.join(", ")))
            .hint(format!(
                "altair-cli topic describe {} shows whether a leader is missing; --timeout waits longer",
                args.topic
            )),
    )
}

/// Writes records to standard output.
struct Printer {
    out: BufWriter<io::Stdout>,
    format: Format,
    delimiter: Vec<u8>,
    printed: u64,
}

impl Printer {
    fn new(context: &Context, args: &Consume) -> Self {
        let format = context.chosen_format().unwrap_or(Format::Value);
        Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
            format,
            delimiter: args.delimiter.clone(),
            printed: 0,
        }
    }

    fn print(&mut self, record: &ConsumedRecord) -> io::Result<()> {
        let out = &mut self.out;
        match self.format {
            Format::Value | Format::Help => {
                out.write_all(record.value.as_deref().unwrap_or_default())?;
                out.write_all(&self.delimiter)?;
            }
            Format::Json | Format::Ndjson => writeln!(out, "{}", record_json(record))?,
            Format::Yaml => write!(out, "---\n{}", to_yaml(&record_json(record)))?,
            Format::Name => writeln!(out, "{}/{}@{}", record.topic, record.partition, record.offset)?,
            Format::Table | Format::Wide => {
                if self.printed == 0 {
                    writeln!(
                        out,
                        "{:>9} {:>12}  {:<24}  {:<20}  VALUE",
                        "PARTITION", "OFFSET", "TIME", "KEY"
                    )?;
                }
                let (time, key) = (time_text(record.timestamp_ms), shown(record.key.as_ref()));
                let value = shown(record.value.as_ref());
                writeln!(
                    out,
                    "{:>9} {:>12}  {time:<24}  {key:<20}  {value}",
                    record.partition, record.offset
                )?;
            }
        }
        self.printed += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self, context: &Context) -> Result<(), Failure> {
        self.flush()?;
        if context.is_verbose() {
            terminal::note(&format!("read {} records", count_text(self.printed)));
        }
        Ok(())
    }
}

/// On one line, without what would move the cursor.
fn shown(bytes: Option<&Bytes>) -> String {
    match bytes {
        None => "-".to_owned(),
        Some(bytes) => String::from_utf8_lossy(bytes)
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect(),
    }
}

fn record_json(record: &ConsumedRecord) -> Value {
    let mut map = Map::new();
    map.insert("topic".to_owned(), json!(&*record.topic));
    map.insert("partition".to_owned(), json!(record.partition));
    map.insert("offset".to_owned(), json!(record.offset));
    map.insert("timestamp".to_owned(), json!(time_text(record.timestamp_ms)));
    map.insert("timestamp_ms".to_owned(), json!(record.timestamp_ms));
    put_bytes(&mut map, "key", record.key.as_ref());
    put_bytes(&mut map, "value", record.value.as_ref());
    let headers = record.headers.iter().map(|(key, value)| {
        let mut header = Map::new();
        header.insert("key".to_owned(), json!(key));
        put_bytes(&mut header, "value", Some(value));
        Value::Object(header)
    });
    map.insert("headers".to_owned(), headers.collect());
    Value::Object(map)
}

/// Text as it is; other bytes in base64 under a name of their own, so that nobody takes one for the other.
fn put_bytes(map: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => map.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => map.insert(name.to_owned(), json!(text)),
        Some(Err(bytes)) => map.insert(format!("{name}_base64"), json!(base64(bytes))),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_no_text_goes_as_base64() {
        let record = ConsumedRecord {
            topic: "orders".into(),
            partition: 1,
            offset: 7,
            timestamp_ms: 0,
            key: Some(Bytes::from_static(&[0xff, 0])),
            value: Some(Bytes::from_static("grün\n".as_bytes())),
            headers: vec![("h".into(), Bytes::from_static(b"1"))],
        };
        let json = record_json(&record);
        assert_eq!(json["key_base64"], "/wA=");
        assert_eq!(json["value"], "grün\n");
        assert_eq!(json["headers"], json!([{"key": "h", "value": "1"}]));
        assert!(json.get("key").is_none());
        let Value::Object(map) = json else { panic!("a record is an object") };
        assert!(map.keys().all(|key| RECORDS.fields.iter().any(|(name, ..)| name == key)));
        assert_eq!(shown(record.value.as_ref()), "grün\\n");
    }

    #[test]
    fn an_offset_outside_a_single_partition_is_an_error_and_several_are_read_as_far_as_they_go() {
        let at = |n| TopicPartition { topic: "t".into(), partition: PartitionIndex(n) };
        assert_eq!(clamp(5, 0, 10, &[at(0)]).unwrap(), 5);
        assert_eq!(clamp(10, 0, 10, &[at(0)]).unwrap(), 10);
        assert!(clamp(11, 0, 10, &[at(0)]).is_err());
        assert!(clamp(1, 2, 10, &[at(0)]).is_err());
        assert_eq!(clamp(11, 0, 10, &[at(0), at(1)]).unwrap(), 10);
        assert_eq!(clamp(1, 2, 10, &[at(0), at(1)]).unwrap(), 2);
    }
}
