//! A member of a consumer group: reads what it is given, commits it, comes and goes; and the last one, which reads the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{
    Client, ClientConfig, ClientError, Committer, ConsumerConfig, GroupConfig, GroupConsumer, Guarantee,
    OffsetCommit, OffsetReset, TopicPartition,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::pb;

use super::reader::{pause, polled_parts};
use super::spec::{DrainSpec, MemberSpec};
use super::{STOPPED, Worker};
use crate::history::{
    Answer, Assign, Commit, CommitPart, Committed, CommittedAnswer, Drain, Op, Poll, PollAnswer, Recorder,
    Release,
};

/// Pause after a failed poll: an error that stays must not fill the history.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// One commit in this many is asked for right after it was answered.
const ASKS_EVERY: u64 = 4;
/// Time to say goodbye at the end.
const GOODBYE: Duration = Duration::from_secs(5);
/// One turn of a member that drains.
const DRAIN_POLL: Duration = Duration::from_millis(200);

pub(super) struct Member {
    worker: Worker,
    spec: MemberSpec,
    /// Consumers made so far.
    consumers: u32,
}

impl Member {
    pub(super) fn new(worker: Worker, spec: MemberSpec) -> Self {
        Self { worker, spec, consumers: 0 }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.consumers += 1;
            let topics: Vec<Arc<str>> =
                self.worker.places.iter().map(|place| Arc::clone(&place.topic)).collect();
            let log = Log::new(&self.worker, self.consumers, &self.spec.group);
            // A client that is made anew draws other numbers: its member id must not be that of the one before.
            let random_seed =
                self.worker.config.random_seed.map(|seed| seed ^ u64::from(self.consumers) << 40);
            let config = ClientConfig { random_seed, ..self.worker.config.clone() };
            let joined = Client::start(config.clone())
                .and_then(|asking| Ok((asking, join(&config, &self.spec, &topics)?)));
            match joined {
                Ok((asking, consumer)) => self.live(&asking, (consumer, log), &stop).await,
                Err(error) => tracing::debug!(worker = self.worker.number, %error, "no member"),
            }
            pause(ERROR_PAUSE, &stop).await;
        }
    }

    /// Reads and commits until the stop, or until its time has come.
    async fn live(
        &mut self,
        asking: &Client,
        (mut consumer, mut log): (GroupConsumer, Log),
        stop: &CancellationToken,
    ) {
        let every = self.spec.restart_every;
        let ends = (!every.is_zero()).then(|| Instant::now() + self.worker.choices.around(every));
        while ends.is_none_or(|ends| Instant::now() < ends) {
            let call = log.poll();
            let polled = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                polled = consumer.poll(self.spec.poll) => Some(polled),
            };
            match polled {
                None => {
                    log.owns(&consumer);
                    log.recorder.fail(call, STOPPED);
                    let _ = tokio::time::timeout(GOODBYE, consumer.close()).await;
                    return;
                }
                Some(Ok(records)) => {
                    log.owns(&consumer);
                    let count = records.len() as u64;
                    let parts = polled_parts(&records);
                    let ends = parts.iter().filter_map(|part| {
                        let (last, _) = part.recs.last()?;
                        Some((Arc::clone(&part.topic), part.part, last + 1))
                    });
                    let ends: Vec<(Arc<str>, u32, u64)> = ends.collect();
                    log.recorder.ok(call, Answer::Poll(PollAnswer { parts }));
                    let is_member = consumer.member().is_some();
                    self.worker.progress.of(self.worker.number, |worker| {
                        worker.read += count;
                        worker.answers += u64::from(is_member);
                    });
                    let asked = ends.first().map(|(topic, part, _)| TopicPartition {
                        topic: topic.to_string(),
                        partition: (*part).into(),
                    });
                    log.commit(consumer.committer(), ends).await;
                    // Nobody else may look before the next commit covers this one.
                    if let Some(at) = asked.filter(|_| self.worker.choices.below(ASKS_EVERY) == 0) {
                        committed(asking, &log, &at).await;
                    }
                }
                Some(Err(error)) => {
                    log.owns(&consumer);
                    self.worker.note_error(call, &error);
                    pause(ERROR_PAUSE, stop).await;
                }
            }
        }
        // Half of them die without a word.
        if self.worker.choices.below(2) == 0 {
            log.lets_go();
            let _ = tokio::time::timeout(GOODBYE, consumer.close()).await;
        }
    }
}

