//! `produce`: one record, or a stream of them.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use client::{
    Acks, Client, Delivery, DeliveryError, Producer, ProducerConfig, ProducerRecord, RecordMetadata,
};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future::Either};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::produce_report::{RECEIPT, Report, SUMMARY, receipt};
use crate::args::Produce;
use crate::context::{Context, millis};
use crate::exit::Failure;
use crate::input::{KeyRule, Records, Splitter};
use crate::output::View;
use crate::terminal;

/// A stream fills batches of this size; larger ones gain little and delay what they hold back.
const STREAM_BATCH_BYTES: u32 = 256 << 10;
/// How long a stream's batch waits for more records. A pipe that fills slower than this wants its records sent.
const STREAM_LINGER_MS: u32 = 10;
/// Between two updates of the progress bar.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(context: &Context, args: &Produce) -> Result<(), Failure> {
    let single = args.value.is_some();
    if context.out.explain(if single { &RECEIPT } else { &SUMMARY })? {
        return Ok(());
    }
    check_topic(&context.client()?, args).await?;
    let producer = context.patient_client()?.producer(config(args, single))?;
    let template = template(args);
    match &args.value {
        Some(value) => one(context, &producer, template, value.clone()).await,
        None => stream(context, args, &producer, &template).await,
    }
}

/// Names what is wrong before anything is read: an unknown topic should not cost a pipe its contents.
async fn check_topic(client: &Client, args: &Produce) -> Result<(), Failure> {
    let partitions = client.partitions(&args.topic).await?;
    match args.partition {
        Some(partition) if partition >= partitions => {
            let message = format!("topic {:?} has {partitions} partitions, numbered from 0", args.topic);
            Err(Failure::new(ErrorCode::UnknownPartition, message))
        }
        _ => Ok(()),
    }
}

fn config(args: &Produce, single: bool) -> ProducerConfig {
    let defaults = ProducerConfig::default();
    ProducerConfig {
        acks: match args.acks.as_str() {
            "none" | "0" => Acks::None,
            "leader" | "1" => Acks::Leader,
            _ => Acks::All,
        },
        compression: args.compression,
        batch_size: if single { defaults.batch_size } else { STREAM_BATCH_BYTES },
        linger_ms: if single { 0 } else { STREAM_LINGER_MS },
        delivery_timeout_ms: millis(args.delivery_timeout),
        max_block_ms: millis(args.delivery_timeout),
        rate_limit_per_s: args.rate,
        ..defaults
    }
}

/// What all records have in common.
fn template(args: &Produce) -> ProducerRecord {
    ProducerRecord {
        topic: Arc::from(args.topic.as_str()),
        partition: args.partition,
        key: args.key.clone().map(Bytes::from),
        headers: args.headers.iter().map(|(key, value)| (key.clone(), Bytes::from(value.clone()))).collect(),
        ..ProducerRecord::default()
    }
}

async fn one(
    context: &Context,
    producer: &Producer,
    template: ProducerRecord,
    value: String,
) -> Result<(), Failure> {
    let topic = Arc::clone(&template.topic);
    let record = ProducerRecord { value: Some(Bytes::from(value)), ..template };
    context.call("Broker/ProduceStream", &record);
    let delivery = producer.send(record).await.map_err(|error| Failure::Api(error.into_api()))?;
    let written = delivery.await.map_err(undelivered)?;
    let next = match written.offset {
        Some(offset) => {
            format!("next: altair-cli consume {topic} --partition {} --from {offset} -n 1", written.partition)
        }
        None => format!("next: altair-cli consume {topic} --from -1"),
    };
    context.out.show(View::one(&RECEIPT, receipt(&written)).note(next))
}

fn undelivered(error: DeliveryError) -> Failure {
    match error {
        DeliveryError::Failed(error) => Failure::Api(error),
        // Whatever broke, what the user must know is that the outcome is open.
        DeliveryError::Unknown(error) if error.definite() => Failure::Api(
            ApiError::new(ErrorCode::OutcomeUnknown, "it is not known whether the record was written")
                .reason(format!("{error:#}")),
        ),
        DeliveryError::Unknown(error) => Failure::Api(error),
    }
}

fn key_rule(args: &Produce) -> KeyRule {
    if let Some(separator) = &args.key_separator {
        KeyRule::Separator(separator.clone())
    } else if let Some(name) = &args.key_field {
        KeyRule::Field(name.clone())
    } else if let Some(key) = &args.key {
        KeyRule::Fixed(Bytes::from(key.clone()))
    } else {
        KeyRule::None
    }
}

