//! Tells the coordinator of members that were heard of: many in one message, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, MemberId};

use super::coordinator::{self, Heard};
use super::core::{Core, SERVICE};
use super::message::{Answer, Request};

/// Members that may wait to be told of; one more waits for a place. A name has 249 bytes at most.
pub(crate) const QUEUE: usize = 1024;
/// Members in one message.
const BATCH: usize = 512;
/// Messages under way: the next one gathers meanwhile.
const IN_FLIGHT: usize = 4;
/// One attempt at another broker.
const ATTEMPT: Duration = Duration::from_secs(1);
/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// A member that was heard of.
pub(crate) struct Touch {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Touched, ApiError>>,
}

/// What the coordinator says of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// An image of this version shows what the coordinator knew.
    pub index: u64,
    /// How long it may take itself for a member, counted from before the call; `None` if it is none.
    pub lease: Option<Duration>,
}

/// Gathers members into messages, until the token ends it.
pub(crate) async fn run(core: Arc<Core>, mut queue: mpsc::Receiver<Touch>, token: CancellationToken) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            taken = queue.recv_many(&mut batch, BATCH), if in_flight.len() < IN_FLIGHT => {
                if taken == 0 {
                    return;
                }
                in_flight.push(settle(&core, batch));
            }
        }
    }
}

/// Tries until every member of the batch has its answer. Telling it twice does no harm.
async fn settle(core: &Core, mut batch: Vec<Touch>) {
    let mut pause = PAUSE.0;
    loop {
        let now = Instant::now();
        let (live, late): (Vec<_>, Vec<_>) = batch.into_iter().partition(|touch| touch.deadline > now);
        for touch in late {
            let _ = touch.reply.send(Err(no_coordinator()));
        }
        batch = live;
        let Some(last) = batch.iter().map(|touch| touch.deadline).max() else { return };
        let members: Vec<_> = batch.iter().map(|touch| (touch.group.clone(), touch.member)).collect();
        let heard = attempt(core, members, last.saturating_duration_since(now).min(ATTEMPT)).await;
        if let Some(heard) = heard.filter(|heard| heard.leases.len() == batch.len()) {
            for (touch, lease) in batch.into_iter().zip(heard.leases) {
                // The caller may have gone: that is its business.
                let _ = touch.reply.send(Ok(Touched { index: heard.index, lease }));
            }
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One attempt: here if this broker leads, else at the leader.
async fn attempt(core: &Core, members: Vec<(GroupId, MemberId)>, limit: Duration) -> Option<Heard> {
    let leader = core.leader()?;
    if leader == core.me() {
        return coordinator::hear(core, &members);
    }
    let body = Request::Sessions(members).encode().ok()?;
    let answer = core.groups.peers().call(leader, SERVICE, body, limit).await.ok()?;
    match Answer::decode(&answer) {
        Ok(Answer::Sessions { index, leases_ms }) => {
            let leases = leases_ms.into_iter().map(|ms| ms.map(|ms| Duration::from_millis(u64::from(ms))));
            Some(Heard { index, leases: leases.collect() })
        }
        _ => None,
    }
}

/// Nothing happened: no coordinator was found in time.
pub(crate) fn no_coordinator() -> ApiError {
    ApiError::new(ErrorCode::NotCoordinator, "the coordinator of the groups did not answer in time")
        .reason("the metadata group has no leader that this broker can reach, or it has just changed")
        .retry_after_ms(100)
}
