//! Turns waiting batches into Raft entries: one entry takes all that waits, up to its bytes; while entries are being
//! written the next one fills. No linger: under load the wait for a place in flight is the linger.
//!
//! One task a replica. Entries are proposed and answered in order, so a producer's batches never overtake each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk::mutant::{self, Mutant};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use raft_store::{DurableToken, EntryData, LogPosition};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::RaftIndex;

use super::batching::fits;
use super::command::{ITEM_HEADER_LEN, encode_append};
use super::epoch::leader_epoch;
use super::queue::{Answer, Position, Waiting};
use super::receipt::Acks;
use super::replica::Core;
use super::{PartitionTypes, reply::PartitionReply};

/// Entries in flight. raft.md section 3: a window of eight has the throughput of 256 with a fraction of the messages,
/// and it is what makes requests gather into larger entries under load.
const IN_FLIGHT_MAX: usize = 8;
/// How often an entry that met an expired lease is proposed again.
const ATTEMPTS_MAX: u32 = 5;
/// Time for one renewal of the lease.
const WARM_FOR: Duration = Duration::from_millis(1000);

type Written = Result<ClientWriteResult<PartitionTypes>, Gone>;

/// The group ended without an answer.
#[derive(Debug)]
struct Gone;

/// One entry and those who wait for it.
struct Entry {
    waiting: Vec<Waiting>,
    body: Bytes,
    attempts: u32,
}

/// An entry that Raft has answered.
struct Finished {
    entry: Entry,
    written: Written,
}

/// Owner of the proposals of one replica.
pub(crate) struct Proposer {
    core: Arc<Core>,
    queue: mpsc::Receiver<Waiting>,
    /// Taken from the queue but did not fit the last entry.
    carried: Option<Waiting>,
    in_flight: FuturesOrdered<BoxFuture<'static, Finished>>,
    /// Met an expired lease; proposed again, in order, once nothing is in flight.
    again: VecDeque<Entry>,
    /// Something behind an entry of `again` was accepted: proposing those again would reorder them.
    overtaken: bool,
}

impl Proposer {
    /// A proposer of a replica that takes from `queue`.
    pub(crate) fn new(core: Arc<Core>, queue: mpsc::Receiver<Waiting>) -> Self {
        Self {
            core,
            queue,
            carried: None,
            in_flight: FuturesOrdered::new(),
            again: VecDeque::new(),
            overtaken: false,
        }
    }

