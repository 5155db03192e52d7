//! Reading as a member of a consumer group.
//!
//! ```text
//! coordinator ⇄ session (joins, heartbeats, leaves) ─► membership ─► poll() ⇄ reader (the plain consumer's fetcher)
//!             ⇄ commits (one call at a time)        ◄─ ledger    ◄─
//! ```
//!
//! Everything that changes what is read happens inside of `poll`, between two batches: while the application works on
//! records, their partitions stay its own as long as its session lives.
//!
//! The last commit of partitions that go runs behind it: what stays is read on meanwhile.
//!
//! **Invariant:** a partition is given back only after its records are not returned any more and what was done of them was
//! committed, or committing failed. A commit carries the epoch under which the application got what it commits.

mod commits;
pub(crate) mod config;
mod handler;
mod ledger;
mod membership;
mod pausing;
mod rebalance;
mod session;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream};
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;
use wire::topic_name;
use wire::topic_pattern::TopicPattern;

use self::commits::CommitTask;
use self::config::{GroupConfig, Guarantee};
use self::ledger::Ledger;
use self::membership::{Membership, Subscription};
use self::rebalance::{Listener, Part, is_of, place};
use self::session::Session;
use crate::ClientCore;
use crate::consumer::{ConsumedRecord, Consumer};
use crate::error::ClientError;
use crate::tasks::{Tasks, sleep_until};

pub use self::commits::{Committer, PendingCommit};
pub use self::handler::{AfterError, HandlerError, Problem};
pub use self::ledger::OffsetCommit;
pub use self::rebalance::Rebalance;

/// How long one turn of a stream or a handler waits; it only bounds how often an idle one looks around.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a consumer that closes waits for its session task.
const CLOSE_PATIENCE: Duration = Duration::from_secs(8);

/// A partition that a consumer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPartition {
    /// The partition.
    pub at: TopicPartition,
    /// Epoch of the group at which it was assigned. Every assignment of a partition has another one, and a later one a higher
    /// one: an effect outside that carries it can be refused when it comes from a former owner.
    pub since: u64,
    /// The offset at which it began; `None` = nothing was committed, and it began where `offset_reset` says.
    pub from: Option<u64>,
}

/// A member of a consumer group: reads what the group assigns to it, and commits how far it is.
///
/// Dropping it ends all background work without a word: the group finds out when the session times out.
/// [`close`](Self::close) says goodbye.
pub struct GroupConsumer {
    config: GroupConfig,
    reader: Consumer,
    membership: Arc<Membership>,
    ledger: Arc<Ledger>,
    committer: Committer,
    parts: BTreeMap<TopicPartition, Part>,
    /// Records that are about to be returned.
    ready: VecDeque<ConsumedRecord>,
    /// With `AtMostOnce`: what is in `ready` is committed.
    is_secured: bool,
    /// Partitions of what the last call returned.
    handed: BTreeSet<TopicPartition>,
    /// Partitions that begin at the end of the log, wherever that is.
    unanchored: BTreeSet<TopicPartition>,
    /// Partitions that the application paused.
    held: BTreeSet<TopicPartition>,
    group_paused: bool,
    untold: VecDeque<Rebalance>,
    listener: Option<Listener>,
    tasks: Tasks,
}

impl fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("config", &self.config)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl GroupConsumer {
    pub(crate) fn start(core: Arc<ClientCore>, config: GroupConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let reader = Consumer::start(Arc::clone(&core), config.consumer.clone())?;
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        let membership = Arc::new(Membership::new(millis(config.max_poll_interval_ms)));
        let ledger = Arc::new(Ledger::default());
        let (committer, wishes) = Committer::new(Arc::clone(&ledger), Arc::clone(&membership));
        let tasks = Tasks::default();
        let session = Session::new(Arc::clone(&core), config.clone(), Arc::clone(&membership));
        tasks.spawn(session.run(tasks.token()));
        let is_auto = config.guarantee == Guarantee::AtLeastOnce;
        let commits = CommitTask {
            core,
            group_id: config.group_id.clone(),
            ledger: Arc::clone(&ledger),
            membership: Arc::clone(&membership),
            every: is_auto.then(|| millis(config.auto_commit_interval_ms)),
        };
        tasks.spawn(commits.run(wishes, tasks.token()));
        Ok(Self {
            config,
            reader,
            membership,
            ledger,
            committer,
            parts: BTreeMap::new(),
            ready: VecDeque::new(),
            is_secured: false,
            handed: BTreeSet::new(),
            unanchored: BTreeSet::new(),
            held: BTreeSet::new(),
            group_paused: false,
            untold: VecDeque::new(),
            listener: None,
            tasks,
        })
    }

