//! The proposer's queue: bounded in bytes and count, first in first out, with a ticket that tells a caller whose time
//! ran out whether its batches were already proposed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft_store::{BudgetPermit, ByteBudget};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, LeaderEpoch, RaftIndex};

use super::receipt::Acks;
use super::reply::BatchOutcome;

/// Bytes that one replica's proposer holds: waiting and in flight. Four times what eight full entries in flight need
/// is more than a second of a fast disk, so it only fills when the log cannot keep up.
pub(crate) const REPLICA_BYTES_MAX: usize = 32 << 20;
/// Requests that one replica's proposer holds; with the smallest batches this, not the bytes, is the bound.
const REPLICA_ITEMS_MAX: usize = 8192;
/// How long a produce is slowed down before it is refused.
const SLOWED_FOR: Duration = Duration::from_millis(500);
/// Advice to a refused producer.
const RETRY_AFTER_MS: u32 = 200;

/// Where a request stands, shared by the caller that waits and the proposer.
#[derive(Debug, Default)]
pub(crate) struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const PROPOSED: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// Taken by the proposer; false if the caller has withdrawn.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(QUEUED, PROPOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Withdrawn by the caller; false if it is too late.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Where an entry went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Epoch of the leader that wrote it.
    pub epoch: LeaderEpoch,
    /// Its place in the Raft log.
    pub index: RaftIndex,
}

/// What became of the batches of one waiting request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// On this leader's disk.
    Durable(Position),
    /// Committed and applied.
    Applied {
        /// Where.
        position: Position,
        /// One outcome a batch.
        outcomes: Vec<BatchOutcome>,
        /// Brokers that had it on disk.
        on_disk: Vec<BrokerId>,
    },
}

/// Batches waiting to be proposed together, at most one entry's worth.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The batches, in order.
    pub batches: Vec<Bytes>,
    /// Their bytes.
    pub bytes: usize,
    /// When to answer.
    pub acks: Acks,
    /// Shared with the caller.
    pub ticket: Arc<Ticket>,
    /// Where the answer goes; `None` once it was sent.
    pub reply: Option<oneshot::Sender<Result<Answer, ApiError>>>,
    /// Room in queues and WAL, given back when the entry is answered.
    #[expect(dead_code, reason = "held for its drop")]
    pub room: Room,
}

/// Room that a request holds while it waits and while its entry is in flight.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drops")]
pub(crate) struct Room {
    replica: OwnedSemaphorePermit,
    broker: OwnedSemaphorePermit,
    /// Once the entry stands in the WAL, the WAL counts its bytes itself.
    wal: BudgetPermit,
}

impl Waiting {
    /// Sends the answer; a caller that has gone away is no error.
    pub(crate) fn answer(&mut self, answer: Result<Answer, ApiError>) {
        if let Some(reply) = self.reply.take() {
            drop(reply.send(answer));
        }
    }
}

/// The caller's end of a queued request.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Shared with the proposer.
    pub ticket: Arc<Ticket>,
    /// The answer.
    pub answer: oneshot::Receiver<Result<Answer, ApiError>>,
}

/// The callers' end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Waiting>,
    /// Room of this replica, in bytes.
    replica_room: Arc<Semaphore>,
    /// Room of the whole broker, in bytes.
    broker_room: Arc<Semaphore>,
    /// Room of the WAL: what it may hold before files are released.
    wal_room: ByteBudget,
    /// Holds callers in the order in which they came while there is no room, so that a producer's batches never
    /// overtake each other.
    line: Mutex<()>,
}

