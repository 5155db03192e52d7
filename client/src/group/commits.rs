//! Commits of one consumer: one call at a time, what waits meanwhile goes together in the next.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;
use wire::pb;

use super::ledger::{Departure, Fence, Fenced, Ledger, OffsetCommit};
use super::membership::Membership;
use crate::ClientCore;
use crate::any_broker::{First, Patience};
use crate::connection::Connection;
use crate::error::ClientError;
use crate::retry::Repeat;
use crate::tasks::sleep_until;

/// Commits that may wait; a further one is refused. Each names the partitions of one consumer.
const QUEUE: usize = 1_024;
/// Partitions of one call, of the 10,000 that a broker takes.
const PARTITIONS_MAX: usize = 5_000;
/// One attempt: another broker may do better.
const ATTEMPT: Duration = Duration::from_secs(3);

/// A commit to be made.
struct Wish {
    fenced: Fenced,
    after: After,
}

/// What follows a commit.
enum After {
    /// Somebody waits for it.
    Tell(oneshot::Sender<Result<(), ClientError>>),
    /// The partitions go back to the group.
    Release(Departure),
}

/// Commits offsets of one [`GroupConsumer`](crate::GroupConsumer), from any task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Committer {
    ledger: Arc<Ledger>,
    membership: Arc<Membership>,
    queue: mpsc::Sender<Wish>,
}

/// A commit under way. Awaiting it says how it went; dropping it leaves it to itself.
#[derive(Debug)]
pub struct PendingCommit(State);

#[derive(Debug)]
enum State {
    Known(Option<Result<(), ClientError>>),
    Waiting(oneshot::Receiver<Result<(), ClientError>>),
}

impl Committer {
    pub(super) fn new(ledger: Arc<Ledger>, membership: Arc<Membership>) -> (Self, Receiver) {
        let (queue, wishes) = mpsc::channel(QUEUE);
        (Self { ledger, membership, queue }, Receiver(wishes))
    }

    /// Commits offsets that the application chose, each the next record to read. The call is made when this returns; the
    /// result can be awaited.
    ///
    /// # Errors
    /// The result has `NotOwner` and `StaleGeneration` for what is not assigned or was not read since it was assigned,
    /// `CommitGoesBack` for an offset before the committed one; other partitions are committed all the same.
    pub fn commit(&self, offsets: impl IntoIterator<Item = OffsetCommit>) -> PendingCommit {
        match self.ledger.check(offsets.into_iter().collect()) {
            Ok(fenced) if fenced.offsets.is_empty() => PendingCommit(State::Known(Some(Ok(())))),
            Ok(fenced) => self.send(fenced),
            Err(error) => PendingCommit(State::Known(Some(Err(ClientError::Failed(error))))),
        }
    }

    /// Commits what there is, if anything.
    pub(super) fn commit_due(&self, due: Option<Fenced>) -> PendingCommit {
        due.map_or(PendingCommit(State::Known(Some(Ok(())))), |due| self.send(due))
    }

    /// Gives partitions back to the group, after what is due of them was committed or could not be. Nobody waits for that: what
    /// the consumer keeps goes on meanwhile.
    pub(super) fn give_back(&self, departure: Departure, due: Option<Fenced>) {
        let Some(fenced) = due else {
            return release(&self.ledger, &self.membership, departure);
        };
        let wish = Wish { fenced, after: After::Release(departure) };
        if let Err(refused) = self.queue.try_send(wish)
            && let After::Release(departure) = refused.into_inner().after
        {
            tracing::warn!("too many commits wait: the last one before partitions go is left out");
            release(&self.ledger, &self.membership, departure);
        }
    }

    fn send(&self, fenced: Fenced) -> PendingCommit {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Wish { fenced, after: After::Tell(reply) }) {
            Ok(()) => PendingCommit(State::Waiting(answer)),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                PendingCommit(State::Known(Some(Err(ClientError::Closed))))
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                let error = ApiError::new(ErrorCode::BufferFull, format!("{QUEUE} commits wait already"))
                    .hint("await commits, or commit less often");
                PendingCommit(State::Known(Some(Err(ClientError::Failed(error)))))
            }
        }
    }
}

impl Future for PendingCommit {
    type Output = Result<(), ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            // Asked again after its end, against the rules of futures: nothing more is known.
            State::Known(result) => Poll::Ready(result.take().unwrap_or(Err(ClientError::Closed))),
            State::Waiting(answer) => {
                Pin::new(answer).poll(cx).map(|answer| answer.unwrap_or(Err(ClientError::Closed)))
            }
        }
    }
}

/// The other end of a [`Committer`].
pub(super) struct Receiver(mpsc::Receiver<Wish>);

/// The task that makes the calls.
pub(super) struct CommitTask {
    pub(super) core: Arc<ClientCore>,
    pub(super) group_id: String,
    pub(super) ledger: Arc<Ledger>,
    pub(super) membership: Arc<Membership>,
    /// How often what is done is committed by itself; `None` = never.
    pub(super) every: Option<Duration>,
}

