//! The one task of a producer that sends: it owns the order of all partitions and the streams to all brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::ProducerId;
use wire::pb;

use super::delivery::BatchReceipt;
use super::lane::{Lane, LaneContext, Outgoing, Sent};
use super::link::{self, Item, LINK_WINDOW, Link, LinkEvent};
use super::stamp::Identity;
use crate::ClientCore;
use crate::config::Acks;
use crate::error::CallFailure;
use crate::metadata::{MetadataChanges, Route};
use crate::retry::{Backoff, Repeat, retry};

/// Silence of a leader after which the client asks whether there is another one. Longer than a healthy write takes,
/// shorter than an election.
const STALL: Duration = Duration::from_millis(500);

/// Time beyond `request_timeout_ms` for the broker's own timeout to arrive.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Events that wait for the sender. A full channel only slows the streams down.
const EVENTS_MAX: usize = 256;

/// What background tasks tell the sender.
#[derive(Debug)]
enum Event {
    Link { broker: u32, link: u64, what: LinkEvent },
    Identity(Result<Identity, CallFailure>),
}

/// A batch that waits for its request within one turn of the loop.
struct Staged {
    lane: usize,
    topic: Arc<str>,
    partition: u32,
    outgoing: Outgoing,
}

pub(crate) struct Sender {
    core: Arc<ClientCore>,
    cx: LaneContext,
    stop: CancellationToken,
    metadata: MetadataChanges,
    lanes: BTreeMap<usize, Lane>,
    timers: BTreeSet<(Instant, usize)>,
    timer_of: BTreeMap<usize, Instant>,
    touched: BTreeSet<usize>,
    links: BTreeMap<u32, Link>,
    next_link: u64,
    next_correlation: u64,
    identity: Option<Identity>,
    fetching_identity: bool,
    identity_backoff: Backoff,
    /// Lanes that wait for an identity.
    nameless: BTreeSet<usize>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
}

impl Sender {
    pub(crate) fn new(core: Arc<ClientCore>, cx: LaneContext, stop: CancellationToken) -> Self {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        Self {
            metadata: core.metadata.changes(),
            core,
            cx,
            stop,
            lanes: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            touched: BTreeSet::new(),
            links: BTreeMap::new(),
            next_link: 0,
            next_correlation: 0,
            identity: None,
            fetching_identity: false,
            identity_backoff: Backoff::default(),
            nameless: BTreeSet::new(),
            events,
            events_in,
            tasks: JoinSet::new(),
        }
    }

