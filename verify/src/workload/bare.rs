//! A writer without the SDK's producer: what it is told of a batch is what one broker said to one request.
//!
//! The SDK repeats what failed and never lets a batch overtake another, so it hides what a broker says about a single
//! attempt and what it does with a sequence that leaves others out. Other clients and networks are not so kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, ClientError, Compression};
use tokio_util::sync::CancellationToken;
use wire::error_code::ErrorCode;
use wire::ids::ProducerId;
use wire::pb;
use wire::record::RecordBatchBuilder;

use super::reader::pause;
use super::spec::BareSpec;
use super::{Place, Worker, value};
use crate::history::{AckLevel, Answer, CallId, Op, Send, SendAnswer, value as value_of};

/// Name of what was not sent at all.
const NOT_SENT: &str = "not_sent";

/// What a broker says of a batch that is next in the order if it does not know the producer so.
const DEAD: [ErrorCode; 3] =
    [ErrorCode::OutOfOrderSequence, ErrorCode::ProducerFenced, ErrorCode::UnknownProducer];

/// An idempotent producer of one partition.
#[derive(Debug, Clone, Copy)]
struct Lane {
    id: ProducerId,
    epoch: u16,
    /// Its number in the history.
    session: u64,
    /// Sequence of its next batch, each of which has one record.
    next: u32,
}

/// A batch with its place in the order.
struct Batch {
    call: CallId,
    value: u64,
    sequence: u32,
}

/// What came of one request.
enum Outcome {
    Written(SendAnswer),
    /// Certainly not written.
    Refused(String),
    Unknown(String),
}

pub(super) struct Bare {
    worker: Worker,
    spec: BareSpec,
    /// By partition, as places are numbered.
    lanes: BTreeMap<Place, Lane>,
    /// Address of the broker that led last.
    leaders: BTreeMap<Place, String>,
    sessions: u32,
    values: u64,
}

impl Bare {
    pub(super) fn new(worker: Worker, spec: BareSpec) -> Self {
        let (lanes, leaders) = Default::default();
        Self { worker, spec, lanes, leaders, sessions: 0, values: 0 }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let client = match Client::start(self.worker.config.clone()) {
            Ok(client) => client,
            Err(error) => return tracing::error!(worker = self.worker.number, %error, "no client"),
        };
        while !stop.is_cancelled() {
            let places = Arc::clone(&self.worker.places);
            let Some(place) = self.worker.choices.one_of(&places) else { return };
            if let Err(error) = self.turn(&client, place).await {
                tracing::debug!(worker = self.worker.number, %error, "no turn");
            }
            pause(self.spec.pace, &stop).await;
        }
    }

    /// One batch, or two in the wrong order.
    async fn turn(&mut self, client: &Client, place: &Place) -> Result<(), ClientError> {
        let leader = self.leader(client, place).await?;
        let lane = self.lane(client, place, &leader).await?;
        // The first batch of a producer cannot be overtaken: the second has no producer then.
        let overtakes = lane.next > 0 && self.worker.choices.below(u64::from(self.spec.overtake_every)) == 0;
        let first = self.begin(place, lane, 0);
        if !overtakes {
            let outcome = self.send(client, place, lane, &first).await;
            self.end(place, &first, outcome);
            return Ok(());
        }
        let second = self.begin(place, lane, 1);
        let early = match self.send(client, place, lane, &second).await {
            unknown @ Outcome::Unknown(_) => {
                self.end(place, &second, unknown);
                self.end(place, &first, Outcome::Refused(NOT_SENT.to_owned()));
                // What comes next may meet it.
                self.lanes.remove(place);
                return Ok(());
            }
            early => early,
        };
        let outcome = self.send(client, place, lane, &first).await;
        let is_written = matches!(outcome, Outcome::Written(_));
        self.end(place, &first, outcome);
        let outcome = match early {
            Outcome::Refused(_) if is_written => self.send(client, place, lane, &second).await,
            early => early,
        };
        self.end(place, &second, outcome);
        Ok(())
    }

    /// The broker that leads, as one broker says.
    async fn leader(&mut self, client: &Client, place: &Place) -> Result<String, ClientError> {
        if let Some(known) = self.leaders.get(place) {
            return Ok(known.clone());
        }
        let told = client.admin().metadata(vec![place.topic.to_string()]).await?;
        let partitions = told.topics.iter().flat_map(|topic| &topic.partitions);
        let leader =
            partitions.filter(|partition| partition.partition == place.part).find_map(|of| of.leader);
        let broker = told.brokers.iter().find(|broker| leader.is_none_or(|leader| broker.id == leader));
        let address = broker.map(|broker| broker.grpc_address.clone()).unwrap_or_default();
        self.leaders.insert(place.clone(), address.clone());
        Ok(address)
    }

