//! What the client knows of the cluster: brokers, topics and who leads which partition.
//!
//! Any broker answers a metadata request, and each may lag behind another: what is known with a higher leader epoch is
//! kept. One task fetches for everyone, so a thousand failed batches cost one request. `NotLeader` hints are taken at
//! once, without a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::{ApiError, LeaderHint};
use wire::error_code::ErrorCode;
use wire::pb;

use crate::config::ClientConfig;
use crate::connection::Connections;
use crate::error::{CallFailure, ClientError};
use crate::random::Random;

/// Head start of one broker before the next is asked as well: a stopped one must not hold everything up.
const HEDGE: Duration = Duration::from_millis(200);

/// Least time between two fetches, so that failing callers cannot turn into a flood.
const FETCH_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// A broker as the client reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The broker.
    pub id: u32,
    /// Its gRPC address, `host:port`.
    pub address: String,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// Absent while there is none.
    pub(crate) broker: Option<u32>,
    pub(crate) epoch: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicView {
    id: String,
    pub(crate) partitions: Vec<Leadership>,
}

/// An immutable picture of the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) cluster_id: String,
    version: u64,
    pub(crate) brokers: BTreeMap<u32, Broker>,
    pub(crate) topics: BTreeMap<String, TopicView>,
}

/// Where a partition's leader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Leader {
        broker: u32,
        address: String,
        epoch: u32,
    },
    /// The partition has no leader now, or its broker's address is not known yet.
    NoLeader,
    UnknownTopic,
    UnknownPartition,
}

impl View {
    /// Where to send requests for a partition.
    pub(crate) fn route(&self, topic: &str, partition: u32) -> Route {
        let Some(view) = self.topics.get(topic) else { return Route::UnknownTopic };
        let Some(leadership) = view.partitions.get(partition as usize) else {
            return Route::UnknownPartition;
        };
        let found = leadership.broker.and_then(|id| self.brokers.get(&id));
        found.map_or(Route::NoLeader, |broker| Route::Leader {
            broker: broker.id,
            address: broker.address.clone(),
            epoch: leadership.epoch,
        })
    }

    /// Takes an answer over what is known. The answering broker may be behind.
    fn merge(&self, answer: pb::GetMetadataResponse) -> Self {
        let newer = answer.version >= self.version || answer.cluster_id != self.cluster_id;
        let mut view = self.clone();
        view.cluster_id = answer.cluster_id;
        if newer {
            view.version = answer.version;
            view.brokers = answer
                .brokers
                .into_iter()
                .filter(|broker| !broker.grpc_address.is_empty())
                .map(|broker| (broker.id, Broker { id: broker.id, address: broker.grpc_address }))
                .collect();
        }
        for topic in answer.topics {
            if topic.error.is_some() {
                if newer {
                    view.topics.remove(&topic.name);
                }
                continue;
            }
            let fresh = topic_view(&topic);
            match view.topics.get_mut(&topic.name) {
                Some(known) if known.id == fresh.id => keep_highest_epochs(known, fresh),
                // Another topic under the same name: the newer picture wins.
                Some(_) if !newer => {}
                _ => {
                    view.topics.insert(topic.name, fresh);
                }
            }
        }
        view
    }

    /// Takes a leader that a broker pointed to; false if it is known or older than what is known.
    fn take_hint(&mut self, topic: &str, partition: u32, hint: &LeaderHint) -> bool {
        let Some(known) =
            self.topics.get_mut(topic).and_then(|view| view.partitions.get_mut(partition as usize))
        else {
            return false;
        };
        let (broker, epoch) = (Some(hint.broker.0), hint.epoch.0);
        let newer = epoch > known.epoch || (epoch == known.epoch && known.broker.is_none());
        if !newer || hint.address.is_empty() {
            return false;
        }
        *known = Leadership { broker, epoch };
        let address = hint.address.clone();
        self.brokers.insert(hint.broker.0, Broker { id: hint.broker.0, address });
        true
    }
}

fn topic_view(topic: &pb::TopicInfo) -> TopicView {
    // Sorted and dense by contract; a hole would shift its followers, so partitions are placed by their number.
    let mut partitions = BTreeMap::new();
    for partition in &topic.partitions {
        partitions.insert(
            partition.partition,
            Leadership { broker: partition.leader, epoch: partition.leader_epoch },
        );
    }
    let dense = partitions
        .into_iter()
        .enumerate()
        .map_while(|(at, (index, leadership))| (u32::try_from(at).ok() == Some(index)).then_some(leadership));
    TopicView { id: topic.topic_id.clone(), partitions: dense.collect() }
}

fn keep_highest_epochs(known: &mut TopicView, fresh: TopicView) {
    for (index, leadership) in fresh.partitions.into_iter().enumerate() {
        match known.partitions.get_mut(index) {
            Some(old) if leadership.epoch >= old.epoch => *old = leadership,
            Some(_) => {}
            None => known.partitions.push(leadership),
        }
    }
}