    /// Sends until stopped; what is unresolved then is failed, as unknown where it may have been written.
    pub(crate) async fn run(mut self) {
        let accumulator = Arc::clone(&self.cx.accumulator);
        loop {
            let next = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(event) = self.events.recv() => self.on_event(event),
                () = accumulator.changed() => {}
                () = self.metadata.changed() => self.on_metadata(),
                () = sleep_until(next) => {}
                Some(_ended) = self.tasks.join_next() => {}
            }
            while let Ok(event) = self.events.try_recv() {
                self.on_event(event);
            }
            self.turn(Instant::now());
        }
        self.abort();
    }

    /// Looks at every lane for which something may have changed.
    fn turn(&mut self, now: Instant) {
        for queue in self.cx.accumulator.take_dirty() {
            self.touched.insert(queue.lane);
            self.lanes.entry(queue.lane).or_insert_with(|| Lane::new(queue));
        }
        if self.cx.accumulator.take_urgent() {
            self.touched.extend(self.lanes.keys());
        }
        while let Some(&(at, lane)) = self.timers.first()
            && at <= now
        {
            self.timers.remove(&(at, lane));
            self.timer_of.remove(&lane);
            self.touched.insert(lane);
        }
        let mut staged: BTreeMap<u32, Vec<Staged>> = BTreeMap::new();
        while let Some(number) = self.touched.pop_first() {
            let Some(mut lane) = self.lanes.remove(&number) else { continue };
            self.serve(number, &mut lane, now, &mut staged);
            self.set_timer(number, lane.next_look(&self.cx, now, STALL));
            self.lanes.insert(number, lane);
        }
        for (broker, batches) in staged {
            self.dispatch(broker, batches, now);
        }
    }

    fn serve(
        &mut self,
        number: usize,
        lane: &mut Lane,
        now: Instant,
        staged: &mut BTreeMap<u32, Vec<Staged>>,
    ) {
        lane.expire(&self.cx, now);
        self.watch_for_silence(lane, now);
        let view = self.core.metadata.view();
        let route = view.route(&lane.queue.topic, lane.queue.partition);
        if let Route::Leader { broker, epoch, .. } = &route {
            lane.leader_moved(&self.cx, *broker, *epoch);
        }
        if lane.is_held(now) || !lane.has_work(&self.cx, now) || !self.named(number, lane) {
            return;
        }
        let Route::Leader { broker, address, epoch } = route else {
            self.core.metadata.request_refresh();
            lane.hold(&self.cx, now, 0);
            return;
        };
        let link = self.link(broker, address);
        if !link.has_room() {
            link.waiting.insert(number);
            return;
        }
        let to = Sent { broker, epoch, link: link.number, at: now };
        let batches = staged.entry(broker).or_default();
        batches.extend(lane.sends(&self.cx, to).into_iter().map(|outgoing| Staged {
            lane: number,
            topic: Arc::clone(&lane.queue.topic),
            partition: lane.queue.partition,
            outgoing,
        }));
        // Sending may have used up the identity's sequences.
        if lane.has_work(&self.cx, now) {
            self.named(number, lane);
        }
    }

    /// Sees to it that a lane has an identity if it needs one; false while there is none.
    fn named(&mut self, number: usize, lane: &mut Lane) -> bool {
        let Some(retired) = lane.needs_identity(&self.cx) else { return true };
        match self.identity.filter(|identity| Some(*identity) != retired) {
            Some(identity) => {
                lane.adopt(identity);
                true
            }
            None => {
                self.nameless.insert(number);
                self.fetch_identity();
                false
            }
        }
    }

    /// A leader that does not answer: is there another one? And in the end: give its stream up.
    fn watch_for_silence(&mut self, lane: &Lane, now: Instant) {
        let Some(sent) = lane.oldest_sent() else { return };
        let silence = now.saturating_duration_since(sent.at);
        if silence < STALL {
            return;
        }
        self.core.metadata.request_refresh();
        let patience = Duration::from_millis(u64::from(self.cx.config.request_timeout_ms)) + ANSWER_GRACE;
        if silence >= patience && self.links.get(&sent.broker).is_some_and(|link| link.number == sent.link) {
            let error = ApiError::new(
                ErrorCode::OutcomeUnknown,
                format!("broker {} did not answer within {} ms", sent.broker, silence.as_millis()),
            );
            // Through the channel: this lane is in use here. A full channel means that answers are waiting after all.
            let event = Event::Link {
                broker: sent.broker,
                link: sent.link,
                what: LinkEvent::Down { error, opened: true },
            };
            let _ignored = self.events_in.try_send(event);
        }
    }

    fn link(&mut self, broker: u32, address: String) -> &mut Link {
        if let Some(link) = self.links.get(&broker)
            && link.address != address
        {
            self.on_link_down(broker, link.number, &moved(broker), true);
        }
        let (number, tasks, core, events) =
            (&mut self.next_link, &mut self.tasks, &self.core, &self.events_in);
        self.links.entry(broker).or_insert_with(|| {
            let (requests, outgoing) = mpsc::channel(LINK_WINDOW);
            let link = *number;
            *number += 1;
            let wrap = move |what| Event::Link { broker, link, what };
            let task =
                link::run(Arc::clone(&core.connections), address.clone(), outgoing, events.clone(), wrap);
            Link::new(link, address, requests, tasks.spawn(task))
        })
    }

    /// Joins batches of many partitions into as few requests as possible: one batch of a partition in each, since a
    /// request has one answer for each partition.
    fn dispatch(&mut self, broker: u32, batches: Vec<Staged>, now: Instant) {
        let Some(link) = self.links.get_mut(&broker) else { return };
        let limit = self.cx.config.max_request_bytes as usize;
        let mut rounds: Vec<Vec<Staged>> = Vec::new();
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        for batch in batches {
            let round = seen.entry(batch.lane).and_modify(|round| *round += 1).or_insert(0);
            if rounds.len() <= *round {
                rounds.resize_with(*round + 1, Vec::new);
            }
            rounds[*round].push(batch);
        }
        for round in rounds {
            let mut bytes = 0;
            let mut part = Vec::new();
            for batch in round {
                if bytes + batch.outgoing.bytes.len() > limit && !part.is_empty() {
                    let full = std::mem::take(&mut part);
                    push_request(link, &self.cx, &mut self.next_correlation, full, now);
                    bytes = 0;
                }
                bytes += batch.outgoing.bytes.len();
                part.push(batch);
            }
            push_request(link, &self.cx, &mut self.next_correlation, part, now);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Identity(Ok(identity)) => {
                self.fetching_identity = false;
                self.identity_backoff.reset();
                self.identity = Some(identity);
                self.touched.append(&mut self.nameless);
            }
            Event::Identity(Err(failure)) => {
                self.fetching_identity = false;
                tracing::debug!(error = format!("{:#}", failure.error), "no producer id yet");
                // Asked again at once by the lanes that need it; the task itself waits out the backoff.
                self.identity_backoff.next(&self.cx.retry, &self.cx.random, 0);
                self.touched.append(&mut self.nameless);
            }
            Event::Link { broker, link, what } => match what {
                LinkEvent::Answer(answer) => self.on_answer(broker, link, *answer),
                LinkEvent::Down { error, opened } => self.on_link_down(broker, link, &error, opened),
            },
        }
    }

    fn on_answer(&mut self, broker: u32, number: u64, answer: pb::ProduceResponse) {
        let Some(link) = self.links.get_mut(&broker).filter(|link| link.number == number) else { return };
        let Some(items) = link.answered(answer.correlation_id) else { return };
        if link.has_room() {
            self.touched.append(&mut link.waiting);
        }
        let now = Instant::now();
        let mut results = answer.results;
        for (at, item) in items.into_iter().enumerate() {
            let Some(lane) = self.lanes.get_mut(&item.lane) else { continue };
            self.touched.insert(item.lane);
            // Results come in the order of the request; the names are what counts.
            let found = Some(at)
                .filter(|at| results.get(*at).is_some_and(|result| is_of(result, lane)))
                .or_else(|| results.iter().position(|result| is_of(result, lane)));
            let Some(result) = found.and_then(|found| results.get_mut(found)).map(std::mem::take) else {
                let error = ApiError::new(ErrorCode::OutcomeUnknown, "the answer lacks the partition");
                lane.failed(&self.cx, item.attempt, CallFailure::unknown(error), now);
                continue;
            };
            match result.error {
                None => lane.succeeded(&self.cx, item.attempt, receipt(lane, result), now),
                Some(detail) => {
                    let definite = detail.definite;
                    let error = ApiError::from(detail);
                    let (topic, partition) = (Arc::clone(&lane.queue.topic), lane.queue.partition);
                    let hint = error.leader.clone();
                    let elsewhere = means_elsewhere(error.code);
                    lane.failed(&self.cx, item.attempt, CallFailure { error, definite }, now);
                    if elsewhere {
                        self.core.metadata.not_leader(&topic, partition, hint.as_ref());
                        if let Route::Leader { epoch, .. } =
                            self.core.metadata.view().route(&topic, partition)
                        {
                            lane.release(epoch);
                        }
                    }
                }
            }
        }
    }

    fn on_link_down(&mut self, broker: u32, number: u64, error: &ApiError, opened: bool) {
        if self.links.get(&broker).is_none_or(|link| link.number != number) {
            return;
        }
        let Some(mut link) = self.links.remove(&broker) else { return };
        tracing::debug!(broker, error = format!("{error:#}"), "produce stream ended");
        self.touched.append(&mut link.waiting);
        let (sent, kept) = link.close();
        let now = Instant::now();
        for (items, definite) in [(sent, !opened), (kept, true)] {
            for item in items {
                self.touched.insert(item.lane);
                if let Some(lane) = self.lanes.get_mut(&item.lane) {
                    let error = unsent(error, definite);
                    lane.failed(&self.cx, item.attempt, CallFailure { error, definite }, now);
                }
            }
        }
        self.core.metadata.request_refresh();
    }

    fn on_metadata(&mut self) {
        let view = self.core.metadata.view();
        for (topic, known) in self.cx.accumulator.topics() {
            let partitions = view.topics.get(topic.as_ref()).map_or(0, |topic| topic.partitions.len());
            if partitions > known {
                self.cx.accumulator.grow(&topic, u32::try_from(partitions).unwrap_or(u32::MAX));
            }
        }
        for (number, lane) in &mut self.lanes {
            if let Route::Leader { epoch, .. } = view.route(&lane.queue.topic, lane.queue.partition) {
                lane.release(epoch);
                self.touched.insert(*number);
            }
        }
    }

    fn fetch_identity(&mut self) {
        if self.fetching_identity {
            return;
        }
        self.fetching_identity = true;
        let (core, events) = (Arc::clone(&self.core), self.events_in.clone());
        let pause = match self.identity_backoff.attempts() {
            0 => Duration::ZERO,
            _ => Duration::from_millis(u64::from(self.cx.retry.backoff_max_ms)),
        };
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            let identity = init_producer(&core).await;
            // Nobody listens when the producer is gone.
            let _ignored = events.send(Event::Identity(identity)).await;
        });
    }

    fn set_timer(&mut self, lane: usize, at: Option<Instant>) {
        if let Some(old) = self.timer_of.remove(&lane) {
            self.timers.remove(&(old, lane));
        }
        if let Some(at) = at {
            self.timers.insert((at, lane));
            self.timer_of.insert(lane, at);
        }
    }

    fn abort(&mut self) {
        let why = ApiError::new(
            ErrorCode::ClientClosed,
            "the producer was closed before the record was acknowledged",
        );
        self.cx.accumulator.close();
        for lane in self.lanes.values_mut() {
            lane.abort(&self.cx, &why);
        }
        self.cx.accumulator.drain_all(&why);
    }
}