    /// Reads these topics from now on, and no others: names, also of topics that are not there yet, and patterns (`orders.*` is
    /// any one part, `orders.>` one part or more). Returns at once; partitions come with [`poll`](Self::poll).
    ///
    /// # Errors
    /// `InvalidTopicName`, `InvalidTopicPattern`, or `InvalidRequest` for an empty list; the subscription is then unchanged.
    pub fn subscribe<S: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = S>,
    ) -> Result<(), ClientError> {
        let mut subscription = Subscription::default();
        for text in topics {
            let text = text.as_ref();
            if TopicPattern::is_pattern(text) {
                TopicPattern::parse(text).map_err(ClientError::Failed)?;
                subscription.patterns.insert(text.to_owned());
            } else {
                topic_name::validate(text).map_err(ClientError::Failed)?;
                subscription.topics.insert(text.to_owned());
            }
        }
        if subscription == Subscription::default() {
            let error = ApiError::new(
                ErrorCode::InvalidRequest,
                "the subscription names neither a topic nor a pattern",
            );
            return Err(ClientError::Failed(error.hint("to stop reading, close the consumer")));
        }
        self.membership.set_busy(true);
        self.membership.subscribe(subscription);
        Ok(())
    }

    /// Topics and patterns that were subscribed to.
    pub fn subscription(&self) -> Vec<String> {
        let Subscription { topics, patterns } = self.membership.subscription();
        topics.into_iter().chain(patterns).collect()
    }

    /// Calls `listener` at every change of what is read, inside of [`poll`](Self::poll) and before records of it are returned.
    /// What it awaits holds up this consumer only; it should not take longer than the session timeout. It is called again for
    /// the same change if the call of `poll` was dropped while it ran.
    pub fn on_rebalance<F>(&mut self, mut listener: impl FnMut(Rebalance) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.listener = Some(Box::new(move |change| listener(change).boxed()));
    }

    /// Records that have arrived, at least one unless `timeout` passes, at most `max_poll_records`. Records of one partition
    /// come in order.
    ///
    /// With [`Guarantee::AtLeastOnce`] the records of the call before this one count as done.
    ///
    /// # Errors
    /// Why the consumer does not become a member, such as `InstanceIdInUse` or `GroupLimit` (the next call tries again); what a
    /// partition cannot be read for, as of [`Consumer::poll`](crate::Consumer::poll), and `NoCommittedOffset` with
    /// `OffsetReset::Error` (the partition waits for a [`seek`](Self::seek), all others are read on); with
    /// [`Guarantee::AtMostOnce`] that the commit failed (the next call tries again).
    ///
    /// # Cancel safety
    /// Safe: what was not returned is returned by the next call.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        self.wait(Instant::now() + timeout).await?;
        let records: Vec<ConsumedRecord> = self.ready.drain(..).collect();
        self.hand_out(&records);
        Ok(records)
    }

    /// One record, or none if `timeout` passes. With [`Guarantee::AtLeastOnce`] the record of the call before this one counts
    /// as done.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self, timeout: Duration) -> Result<Option<ConsumedRecord>, ClientError> {
        self.wait(Instant::now() + timeout).await?;
        let record = self.ready.pop_front();
        self.hand_out(record.as_slice());
        Ok(record)
    }

    /// Records one by one, as [`next`](Self::next) returns them; ends only with the consumer. An error does not end it.
    pub fn stream(&mut self) -> impl Stream<Item = Result<ConsumedRecord, ClientError>> + '_ {
        futures::stream::unfold(self, async |consumer| {
            loop {
                match consumer.next(PATIENCE).await {
                    Ok(Some(record)) => return Some((Ok(record), consumer)),
                    Ok(None) => {}
                    Err(error) => return Some((Err(error), consumer)),
                }
            }
        })
    }

    /// Commits everything that was returned so far. The call is made when this returns: await the result, or drop it.
    ///
    /// # Errors
    /// The result has `NotOwner`, `UnknownMember` or `StaleGeneration` for partitions that went to others meanwhile; other
    /// partitions are committed all the same.
    pub fn commit(&mut self) -> PendingCommit {
        self.committer.commit_due(self.ledger.due_returned())
    }

    /// Commits single offsets, also from other tasks.
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// The partitions that this consumer reads now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.parts.iter().filter(|(_, part)| !part.is_revoked).map(|(at, _)| at.clone()).collect()
    }

    /// The same with what tells one turn from another: for applications that keep state beside a partition.
    pub fn owned(&self) -> Vec<OwnedPartition> {
        let owned = |(at, part): (&TopicPartition, &Part)| OwnedPartition {
            at: at.clone(),
            since: part.since,
            from: part.from,
        };
        self.parts.iter().filter(|(_, part)| !part.is_revoked).map(owned).collect()
    }

    /// The next record that `poll` returns of a partition, as far as that is known.
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        let at = place(topic, partition);
        let waiting = self.ready.iter().find(|record| is_of(record, &at)).map(|record| record.offset);
        waiting.or_else(|| self.reader.position(&at))
    }

    /// Its id in the group, and how many rebalances it has heard of; `None` while it is no member.
    pub fn member(&self) -> Option<(String, u64)> {
        self.membership.member().map(|member| (member.id, member.generation))
    }

    /// Leaves the group at once, after what is done was committed. A static member (`instance_id`) keeps its place until its
    /// session times out, so that a restarted process goes on; [`leave`](Self::leave) gives it up.
    ///
    /// With [`Guarantee::AtLeastOnce`] everything that was returned counts as done. To keep the last records from that, drop the
    /// consumer instead.
    ///
    /// # Errors
    /// The last commit failed, or the group could not be told. The consumer is closed all the same.
    pub async fn close(self) -> Result<(), ClientError> {
        self.end(false).await
    }

    /// [`close`](Self::close), for good: a static member gives up its place, too.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub async fn leave(self) -> Result<(), ClientError> {
        self.end(true).await
    }

    async fn end(mut self, for_good: bool) -> Result<(), ClientError> {
        self.mark_done();
        self.note(Rebalance::Revoked, self.assignment());
        self.tell().await;
        let last = match self.config.guarantee {
            Guarantee::AtLeastOnce => self.committer.commit_due(self.ledger.due()).await,
            Guarantee::AtMostOnce | Guarantee::Manual => Ok(()),
        };
        self.membership.leave(for_good);
        let until = Instant::now() + CLOSE_PATIENCE;
        let left = loop {
            if let Some(left) = self.membership.left() {
                break left;
            }
            if tokio::time::timeout_at(until, self.membership.changed()).await.is_err() {
                let message =
                    format!("group {:?} could not be told that a member goes", self.config.group_id);
                break Err(ApiError::new(ErrorCode::Timeout, message));
            }
        };
        self.tasks.stop();
        last.and(left.map_err(ClientError::Failed))
    }

    /// Waits until there are records to return, or `deadline`.
    async fn wait(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.mark_done();
        let _waiting = Waiting::begin(&self.membership);
        loop {
            self.tend().await?;
            let valid_until = self.membership.valid_until().filter(|until| *until > Instant::now());
            // Somebody else may own everything by now: nothing is returned before the coordinator has said so.
            if valid_until.is_some() && self.fill()? {
                self.secure().await?;
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.membership.changed() => {}
                () = self.reader.arrived(), if valid_until.is_some() => {}
                () = sleep_until(valid_until) => {}
                () = tokio::time::sleep_until(deadline) => return Ok(()),
            }
        }
    }

    /// Takes what has arrived; false if there is nothing.
    fn fill(&mut self) -> Result<bool, ClientError> {
        if self.ready.is_empty() {
            self.anchor();
            self.ready = self.reader.take_ready()?.into();
            self.is_secured = false;
            if !self.unanchored.is_empty() {
                let ready = &self.ready;
                self.unanchored.retain(|at| !ready.iter().any(|record| is_of(record, at)));
            }
        }
        Ok(!self.ready.is_empty())
    }

    /// With `AtMostOnce`: commits what is about to be returned.
    async fn secure(&mut self) -> Result<(), ClientError> {
        if self.config.guarantee != Guarantee::AtMostOnce || self.is_secured {
            return Ok(());
        }
        let ledger = &self.ledger;
        runs(self.ready.iter()).for_each(|(at, next)| ledger.returned(&at, Some(next)));
        self.committer.commit_due(self.ledger.due_returned()).await?;
        self.is_secured = true;
        Ok(())
    }

    /// The application gets these.
    fn hand_out(&mut self, records: &[ConsumedRecord]) {
        for (at, next) in runs(records.iter()) {
            self.ledger.returned(&at, Some(next));
            self.handed.insert(at);
        }
    }

    /// The application has come back: what it had is done.
    fn mark_done(&mut self) {
        self.ledger.done(std::mem::take(&mut self.handed));
    }
}

/// Partitions of records with the offset after the last of each run.
fn runs<'r>(
    records: impl Iterator<Item = &'r ConsumedRecord>,
) -> impl Iterator<Item = (TopicPartition, u64)> {
    let mut records = records.peekable();
    std::iter::from_fn(move || {
        let first = records.next()?;
        let at = place(&first.topic, first.partition);
        let mut next = first.offset + 1;
        while let Some(record) = records.next_if(|record| is_of(record, &at)) {
            next = record.offset + 1;
        }
        Some((at, next))
    })
}

/// The application waits; when this goes, it works.
struct Waiting(Arc<Membership>);

impl Waiting {
    fn begin(membership: &Arc<Membership>) -> Self {
        membership.set_busy(false);
        Self(Arc::clone(membership))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set_busy(true);
    }
}
