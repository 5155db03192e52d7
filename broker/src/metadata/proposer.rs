//! Brings commands into the metadata group: many in one Raft entry, here or through the metadata leader.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::errors::{ClientWriteError, RaftError};
use raft_store::EntryData;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::BrokerId;

use super::codec::encode_commands;
use super::command::{Command, CommandReply, Replies};
use super::coordinator;
use super::core::{Core, SERVICE};
use super::message::{Answer, Request};
use crate::raft::PeerError;

/// Commands that may wait; one more waits for a place until its deadline. A report of 10,000 partitions is one command.
pub(crate) const QUEUE: usize = 1024;
/// Bytes in one Raft entry; the architecture's bound.
const ENTRY_BYTES: usize = 1 << 20;
/// One attempt takes at most this long; longer means that the leader is gone.
const ATTEMPT: Duration = Duration::from_secs(5);
/// An attempt at another broker is given up sooner: its link may lead nowhere, and a new leader stands in a second.
const REMOTE_ATTEMPT: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// How commands of one kind travel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    /// Commands in one Raft entry.
    batch: usize,
    /// Entries of this broker that wait for their commit.
    in_flight: usize,
}

impl Lane {
    /// Changes that somebody waits for.
    pub(crate) const CHANGES: Self = Self { batch: 256, in_flight: 8 };
    /// Commits of offsets: the next entry gathers while one is written, however many come, so that their number costs
    /// little.
    pub(crate) const COMMITS: Self = Self { batch: QUEUE, in_flight: 2 };
}

/// A command on its way.
pub(crate) struct Pending {
    pub(crate) command: Command,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Done, ApiError>>,
    /// An attempt ended without an answer: from then on the deadline means "unknown".
    unknown: bool,
    /// Bytes that the command takes of what may wait.
    _room: Option<OwnedSemaphorePermit>,
}

/// A reply and the entry that it belongs to.
pub(crate) struct Done {
    pub(crate) reply: CommandReply,
    pub(crate) index: u64,
}

impl Pending {
    pub(crate) fn new(
        command: Command,
        deadline: Instant,
    ) -> (Self, oneshot::Receiver<Result<Done, ApiError>>) {
        let (reply, receiver) = oneshot::channel();
        (Self { command, deadline, reply, unknown: false, _room: None }, receiver)
    }

    /// Holds its place among the bytes that may wait until it is answered.
    pub(crate) fn holding(self, room: OwnedSemaphorePermit) -> Self {
        Self { _room: Some(room), ..self }
    }

    fn answer(self, result: Result<Done, ApiError>) {
        // The caller may have gone: that is its business.
        let _ = self.reply.send(result);
    }

    fn expire(self) {
        let error = if self.unknown { unknown("no answer came in time") } else { no_quorum() };
        self.answer(Err(error));
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Committed and applied.
    Applied(Replies),
    /// Nothing happened; the leader is elsewhere or nowhere.
    NotLeader,
    /// Nothing happened, and nothing will.
    Refused(ApiError),
    /// It may have happened.
    Unknown(String),
}

/// Gathers commands into batches and sees each through, until the token ends it.
pub(crate) async fn run(
    core: Arc<Core>,
    lane: Lane,
    mut queue: mpsc::Receiver<Pending>,
    token: CancellationToken,
) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = token.cancelled() => break,
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            taken = queue.recv_many(&mut batch, lane.batch), if in_flight.len() < lane.in_flight => {
                if taken == 0 {
                    break;
                }
                in_flight.push(settle(&core, batch));
            }
        }
    }
    // Dropping what is left closes the callers' channels; they learn that the broker shuts down.
}