async fn stream(
    context: &Context,
    args: &Produce,
    producer: &Producer,
    template: &ProducerRecord,
) -> Result<(), Failure> {
    let delimiter = args.delimiter.clone().unwrap_or_else(|| b"\n".to_vec());
    let splitter = Splitter::new(delimiter, args.keep_empty);
    let records = Records::open(args.file.as_deref(), splitter)?;
    if records.total.is_none() && std::io::stdin().is_terminal() && context.out.is_for_people() {
        terminal::note("every line becomes a record; Ctrl-D ends");
    }
    let bar = progress_bar(context, args, &records);
    let mut run = Run {
        report: Report::new(&args.topic),
        waiting: FuturesUnordered::new(),
        bar,
        drawn: Instant::now(),
    };
    let begun = Instant::now();
    let keys = key_rule(args);
    let read = {
        let reading = std::pin::pin!(run.read(records, &keys, producer, template));
        let interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        match futures::future::select(reading, interrupted).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                terminal::note("interrupted: what was read so far is still written");
                Err(Failure::Told(crate::exit::ERROR))
            }
        }
    };
    let settled = run.settle(producer).await;
    run.bar.finish_and_clear();
    run.report.took(begun.elapsed());
    let next = format!("next: altair-cli consume {} --from earliest -n 5", args.topic);
    context.out.show(View::one(&SUMMARY, run.report.row()).note(next))?;
    read.and(settled).and_then(|()| run.report.outcome())
}

fn progress_bar(context: &Context, args: &Produce, records: &Records) -> ProgressBar {
    let wanted = std::io::stderr().is_terminal() && context.out.is_for_people() && !args.no_progress;
    // Typing and a bar on one terminal would overwrite each other.
    let typing = records.total.is_none() && std::io::stdin().is_terminal();
    if !wanted || typing {
        return ProgressBar::hidden();
    }
    let (bar, template) = match records.total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {percent}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg} eta {eta}",
        ),
        None => {
            (ProgressBar::new_spinner(), "{spinner} {binary_bytes} {binary_bytes_per_sec} {msg} {elapsed}")
        }
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A stream on its way.
struct Run {
    report: Report,
    /// Bounded by the producer's buffer: what it does not hold any more is resolved.
    waiting: FuturesUnordered<Delivery>,
    bar: ProgressBar,
    drawn: Instant,
}

impl Run {
    /// Sends everything; ends at the end of the input or at the first record that fails, so that nothing is written
    /// behind a gap that nobody noticed.
    async fn read(
        &mut self,
        mut records: Records,
        keys: &KeyRule,
        producer: &Producer,
        template: &ProducerRecord,
    ) -> Result<(), Failure> {
        while let Some(batch) = self.next_batch(&mut records).await {
            for record in batch? {
                self.send(record, keys, producer, template).await?;
                self.reap();
                if self.report.has_failed() {
                    return Ok(());
                }
            }
            self.draw(records.read.load(Ordering::Relaxed));
        }
        Ok(())
    }

    /// Waits for input and takes in receipts meanwhile.
    async fn next_batch(&mut self, records: &mut Records) -> Option<Result<Vec<Bytes>, Failure>> {
        loop {
            tokio::select! {
                biased;
                Some(outcome) = self.waiting.next(), if !self.waiting.is_empty() => {
                    self.report.add(outcome);
                    if self.report.has_failed() {
                        return None;
                    }
                }
                batch = records.next() => return batch,
            }
        }
    }

    async fn send(
        &mut self,
        record: Bytes,
        keys: &KeyRule,
        producer: &Producer,
        template: &ProducerRecord,
    ) -> Result<(), Failure> {
        let number = self.report.sent + 1;
        let (key, value) =
            keys.apply(record).map_err(|what| {
                Failure::Api(ApiError::new(ErrorCode::InvalidRecord, format!("record {number} {what}")).hint(
                    "check --delimiter, --key-separator and --key-field; the records before it were sent",
                ))
            })?;
        let bytes = key.as_ref().map_or(0, Bytes::len) + value.len();
        let record = ProducerRecord { key, value: Some(value), ..template.clone() };
        let delivery = producer.send(record).await.map_err(|error| {
            let error = error.into_api();
            Failure::Api(ApiError { message: format!("record {number}: {}", error.message), ..error })
        })?;
        self.report.count(bytes);
        self.waiting.push(delivery);
        Ok(())
    }

    /// Takes in the receipts that are there.
    fn reap(&mut self) {
        while let Some(Some(outcome)) = self.waiting.next().now_or_never() {
            self.report.add(outcome);
        }
    }

    /// Waits for all receipts.
    async fn settle(&mut self, producer: &Producer) -> Result<(), Failure> {
        let flush = producer.flush();
        let drain = async {
            while let Some(outcome) = self.waiting.next().await {
                self.report.add(outcome);
            }
        };
        let (flushed, ()) = tokio::join!(flush, drain);
        Ok(flushed?)
    }

    fn draw(&mut self, read: u64) {
        if self.drawn.elapsed() >= PROGRESS_EVERY {
            self.drawn = Instant::now();
            self.bar.set_position(read);
            self.bar.set_message(format!("{} records", crate::convert::count_text(self.report.written())));
        }
    }
}

/// What a delivery ends with.
pub(super) type Outcome = Result<RecordMetadata, DeliveryError>;