impl Queue {
    /// A queue and the end from which the proposer takes.
    pub(crate) fn new(broker_room: Arc<Semaphore>, wal_room: ByteBudget) -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(REPLICA_ITEMS_MAX);
        let replica_room = Arc::new(Semaphore::new(REPLICA_BYTES_MAX));
        (Self { sender, replica_room, broker_room, wal_room, line: Mutex::new(()) }, receiver)
    }

    /// Puts batches into the queue; waits a little for room, then refuses.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`], [`ErrorCode::Timeout`] or [`ErrorCode::ShuttingDown`], all definite.
    pub(crate) async fn offer(
        &self,
        batches: Vec<Bytes>,
        acks: Acks,
        deadline: Instant,
    ) -> Result<Queued, ApiError> {
        let patience = deadline.min(Instant::now() + SLOWED_FOR);
        let admitted = timeout_at(patience, self.admit(batches, acks)).await;
        admitted.unwrap_or_else(|_| Err(if Instant::now() >= deadline { too_late() } else { overloaded() }))
    }

    async fn admit(&self, batches: Vec<Bytes>, acks: Acks) -> Result<Queued, ApiError> {
        let bytes: usize = batches.iter().map(Bytes::len).sum();
        let _in_line = self.line.lock().await;
        let room = Room {
            replica: take_room(&self.replica_room, bytes).await?,
            broker: take_room(&self.broker_room, bytes).await?,
            wal: self.wal_room.acquire(u64::try_from(bytes).unwrap_or(u64::MAX)).await,
        };
        let ticket = Arc::new(Ticket::default());
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { batches, bytes, acks, ticket: ticket.clone(), reply: Some(reply), room };
        self.sender.send(waiting).await.map_err(|_| closed())?;
        Ok(Queued { ticket, answer })
    }
}

async fn take_room(semaphore: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    // A batch is at most 8 MiB, below every bound, so it can always be admitted in the end.
    let wanted = u32::try_from(bytes.min(REPLICA_BYTES_MAX)).unwrap_or(u32::MAX);
    semaphore.clone().acquire_many_owned(wanted).await.map_err(|_| closed())
}

fn overloaded() -> ApiError {
    ApiError::new(ErrorCode::Overloaded, "the partition takes no more batches at the moment")
        .reason("more bytes wait to be written than the broker allows")
        .retry_after_ms(RETRY_AFTER_MS)
}

fn closed() -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "the replica is stopping").retry_after_ms(RETRY_AFTER_MS)
}

/// The definite failure of a request whose time ran out before it was proposed.
pub(crate) fn too_late() -> ApiError {
    ApiError::new(ErrorCode::Timeout, "the time ran out before the batches were proposed")
        .reason("they waited in the leader's queue and were taken out again, nothing was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (Queue, mpsc::Receiver<Waiting>) {
        let disk = Arc::new(disk::faulty::FaultyDisk::quiet());
        let config = raft_store::WalConfig { file_bytes: 64 << 10, pool_files: 0, ..Default::default() };
        let (wal, ..) =
            raft_store::Wal::open(disk, disk::Io::inline(), std::path::Path::new("/w"), config, || 1)
                .expect("a WAL");
        Queue::new(Arc::new(Semaphore::new(256 << 20)), wal.budget().clone())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn requests_leave_in_the_order_in_which_they_came() {
        let (queue, mut taken) = queue();
        for byte in 0..3u8 {
            queue.offer(vec![Bytes::from(vec![byte])], Acks::All, soon()).await.expect("room");
        }
        for byte in 0..3u8 {
            assert_eq!(taken.recv().await.expect("queued").batches, [Bytes::from(vec![byte])]);
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_definitely_and_room_comes_back() {
        let (queue, mut taken) = queue();
        let full = Bytes::from(vec![0; REPLICA_BYTES_MAX]);
        queue.offer(vec![full], Acks::All, soon()).await.expect("room");
        let refused = queue.offer(vec![Bytes::from_static(b"x")], Acks::All, soon()).await.expect_err("full");
        assert_eq!(refused.code, ErrorCode::Overloaded);
        assert!(refused.definite() && refused.retry_after_ms > 0);
        drop(taken.recv().await);
        queue.offer(vec![Bytes::from_static(b"x")], Acks::All, soon()).await.expect("room again");
    }

    #[test]
    fn a_request_is_either_proposed_or_withdrawn() {
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        assert!(!ticket.take());
        let ticket = Ticket::default();
        assert!(ticket.take());
        assert!(!ticket.withdraw());
    }
}