    async fn lane(&mut self, client: &Client, place: &Place, broker: &str) -> Result<Lane, ClientError> {
        if let Some(lane) = self.lanes.get(place) {
            return Ok(*lane);
        }
        let request = pb::InitProducerRequest { client_id: "bare".to_owned() };
        let made = client.pinned(broker).init_producer(request).await;
        let made = made.inspect_err(|_| drop(self.leaders.remove(place)))?;
        self.sessions += 1;
        let lane = Lane {
            id: ProducerId(made.producer_id),
            epoch: u16::try_from(made.epoch).unwrap_or(u16::MAX),
            session: self.worker.session(self.sessions),
            next: 0,
        };
        self.lanes.insert(place.clone(), lane);
        Ok(lane)
    }

    /// Writes down that a batch is handed over, as the `nth` from now on.
    fn begin(&mut self, place: &Place, lane: Lane, nth: u32) -> Batch {
        let (number, sequence) = (self.worker.number, lane.next + nth);
        let value = value_of(number, self.values);
        self.values += 1;
        let send = Send {
            topic: Arc::clone(&place.topic),
            part: place.part,
            producer: lane.session,
            idem: true,
            acks: AckLevel::All,
            seq: u64::from(sequence),
            vals: vec![value],
        };
        let call = self.worker.recorder.invoke(number, Op::Send(send));
        self.worker.progress.of(number, |worker| worker.sent += 1);
        Batch { call, value, sequence }
    }

    /// One request.
    async fn send(&mut self, client: &Client, place: &Place, lane: Lane, batch: &Batch) -> Outcome {
        let mut builder = RecordBatchBuilder::new(Compression::None);
        let now_ms = self.worker.config.clock.now_ms();
        builder.push(now_ms, None, Some(&value::encode(batch.value, value::DIGITS)), &[]);
        let batches = match builder.producer(lane.id, lane.epoch, batch.sequence).build() {
            Ok(batches) => batches,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let (topic, partition) = (place.topic.to_string(), Some(place.part));
        let item = pb::PartitionProduce { topic, partition, batches, records: Vec::new() };
        let request = pb::ProduceRequest {
            timeout_ms: self.spec.timeout_ms,
            acks: pb::Acks::All.into(),
            partitions: vec![item],
            ..pb::ProduceRequest::default()
        };
        let leader = self.leaders.get(place).cloned().unwrap_or_default();
        let answer = client.pinned(leader).produce(request).await;
        let outcome = outcome_of(answer);
        if !matches!(outcome, Outcome::Written(_)) {
            self.leaders.remove(place);
        }
        outcome
    }

    /// Writes down what came of a batch.
    fn end(&mut self, place: &Place, batch: &Batch, outcome: Outcome) {
        let Worker { number, recorder, progress, .. } = &self.worker;
        match outcome {
            Outcome::Written(answer) => {
                recorder.ok(batch.call, Answer::Send(answer));
                progress.of(*number, |worker| worker.acked += 1);
                if let Some(lane) = self.lanes.get_mut(place) {
                    lane.next = lane.next.max(batch.sequence + 1);
                }
            }
            Outcome::Refused(error) => {
                let is_dead = DEAD.iter().any(|dead| dead.name() == error);
                recorder.fail(batch.call, error);
                progress.of(*number, |worker| worker.failed += 1);
                if is_dead && self.lanes.get(place).is_some_and(|lane| lane.next == batch.sequence) {
                    self.lanes.remove(place);
                }
            }
            Outcome::Unknown(error) => {
                recorder.info(batch.call, error);
                progress.of(*number, |worker| worker.unknown += 1);
                // Its sequence may be taken or not: the next batch needs a producer of its own.
                self.lanes.remove(place);
            }
        }
    }
}

fn outcome_of(answer: Result<pb::ProduceResponse, ClientError>) -> Outcome {
    let result = match answer {
        Ok(answer) => answer.results.into_iter().next().unwrap_or_default(),
        Err(ClientError::Unknown(error)) => return Outcome::Unknown(error.code.name().to_owned()),
        Err(error) => return Outcome::Refused(error.code().name().to_owned()),
    };
    match (result.error, result.base_offset) {
        (Some(error), _) if error.definite => Outcome::Refused(error.name),
        (Some(error), _) => Outcome::Unknown(error.name),
        (None, None) => Outcome::Unknown("receipt_without_offset".to_owned()),
        (None, Some(offset)) => Outcome::Written(SendAnswer {
            off: vec![offset],
            epoch: result.leader_epoch,
            index: result.raft_index,
            dup: result.duplicate,
        }),
    }
}
