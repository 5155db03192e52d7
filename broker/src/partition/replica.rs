//! Handle of one replica: what the API calls.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use disk::Io;
use openraft::async_runtime::WatchReceiver;
use partition_log::LogConfig;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::api_error::{ApiError, LeaderHint};
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, RaftGroupId, ReplicaId, TopicId};

use super::PartitionGroup;
use super::batching::pieces;
use super::epoch::leader_epoch;
use super::proposer::unknown;
use super::queue::{Answer, Queue, Queued, too_late};
use super::receipt::{Acks, ProduceBatches, Receipt};
use super::replica_log::ReplicaLog;
use super::reply::settle;
use super::storage_gate::StorageGate;
use crate::metadata::Metadata;
use crate::metadata::topic_config::TopicConfig;
use crate::raft::{Groups, Profile};
use crate::runtime::Clock;

/// How long an answer waits for Raft's own view of who has an entry on disk: the view is published right after the
/// commit, by another task.
const ON_DISK_WITHIN: Duration = Duration::from_millis(5);
/// Advice to a client that came to a replica which does not lead.
const RETRY_AFTER_MS: u32 = 100;

/// What the parts of one replica share.
pub(crate) struct Core {
    pub group: PartitionGroup,
    pub groups: Groups,
    pub metadata: Metadata,
    pub log: Arc<ReplicaLog>,
    pub io: Io,
    pub clock: Clock,
    pub gate: StorageGate,
    pub topic: TopicId,
    pub topic_name: String,
    pub partition: PartitionIndex,
    pub id: ReplicaId,
    pub broker: BrokerId,
    pub config: ArcSwap<TopicConfig>,
    /// Number of replicas in sync, by this leader's own view.
    pub in_sync: AtomicUsize,
    /// Bytes proposed since the replica was opened; tells lag in bytes.
    pub proposed_bytes: AtomicU64,
    /// True once the topic is deleted: its data is kept, and nothing is written.
    pub deleted: AtomicBool,
    /// Log settings that do not come from the topic.
    pub log_base: LogConfig,
    /// Since when this replica leads.
    pub led_since: Mutex<Option<Instant>>,
    /// Ends the tasks of this replica.
    pub stop: CancellationToken,
}

impl Core {
    pub(crate) fn group_id(&self) -> RaftGroupId {
        self.log.group()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.group.is_leader()
    }