/// Tries until every command of the batch has its answer.
async fn settle(core: &Core, mut batch: Vec<Pending>) {
    let mut pause = PAUSE.0;
    loop {
        batch = expire(batch);
        let Some(last) = batch.iter().map(|pending| pending.deadline).max() else { return };
        let commands: Vec<Command> = batch.iter().map(|pending| pending.command.clone()).collect();
        let limit = last.saturating_duration_since(Instant::now()).min(ATTEMPT);
        match attempt(core, commands, limit).await {
            Attempt::Applied(replies) => return distribute(batch, replies),
            Attempt::Refused(error) => {
                for pending in batch {
                    pending.answer(Err(error.clone()));
                }
                return;
            }
            Attempt::NotLeader => {}
            Attempt::Unknown(reason) => batch = keep_retry_safe(batch, &reason),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn expire(batch: Vec<Pending>) -> Vec<Pending> {
    let now = Instant::now();
    let (live, late): (Vec<_>, Vec<_>) = batch.into_iter().partition(|pending| pending.deadline > now);
    late.into_iter().for_each(Pending::expire);
    live
}

/// After an attempt of unknown outcome only commands go on that may be applied twice.
fn keep_retry_safe(batch: Vec<Pending>, reason: &str) -> Vec<Pending> {
    let (mut safe, rest): (Vec<_>, Vec<_>) =
        batch.into_iter().partition(|pending| pending.command.is_retry_safe());
    for pending in rest {
        pending.answer(Err(unknown(reason)));
    }
    for pending in &mut safe {
        pending.unknown = true;
    }
    safe
}

fn distribute(batch: Vec<Pending>, replies: Replies) {
    let index = replies.index;
    let mut results = replies.results.into_iter();
    for pending in batch {
        let result = match results.next() {
            Some(result) => result.map(|reply| Done { reply, index }).map_err(ApiError::from),
            None => Err(ApiError::new(ErrorCode::Internal, "the metadata leader answered too little")),
        };
        pending.answer(result);
    }
}

/// One attempt: here if this broker leads, else at the leader.
async fn attempt(core: &Core, commands: Vec<Command>, limit: Duration) -> Attempt {
    match core.leader() {
        None => Attempt::NotLeader,
        Some(leader) if leader == core.me() => propose_here(core, commands, limit).await,
        Some(leader) => propose_at(core, leader, commands, limit.min(REMOTE_ATTEMPT)).await,
    }
}

/// Proposes as leader. Large batches become several entries, and the index is that of the last.
pub(crate) async fn propose_here(core: &Core, mut commands: Vec<Command>, limit: Duration) -> Attempt {
    coordinator::decide(core, &mut commands);
    let mut done = Replies::default();
    let mut parts = vec![commands];
    while let Some(mut part) = parts.pop() {
        let body = match encode_commands(&part) {
            Ok(body) if body.len() <= ENTRY_BYTES || part.len() == 1 => body,
            Ok(_) => {
                let second = part.split_off(part.len() / 2);
                parts.push(second);
                parts.push(part);
                continue;
            }
            Err(error) => {
                let text = format!("the command cannot be encoded: {error}");
                return Attempt::Refused(ApiError::new(ErrorCode::RequestTooLarge, text));
            }
        };
        let written = tokio::time::timeout(limit, core.group.client_write(EntryData::new(body))).await;
        let partly = !done.results.is_empty();
        match written {
            Ok(Ok(response)) => {
                let replies = response.data;
                done.index = replies.index;
                done.results.extend(replies.results);
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if !partly => {
                return Attempt::NotLeader;
            }
            Ok(Err(error)) => return Attempt::Unknown(error.to_string()),
            Err(_) => return Attempt::Unknown("the metadata group did not commit in time".to_owned()),
        }
    }
    Attempt::Applied(done)
}

async fn propose_at(core: &Core, leader: BrokerId, commands: Vec<Command>, limit: Duration) -> Attempt {
    let body = match Request::Propose(commands).encode() {
        Ok(body) => body,
        Err(error) => {
            let text = format!("the command cannot be encoded: {error}");
            return Attempt::Refused(ApiError::new(ErrorCode::RequestTooLarge, text));
        }
    };
    match core.groups.peers().call(leader, SERVICE, body, limit).await {
        Ok(answer) => match Answer::decode(&answer) {
            Ok(Answer::Proposed(replies)) => Attempt::Applied(replies),
            Ok(Answer::NotLeader { .. }) => Attempt::NotLeader,
            Ok(Answer::Refused { retriable: true, .. }) => Attempt::NotLeader,
            Ok(Answer::Refused { reason, .. }) => {
                Attempt::Refused(ApiError::new(ErrorCode::InvalidRequest, reason))
            }
            Ok(Answer::Unknown(reason)) => Attempt::Unknown(reason),
            Ok(_) => Attempt::Unknown("the metadata leader answered something else".to_owned()),
            Err(error) => {
                Attempt::Unknown(format!("the metadata leader's answer is not understood: {error}"))
            }
        },
        Err(PeerError::Unreachable(_) | PeerError::Refused(_)) => Attempt::NotLeader,
        Err(PeerError::Timeout(reason)) => Attempt::Unknown(reason),
    }
}

/// Nothing happened: no metadata leader was found in time.
pub(crate) fn no_quorum() -> ApiError {
    ApiError::new(ErrorCode::NoQuorum, "the metadata group has no leader that this broker can reach")
        .reason("nothing was changed")
        .hint("altair-cli cluster status; a majority of the metadata voters must live")
        .retry_after_ms(500)
}

fn unknown(reason: &str) -> ApiError {
    ApiError::new(ErrorCode::OutcomeUnknown, "the change may or may not have been made").reason(reason)
}
