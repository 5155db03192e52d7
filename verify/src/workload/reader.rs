//! Polls, seeks now and then, and records what came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, ClientError, ConsumedRecord, Consumer, ConsumerConfig, OffsetReset, Position};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::error_code::ErrorCode;

use super::spec::ReaderSpec;
use super::{Place, STOPPED, Worker, value};
use crate::history::{Answer, Op, Poll, PollAnswer, PolledPartition, Seek, SeekTo};

/// Pause after a failed poll or assignment: an error that stays must not fill the history.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// A seek to an offset goes back at most this far: what was written lately is what a cluster is in doubt about.
const SEEK_BACK_MAX: u64 = 1_000;

/// What a reader knows about a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// One past the highest offset read.
    end: u64,
    /// Timestamp of some record read.
    timestamp_ms: Option<i64>,
}

pub(super) struct Reader {
    worker: Worker,
    spec: ReaderSpec,
    /// Consumers made so far.
    consumers: u32,
    seen: BTreeMap<Place, Seen>,
}

impl Reader {
    pub(super) fn new(worker: Worker, spec: ReaderSpec) -> Self {
        Self { worker, spec, consumers: 0, seen: BTreeMap::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        // Ends between two polls or within one: a poll that is dropped loses nothing.
        while !stop.is_cancelled() {
            let assigned = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                assigned = self.assign() => assigned,
            };
            match assigned {
                Ok(consumer) => self.read(consumer, &stop).await,
                Err(error) => {
                    tracing::debug!(worker = self.worker.number, %error, "not assigned");
                    self.worker.progress.of(self.worker.number, |worker| worker.errors += 1);
                }
            }
            pause(ERROR_PAUSE, &stop).await;
        }
    }

    /// A new consumer at the beginning of every partition.
    async fn assign(&mut self) -> Result<Consumer, ClientError> {
        let client = Client::start(self.worker.config.clone())?;
        // A reset would skip records without a word; with `Error` it becomes a seek that the history shows.
        let config = ConsumerConfig { offset_reset: OffsetReset::Error, ..ConsumerConfig::default() };
        let mut consumer = client.consumer(config)?;
        let all = self.worker.places.iter().map(|place| (&*place.topic, place.part));
        consumer.assign(all).await?;
        self.consumers += 1;
        for place in Arc::clone(&self.worker.places).iter() {
            self.record_seek(place, SeekTo::Earliest);
        }
        Ok(consumer)
    }

