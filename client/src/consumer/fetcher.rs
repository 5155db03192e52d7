//! The one task of a consumer that fetches: long polls to the leaders of what is assigned.
//!
//! A partition is in at most one call. Partitions of one leader that are free at the same time share a call; a broker
//! gets at most [`CALLS_MAX`] calls at once, so that partitions that fell out of step join again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{Offset, PartitionIndex, TopicPartition};
use wire::pb;

use super::shared::{Call, Chunk, Next, Shared, Slot, State};
use super::{Position, batches_of, offsets};
use crate::ClientCore;
use crate::config::{ConsumerConfig, OffsetReset};
use crate::error::{CallFailure, ClientError};
use crate::metadata::{MetadataChanges, Route};
use crate::tasks::sleep_until;

/// Fetches of one broker at the same time.
const CALLS_MAX: usize = 3;

/// Time beyond the long poll for a healthy broker to answer.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// Failures after which an unknown topic is reported rather than looked for.
const UNKNOWN_TOPIC_ATTEMPTS: u32 = 10;

enum Done {
    Fetched { call: u64, broker: u32, wanted: Vec<Wanted>, answer: Result<pb::FetchResponse, CallFailure> },
    Resolved { call: u64, at: TopicPartition, answer: Result<u64, CallFailure> },
}

/// A partition in a call.
#[derive(Debug, Clone)]
struct Wanted {
    at: TopicPartition,
    offset: u64,
}

struct Target {
    address: String,
    wanted: Vec<Wanted>,
}

pub(super) struct Fetcher {
    core: Arc<ClientCore>,
    config: ConsumerConfig,
    shared: Arc<Shared>,
    metadata: MetadataChanges,
    calls: JoinSet<Done>,
    next_call: u64,
    busy: BTreeMap<u32, usize>,
    turn: usize,
}