fn join(config: &ClientConfig, spec: &MemberSpec, topics: &[Arc<str>]) -> Result<GroupConsumer, ClientError> {
    let group = GroupConfig {
        session_timeout_ms: spec.session_timeout_ms,
        // Commits are calls of the history.
        guarantee: Guarantee::Manual,
        consumer: ConsumerConfig { offset_reset: OffsetReset::Earliest, ..ConsumerConfig::default() },
        ..GroupConfig::new(spec.group.clone())
    };
    let mut consumer = Client::start(config.clone())?.group_consumer(group)?;
    consumer.subscribe(topics.iter().map(|topic| &**topic))?;
    Ok(consumer)
}

/// What one consumer writes into the history.
struct Log {
    recorder: Recorder,
    worker: u32,
    consumer: u64,
    group: Arc<str>,
    /// What it owns, and since when.
    owned: BTreeMap<TopicPartition, u64>,
}

impl Log {
    fn new(worker: &Worker, consumers: u32, group: &str) -> Self {
        Self {
            recorder: worker.recorder.clone(),
            worker: worker.number,
            consumer: worker.session(consumers),
            group: group.into(),
            owned: BTreeMap::new(),
        }
    }

    fn poll(&self) -> crate::history::CallId {
        self.recorder.invoke(self.worker, Op::Poll(Poll { consumer: self.consumer }))
    }

    /// Notes what came and went within a poll, before what the poll brought.
    fn owns(&mut self, consumer: &GroupConsumer) {
        let now = consumer.owned();
        let is_kept =
            |at: &TopicPartition, since: u64| now.iter().any(|owned| owned.at == *at && owned.since == since);
        let gone: Vec<TopicPartition> =
            self.owned.iter().filter(|(at, since)| !is_kept(at, **since)).map(|(at, _)| at.clone()).collect();
        for at in gone {
            self.release(&at);
        }
        for owned in now {
            if self.owned.insert(owned.at.clone(), owned.since).is_none() {
                let op = Op::Assign(Assign {
                    consumer: self.consumer,
                    group: Arc::clone(&self.group),
                    topic: owned.at.topic.as_str().into(),
                    part: owned.at.partition.0,
                    since: owned.since,
                    from: owned.from,
                });
                let call = self.recorder.invoke(self.worker, op);
                self.recorder.ok(call, Answer::Assign);
            }
        }
    }

    /// It closes: nothing is its own any more.
    fn lets_go(&mut self) {
        let all: Vec<TopicPartition> = self.owned.keys().cloned().collect();
        all.iter().for_each(|at| self.release(at));
    }

    fn release(&mut self, at: &TopicPartition) {
        self.owned.remove(at);
        let op = Op::Release(Release {
            consumer: self.consumer,
            group: Arc::clone(&self.group),
            topic: at.topic.as_str().into(),
            part: at.partition.0,
        });
        let call = self.recorder.invoke(self.worker, op);
        self.recorder.ok(call, Answer::Release);
    }

    /// Commits, and waits for the outcome.
    async fn commit(&self, committer: Committer, ends: Vec<(Arc<str>, u32, u64)>) {
        if ends.is_empty() {
            return;
        }
        let offsets: Vec<OffsetCommit> = ends
            .iter()
            .map(|(topic, part, offset)| OffsetCommit {
                at: TopicPartition { topic: topic.to_string(), partition: (*part).into() },
                offset: *offset,
                metadata: String::new(),
            })
            .collect();
        let parts = ends.into_iter().map(|(topic, part, off)| CommitPart { topic, part, off });
        let (consumer, group) = (self.consumer, Arc::clone(&self.group));
        let op = Op::Commit(Commit { consumer, group, parts: parts.collect() });
        let is_one = offsets.len() == 1;
        let call = self.recorder.invoke(self.worker, op);
        match committer.commit(offsets).await {
            Ok(()) => self.recorder.ok(call, Answer::Commit),
            Err(ClientError::Failed(error)) if is_one => self.recorder.fail(call, error.code.name()),
            // Some partitions of it may have been taken.
            Err(error) => self.recorder.info(call, error.code().name()),
        }
    }
}

/// What a drain did not reach, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group {group:?} was not drained: {why}")]
pub struct NotDrained {
    /// The group.
    pub group: String,
    /// What is missing.
    pub why: String,
}

