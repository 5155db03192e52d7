//! One group's log as openraft sees it.
//!
//! Appends and votes go to the shared WAL in one order; reads come from memory, or from the WAL's files for entries that
//! had to leave memory. Handles are cheap to clone and share their group.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use disk::mutant::{self, Mutant};
use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use crate::entry;
use crate::observe::{GroupReplica, WalEvent};
use crate::types::{DurableToken, Entry, LogId, LogPosition, Payload, StoreConfig, Vote};
use crate::wal::group::{Group, Slot, body_of};
use crate::wal::queue::{Callback, Done, Op, Request};
use crate::wal::{Shared, WalError};

/// Bytes of entries that one read for replication or apply returns, about.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The log of one group: openraft's log storage and log reader.
pub struct GroupLog<C> {
    shared: Arc<Shared>,
    group: Arc<Group>,
    config: PhantomData<fn() -> C>,
}

impl<C> Clone for GroupLog<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), group: Arc::clone(&self.group), config: PhantomData }
    }
}

impl<C> Debug for GroupLog<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupLog").field("group", &self.group.group).finish_non_exhaustive()
    }
}

/// An entry on its way into the log.
struct Incoming {
    position: LogPosition,
    payload: Payload,
    kind: u8,
    body: Bytes,
    crc: u32,
    ticket: u64,
}

impl Incoming {
    /// What an observer is told of it.
    fn appended(&self, of: GroupReplica) -> WalEvent {
        let voters = match &self.payload {
            Payload::Membership(membership) => Some(membership.get_joint_config().clone()),
            Payload::Blank | Payload::Normal(_) => None,
        };
        let digest = entry::digest(self.kind, self.crc);
        WalEvent::Appended { of, position: self.position, digest, voters }
    }
}