    /// The epoch that this replica follows.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        leader_epoch(self.group.metrics().borrow_watched().current_term)
    }

    /// Notes whether this replica leads; true if that is new.
    pub(crate) fn note_leading(&self, leads: bool) -> bool {
        let mut since = self.led_since.lock().unwrap_or_else(PoisonError::into_inner);
        if leads == since.is_some() {
            // A new term of the same leader is news as well, and rare.
            return leads;
        }
        *since = leads.then(Instant::now);
        true
    }

    pub(crate) fn note_proposed(&self, bytes: usize) {
        self.proposed_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Renews the leader's lease if it was idle; a failure shows at the proposal.
    pub(crate) async fn warm(&self, within: Duration) {
        let warm = timeout(within, self.groups.ensure_warm(self.group_id(), Profile::Partition)).await;
        if let Ok(Err(error)) = warm {
            tracing::debug!(raft_group = %self.group_id(), error = %error, "lease was not renewed");
        }
    }

    /// The error of a request that came to a replica which does not lead, with the leader's address if it is known.
    pub(crate) fn not_leader(&self, told: Option<u64>) -> ApiError {
        let image = self.metadata.image();
        let partition = image.partition(self.topic, self.partition);
        let (leader, term) = {
            let metrics = self.group.metrics();
            let now = metrics.borrow_watched();
            (told.or(now.current_leader), now.current_term)
        };
        let leader = leader.map(ReplicaId).filter(|leader| *leader != self.id);
        let by_raft = leader.and_then(|leader| partition.and_then(|partition| partition.replica(leader)));
        let by_image = partition.and_then(|partition| partition.leader_broker());
        let broker =
            by_raft.map(|replica| replica.broker).or(by_image).filter(|broker| *broker != self.broker);
        let name = format!("{}/{}", self.topic_name, self.partition);
        match broker.and_then(|broker| image.broker(broker)) {
            Some(entry) => {
                let epoch =
                    leader_epoch(term).max(partition.map_or(LeaderEpoch(0), |known| known.leader_epoch));
                let hint = LeaderHint { broker: entry.id, address: entry.grpc.clone(), epoch };
                ApiError::new(ErrorCode::NotLeader, format!("broker {} does not lead {name}", self.broker))
                    .reason(format!("broker {} leads it", entry.id))
                    .leader(hint)
            }
            None => ApiError::new(ErrorCode::NoLeader, format!("{name} has no leader at the moment"))
                .reason("an election is under way, or too few of its replicas are up")
                .retry_after_ms(RETRY_AFTER_MS),
        }
    }

    /// The error of a replica that is stopping or has stopped.
    pub(crate) fn stopped(&self) -> ApiError {
        ApiError::new(
            ErrorCode::Unavailable,
            format!("{}/{} is not served here now", self.topic_name, self.partition),
        )
        .reason("the replica is stopping")
        .retry_after_ms(RETRY_AFTER_MS)
    }

    /// The brokers that have the entry at `index` on disk, as Raft's replication progress proves. Waits a moment for
    /// that view if it does not yet show a majority, which must be there since the entry is committed.
    pub(crate) async fn on_disk(&self, index: u64) -> Vec<BrokerId> {
        let deadline = Instant::now() + ON_DISK_WITHIN;
        let mut metrics = self.group.metrics();
        loop {
            let (brokers, majority) = {
                let now = metrics.borrow_and_update();
                let members = now.membership_config.membership();
                let voters = members.voter_ids().count();
                let brokers: Vec<BrokerId> = now
                    .replication
                    .iter()
                    .flatten()
                    .filter(|(_, matched)| matched.is_some_and(|matched| matched.index >= index))
                    .filter_map(|(replica, _)| members.get_node(replica))
                    .map(|node| BrokerId(node.broker))
                    .collect();
                let majority = brokers.len() > voters / 2;
                (brokers, majority)
            };
            if majority || !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                return brokers;
            }
        }
    }
}

/// One replica of one partition on this broker. Cheap to share.
pub struct Replica {
    core: Arc<Core>,
    queue: Queue,
}

impl Replica {
    pub(crate) fn new(core: Arc<Core>, queue: Queue) -> Self {
        Self { core, queue }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// How long this replica has been leading.
    pub(crate) fn led_for(&self) -> Option<Duration> {
        let since = self.core.led_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed())
    }