fn push_request(
    link: &mut Link,
    cx: &LaneContext,
    correlation: &mut u64,
    batches: Vec<Staged>,
    now: Instant,
) {
    if batches.is_empty() {
        return;
    }
    *correlation += 1;
    let items =
        batches.iter().map(|batch| Item { lane: batch.lane, attempt: batch.outgoing.attempt }).collect();
    let left = batches.iter().map(|batch| batch.outgoing.deadline.saturating_duration_since(now)).min();
    let left = left.map_or(u32::MAX, |left| u32::try_from(left.as_millis()).unwrap_or(u32::MAX));
    let request = pb::ProduceRequest {
        correlation_id: *correlation,
        acks: match cx.config.acks {
            Acks::None => pb::Acks::None,
            Acks::Leader => pb::Acks::Leader,
            Acks::All => pb::Acks::All,
        }
        .into(),
        // 0 would mean the broker's default.
        timeout_ms: cx.config.request_timeout_ms.min(left).max(1),
        partitions: batches
            .into_iter()
            .map(|batch| pb::PartitionProduce {
                topic: batch.topic.as_ref().to_owned(),
                partition: Some(batch.partition),
                batches: batch.outgoing.bytes,
                records: Vec::new(),
            })
            .collect(),
    };
    link.push(request, items);
}

