//! The order of one partition: which batches are on their way, which must be sent again, and under which sequence.
//!
//! No I/O and no clock of its own: the sender tells it what happened and asks what to send.
//!
//! **Invariant:** batches of a partition reach the log in the order in which they were filled, each at most once.
//! - A batch keeps its sequence for all its attempts, so brokers recognise a repetition. At most `max_in_flight` batches
//!   (five: as many as brokers remember) are unresolved under one identity.
//! - A batch gets another sequence only if none of its attempts can have written it and none is under way.
//! - After a batch failed, the sequences behind it leave a gap that brokers refuse. The lane then takes no new batches,
//!   waits until all of the old identity are resolved, and goes on with a fresh identity from sequence 0: first what was
//!   certainly not written, in its old order, then new batches.
//! - Under a fresh identity the first batch travels alone: only its receipt proves that the leader knows the identity.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::accumulator::{Accumulator, Claim, PartitionQueue, expired};
use super::delivery::BatchReceipt;
use super::stamp::{Identity, stamp};
use crate::config::{ProducerConfig, RetryConfig};
use crate::error::{CallFailure, DeliveryError};
use crate::random::Random;
use crate::retry::Backoff;

/// Sequences are 31 bits on the wire. Brokers would accept a wrap to 0; a fresh identity needs no special case.
const SEQUENCE_END: u32 = i32::MAX.unsigned_abs();

/// Attempts for which "no such topic" is taken for a broker that has not heard of it yet.
const UNKNOWN_TOPIC_ATTEMPTS: u32 = 10;

/// What all lanes of a producer need.
#[derive(Debug)]
pub(crate) struct LaneContext {
    pub(crate) config: ProducerConfig,
    pub(crate) retry: RetryConfig,
    pub(crate) random: Arc<Random>,
    pub(crate) accumulator: Arc<Accumulator>,
}

/// One way of a batch to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Number of the batch in its lane.
    pub(crate) batch: u64,
    /// Attempts of the batch before this one; tells a late answer from a present one.
    pub(crate) number: u32,
}

/// A batch to be put into a request.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) attempt: Attempt,
    pub(crate) bytes: Bytes,
    pub(crate) deadline: Instant,
}

/// Where an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) broker: u32,
    pub(crate) epoch: u32,
    pub(crate) link: u64,
    pub(crate) at: Instant,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    bytes: Bytes,
    count: u32,
    deadline: Instant,
    claim: Claim,
    sequence: Option<u32>,
    /// `None` while it waits to be sent (again).
    sent: Option<Sent>,
    attempts: u32,
    /// True once an attempt ended without proof that it wrote nothing.
    maybe_written: bool,
    last_error: Option<ApiError>,
}

/// The sender's side of a partition.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Arc<PartitionQueue>,
    /// Sent at least once and unresolved, in order.
    window: VecDeque<Batch>,
    /// Certainly not written, waiting for a fresh identity, in order.
    requeued: VecDeque<Batch>,
    identity: Option<Identity>,
    next_sequence: u32,
    /// A batch was acknowledged under this identity.
    confirmed: bool,
    /// The identity is given up; nothing new is sent under it.
    resetting: bool,
    retired: Option<Identity>,
    next_batch: u64,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// When the latest receipt came; answers to attempts from before it may be out of date.
    last_success: Option<Instant>,
    /// Leader epoch that the latest attempt went to.
    last_epoch: u32,
}

impl Lane {
    pub(crate) fn new(queue: Arc<PartitionQueue>) -> Self {
        Self {
            queue,
            window: VecDeque::new(),
            requeued: VecDeque::new(),
            identity: None,
            next_sequence: 0,
            confirmed: false,
            resetting: false,
            retired: None,
            next_batch: 0,
            backoff: Backoff::default(),
            not_before: None,
            last_success: None,
            last_epoch: 0,
        }
    }

