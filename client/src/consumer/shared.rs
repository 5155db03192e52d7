//! What `poll` and the fetcher share: positions and what was fetched ahead. Locked for a few lines at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::ids::{PartitionIndex, TopicPartition};

use super::Position;
use crate::error::ClientError;
use crate::retry::Backoff;

/// Where the fetcher is with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The offset is to be looked up.
    Resolve(Position),
    /// Fetch from here.
    Fetch(u64),
    /// An error waits to be reported, or was; a seek goes on.
    Halted,
}

/// One assigned partition.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) topic: Arc<str>,
    /// Grows with every seek; what was fetched for an older one is dropped.
    pub(super) generation: u64,
    pub(super) next: Next,
    /// Offset of the next record to return.
    position: Option<u64>,
    pub(super) paused: bool,
    pub(super) high_watermark: Option<u64>,
    /// The call under way for this partition: its number, broker and leader epoch.
    pub(super) call: Option<Call>,
    pub(super) backoff: Backoff,
    pub(super) not_before: Option<Instant>,
}

impl Slot {
    fn new(at: &TopicPartition, generation: u64, from: Position) -> Self {
        let (next, position) = start(from);
        Self {
            topic: at.topic.as_str().into(),
            generation,
            next,
            position,
            paused: false,
            high_watermark: None,
            call: None,
            backoff: Backoff::default(),
            not_before: None,
        }
    }
}

/// What to do first, and the position as far as it is known.
fn start(from: Position) -> (Next, Option<u64>) {
    match from {
        Position::Offset(offset) => (Next::Fetch(offset), Some(offset)),
        lookup => (Next::Resolve(lookup), None),
    }
}

/// A call under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) broker: u32,
    pub(super) epoch: u32,
}

/// Batches of one partition out of one answer.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) at: TopicPartition,
    pub(super) topic: Arc<str>,
    pub(super) generation: u64,
    /// Offset that was asked for; records before it are skipped.
    pub(super) from: u64,
    pub(super) batches: VecDeque<Bytes>,
    pub(super) bytes: usize,
}

#[derive(Debug)]
enum Arrival {
    Chunk(Chunk),
    Error(ClientError),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slots: BTreeMap<TopicPartition, Slot>,
    ready: VecDeque<Arrival>,
    /// Bytes in `ready` and in the chunk that is being returned.
    buffered: usize,
    generations: u64,
}

/// The shared state with its two bells.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    prefetch_bytes: usize,
    /// Rung for `poll`.
    arrival: Notify,
    /// Rung for the fetcher.
    change: Notify,
}