impl CommitTask {
    pub(super) async fn run(self, wishes: Receiver, stop: CancellationToken) {
        let Receiver(mut wishes) = wishes;
        let mut next = self.every.map(|every| Instant::now() + every);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                taken = wishes.recv_many(&mut batch, QUEUE) => {
                    if taken == 0 {
                        return;
                    }
                    self.settle(batch).await;
                }
                () = sleep_until(next) => {
                    self.commit_done().await;
                    next = self.every.map(|every| Instant::now() + every);
                }
            }
        }
    }

    /// Commits what is done. What fails is done the next time, or was taken over by the partition's next owner.
    async fn commit_done(&self) {
        let Some(due) = self.ledger.due() else { return };
        let count = due.offsets.len();
        if let Err(error) = self.commit(due).await {
            tracing::warn!(group = %self.group_id, count, %error, "what is done was not committed yet");
        }
    }

    /// Makes the calls of a batch, those of one epoch together.
    async fn settle(&self, batch: Vec<Wish>) {
        let mut batch = batch.into_iter().peekable();
        while let Some(first) = batch.next() {
            let mut followers = vec![first.after];
            let mut fenced = first.fenced;
            while let Some(wish) = batch.next_if(|wish| {
                wish.fenced.fence == fenced.fence
                    && wish.fenced.offsets.len() + fenced.offsets.len() <= PARTITIONS_MAX
            }) {
                fenced.offsets.extend(wish.fenced.offsets);
                followers.push(wish.after);
            }
            let outcome = self.commit(fenced).await;
            followers.into_iter().for_each(|after| self.follow(after, &outcome));
        }
    }

    fn follow(&self, after: After, outcome: &Result<(), ClientError>) {
        match after {
            // Whoever dropped the receipt does not want to know.
            After::Tell(reply) => drop(reply.send(outcome.clone())),
            After::Release(departure) => {
                // What cannot be committed now is done again by the next owner.
                if let Err(error) = outcome {
                    tracing::warn!(group = %self.group_id, %error, "the last commit before partitions go failed");
                }
                release(&self.ledger, &self.membership, departure);
            }
        }
    }

    async fn commit(&self, fenced: Fenced) -> Result<(), ClientError> {
        let Fenced { fence, offsets } = fenced;
        // Of several words about a partition the highest counts: workers finish in any order.
        let mut highest: BTreeMap<TopicPartition, OffsetCommit> = BTreeMap::new();
        for commit in offsets {
            let known = highest.entry(commit.at.clone()).or_insert_with(|| commit.clone());
            if known.offset <= commit.offset {
                *known = commit;
            }
        }
        let mut outcome = Ok(());
        let all: Vec<OffsetCommit> = highest.into_values().collect();
        for chunk in all.chunks(PARTITIONS_MAX) {
            outcome = outcome.and(self.commit_chunk(&fence, chunk).await);
        }
        outcome
    }

    async fn commit_chunk(&self, fence: &Fence, chunk: &[OffsetCommit]) -> Result<(), ClientError> {
        let request = pb::CommitOffsetsRequest {
            group_id: self.group_id.clone(),
            member_id: fence.member.clone(),
            member_epoch: fence.epoch,
            partitions: chunk.iter().map(partition_commit).collect(),
        };
        let whole = Duration::from_millis(u64::from(self.core.config.request_timeout_ms));
        let patience = Patience { attempt: ATTEMPT.min(whole), whole };
        // Done twice it is done once: offsets only go forwards.
        let call = |connection: Connection| {
            let request = request.clone();
            async move { connection.groups().commit_offsets(request).await }
        };
        let asked = self.core.any_broker_within(patience, Repeat::Always, First::Coordinator, call);
        let answer = asked.await?;
        let mut refused: BTreeMap<(String, u32), ApiError> = BTreeMap::new();
        for refusal in answer.refused {
            let error = refusal.error.map_or_else(|| nameless(&refusal.topic), ApiError::from);
            refused.insert((refusal.topic, refusal.partition), error);
        }
        let mut worst = None;
        for commit in chunk {
            match refused.remove(&(commit.at.topic.clone(), commit.at.partition.0)) {
                None => self.ledger.committed(fence, &commit.at, commit.offset),
                Some(error) => worst = worst.or(Some(error.reason(format!("committing {}", commit.at)))),
            }
        }
        // A topic that is gone may come back without its name.
        let worst = worst.or_else(|| refused.into_values().next());
        worst.map_or(Ok(()), |error| Err(ClientError::Failed(error)))
    }
}

/// Lets go of partitions, and has the group hear of it.
fn release(ledger: &Ledger, membership: &Membership, departure: Departure) {
    membership.release(ledger.departed(departure));
}

fn partition_commit(commit: &OffsetCommit) -> pb::PartitionCommit {
    pb::PartitionCommit {
        topic: commit.at.topic.clone(),
        partition: commit.at.partition.0,
        offset: commit.offset,
        leader_epoch: 0,
        metadata: commit.metadata.clone(),
    }
}

fn nameless(topic: &str) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("a commit of {topic:?} was refused without a reason"))
}