    /// True if a batch waits to be sent, or will without anyone's doing.
    pub(crate) fn has_work(&self, cx: &LaneContext, now: Instant) -> bool {
        self.window.iter().any(|batch| batch.sent.is_none())
            || !self.requeued.is_empty()
            || cx.accumulator.ready_at(&self.queue, now).is_some_and(|at| at <= now)
    }

    /// True while sending is put off after a failure.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| at > now)
    }

    /// Puts sending off as after a failed attempt: there is nowhere to send to.
    pub(crate) fn hold(&mut self, cx: &LaneContext, now: Instant, retry_after_ms: u32) {
        self.not_before = Some(now + self.backoff.next(&cx.retry, &cx.random, retry_after_ms));
    }

    /// Ends the wait after a failure early if the leader is another one than the failed attempt knew.
    pub(crate) fn release(&mut self, epoch: u32) {
        if epoch > self.last_epoch {
            self.not_before = None;
        }
    }

    /// The identity that must be replaced before anything new can be sent; `None` in the inner place: any will do.
    pub(crate) fn needs_identity(&mut self, cx: &LaneContext) -> Option<Option<Identity>> {
        if !cx.config.is_idempotent() {
            return None;
        }
        if self.resetting && self.window.is_empty() {
            self.retired = self.identity.take();
            self.resetting = false;
        }
        (self.identity.is_none() && !self.resetting).then_some(self.retired)
    }

    /// Goes on under a fresh identity.
    pub(crate) fn adopt(&mut self, identity: Identity) {
        debug_assert!(self.window.is_empty());
        self.identity = Some(identity);
        self.next_sequence = 0;
        self.confirmed = false;
    }

    /// Everything that may be sent now, in order, marked as on its way to `to`.
    pub(crate) fn sends(&mut self, cx: &LaneContext, to: Sent) -> Vec<Outgoing> {
        let mut out = Vec::new();
        self.last_epoch = self.last_epoch.max(to.epoch);
        for batch in &mut self.window {
            if batch.sent.is_none() {
                out.push(batch.send(to));
            }
        }
        let idempotent = cx.config.is_idempotent();
        let limit = if idempotent && self.confirmed { cx.config.max_in_flight as usize } else { 1 };
        while self.window.len() < limit && !self.resetting && (!idempotent || self.identity.is_some()) {
            let Some(mut batch) = self.next_in_order(cx, to.at) else { break };
            if !self.give_sequence(&mut batch) {
                self.requeued.push_front(batch);
                break;
            }
            out.push(batch.send(to));
            self.window.push_back(batch);
        }
        out
    }

    /// A batch was written.
    pub(crate) fn succeeded(
        &mut self,
        cx: &LaneContext,
        attempt: Attempt,
        receipt: BatchReceipt,
        now: Instant,
    ) {
        // A late answer of an earlier attempt counts as well: written is written.
        let Some(batch) = self.remove(attempt.batch) else { return };
        self.backoff.reset();
        self.not_before = None;
        self.last_success = Some(now);
        self.confirmed |= !self.resetting;
        cx.accumulator.settle(batch.claim, Ok(receipt));
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, cx: &LaneContext, attempt: Attempt, failure: CallFailure, now: Instant) {
        let CallFailure { error, definite } = failure;
        let Some(at) = self.position(attempt.batch) else { return };
        let batch = &mut self.window[at];
        let Some(sent) = batch.sent.filter(|_| batch.attempts == attempt.number) else { return };
        // A batch before it was missing, or has come only after this attempt went out: asking again can help.
        let may_follow = at > 0 || self.last_success.is_some_and(|success| success >= sent.at);
        batch.sent = None;
        batch.maybe_written |= !definite;
        let retry_after_ms = error.retry_after_ms;
        let verdict = verdict(&error, batch, cx, may_follow);
        batch.last_error = Some(error);
        match verdict {
            Verdict::Again => {
                self.hold(cx, now, retry_after_ms);
                if self.resetting {
                    self.requeue_unwritten();
                }
            }
            Verdict::Renumber if !self.window[at].maybe_written => {
                self.hold(cx, now, retry_after_ms);
                self.reset();
            }
            Verdict::Renumber | Verdict::Fail => self.fail(cx, attempt.batch, None),
        }
    }

    /// The leader moved: attempts that went to the old one are sent again without waiting for its answer. Only an
    /// idempotent producer may do that.
    pub(crate) fn leader_moved(&mut self, cx: &LaneContext, broker: u32, epoch: u32) {
        if !cx.config.is_idempotent() {
            return;
        }
        for batch in &mut self.window {
            if batch.sent.is_some_and(|sent| sent.broker != broker && sent.epoch < epoch) {
                batch.sent = None;
                batch.maybe_written = true;
            }
        }
    }

    /// Resolves what passed its delivery deadline.
    pub(crate) fn expire(&mut self, cx: &LaneContext, now: Instant) {
        while let Some(late) = self.window.iter().find(|batch| batch.deadline <= now) {
            let number = late.number;
            let why = expired(cx.config.delivery_timeout_ms, late.last_error.as_ref());
            self.fail(cx, number, Some(why));
        }
        while self.requeued.front().is_some_and(|batch| batch.deadline <= now) {
            let Some(batch) = self.requeued.pop_front() else { break };
            let why = expired(cx.config.delivery_timeout_ms, batch.last_error.as_ref());
            cx.accumulator.settle(batch.claim, Err(DeliveryError::Failed(why)));
        }
        cx.accumulator.expire(&self.queue, now, &expired(cx.config.delivery_timeout_ms, None));
    }

    /// When this lane must be looked at again, if nothing happens before.
    pub(crate) fn next_look(&self, cx: &LaneContext, now: Instant, stall: Duration) -> Option<Instant> {
        let waits = self.window.iter().any(|batch| batch.sent.is_none()) || !self.requeued.is_empty();
        let room = self.window.len() < cx.config.max_in_flight as usize;
        // Work that is ready but was not taken waits for a receipt, a connection or an identity: their arrival wakes it.
        let ready = cx.accumulator.ready_at(&self.queue, now).filter(|at| *at > now && room);
        let held = self.not_before.filter(|at| *at > now && (waits || self.has_work(cx, now)));
        let answer = self.window.iter().filter_map(|batch| batch.sent).map(|sent| sent.at).min().map(|at| {
            let silent = now.saturating_duration_since(at).as_millis() / stall.as_millis().max(1);
            at + stall * u32::try_from(silent + 1).unwrap_or(u32::MAX)
        });
        let batches = self.window.iter().chain(&self.requeued);
        let deadline = batches.map(|batch| batch.deadline).chain(cx.accumulator.deadline(&self.queue)).min();
        [ready, held, answer, deadline].into_iter().flatten().min()
    }

    /// The oldest attempt under way.
    pub(crate) fn oldest_sent(&self) -> Option<Sent> {
        self.window.iter().filter_map(|batch| batch.sent).min_by_key(|sent| sent.at)
    }

    /// Resolves everything because the producer stops.
    pub(crate) fn abort(&mut self, cx: &LaneContext, why: &ApiError) {
        for batch in self.window.drain(..).chain(self.requeued.drain(..)) {
            let unknown = batch.maybe_written || batch.sent.is_some();
            cx.accumulator.settle(batch.claim, Err(outcome(why.clone(), unknown)));
        }
    }

    fn next_in_order(&mut self, cx: &LaneContext, now: Instant) -> Option<Batch> {
        if let Some(batch) = self.requeued.pop_front() {
            return Some(batch);
        }
        let sealed = cx.accumulator.pop(&self.queue, now)?;
        let number = self.next_batch;
        self.next_batch += 1;
        Some(Batch {
            number,
            bytes: sealed.bytes,
            count: sealed.count,
            deadline: sealed.deadline,
            claim: sealed.claim,
            sequence: None,
            sent: None,
            attempts: 0,
            maybe_written: false,
            last_error: None,
        })
    }

    /// False if the identity has no sequences left for the batch.
    fn give_sequence(&mut self, batch: &mut Batch) -> bool {
        let Some(identity) = self.identity else { return true };
        let Some(next) = self.next_sequence.checked_add(batch.count).filter(|next| *next <= SEQUENCE_END)
        else {
            self.reset();
            return false;
        };
        let bytes = std::mem::take(&mut batch.bytes);
        batch.bytes = stamp(bytes, identity, self.next_sequence);
        batch.sequence = Some(self.next_sequence);
        self.next_sequence = next;
        true
    }

    /// Gives the identity up. What is certainly not written and not under way waits for the next one.
    fn reset(&mut self) {
        self.resetting = true;
        self.requeue_unwritten();
    }

    fn requeue_unwritten(&mut self) {
        let (moved, kept) =
            self.window.drain(..).partition(|batch| batch.sent.is_none() && !batch.maybe_written);
        self.window = kept;
        let moved: VecDeque<Batch> = moved;
        self.requeued.extend(moved);
        self.requeued.make_contiguous().sort_by_key(|batch| batch.number);
    }

    /// Resolves a batch without a receipt.
    fn fail(&mut self, cx: &LaneContext, number: u64, why: Option<ApiError>) {
        let Some(batch) = self.remove(number) else { return };
        let unknown = batch.maybe_written || batch.sent.is_some();
        let error = why.or(batch.last_error);
        let error = error.unwrap_or_else(|| expired(cx.config.delivery_timeout_ms, None));
        if let Some(sequence) = batch.sequence {
            if !unknown && self.window.is_empty() && self.requeued.is_empty() && !self.resetting {
                // Nothing stands behind it and nobody has its sequence: the next batch takes it over.
                self.next_sequence = sequence;
            } else {
                self.reset();
            }
        }
        cx.accumulator.settle(batch.claim, Err(outcome(error, unknown)));
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.window.iter().position(|batch| batch.number == number)
    }

    fn remove(&mut self, number: u64) -> Option<Batch> {
        self.position(number).and_then(|at| self.window.remove(at))
    }
}