impl<C> GroupLog<C> {
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>) -> Self {
        Self { shared, group, config: PhantomData }
    }

    /// Group of this log.
    #[must_use]
    pub fn group(&self) -> u64 {
        self.group.group
    }

    /// Replica of this log.
    #[must_use]
    pub fn replica(&self) -> u64 {
        self.group.replica
    }

    /// Appends entries. They can be read when this returns; `done` is told when they are durable.
    fn append_entries(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        done: (bool, Callback),
    ) -> Result<(), WalError> {
        let (coalesce, callback) = done;
        let mut tokens = Vec::new();
        let prepared = self.prepare(entries, &mut tokens).and_then(|incoming| {
            self.push_slots(&incoming)?;
            Ok(incoming)
        });
        let incoming = match prepared {
            Ok(incoming) => incoming,
            Err(error) => {
                callback(Err(io::Error::other(error.to_string())));
                return Err(error);
            }
        };
        if incoming.is_empty() {
            callback(Ok(()));
            return Ok(());
        }
        let last = incoming.len() - 1;
        let mut done = Some(Done::Append { group: self.group.group, coalesce, callback, tokens });
        let requests = incoming.into_iter().enumerate().map(|(at, entry)| Request {
            op: Op::Entry {
                group: Arc::clone(&self.group),
                index: entry.position.index,
                term: entry.position.term,
                kind: entry.kind,
                ticket: entry.ticket,
                body: entry.body,
                crc: entry.crc,
                relocated: false,
            },
            done: if at == last { done.take().unwrap_or(Done::Nobody) } else { Done::Nobody },
        });
        self.shared.queue.push(requests)
    }

    /// Encodes entries. The checksum is made here, on the group's own thread, and not by the one WAL writer.
    fn prepare(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        tokens: &mut Vec<(LogPosition, Arc<DurableToken>)>,
    ) -> Result<Vec<Incoming>, WalError> {
        let max = self.shared.config.body_max();
        let mut incoming = Vec::new();
        for entry in entries {
            let position = LogPosition::of(&entry.log_id);
            let mut payload = entry.payload;
            if let Payload::Normal(data) = &mut payload {
                // The token is not part of the entry: readers of the log must not see it.
                tokens.extend(data.durable.take().map(|token| (position, token)));
            }
            let (kind, body) = body_of(&payload);
            if body.len() as u64 > max {
                return Err(WalError::EntryTooLarge { bytes: body.len() as u64, max });
            }
            let crc = crc32c::crc32c(&body);
            incoming.push(Incoming { position, payload, kind, body, crc, ticket: self.shared.ticket() });
        }
        Ok(incoming)
    }

    fn push_slots(&self, incoming: &[Incoming]) -> Result<(), WalError> {
        let group = self.group.group;
        let mut cached = 0;
        let mut state = self.group.lock();
        if state.deleted {
            return Err(WalError::UnknownGroup { group });
        }
        let mut expected = state.next_index();
        for entry in incoming {
            let index = entry.position.index;
            if let Some(next) = expected.filter(|next| *next != index) {
                return Err(WalError::Gap { group, index, next });
            }
            expected = Some(index.saturating_add(1));
        }
        for entry in incoming {
            let slot = Slot {
                term: entry.position.term,
                ticket: entry.ticket,
                place: None,
                payload: Some(entry.payload.clone()),
                kind: entry.kind,
                body_len: u32::try_from(entry.body.len()).unwrap_or(u32::MAX),
                body_crc: entry.crc,
            };
            cached += slot.cost();
            state.push(entry.position.index, slot);
        }
        drop(state);
        for entry in incoming {
            self.shared.note(|| entry.appended(self.group.of()));
        }
        let total = self.shared.cached.fetch_add(cached, Ordering::Relaxed) + cached;
        self.shared.metrics.cached_bytes.set(total);
        Ok(())
    }

    fn submit(&self, op: Op) -> Result<(), WalError> {
        self.shared.queue.push([Request { op, done: Done::Nobody }])
    }

    async fn read_range(&self, start: u64, end: u64, max_bytes: u64) -> Result<Vec<Entry>, WalError> {
        self.shared.read(&self.group, start, end, max_bytes).await
    }

    async fn set_vote(&self, vote: Vote) -> Result<(), WalError> {
        {
            let mut state = self.group.lock();
            if state.deleted {
                return Err(WalError::UnknownGroup { group: self.group.group });
            }
            state.vote = Some(vote);
        }
        self.shared.note(|| WalEvent::Vote { of: self.group.of(), vote });
        self.shared.submit_and_wait(Op::Vote { group: Arc::clone(&self.group), vote }).await
    }

    fn truncate_from(&self, from: u64) -> Result<(), WalError> {
        let freed = self.group.lock().truncate(from);
        self.shared.uncache(freed);
        self.shared.note(|| WalEvent::Truncated { of: self.group.of(), from });
        self.submit(Op::Truncate { group: Arc::clone(&self.group), from })
    }

    fn purge_upto(&self, mut upto: LogPosition) -> Result<(), WalError> {
        if mutant::on(Mutant::PurgeOneTooFar)
            && let Some(slot) = self.group.lock().slot(upto.index + 1)
        {
            upto = LogPosition { term: slot.term, index: upto.index + 1 };
        }
        let freed = self.group.lock().purge(upto);
        self.shared.uncache(freed);
        self.shared.note(|| WalEvent::Purged { of: self.group.of(), upto });
        self.submit(Op::Purge { group: Arc::clone(&self.group), upto })
    }

    /// The last log id of each term in the range.
    ///
    /// That is what openraft's own search gives in the pinned version; its documentation still tells of the first.
    fn key_log_ids(&self, first: u64, last: u64) -> Result<Vec<LogId>, WalError> {
        let state = self.group.lock();
        let mut keys = Vec::new();
        let mut previous: Option<LogPosition> = None;
        for index in first..=last {
            let missing = WalError::Missing { group: self.group.group, index };
            let term = state.slot(index).ok_or(missing)?.term;
            keys.extend(previous.filter(|previous| previous.term != term).map(LogPosition::log_id));
            previous = Some(LogPosition { term, index });
        }
        keys.extend(previous.map(LogPosition::log_id));
        Ok(keys)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl<C: StoreConfig> RaftLogReader<C> for GroupLog<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        Ok(self.read_range(start, end, u64::MAX).await?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let entries = self.read_range(start, end, READ_BYTES_MAX).await?;
        // An empty answer would make openraft wait and beat, a later beginning would make a hole in a follower's log.
        if entries.first().is_none_or(|first| first.log_id.index != start) {
            return Err(WalError::Missing { group: self.group.group, index: start }.into());
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        // Piece by piece: the entries to apply after a restart may be more than fits in memory.
        let pieces = futures::stream::try_unfold((self.clone(), start), move |(log, next)| async move {
            if next >= end {
                return Ok::<_, io::Error>(None);
            }
            let entries = log.read_range(next, end, READ_BYTES_MAX).await?;
            let Some(last) = entries.last() else { return Ok(None) };
            let after = last.log_id.index.saturating_add(1);
            Ok(Some((futures::stream::iter(entries.into_iter().map(Ok)), (log, after))))
        });
        Box::pin(futures::TryStreamExt::try_flatten(pieces))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.group.lock().vote)
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> Result<Vec<LogId>, io::Error> {
        Ok(self.key_log_ids(range.start().index, range.end().index)?)
    }
}

impl<C: StoreConfig> RaftLogStorage<C> for GroupLog<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let state = self.group.lock();
        Ok(LogState {
            last_purged_log_id: state.purged.map(LogPosition::log_id),
            last_log_id: state.last().map(LogPosition::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.set_vote(*vote).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(mut committed) = committed.as_ref().map(LogPosition::of) else { return Ok(()) };
        let mut state = self.group.lock();
        if mutant::on(Mutant::CommittedTooFar) {
            committed = state.last().unwrap_or(committed);
        }
        state.hint_owed = state.committed != Some(committed);
        state.committed = Some(committed);
        drop(state);
        self.shared.note(|| WalEvent::Committed { of: self.group.of(), upto: committed });
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.group.lock().committed.map(LogPosition::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // A notification is a watermark, of which the newest is enough; anything else has its own waiter.
        let coalesce = matches!(callback, IOFlushed::Notify(_));
        let callback: Callback = Box::new(move |result| callback.io_completed(result));
        Ok(self.append_entries(entries, (coalesce, callback))?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        Ok(self.truncate_from(from)?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Ok(self.purge_upto(LogPosition::of(&log_id))?)
    }
}