/// The published picture with the number of the last fetch that ended.
#[derive(Debug, Clone, Default)]
struct Published {
    view: Arc<View>,
    fetched: u64,
    failure: Option<CallFailure>,
}

/// The shared cache.
#[derive(Debug)]
pub(crate) struct Metadata {
    connections: Arc<Connections>,
    bootstrap: Vec<String>,
    attempt_timeout: Duration,
    max_age: Duration,
    random: Arc<Random>,
    published: watch::Sender<Published>,
    /// Number of the fetch that the latest request for one needs.
    wanted: AtomicU64,
    wake: Notify,
    interest: Mutex<BTreeSet<String>>,
}

impl Metadata {
    pub(crate) fn new(config: &ClientConfig, connections: Arc<Connections>, random: Arc<Random>) -> Self {
        Self {
            connections,
            bootstrap: config.bootstrap.clone(),
            attempt_timeout: Duration::from_millis(u64::from(config.request_timeout_ms.min(2_000))),
            max_age: Duration::from_millis(u64::from(config.metadata_refresh_ms)),
            random,
            published: watch::Sender::new(Published::default()),
            wanted: AtomicU64::new(0),
            wake: Notify::new(),
            interest: Mutex::new(BTreeSet::new()),
        }
    }

    /// The present picture.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.published.borrow().view)
    }

    /// Sees every new picture.
    pub(crate) fn changes(&self) -> MetadataChanges {
        MetadataChanges(self.published.subscribe())
    }

    /// Asks for a fetch without waiting for it.
    pub(crate) fn request_refresh(&self) {
        let next = self.published.borrow().fetched + 1;
        self.wanted.fetch_max(next, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Fetches and waits for the result, at most until `deadline`.
    pub(crate) async fn refresh(&self, deadline: Instant) -> Result<Arc<View>, ClientError> {
        let mut published = self.published.subscribe();
        // A fetch under way may have read its list of topics before the caller added one: the one after it counts.
        let wanted = published.borrow().fetched + 2;
        self.wanted.fetch_max(wanted, Ordering::AcqRel);
        self.wake.notify_one();
        let arrived = published.wait_for(|now| now.fetched >= wanted);
        match tokio::time::timeout_at(deadline, arrived).await {
            Ok(Ok(now)) => match &now.failure {
                None => Ok(Arc::clone(&now.view)),
                Some(failure) => Err(failure.clone().into()),
            },
            Ok(Err(_closed)) => Err(ClientError::Closed),
            // A question changes nothing: this is definite. What the fetch before this one met says more than the clock.
            Err(_elapsed) => Err(self.published.borrow().failure.clone().map_or_else(
                || {
                    let why = "no broker answered a metadata request in time";
                    ClientError::Failed(ApiError::new(ErrorCode::ConnectionFailed, why))
                },
                Into::into,
            )),
        }
    }

    /// Keeps a topic in all later fetches, without waiting for one.
    pub(crate) fn follow(&self, topic: &str) {
        let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        if interest.insert(topic.to_owned()) {
            drop(interest);
            self.request_refresh();
        }
    }

    /// Keeps a topic in all later fetches and makes sure that it is known.
    ///
    /// # Errors
    /// `UnknownTopic` when brokers still do not know it at `deadline`; connection errors when none answers.
    pub(crate) async fn topic(&self, topic: &str, deadline: Instant) -> Result<u32, ClientError> {
        if let Some(view) = self.view().topics.get(topic) {
            return Ok(partition_count(view));
        }
        self.interest.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned());
        let grace = deadline.min(Instant::now() + Duration::from_secs(2));
        loop {
            let outcome = self.refresh(deadline).await;
            if let Ok(view) = &outcome
                && let Some(found) = view.topics.get(topic)
            {
                return Ok(partition_count(found));
            }
            // A topic created a moment ago may be unknown to the broker that answered; a missing cluster may come up.
            let until = if outcome.is_ok() { grace } else { deadline };
            if Instant::now() + Duration::from_millis(50) >= until {
                return Err(outcome.err().unwrap_or_else(|| unknown_topic(topic)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes the leader that a `NotLeader` answer pointed to; without a usable hint a fetch is requested.
    pub(crate) fn not_leader(&self, topic: &str, partition: u32, hint: Option<&LeaderHint>) {
        let taken = hint.is_some_and(|hint| {
            self.published.send_if_modified(|now| {
                let mut view = View::clone(&now.view);
                let taken = view.take_hint(topic, partition, hint);
                if taken {
                    now.view = Arc::new(view);
                }
                taken
            })
        });
        if !taken {
            self.request_refresh();
        }
    }

    /// Addresses to ask, in random order, known brokers first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let view = self.view();
        let mut known: Vec<String> = view.brokers.values().map(|broker| broker.address.clone()).collect();
        let mut first: Vec<String> =
            self.bootstrap.iter().filter(|address| !known.contains(address)).cloned().collect();
        for list in [&mut known, &mut first] {
            for at in (1..list.len()).rev() {
                let other = self.random.below(at as u64 + 1);
                list.swap(at, usize::try_from(other).unwrap_or(0));
            }
        }
        known.append(&mut first);
        known
    }

    /// Fetches when asked and when the picture is old, until stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let wanted = self.wanted.load(Ordering::Acquire) > self.published.borrow().fetched;
            if !wanted {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(self.max_age) => self.request_refresh(),
                }
                continue;
            }
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                outcome = self.fetch() => outcome,
            };
            self.publish(outcome);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(FETCH_INTERVAL_MIN) => {}
            }
        }
    }

    fn publish(&self, outcome: Result<pb::GetMetadataResponse, CallFailure>) {
        self.published.send_modify(|now| {
            now.fetched += 1;
            match outcome {
                Ok(answer) => {
                    now.view = Arc::new(now.view.merge(answer));
                    now.failure = None;
                }
                Err(failure) => now.failure = Some(failure),
            }
        });
    }

    /// Asks one broker after another, the next as soon as one fails or is slow; the first answer counts.
    async fn fetch(&self) -> Result<pb::GetMetadataResponse, CallFailure> {
        let topics: Vec<String> =
            self.interest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let mut waiting = self.addresses().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut failure = None;
        loop {
            let next = waiting.next();
            let last = next.is_none();
            if let Some(address) = next {
                asked.push(self.ask(address, topics.clone()));
            }
            if asked.is_empty() {
                break;
            }
            let patience = if last { self.attempt_timeout * 2 } else { HEDGE };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(failed))) => failure = Some(failed),
                Ok(None) | Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| {
            CallFailure::definite(ApiError::new(ErrorCode::ConnectionFailed, "no broker address is known"))
        }))
    }

    async fn ask(
        &self,
        address: String,
        topics: Vec<String>,
    ) -> Result<pb::GetMetadataResponse, CallFailure> {
        let request = pb::GetMetadataRequest { topics };
        self.connections
            .call(&address, self.attempt_timeout, |connection| async move {
                connection.broker().get_metadata(request).await
            })
            .await
    }
}