impl Shared {
    pub(super) fn new(prefetch_bytes: usize) -> Self {
        Self { state: Mutex::default(), prefetch_bytes, arrival: Notify::new(), change: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn assign(&self, wanted: Vec<TopicPartition>, initial: Position) {
        let mut state = self.lock();
        let mut old = std::mem::take(&mut state.slots);
        for at in wanted {
            let slot = old.remove(&at).unwrap_or_else(|| {
                state.generations += 1;
                Slot::new(&at, state.generations, initial)
            });
            state.slots.insert(at, slot);
        }
        drop(state);
        self.change.notify_one();
    }

    /// Reads one more partition, from here on.
    pub(super) fn add(&self, at: TopicPartition, from: Position, paused: bool) {
        let mut state = self.lock();
        state.generations += 1;
        let slot = Slot { paused, ..Slot::new(&at, state.generations, from) };
        state.slots.insert(at, slot);
        drop(state);
        self.change.notify_one();
    }

    /// Reads a partition no more; what was fetched of it is dropped.
    pub(super) fn remove(&self, at: &TopicPartition) {
        self.lock().slots.remove(at);
        self.change.notify_one();
    }

    /// Takes up one more partition that cannot be read before it is told where from, and has `poll` report why. Not one
    /// record of it is asked for meanwhile.
    pub(super) fn add_unread(&self, at: &TopicPartition, paused: bool, error: ClientError) {
        let mut state = self.lock();
        state.generations += 1;
        let slot = Slot { paused, ..Slot::new(at, state.generations, Position::Earliest) };
        state.slots.insert(at.clone(), slot);
        state.fail(at, error);
        drop(state);
        self.arrival.notify_one();
    }

    /// False if the partition is not assigned.
    pub(super) fn seek(&self, at: &TopicPartition, to: Position) -> bool {
        let mut state = self.lock();
        state.generations += 1;
        let generation = state.generations;
        let Some(slot) = state.slots.get_mut(at) else { return false };
        slot.generation = generation;
        (slot.next, slot.position) = start(to);
        slot.call = None;
        slot.not_before = None;
        slot.backoff.reset();
        drop(state);
        self.change.notify_one();
        true
    }

    pub(super) fn set_paused(&self, topic: &str, partition: u32, paused: bool) -> bool {
        let at = TopicPartition { topic: topic.to_owned(), partition: PartitionIndex(partition) };
        let mut state = self.lock();
        state.generations += 1;
        let generation = state.generations;
        let Some(slot) = state.slots.get_mut(&at) else { return false };
        if paused
            && !slot.paused
            && slot.next != Next::Halted
            && let Some(position) = slot.position
        {
            // What was fetched ahead is dropped: it would hold room that the other partitions need.
            slot.generation = generation;
            slot.next = Next::Fetch(position);
            slot.call = None;
        }
        slot.paused = paused;
        drop(state);
        self.change.notify_one();
        true
    }

    pub(super) fn position(&self, at: &TopicPartition) -> Option<u64> {
        self.lock().slots.get(at)?.position
    }

    pub(super) fn positions(&self) -> BTreeMap<TopicPartition, Option<u64>> {
        self.lock().slots.iter().map(|(at, slot)| (at.clone(), slot.position)).collect()
    }

    pub(super) fn high_watermarks(&self) -> BTreeMap<TopicPartition, Option<u64>> {
        self.lock().slots.iter().map(|(at, slot)| (at.clone(), slot.high_watermark)).collect()
    }

    /// The next chunk that is still wanted. An error is returned only if `or_error`: records before it go first.
    pub(super) fn next_chunk(&self, or_error: bool) -> Option<Result<Chunk, ClientError>> {
        let mut state = self.lock();
        loop {
            if !or_error && matches!(state.ready.front(), Some(Arrival::Error(_))) {
                return None;
            }
            match state.ready.pop_front()? {
                Arrival::Error(error) => return Some(Err(error)),
                Arrival::Chunk(chunk) => {
                    let slot = state.slots.get(&chunk.at);
                    if slot.is_some_and(|slot| slot.generation == chunk.generation) {
                        return Some(Ok(chunk));
                    }
                    state.buffered = state.buffered.saturating_sub(chunk.bytes);
                    self.change.notify_one();
                }
            }
        }
    }

    /// False after a seek or another assignment.
    pub(super) fn is_wanted(&self, chunk: &Chunk) -> bool {
        let state = self.lock();
        state.slots.get(&chunk.at).is_some_and(|slot| slot.generation == chunk.generation)
    }

    /// Records before `position` were returned.
    pub(super) fn advance(&self, chunk: &Chunk, position: u64) {
        let mut state = self.lock();
        if let Some(slot) = state.slots.get_mut(&chunk.at).filter(|slot| slot.generation == chunk.generation)
        {
            slot.position = Some(position);
        }
    }

    /// A chunk was returned or dropped; there is room for another.
    pub(super) fn chunk_done(&self, chunk: &Chunk) {
        let mut state = self.lock();
        state.buffered = state.buffered.saturating_sub(chunk.bytes);
        drop(state);
        self.change.notify_one();
    }

    /// A chunk cannot be decoded. What was fetched behind it is dropped: returning it would skip the damage.
    pub(super) fn halt(&self, chunk: &Chunk, error: ClientError) {
        let mut state = self.lock();
        state.generations += 1;
        let generation = state.generations;
        let Some(slot) = state.slots.get_mut(&chunk.at).filter(|slot| slot.generation == chunk.generation)
        else {
            return;
        };
        slot.generation = generation;
        state.fail(&chunk.at, error);
    }

    /// Waits until something was added.
    pub(super) async fn arrived(&self) {
        self.arrival.notified().await;
    }

    /// Waits until the fetcher should look again.
    pub(super) async fn changed(&self) {
        self.change.notified().await;
    }

    pub(super) fn announce(&self) {
        self.arrival.notify_one();
    }

    pub(super) fn has_room(&self, state: &State) -> bool {
        state.buffered < self.prefetch_bytes
    }
}

impl State {
    /// The position that was asked for is known now.
    pub(super) fn resolved(&mut self, at: &TopicPartition, offset: u64) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.next = Next::Fetch(offset);
        let unread = self.ready.iter().any(|arrival| {
            matches!(arrival, Arrival::Chunk(chunk) if chunk.at == *at && chunk.generation == slot.generation)
        });
        // After a reset, what was fetched before it is still returned first.
        if !unread {
            slot.position = Some(offset);
        }
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        self.buffered += chunk.bytes;
        self.ready.push_back(Arrival::Chunk(chunk));
    }

    /// Stops a partition and reports why, behind what was fetched before.
    pub(super) fn fail(&mut self, at: &TopicPartition, error: ClientError) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.next = Next::Halted;
            slot.call = None;
            self.ready.push_back(Arrival::Error(error));
        }
    }
}