impl Batch {
    fn send(&mut self, to: Sent) -> Outgoing {
        self.attempts += 1;
        self.sent = Some(to);
        Outgoing {
            attempt: Attempt { batch: self.number, number: self.attempts },
            bytes: self.bytes.clone(),
            deadline: self.deadline,
        }
    }
}

enum Verdict {
    /// Same bytes, same sequence.
    Again,
    /// Not written, and will not be under this identity.
    Renumber,
    Fail,
}

fn verdict(error: &ApiError, batch: &Batch, cx: &LaneContext, may_follow: bool) -> Verdict {
    if batch.attempts > cx.retry.retries {
        return Verdict::Fail;
    }
    match error.code {
        ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer if may_follow => Verdict::Again,
        ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer | ErrorCode::ProducerFenced => {
            Verdict::Renumber
        }
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition if batch.attempts < UNKNOWN_TOPIC_ATTEMPTS => {
            Verdict::Again
        }
        // Without idempotence a repetition could write it twice.
        _ if batch.maybe_written && !cx.config.is_idempotent() => Verdict::Fail,
        code if code.retriable() => Verdict::Again,
        _ => Verdict::Fail,
    }
}

fn outcome(error: ApiError, unknown: bool) -> DeliveryError {
    if !unknown {
        return DeliveryError::Failed(error);
    }
    if !error.code.definite() {
        return DeliveryError::Unknown(error);
    }
    // The last answer was definite, but an earlier attempt may have written the batch: the code must not deny that.
    let wrapped = ApiError::new(ErrorCode::OutcomeUnknown, "it is not known whether the record was written")
        .reason(format!("{error:#}"));
    DeliveryError::Unknown(wrapped)
}