    /// Runs until the replica stops; what waits then is refused, what is in flight is answered as unknown.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let room = self.again.is_empty() && self.in_flight.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(finished) = self.in_flight.next(), if !self.in_flight.is_empty() => self.finish(finished).await,
                first = next(&mut self.carried, &mut self.queue), if room => match first {
                    Some(first) => self.start(first).await,
                    None => break,
                },
            }
        }
        self.close().await;
    }

    /// Gathers what waits behind `first` into one entry and proposes it.
    async fn start(&mut self, first: Waiting) {
        let waiting = self.gather(first);
        if waiting.is_empty() {
            return;
        }
        let batches: Vec<Bytes> =
            waiting.iter().flat_map(|waiting| waiting.batches.iter().cloned()).collect();
        let body = encode_append(self.core.now_ms(), &batches);
        let entry = Entry { waiting, body, attempts: 0 };
        if self.in_flight.is_empty() {
            self.core.warm(WARM_FOR).await;
        }
        self.propose(entry).await;
    }

    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut bytes = 0;
        let mut entry = Vec::new();
        let mut next = Some(first);
        while let Some(waiting) = next.take() {
            let size = waiting.bytes + waiting.batches.len() * ITEM_HEADER_LEN;
            if !fits(bytes, size) {
                self.carried = Some(waiting);
                break;
            }
            if waiting.ticket.take() {
                bytes += size;
                entry.push(waiting);
            }
            next = self.queue.try_recv().ok();
        }
        entry
    }

    async fn propose(&mut self, mut entry: Entry) {
        entry.attempts += 1;
        let wants_durable = entry.waiting.iter().any(|waiting| waiting.acks == Acks::Leader);
        let (durable, on_disk) = if wants_durable {
            let (token, fired) = DurableToken::new();
            (Some(token), Some(fired))
        } else {
            (None, None)
        };
        let (responder, written) = OneshotResponder::new_pair();
        let data = EntryData { body: entry.body.clone(), durable };
        self.core.note_proposed(entry.body.len());
        if self.core.group.client_write_ff(data, Some(responder)).await.is_err() {
            for waiting in &mut entry.waiting {
                waiting.answer(Err(self.core.stopped()));
            }
            return;
        }
        self.in_flight.push_back(Box::pin(answered(entry, written, on_disk)));
    }

    async fn finish(&mut self, finished: Finished) {
        let Finished { mut entry, written } = finished;
        match written {
            Ok(Ok(response)) => {
                self.overtaken |= !self.again.is_empty();
                let position = Position {
                    epoch: leader_epoch(response.log_id.leader_id.term),
                    index: RaftIndex(response.log_id.index),
                };
                let on_disk = self.core.on_disk(response.log_id.index).await;
                answer_applied(&mut entry, position, response.data, &on_disk);
            }
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => self.refused(entry, &forward),
            Ok(Err(error)) => answer_all(&mut entry, &unknown(&error.to_string())),
            Err(Gone) => answer_all(&mut entry, &unknown("the replica stopped")),
        }
        if self.in_flight.is_empty() && !self.again.is_empty() {
            self.propose_again().await;
        }
    }

    /// Raft refused the entry before it was appended: definite, unless the lease only has to be renewed.
    fn refused(&mut self, mut entry: Entry, forward: &ForwardToLeader<PartitionTypes>) {
        if forward.reason == ForwardReason::LeaseExpired && entry.attempts < ATTEMPTS_MAX {
            self.again.push_back(entry);
            return;
        }
        let error = self.core.not_leader(forward.leader_id);
        answer_all(&mut entry, &error);
    }

    async fn propose_again(&mut self) {
        let entries = std::mem::take(&mut self.again);
        if std::mem::take(&mut self.overtaken) {
            let error = self.core.not_leader(None);
            for mut entry in entries {
                answer_all(&mut entry, &error);
            }
            return;
        }
        self.core.warm(WARM_FOR).await;
        for entry in entries {
            self.propose(entry).await;
        }
    }

    async fn close(&mut self) {
        self.queue.close();
        let stopped = self.core.stopped();
        let mut carried = self.carried.take();
        while let Some(mut waiting) = carried.take().or_else(|| self.queue.try_recv().ok()) {
            waiting.answer(Err(stopped.clone()));
        }
        for mut entry in self.again.drain(..) {
            answer_all(&mut entry, &stopped);
        }
        // Dropping what is in flight drops the reply channels; the callers read that as an unknown outcome.
        self.in_flight.clear();
    }
}

async fn next(carried: &mut Option<Waiting>, queue: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
    match carried.take() {
        Some(waiting) => Some(waiting),
        None => queue.recv().await,
    }
}

/// Waits for the answer of Raft; on the way tells the `acks=leader` requests when the leader's disk has the entry.
async fn answered(
    mut entry: Entry,
    written: oneshot::Receiver<ClientWriteResult<PartitionTypes>>,
    on_disk: Option<oneshot::Receiver<LogPosition>>,
) -> Finished {
    if let Some(fired) = on_disk {
        // Not fired means that the entry was not appended; then Raft's own answer says why.
        if let Ok(position) = fired.await {
            let position = Position { epoch: leader_epoch(position.term), index: RaftIndex(position.index) };
            for waiting in entry.waiting.iter_mut().filter(|waiting| waiting.acks == Acks::Leader) {
                waiting.answer(Ok(Answer::Durable(position)));
            }
        }
    }
    let written = written.await.map_err(|_| Gone);
    Finished { entry, written }
}

fn answer_applied(
    entry: &mut Entry,
    position: Position,
    reply: PartitionReply,
    on_disk: &[wire::ids::BrokerId],
) {
    let mut outcomes = reply.outcomes.into_iter();
    for waiting in &mut entry.waiting {
        let outcomes: Vec<_> = outcomes.by_ref().take(waiting.batches.len()).collect();
        waiting.answer(Ok(Answer::Applied { position, outcomes, on_disk: on_disk.to_vec() }));
    }
}

fn answer_all(entry: &mut Entry, error: &ApiError) {
    for waiting in &mut entry.waiting {
        waiting.answer(Err(error.clone()));
    }
}

/// The batches may be written or not: only an idempotent producer may send them again without a thought.
pub(crate) fn unknown(reason: &str) -> ApiError {
    let code = match mutant::on(Mutant::UnknownToldAsFailure) {
        true => ErrorCode::Unavailable,
        false => ErrorCode::OutcomeUnknown,
    };
    ApiError::new(code, "it is not known whether the batches were written").reason(reason)
}