/// Joins a group after all its members went, reads everything to the end, commits it, and writes down that it is so.
///
/// # Errors
/// What it did not reach in time: the cluster does not live as it should.
pub async fn drain(spec: &DrainSpec, recorder: &Recorder) -> Result<(), NotDrained> {
    let mut log = Log {
        recorder: recorder.clone(),
        worker: spec.worker,
        consumer: u64::from(spec.worker) << 32 | 1,
        group: spec.group.as_str().into(),
        owned: BTreeMap::new(),
    };
    let topics: Vec<Arc<str>> = spec.topics.iter().map(|topic| topic.name.as_str().into()).collect();
    let call = recorder
        .invoke(spec.worker, Op::Drain(Drain { group: Arc::clone(&log.group), topics: topics.clone() }));
    let drained = match tokio::time::timeout(spec.patience, read_out(spec, &topics, &mut log)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            Err(format!("not at its ends after {:?}; it owns {} partitions", spec.patience, log.owned.len()))
        }
    };
    match drained {
        Ok(()) => {
            recorder.ok(call, Answer::Drain);
            Ok(())
        }
        Err(why) => {
            recorder.info(call, &why);
            Err(NotDrained { group: spec.group.clone(), why })
        }
    }
}

async fn read_out(spec: &DrainSpec, topics: &[Arc<str>], log: &mut Log) -> Result<(), ClientError> {
    let client = Client::start(spec.client.clone())?;
    let asking = client.consumer(ConsumerConfig::default())?;
    let places: Vec<TopicPartition> = spec
        .topics
        .iter()
        .flat_map(|topic| {
            let at = |part: u32| TopicPartition { topic: topic.name.clone(), partition: part.into() };
            (0..topic.partitions).map(at)
        })
        .collect();
    let ends = asking.end_offsets(&places).await?;
    let member = MemberSpec { group: spec.group.clone(), ..MemberSpec::default() };
    let mut consumer = join(&spec.client, &member, topics)?;
    let mut left: BTreeMap<TopicPartition, u64> = ends.into_iter().filter(|(_, end)| *end > 0).collect();
    while !left.is_empty() {
        let call = log.poll();
        let polled = consumer.poll(DRAIN_POLL).await;
        log.owns(&consumer);
        match polled {
            Ok(records) => {
                let parts = polled_parts(&records);
                let ends = parts
                    .iter()
                    .filter_map(|part| Some((Arc::clone(&part.topic), part.part, part.recs.last()?.0 + 1)));
                let ends: Vec<(Arc<str>, u32, u64)> = ends.collect();
                log.recorder.ok(call, Answer::Poll(PollAnswer { parts }));
                log.commit(consumer.committer(), ends).await;
            }
            Err(error) => log.recorder.fail(call, error.code().name()),
        }
        // What was committed before counts as well: there may be nothing left to read.
        let asked: Vec<TopicPartition> = left.keys().cloned().collect();
        for at in asked {
            if committed(&client, log, &at)
                .await
                .is_some_and(|offset| left.get(&at).is_some_and(|end| offset >= *end))
            {
                left.remove(&at);
            }
        }
    }
    log.lets_go();
    consumer.close().await
}

/// Asks, and notes the answer.
async fn committed(client: &Client, log: &Log, at: &TopicPartition) -> Option<u64> {
    let op = Op::Committed(Committed {
        group: Arc::clone(&log.group),
        topic: at.topic.as_str().into(),
        part: at.partition.0,
    });
    let call = log.recorder.invoke(log.worker, op);
    let request = pb::FetchOffsetsRequest {
        group_id: log.group.to_string(),
        partitions: vec![pb::PartitionRef { topic: at.topic.clone(), partition: at.partition.0 }],
        linearizable: true,
    };
    match client.groups().fetch_offsets(request).await {
        Ok(answer) => {
            let found = answer.partitions.first().filter(|found| found.error.is_none());
            match found {
                Some(found) => {
                    log.recorder.ok(call, Answer::Committed(CommittedAnswer { off: found.offset }))
                }
                None => log.recorder.fail(call, "NoAnswer"),
            }
            found.and_then(|found| found.offset)
        }
        Err(error) => {
            log.recorder.fail(call, error.code().name());
            None
        }
    }
}