    /// Reads until the stop, or until the consumer is finished.
    async fn read(&mut self, mut consumer: Consumer, stop: &CancellationToken) {
        let mut seek_at = self.next_seek();
        loop {
            if seek_at.is_some_and(|at| at <= Instant::now()) {
                self.seek_somewhere(&mut consumer);
                seek_at = self.next_seek();
            }
            let number = self.worker.number;
            let call = self.worker.recorder.invoke(number, Op::Poll(Poll { consumer: self.session() }));
            let polled = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                polled = consumer.poll(self.spec.poll) => Some(polled),
            };
            match polled {
                None => return self.worker.recorder.fail(call, STOPPED),
                Some(Ok(records)) => {
                    let answer = self.take(records);
                    self.worker.recorder.ok(call, Answer::Poll(answer));
                }
                Some(Err(error)) => {
                    self.worker.note_error(call, &error);
                    if matches!(error, ClientError::Closed) {
                        return;
                    }
                    pause(ERROR_PAUSE, stop).await;
                    self.go_on(&mut consumer, &error);
                }
            }
        }
    }

    fn take(&mut self, records: Vec<ConsumedRecord>) -> PollAnswer {
        let count = records.len() as u64;
        let parts = polled_parts(&records);
        for record in records {
            let place = self
                .worker
                .places
                .iter()
                .find(|place| place.part == record.partition && *place.topic == *record.topic);
            if let Some(place) = place {
                let seen = self.seen.entry(place.clone()).or_default();
                seen.end = seen.end.max(record.offset + 1);
                seen.timestamp_ms = Some(record.timestamp_ms);
            }
        }
        let progress = &self.worker.progress;
        progress.of(self.worker.number, |worker| {
            worker.read += count;
            worker.answers += 1;
        });
        for part in &parts {
            let end = part.recs.last().map_or(0, |(offset, _)| offset + 1);
            progress.at(&part.topic, part.part, |partition| {
                partition.read += part.recs.len() as u64;
                partition.end = partition.end.max(end);
            });
        }
        PollAnswer { parts }
    }

    /// Continues after an error. It does not say which partition it is about, so every position is set again.
    fn go_on(&mut self, consumer: &mut Consumer, error: &ClientError) {
        let gone = error.code() == ErrorCode::OffsetOutOfRange;
        let positions = consumer.positions();
        for place in Arc::clone(&self.worker.places).iter() {
            let known = positions
                .iter()
                .find(|(at, _)| at.topic == *place.topic && at.partition.0 == place.part)
                .and_then(|(_, offset)| *offset);
            match known {
                Some(offset) if !gone => self.seek(consumer, place, Position::Offset(offset)),
                _ => self.seek(consumer, place, Position::Earliest),
            }
        }
    }

    fn seek_somewhere(&mut self, consumer: &mut Consumer) {
        let places = Arc::clone(&self.worker.places);
        let Some(place) = self.worker.choices.one_of(&places) else { return };
        let seen = self.seen.get(place).copied().unwrap_or_default();
        let choices = &mut self.worker.choices;
        let to = match (choices.below(8), seen.timestamp_ms) {
            (0, _) => Position::Earliest,
            (1, _) => Position::Latest,
            (2, Some(timestamp_ms)) => Position::Timestamp(timestamp_ms),
            _ => Position::Offset(seen.end.saturating_sub(choices.below(seen.end.min(SEEK_BACK_MAX) + 1))),
        };
        self.seek(consumer, place, to);
    }

    fn seek(&self, consumer: &mut Consumer, place: &Place, to: Position) {
        if consumer.seek(&place.topic, place.part, to).is_ok() {
            self.record_seek(
                place,
                match to {
                    Position::Earliest => SeekTo::Earliest,
                    Position::Offset(offset) => SeekTo::Offset(offset),
                    Position::Latest | Position::Timestamp(_) => SeekTo::Latest,
                },
            );
        }
    }

    fn record_seek(&self, place: &Place, to: SeekTo) {
        let (topic, part) = (Arc::clone(&place.topic), place.part);
        let seek = Seek { consumer: self.session(), topic, part, to };
        let call = self.worker.recorder.invoke(self.worker.number, Op::Seek(seek));
        self.worker.recorder.ok(call, Answer::Seek);
    }

    fn next_seek(&mut self) -> Option<Instant> {
        let every = self.spec.seek_every;
        (!every.is_zero()).then(|| Instant::now() + self.worker.choices.around(every))
    }

    fn session(&self) -> u64 {
        self.worker.session(self.consumers)
    }
}

/// Records as the history holds them, by partition.
pub(super) fn polled_parts(records: &[ConsumedRecord]) -> Vec<PolledPartition> {
    let mut parts: Vec<PolledPartition> = Vec::new();
    for record in records {
        let value = value::decode(record.value.as_deref());
        let known =
            |part: &&mut PolledPartition| part.part == record.partition && *part.topic == *record.topic;
        match parts.iter_mut().rev().find(known) {
            Some(part) => part.recs.push((record.offset, value)),
            None => parts.push(PolledPartition {
                topic: Arc::clone(&record.topic),
                part: record.partition,
                recs: vec![(record.offset, value)],
                hw: None,
                start: None,
            }),
        }
    }
    parts
}

/// Sleeps, but not beyond the stop.
pub(super) async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}