/// A reader of new pictures.
#[derive(Debug, Clone)]
pub(crate) struct MetadataChanges(watch::Receiver<Published>);

impl MetadataChanges {
    /// Waits for the next picture; never returns after the client ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn partition_count(view: &TopicView) -> u32 {
    u32::try_from(view.partitions.len()).unwrap_or(u32::MAX)
}

pub(crate) fn unknown_topic(topic: &str) -> ClientError {
    ClientError::Failed(ApiError::new(ErrorCode::UnknownTopic, format!("there is no topic \"{topic}\"")))
}

#[cfg(test)]
mod tests {
    use wire::ids::{BrokerId, LeaderEpoch};

    use super::*;

    fn answer(version: u64, leader: Option<u32>, epoch: u32) -> pb::GetMetadataResponse {
        let broker =
            |id: u32| pb::BrokerInfo { id, grpc_address: format!("host{id}:7400"), ..Default::default() };
        let partition = pb::PartitionInfo { partition: 0, leader, leader_epoch: epoch, ..Default::default() };
        pb::GetMetadataResponse {
            cluster_id: "c".into(),
            version,
            brokers: vec![broker(1), broker(2)],
            topics: vec![pb::TopicInfo {
                name: "t".into(),
                topic_id: "id".into(),
                partitions: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn leader(view: &View) -> Option<(u32, u32)> {
        match view.route("t", 0) {
            Route::Leader { broker, epoch, .. } => Some((broker, epoch)),
            _ => None,
        }
    }

    #[test]
    fn an_answer_with_an_older_leader_epoch_changes_nothing() {
        let view = View::default().merge(answer(7, Some(2), 5)).merge(answer(8, Some(1), 4));
        assert_eq!(leader(&view), Some((2, 5)));
        assert_eq!(leader(&view.merge(answer(9, None, 6))), None);
    }

    #[test]
    fn a_hint_counts_only_when_it_is_newer() {
        let mut view = View::default().merge(answer(1, Some(1), 5));
        let mut hint =
            LeaderHint { broker: BrokerId(3), address: "host3:7400".into(), epoch: LeaderEpoch(5) };
        assert!(!view.take_hint("t", 0, &hint));
        hint.epoch = LeaderEpoch(6);
        assert!(view.take_hint("t", 0, &hint));
        assert_eq!(leader(&view), Some((3, 6)));
        assert!(!view.take_hint("t", 9, &hint));
    }

    #[test]
    fn an_unknown_partition_or_topic_is_named() {
        let view = View::default().merge(answer(1, Some(1), 1));
        assert_eq!(view.route("t", 1), Route::UnknownPartition);
        assert_eq!(view.route("u", 0), Route::UnknownTopic);
    }
}