impl Fetcher {
    pub(super) fn new(core: Arc<ClientCore>, config: ConsumerConfig, shared: Arc<Shared>) -> Self {
        Self {
            metadata: core.metadata.changes(),
            core,
            config,
            shared,
            calls: JoinSet::new(),
            next_call: 0,
            busy: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Fetches until stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        loop {
            let next = self.start_calls(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.calls.join_next() => match done {
                    Ok(Done::Fetched { call, broker, wanted, answer }) => self.on_fetched(call, broker, &wanted, answer),
                    Ok(Done::Resolved { call, at, answer }) => self.on_resolved(call, &at, answer),
                    // A panic in a call: nothing can be told about it, and everything it held stays held.
                    Err(error) => tracing::error!(%error, "fetch call panicked"),
                },
                () = shared.changed() => {}
                () = self.metadata.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Starts calls for everything that is free; returns when a partition that waits will be.
    fn start_calls(&mut self, now: Instant) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let room = shared.has_room(&state);
        let view = self.core.metadata.view();
        let mut targets: BTreeMap<u32, Target> = BTreeMap::new();
        let mut next: Option<Instant> = None;
        let mut lost = false;
        for (at, slot) in &mut state.slots {
            let route = view.route(&slot.topic, at.partition.0);
            if let (Some(call), Route::Leader { broker, epoch, .. }) = (slot.call, &route)
                && *broker != call.broker
                && *epoch > call.epoch
            {
                // The leader moved: the old one may never answer.
                slot.call = None;
            }
            if slot.call.is_some() || slot.paused || slot.next == Next::Halted {
                continue;
            }
            if let Some(until) = slot.not_before.filter(|until| *until > now) {
                next = Some(next.map_or(until, |next| next.min(until)));
                continue;
            }
            let Route::Leader { broker, address, epoch } = route else {
                let wait = self.wait(slot, 0);
                next = Some(next.map_or(now + wait, |next| next.min(now + wait)));
                lost = true;
                continue;
            };
            match slot.next {
                Next::Resolve(position) => {
                    slot.call = Some(Call { number: self.next_call, broker, epoch });
                    self.resolve(at.clone(), position);
                }
                Next::Fetch(offset)
                    if room && self.busy.get(&broker).is_none_or(|calls| *calls < CALLS_MAX) =>
                {
                    let target =
                        targets.entry(broker).or_insert_with(|| Target { address, wanted: Vec::new() });
                    target.wanted.push(Wanted { at: at.clone(), offset });
                    slot.call = Some(Call { number: 0, broker, epoch });
                }
                Next::Fetch(_) | Next::Halted => {}
            }
        }
        for (broker, target) in targets {
            for wanted in &target.wanted {
                if let Some(call) = state.slots.get_mut(&wanted.at).and_then(|slot| slot.call.as_mut()) {
                    call.number = self.next_call;
                }
            }
            self.fetch(broker, target);
        }
        drop(state);
        if lost {
            self.core.metadata.request_refresh();
        }
        next
    }

    fn resolve(&mut self, at: TopicPartition, position: Position) {
        let core = Arc::clone(&self.core);
        let call = self.next_call;
        self.next_call += 1;
        self.calls.spawn(async move {
            let answer = offsets::one(&core, &at, position, false).await;
            Done::Resolved { call, at, answer }
        });
    }

    fn fetch(&mut self, broker: u32, target: Target) {
        let Target { address, mut wanted } = target;
        // Another partition comes first each time: an answer has room for some of them only.
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % wanted.len().max(1);
        wanted.rotate_left(first);
        let request = pb::FetchRequest {
            partitions: wanted
                .iter()
                .map(|wanted| pb::PartitionFetch {
                    topic: wanted.at.topic.clone(),
                    partition: wanted.at.partition.0,
                    offset: wanted.offset,
                    max_bytes: self.config.partition_fetch_bytes,
                    leader_epoch: 0,
                })
                .collect(),
            min_bytes: self.config.fetch_min_bytes,
            max_bytes: self.config.fetch_max_bytes,
            max_wait_ms: self.config.fetch_max_wait_ms,
            plain: false,
        };
        let timeout = Duration::from_millis(u64::from(self.config.fetch_max_wait_ms)) + ANSWER_GRACE;
        let core = Arc::clone(&self.core);
        let call = self.next_call;
        self.next_call += 1;
        *self.busy.entry(broker).or_default() += 1;
        self.calls.spawn(async move {
            let answer = core
                .connections
                .call(&address, timeout, |connection| async move { connection.broker().fetch(request).await })
                .await;
            Done::Fetched { call, broker, wanted, answer }
        });
    }

    fn on_resolved(&mut self, call: u64, at: &TopicPartition, answer: Result<u64, CallFailure>) {
        let mut state = self.shared.lock();
        let Some(slot) = current(&mut state, at, call) else { return };
        match answer {
            Ok(offset) => {
                slot.backoff.reset();
                state.resolved(at, offset);
            }
            Err(failure) => self.failed(&mut state, at, failure.error),
        }
    }

    fn on_fetched(
        &mut self,
        call: u64,
        broker: u32,
        wanted: &[Wanted],
        answer: Result<pb::FetchResponse, CallFailure>,
    ) {
        if let Some(calls) = self.busy.get_mut(&broker) {
            *calls = calls.saturating_sub(1);
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                self.core.metadata.request_refresh();
                let mut state = self.shared.lock();
                for wanted in wanted {
                    if current(&mut state, &wanted.at, call).is_some() {
                        self.failed(&mut state, &wanted.at, failure.error.clone());
                    }
                }
                drop(state);
                self.shared.announce();
                return;
            }
        };
        let mut state = self.shared.lock();
        for fetched in answer.partitions {
            let at =
                TopicPartition { topic: fetched.topic.clone(), partition: PartitionIndex(fetched.partition) };
            if current(&mut state, &at, call).is_some() {
                self.take(&mut state, &at, fetched);
            }
        }
        // Partitions that the answer leaves out had nothing new.
        for wanted in wanted {
            if let Some(slot) = state.slots.get_mut(&wanted.at)
                && slot.call.is_some_and(|under_way| under_way.number == call)
            {
                slot.call = None;
            }
        }
        drop(state);
        self.shared.announce();
    }

    /// Takes what came for one partition.
    fn take(&self, state: &mut State, at: &TopicPartition, fetched: pb::PartitionFetched) {
        if let Some(detail) = fetched.error {
            self.failed(state, at, detail.into());
            return;
        }
        let Some(slot) = state.slots.get_mut(at) else { return };
        let Next::Fetch(from) = slot.next else { return };
        slot.backoff.reset();
        slot.not_before = None;
        slot.high_watermark = Some(fetched.high_watermark);
        let bytes = fetched.batches.len();
        let (batches, span, damage) = batches_of(fetched.batches);
        if let Some((_, Offset(end))) = span {
            slot.next = Next::Fetch(end.max(from));
            let (topic, generation) = (Arc::clone(&slot.topic), slot.generation);
            state.push(Chunk { at: at.clone(), topic, generation, from, batches, bytes });
        }
        if let Some(error) = damage {
            state.fail(at, ClientError::Failed(error));
        }
    }

    /// An attempt for one partition failed: try again later, start over, or report it.
    fn failed(&self, state: &mut State, at: &TopicPartition, error: ApiError) {
        let Some(slot) = state.slots.get_mut(at) else { return };
        slot.call = None;
        let missing = matches!(error.code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition);
        match error.code {
            ErrorCode::OffsetOutOfRange => match self.config.offset_reset {
                OffsetReset::Earliest => slot.next = Next::Resolve(Position::Earliest),
                OffsetReset::Latest => slot.next = Next::Resolve(Position::Latest),
                OffsetReset::Error => state.fail(at, ClientError::Failed(error)),
            },
            code if code.retriable() || (missing && slot.backoff.attempts() < UNKNOWN_TOPIC_ATTEMPTS) => {
                self.core.metadata.not_leader(&at.topic, at.partition.0, error.leader.as_ref());
                self.wait(slot, error.retry_after_ms);
            }
            _ => state.fail(at, ClientError::Failed(error)),
        }
    }

    fn wait(&self, slot: &mut Slot, retry_after_ms: u32) -> Duration {
        let wait = slot.backoff.next(&self.core.config.retry, &self.core.random, retry_after_ms);
        slot.not_before = Some(Instant::now() + wait);
        wait
    }
}

/// The slot, if this call is still the one under way for it.
fn current<'s>(state: &'s mut State, at: &TopicPartition, call: u64) -> Option<&'s mut Slot> {
    let slot = state.slots.get_mut(at)?;
    if slot.call.is_none_or(|under_way| under_way.number != call) {
        return None;
    }
    slot.call = None;
    Some(slot)
}