    /// Topic and partition, as people write it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.core.topic_name, self.core.partition)
    }

    /// The Raft group.
    #[must_use]
    pub fn group(&self) -> RaftGroupId {
        self.core.group_id()
    }

    /// This replica's id in its group.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.core.id
    }

    /// True if this replica leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.core.is_leader()
    }

    /// First offset that is not yet readable here.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.core.log.high_watermark().get()
    }

    /// First offset that is still stored.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.core.log.log_start()
    }

    /// The epoch that this replica follows.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.core.epoch()
    }

    /// The definite error for a request that only the leader may serve, with a hint at the leader.
    #[must_use]
    pub fn not_leader(&self) -> ApiError {
        self.core.not_leader(None)
    }

    /// Writes batches, which the caller has checked, and answers at the level that was asked for.
    ///
    /// # Errors
    /// Before the append, definite: [`ErrorCode::NotLeader`], [`ErrorCode::NoLeader`], [`ErrorCode::StorageFull`],
    /// [`ErrorCode::NotEnoughReplicas`], [`ErrorCode::Overloaded`], [`ErrorCode::Timeout`]. After it:
    /// [`ErrorCode::OutcomeUnknown`], and the definite refusals of `apply`: [`ErrorCode::OutOfOrderSequence`],
    /// [`ErrorCode::ProducerFenced`], [`ErrorCode::UnknownProducer`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the batches back.
    pub async fn produce(&self, produce: ProduceBatches) -> Result<Receipt, ApiError> {
        self.admit(produce.acks)?;
        let record_count = produce.records();
        let ProduceBatches { batches, acks, deadline } = produce;
        let batches: Vec<Bytes> = batches.into_iter().map(|(_, batch)| batch).collect();
        let mut queued = Vec::with_capacity(1);
        for piece in pieces(batches) {
            match self.queue.offer(piece, acks, deadline).await {
                Ok(one) => queued.push(one),
                // Pieces before this one are on their way: the outcome of the whole is not known.
                Err(error) if queued.is_empty() => return Err(error),
                Err(error) => return Err(unknown(&error.to_string())),
            }
        }
        let mut receipt = Receipt::accepted(acks, record_count);
        if acks == Acks::None {
            return Ok(receipt);
        }
        let mut first = true;
        for one in queued {
            let part = awaited(one, deadline).await?;
            receipt.add(part, first)?;
            first = false;
        }
        Ok(receipt)
    }

    /// What is known to be wrong before the append, where every refusal is definite.
    fn admit(&self, acks: Acks) -> Result<(), ApiError> {
        let core = &self.core;
        if core.deleted.load(Ordering::Relaxed) {
            return Err(ApiError::new(
                ErrorCode::UnknownTopic,
                format!("topic {} is deleted", core.topic_name),
            ));
        }
        if !core.is_leader() {
            return Err(core.not_leader(None));
        }
        if core.gate.refuses() {
            return Err(ApiError::new(
                ErrorCode::StorageFull,
                format!("broker {} has too little disk space", core.broker),
            )
            .reason("produces are refused before the disk is full; reads go on")
            .retry_after_ms(1000));
        }
        let wanted = usize::try_from(core.config.load().min_insync_replicas).unwrap_or(usize::MAX);
        let in_sync = core.in_sync.load(Ordering::Relaxed);
        if acks == Acks::All && in_sync < wanted {
            return Err(ApiError::new(
                ErrorCode::NotEnoughReplicas,
                format!("{} has too few replicas in sync", self.name()),
            )
            .reason(format!("{in_sync} are in sync, min_insync_replicas is {wanted}"))
            .retry_after_ms(RETRY_AFTER_MS));
        }
        Ok(())
    }
}

/// Waits for the answer of one piece. A caller whose time runs out takes the piece back if it was not proposed yet.
async fn awaited(queued: Queued, deadline: Instant) -> Result<Answer, ApiError> {
    match timeout_at(deadline, queued.answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(unknown("the replica stopped before it could tell")),
        Err(_) if queued.ticket.withdraw() => Err(too_late()),
        Err(_) => Err(unknown("the time ran out after the batches were proposed")),
    }
}

impl Receipt {
    fn accepted(level: Acks, record_count: u64) -> Self {
        Self {
            level,
            base_offset: None,
            record_count,
            leader_epoch: None,
            raft_index: None,
            provisional: level != Acks::All,
            duplicate: false,
            on_disk: Vec::new(),
        }
    }

    /// Takes the answer of the next piece: the first gives the base offset, the last the position.
    fn add(&mut self, answer: Answer, first: bool) -> Result<(), ApiError> {
        let position = match answer {
            Answer::Durable(position) => position,
            Answer::Applied { position, outcomes, on_disk } => {
                let (base_offset, duplicate) = settle(&outcomes)?;
                if self.level == Acks::All {
                    self.base_offset = if first { base_offset } else { self.base_offset };
                    self.duplicate = duplicate && (first || self.duplicate);
                    self.on_disk = on_disk;
                }
                position
            }
        };
        self.leader_epoch = Some(position.epoch);
        self.raft_index = Some(position.index);
        Ok(())
    }
}
