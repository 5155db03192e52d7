//! Sends unique values and records what the producer says about each.

use std::time::Duration;

use client::{Client, Delivery, DeliveryError, Producer, ProducerRecord, RecordMetadata, SendError};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::error_code::ErrorCode;
use wire::murmur2::partition_for_key;

use super::spec::{Placement, WriterSpec};
use super::{Place, STOPPED, Worker, value};
use crate::history::{AckLevel, Answer, CallId, Op, Send, SendAnswer, value as value_of};

/// Pause after the SDK refused a producer, which only a broken configuration makes it do.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Time that a producer which closes in order has for what is on its way.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A record on its way.
#[derive(Debug)]
struct Sent {
    call: CallId,
    place: Place,
}

/// A record whose outcome is there.
struct Landed {
    sent: Sent,
    outcome: Result<RecordMetadata, DeliveryError>,
}

pub(super) struct Writer {
    worker: Worker,
    spec: WriterSpec,
    /// Producers made so far.
    producers: u32,
    /// Values made so far.
    values: u64,
    /// Records that the present producer was given.
    seq: u64,
    open: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Calls in `open`, for those that never land.
    under_way: std::collections::BTreeSet<CallId>,
}

impl Writer {
    pub(super) fn new(worker: Worker, spec: WriterSpec) -> Self {
        let (open, under_way) = Default::default();
        Self { worker, spec, producers: 0, values: 0, seq: 0, open, under_way }
    }