async fn init_producer(core: &ClientCore) -> Result<Identity, CallFailure> {
    let timeout = Duration::from_millis(u64::from(core.config.request_timeout_ms.min(2_000)));
    let deadline = Instant::now() + timeout * 5;
    // An id that was given out and lost on the way back is only a number that nobody uses.
    let answer =
        retry(&core.config.retry, &core.random, deadline, Repeat::Always, |_| async {
            let addresses = core.metadata.addresses();
            let address = addresses.first().cloned().unwrap_or_default();
            let request = pb::InitProducerRequest { client_id: core.config.client_id.clone() };
            core.connections
                .call(&address, timeout, |connection| async move {
                    connection.broker().init_producer(request).await
                })
                .await
        })
        .await?;
    let epoch = u16::try_from(answer.epoch).map_err(|_| {
        CallFailure::definite(ApiError::new(
            ErrorCode::Internal,
            "the broker gave a producer epoch above 65,535",
        ))
    })?;
    Ok(Identity { id: ProducerId(answer.producer_id), epoch })
}

fn receipt(lane: &Lane, result: pb::ProduceResult) -> BatchReceipt {
    BatchReceipt {
        topic: Arc::clone(&lane.queue.topic),
        partition: lane.queue.partition,
        level: match result.level() {
            pb::Acks::None => Acks::None,
            pb::Acks::Leader => Acks::Leader,
            pb::Acks::Unspecified | pb::Acks::All => Acks::All,
        },
        base_offset: result.base_offset,
        leader_epoch: result.leader_epoch,
        raft_index: result.raft_index,
        provisional: result.provisional,
        duplicate: result.duplicate,
        on_disk_brokers: result.on_disk_brokers.into(),
    }
}

fn is_of(result: &pb::ProduceResult, lane: &Lane) -> bool {
    result.partition == lane.queue.partition && result.topic == *lane.queue.topic
}

/// Codes that say that the records belong to another broker.
fn means_elsewhere(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeader
            | ErrorCode::NoLeader
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::NotReplica
            | ErrorCode::UnknownTopic
            | ErrorCode::UnknownPartition
            | ErrorCode::ShuttingDown
            | ErrorCode::Draining
    )
}

/// The error of batches that were never handed to a stream that broke: its loss says nothing about them.
fn unsent(error: &ApiError, definite: bool) -> ApiError {
    if definite && !(error.code.definite() && error.code.retriable()) {
        ApiError::new(ErrorCode::ConnectionFailed, "the connection ended before the request was sent")
            .reason(format!("{error:#}"))
    } else {
        error.clone()
    }
}

fn moved(broker: u32) -> ApiError {
    ApiError::new(ErrorCode::ConnectionLost, format!("broker {broker} moved to another address"))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