    pub(super) async fn run(mut self, stop: CancellationToken, settle: Duration) {
        let mut producer = None;
        let mut next = Instant::now();
        loop {
            let room = self.open.len() < self.spec.window as usize;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(landed) = self.open.next(), if !self.open.is_empty() => self.note(landed),
                () = tokio::time::sleep_until(next), if room => {
                    let Some(at_work) = self.producer(&mut producer) else {
                        next = Instant::now() + REFUSED_PAUSE;
                        continue;
                    };
                    let goes_on = self.send(&at_work, &stop).await;
                    // A delay is not caught up with: what a cluster missed while it was away is gone.
                    next = (next + self.spec.pace).max(Instant::now());
                    if !goes_on || self.is_restart_due() {
                        drop(at_work);
                        self.retire(producer.take(), &stop).await;
                    }
                }
            }
        }
        self.settle(Instant::now() + settle).await;
    }

    /// The producer at work; a new one with a client of its own if there is none.
    fn producer(&mut self, current: &mut Option<Producer>) -> Option<Producer> {
        if current.is_none() {
            let made = Client::start(self.worker.config.clone())
                .and_then(|client| client.producer(self.spec.producer.clone()));
            match made {
                Ok(producer) => {
                    *current = Some(producer);
                    self.producers += 1;
                    self.seq = 0;
                }
                Err(error) => tracing::error!(worker = self.worker.number, %error, "no producer"),
            }
        }
        current.clone()
    }

    /// Sends one record; false if the producer is finished.
    async fn send(&mut self, producer: &Producer, stop: &CancellationToken) -> bool {
        let number = self.worker.number;
        let value = value_of(number, self.values);
        let (place, record) = self.record(value);
        let call = self.worker.recorder.invoke(
            number,
            Op::Send(Send {
                topic: place.topic.clone(),
                part: place.part,
                producer: self.worker.session(self.producers),
                idem: self.spec.producer.is_idempotent(),
                acks: AckLevel::from(self.spec.producer.acks),
                seq: self.seq,
                vals: vec![value],
            }),
        );
        self.values += 1;
        self.seq += 1;
        self.worker.progress.of(number, |worker| worker.sent += 1);
        let outcome = {
            let send = producer.send(record);
            tokio::pin!(send);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut send => break Some(outcome),
                    () = stop.cancelled() => break None,
                    Some(landed) = self.open.next(), if !self.open.is_empty() => self.note(landed),
                }
            }
        };
        match outcome {
            Some(Ok(delivery)) => {
                self.watch(Sent { call, place }, delivery);
                true
            }
            Some(Err(error)) => {
                let finished = matches!(error, SendError::Closed);
                self.note_failed(call, error.into_api().code);
                !finished
            }
            // The SDK promises that a record of a dropped call was not taken.
            None => {
                self.worker.recorder.fail(call, STOPPED);
                self.worker.progress.of(number, |worker| worker.failed += 1);
                true
            }
        }
    }

    /// The next record and where it goes.
    fn record(&mut self, value: u64) -> (Place, ProducerRecord) {
        let places = std::sync::Arc::clone(&self.worker.places);
        let turn = usize::try_from(self.values).unwrap_or(0) % places.len().max(1);
        let mut place = places[turn].clone();
        let record = ProducerRecord::new(place.topic.clone(), value::encode(value, self.spec.value_bytes));
        let record = match self.spec.placement {
            Placement::RoundRobin => record.partition(place.part),
            Placement::Random => {
                place = self.worker.choices.one_of(&places).unwrap_or(&place).clone();
                ProducerRecord { topic: place.topic.clone(), ..record }.partition(place.part)
            }
            Placement::Keyed(keys) => {
                let key = format!("key-{}", self.worker.choices.below(u64::from(keys)));
                place.part = partition_for_key(key.as_bytes(), place.of).0;
                record.key(key)
            }
            Placement::Pinned(part) => {
                // The places of the first topic come first, by partition.
                place = usize::try_from(part).ok().and_then(|at| places.get(at)).unwrap_or(&place).clone();
                ProducerRecord { topic: place.topic.clone(), ..record }.partition(place.part)
            }
        };
        (place, record)
    }

    fn watch(&mut self, sent: Sent, delivery: Delivery) {
        self.under_way.insert(sent.call);
        self.open.push(Box::pin(async move { Landed { sent, outcome: delivery.await } }));
    }

    fn note(&mut self, landed: Landed) {
        let Landed { sent: Sent { call, place }, outcome } = landed;
        self.under_way.remove(&call);
        match outcome {
            Ok(receipt) => self.note_receipt(call, &place, &receipt),
            Err(DeliveryError::Failed(error)) => self.note_failed(call, error.code),
            Err(DeliveryError::Unknown(error)) => self.note_unknown(call, error.code.name()),
        }
    }

    fn note_receipt(&self, call: CallId, place: &Place, receipt: &RecordMetadata) {
        let committed = self.spec.producer.acks == client::Acks::All;
        if committed && receipt.offset.is_none() {
            return self.note_unknown(call, "receipt_without_offset");
        }
        if (&*receipt.topic, receipt.partition) != (&*place.topic, place.part) {
            return self.note_unknown(call, "receipt_of_another_partition");
        }
        let answer = SendAnswer {
            off: receipt.offset.into_iter().collect(),
            epoch: receipt.leader_epoch,
            index: receipt.raft_index,
            dup: receipt.duplicate,
        };
        let Worker { number, recorder, progress, .. } = &self.worker;
        recorder.ok(call, Answer::Send(answer));
        progress.of(*number, |worker| worker.acked += 1);
        progress.at(&place.topic, place.part, |partition| {
            partition.acked += u64::from(committed);
            partition.end = partition.end.max(receipt.offset.map_or(0, |offset| offset + 1));
        });
    }

    fn note_failed(&self, call: CallId, code: ErrorCode) {
        self.worker.recorder.fail(call, code.name());
        self.worker.progress.of(self.worker.number, |worker| worker.failed += 1);
    }

    fn note_unknown(&self, call: CallId, why: &str) {
        self.worker.recorder.info(call, why);
        self.worker.progress.of(self.worker.number, |worker| worker.unknown += 1);
    }

    fn is_restart_due(&self) -> bool {
        self.spec.restart_after.is_some_and(|after| self.seq >= u64::from(after))
    }

    /// Ends a producer: in order, or as a crash would. What was on its way lands by itself.
    async fn retire(&mut self, producer: Option<Producer>, stop: &CancellationToken) {
        let Some(producer) = producer else { return };
        if self.worker.choices.below(2) == 0 {
            let close = async {
                // Whatever came of each record, its delivery says.
                let _ignored = tokio::time::timeout(CLOSE_WITHIN, producer.close()).await;
            };
            tokio::pin!(close);
            loop {
                tokio::select! {
                    biased;
                    () = &mut close => break,
                    () = stop.cancelled() => break,
                    Some(landed) = self.open.next(), if !self.open.is_empty() => self.note(landed),
                }
            }
        }
    }

    /// Waits for what is on its way; what has no outcome at the deadline stays unknown.
    async fn settle(&mut self, deadline: Instant) {
        while !self.open.is_empty() {
            match tokio::time::timeout_at(deadline, self.open.next()).await {
                Ok(Some(landed)) => self.note(landed),
                Ok(None) | Err(_) => break,
            }
        }
        for call in std::mem::take(&mut self.under_way) {
            self.note_unknown(call, STOPPED);
        }
    }
}
