//! The one writer of the WAL.
//!
//! [`WalWriter::step`] gathers what waits, encodes it, writes it with one write, makes it durable with one `fdatasync`
//! and completes it. While the device works, the next requests gather: that is all the batching there is, without a
//! timer. A thread drives it in production ([`drive_in_thread`]), a task in simulation ([`drive_in_task`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use disk::mutant::{self, Mutant};
use disk::{AlignedBuf, DiskError, DiskFile};
use tokio::time::Instant;

use super::files::{Taken, UsedFile, open_file};
use super::frame::{self, BLOCK, FRAME_HEADER, FileHeader, FrameHeader, FrameKind, GroupStart};
use super::group::{Group, Place};
use super::queue::{Done, Op, Request, Waited};
use super::recovery::Tail;
use super::{DirectMode, Shared, WalError};
use crate::checkpoint::{Checkpoint, CheckpointGroup};
use crate::entry;
use crate::layout;
use crate::observe::WalEvent;
use crate::types::LogPosition;

/// Silence after which the last write is marked as durable, so that damage in it can be told from a torn write.
const MARK_AFTER: Duration = Duration::from_millis(5);
/// Zeroed bytes at the head of a file that had to be made in a hurry.
const HURRIED_ZEROS: u64 = 1 << 20;
/// Groups listed in a `GroupStart` at most, and at most this part of a file.
const LISTED_MAX: u64 = 8192;
const LISTED_FILE_PART: u64 = 64;

/// Whether [`WalWriter::step`] may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Block the thread until there is work: for ever, or until a durable mark is due.
    Block,
    /// Do what waits and return.
    No,
    /// As `No`, and write a durable mark if nothing waits and one is owed: the caller waited the silence out.
    Mark,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing waited.
    Idle,
    /// One write went to the device.
    Wrote {
        /// Frames of groups in it.
        frames: usize,
        /// Bytes with padding.
        bytes: u64,
    },
    /// The WAL was closed and everything is written.
    Closed,
    /// The WAL has failed; no further step does anything.
    Failed,
}

struct Active {
    seq: u64,
    file: Arc<dyn DiskFile>,
    salt: u64,
    position: u64,
    length: u64,
}

/// A frame of an entry in the write that is being made.
struct Placed {
    group: Arc<Group>,
    index: u64,
    ticket: u64,
    offset: u64,
    relocated: bool,
}

/// A frame to be encoded.
struct Frame<'a> {
    kind: FrameKind,
    flags: u8,
    /// Group, index and term.
    about: [u64; 3],
    body: &'a [u8],
    /// Checksum of the body, if it is known.
    crc: Option<u32>,
}

impl<'a> Frame<'a> {
    fn new(kind: FrameKind, about: [u64; 3], body: &'a [u8]) -> Self {
        Self { kind, flags: 0, about, body, crc: None }
    }
}

/// Writes the WAL. There is one; it belongs to whoever drives it.
pub struct WalWriter {
    shared: Arc<Shared>,
    random: Box<dyn FnMut() -> u64 + Send>,
    buf: AlignedBuf,
    active: Active,
    direct: bool,
    next_lsn: u64,
    durable_lsn: u64,
    previous_first_lsn: u64,
    previous_groups: Option<BTreeSet<u64>>,
    mark_owed: bool,
    /// Groups that may have a committed hint for the next durable mark.
    touched: BTreeMap<u64, Arc<Group>>,
    /// Files before this one have no payloads in memory.
    evicted_file: u64,
    failed: bool,
    /// What the observer hears once the write that is being made is durable.
    untold: Vec<WalEvent>,
}

impl std::fmt::Debug for WalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalWriter").field("next_lsn", &self.next_lsn).finish_non_exhaustive()
    }
}

impl WalWriter {
    /// Takes over what recovery left and begins a new file: the old one is sealed where its valid frames end.
    pub(super) fn start(
        shared: &Arc<Shared>,
        tail: Tail,
        mut random: Box<dyn FnMut() -> u64 + Send>,
    ) -> Result<Self, WalError> {
        for (seq, file) in tail.files {
            shared.budget.wrote(file.bytes);
            shared.files.add_used(seq, file);
        }
        for number in tail.ready {
            shared.files.add_ready(number);
        }
        for seq in tail.unused {
            shared.files.retire(seq)?;
        }
        let direct = shared.config.direct == DirectMode::Auto;
        let (active, direct) = begin_file(shared, tail.next_seq, tail.next_lsn, direct, random())?;
        let mut writer = Self {
            shared: Arc::clone(shared),
            random,
            buf: AlignedBuf::with_capacity(256 << 10),
            active,
            direct,
            next_lsn: tail.next_lsn,
            durable_lsn: tail.next_lsn - 1,
            previous_first_lsn: 0,
            previous_groups: Some(BTreeSet::new()),
            mark_owed: false,
            touched: BTreeMap::new(),
            evicted_file: 0,
            failed: false,
            untold: Vec::new(),
        };
        writer.count_recovered();
        writer.evict();
        shared.update_levels();
        Ok(writer)
    }

    /// Gathers, writes, makes durable and completes what waits.
    pub fn step(&mut self, wait: Wait) -> Step {
        if self.failed || self.shared.failed.borrow().is_some() {
            self.failed = true;
            return Step::Failed;
        }
        let requests = match self.gather(wait) {
            Ok(requests) => requests,
            Err(step) => return step,
        };
        match self.write(&requests) {
            Ok(step) => {
                self.complete(requests);
                step
            }
            Err(error) => {
                self.failed = true;
                let failure = self.shared.fail(&error);
                for request in requests {
                    request.done.complete(Err(&failure));
                }
                Step::Failed
            }
        }
    }

    /// True while a durable mark is owed after 5 ms of silence.
    #[must_use]
    pub fn mark_owed(&self) -> bool {
        self.mark_owed
    }

    /// The requests of the next write; empty for a durable mark.
    fn gather(&mut self, wait: Wait) -> Result<Vec<Request>, Step> {
        let timeout = self.mark_owed.then_some(MARK_AFTER);
        let waited = match wait {
            Wait::Block => self.shared.queue.wait(timeout),
            Wait::No | Wait::Mark => self.shared.queue.wait(Some(Duration::ZERO)),
        };
        match waited {
            Waited::Work => Ok(self.take()),
            Waited::Closed if self.mark_owed => Ok(Vec::new()),
            Waited::Closed => Err(Step::Closed),
            Waited::Timeout if self.mark_owed && wait != Wait::No => Ok(Vec::new()),
            Waited::Timeout => Err(Step::Idle),
        }
    }

    fn take(&self) -> Vec<Request> {
        let most = self.shared.config.gather_max();
        let mut bytes = 0;
        let mut after_snapshot = false;
        self.shared.queue.take_while(|request| {
            let cost = request.op.cost();
            // A snapshot ends the write: it must see the places of all that stands before it, and nothing behind it.
            let take = !after_snapshot && (bytes == 0 || bytes + cost <= most);
            bytes += cost;
            after_snapshot = matches!(request.op, Op::Snapshot { .. });
            take
        })
    }

    fn write(&mut self, requests: &[Request]) -> Result<Step, DiskError> {
        if requests.iter().all(|request| matches!(request.op, Op::Snapshot { .. })) && !requests.is_empty() {
            return Ok(Step::Idle);
        }
        let first_lsn = self.next_lsn;
        self.buf.clear();
        self.put_group_start();
        let mut placed = Vec::with_capacity(requests.len());
        let mut groups = BTreeSet::new();
        for request in requests {
            self.put_op(&request.op, &mut placed, &mut groups);
        }
        if requests.is_empty() {
            self.put_owed_hints(&mut groups);
        }
        let frames = usize::try_from(self.next_lsn - first_lsn).unwrap_or(usize::MAX) - 1;
        self.put_pad();
        // Everything before this write is durable already, so the next file may begin now.
        let salt_of_frames = self.active.salt;
        if self.active.position + self.buf.len() as u64 > self.active.length {
            self.rotate(first_lsn)?;
            self.seal_again(salt_of_frames);
        }
        self.write_out()?;
        self.tell();
        self.set_places(placed);
        self.remember(first_lsn, groups, requests.is_empty());
        if !requests.is_empty() {
            let frames = u32::try_from(frames).unwrap_or(u32::MAX);
            self.shared.metrics.frames_per_write.observe(f64::from(frames));
        }
        Ok(Step::Wrote { frames, bytes: self.buf.len() as u64 })
    }

    fn write_out(&mut self) -> Result<(), DiskError> {
        let bytes = self.buf.len() as u64;
        if mutant::on(Mutant::AckBeforeFsync) {
            self.active.file.sync_data()?;
        }
        self.active.file.write_at(self.buf.as_slice(), self.active.position)?;
        if self.shared.config.fsync {
            let begun = Instant::now();
            self.sync()?;
            self.shared.metrics.sync_seconds.observe(begun.elapsed().as_secs_f64());
            self.durable_lsn = self.next_lsn - 1;
        }
        self.active.position += bytes;
        self.shared.files.wrote(self.active.seq, bytes);
        self.shared.budget.wrote(bytes);
        let metrics = &self.shared.metrics;
        metrics.writes.inc();
        metrics.written_bytes.inc_by(bytes);
        metrics.outstanding_bytes.set(self.shared.budget.outstanding());
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let every_64th = self.shared.metrics.writes.get() % 64 == 63;
        if mutant::on(Mutant::AckBeforeFsync) || (mutant::on(Mutant::SkipFsync) && every_64th) {
            return Ok(());
        }
        let synced = self.active.file.sync_data();
        if mutant::on(Mutant::FsyncErrorRetried) && synced.is_err() {
            return self.active.file.sync_data();
        }
        synced
    }

    fn remember(&mut self, first_lsn: u64, groups: BTreeSet<u64>, was_mark: bool) {
        self.previous_first_lsn = first_lsn;
        let most = LISTED_MAX.min(self.shared.config.file_bytes / LISTED_FILE_PART / 8);
        self.previous_groups = (groups.len() as u64 <= most).then_some(groups);
        self.mark_owed = !was_mark && self.shared.config.fsync;
    }

    fn put_group_start(&mut self) {
        let start = GroupStart {
            durable_lsn: self.durable_lsn,
            previous_first_lsn: self.previous_first_lsn,
            previous_groups: self.previous_groups.as_ref().map(|groups| groups.iter().copied().collect()),
        };
        let mut body = Vec::new();
        start.encode(&mut body);
        self.put(Frame::new(FrameKind::GroupStart, [0; 3], &body));
    }

    fn put_op(&mut self, op: &Op, placed: &mut Vec<Placed>, groups: &mut BTreeSet<u64>) {
        match op {
            Op::Entry { group, index, term, kind, ticket, body, crc, relocated } => {
                if *relocated && group.lock().slot(*index).is_none_or(|slot| slot.ticket != *ticket) {
                    // Truncated or purged since: written now, it would come back from the dead at the next start.
                    return;
                }
                self.put_hint(group, groups);
                let offset = self.buf.len() as u64;
                let flags = frame::entry_flags(*kind, *relocated);
                let about = [group.group, *index, *term];
                self.put(Frame { kind: FrameKind::Entry, flags, about, body, crc: Some(*crc) });
                self.owe(|| WalEvent::EntryDurable {
                    of: group.of(),
                    position: LogPosition { term: *term, index: *index },
                    digest: entry::digest(*kind, *crc),
                    // Known once the write has its file.
                    file: 0,
                    relocated: *relocated,
                });
                placed.push(Placed {
                    group: Arc::clone(group),
                    index: *index,
                    ticket: *ticket,
                    offset,
                    relocated: *relocated,
                });
                self.touch(group, groups);
            }
            Op::Vote { .. } if mutant::on(Mutant::VoteNotPersisted) => {}
            Op::Vote { group, vote } => {
                let mut body = Vec::with_capacity(entry::VOTE_LEN);
                entry::encode_vote(vote, &mut body);
                self.put(Frame::new(FrameKind::Vote, [group.group, 0, vote.leader_id.term], &body));
                self.owe(|| WalEvent::VoteDurable { of: group.of(), vote: *vote });
                self.touch(group, groups);
            }
            Op::Truncate { .. } if mutant::on(Mutant::TruncateNotPersisted) => {}
            Op::Truncate { group, from } => {
                self.put(Frame::new(FrameKind::Truncate, [group.group, *from, 0], &[]));
                self.owe(|| WalEvent::TruncateDurable { of: group.of(), from: *from });
                self.touch(group, groups);
            }
            Op::Purge { group, upto } => {
                self.put(Frame::new(FrameKind::Purge, [group.group, upto.index, upto.term], &[]));
                self.touch(group, groups);
            }
            Op::Create { group } => {
                let lsn = self.next_lsn;
                let mut body = group.replica.to_le_bytes().to_vec();
                body.extend_from_slice(group.topic.as_bytes());
                body.extend_from_slice(&group.partition.to_le_bytes());
                self.put(Frame::new(FrameKind::GroupCreate, [group.group, 0, 0], &body));
                group.lock().created_lsn = lsn;
                self.owe(|| WalEvent::Created { of: group.of() });
                self.touch(group, groups);
            }
            Op::Delete { group } => {
                let body = group.replica.to_le_bytes();
                self.put(Frame::new(FrameKind::GroupDelete, [group.group, 0, 0], &body));
                self.owe(|| WalEvent::Deleted { of: group.of() });
                groups.insert(group.group);
                self.touched.remove(&group.group);
            }
            Op::Snapshot { .. } => {}
        }
    }

    fn touch(&mut self, group: &Arc<Group>, groups: &mut BTreeSet<u64>) {
        if groups.insert(group.group) {
            self.touched.insert(group.group, Arc::clone(group));
        }
    }

    /// Writes the group's committed position if it is newer than what the WAL says.
    fn put_hint(&mut self, group: &Arc<Group>, groups: &mut BTreeSet<u64>) {
        let committed = {
            let mut state = group.lock();
            if !state.hint_owed || state.deleted {
                return;
            }
            state.hint_owed = false;
            state.committed
        };
        if let Some(upto) = committed {
            let about = [group.group, upto.index, upto.term];
            self.put(Frame::new(FrameKind::Committed, about, &[]));
            self.owe(|| WalEvent::CommittedDurable { of: group.of(), upto });
            groups.insert(group.group);
        }
    }

    /// Notes what the observer is told once it is durable.
    fn owe(&mut self, event: impl FnOnce() -> WalEvent) {
        // Without fsync nothing is ever known to be durable.
        if self.shared.config.observer.listens() && self.shared.config.fsync {
            self.untold.push(event());
        }
    }

    /// Tells the observer what has just become durable.
    fn tell(&mut self) {
        for mut event in self.untold.drain(..) {
            if let WalEvent::EntryDurable { file, .. } = &mut event {
                *file = self.active.seq;
            }
            self.shared.note(|| event);
        }
    }

    fn put_owed_hints(&mut self, groups: &mut BTreeSet<u64>) {
        for group in std::mem::take(&mut self.touched).into_values() {
            self.put_hint(&group, groups);
        }
    }

    /// Appends one frame.
    fn put(&mut self, frame: Frame<'_>) {
        let Frame { kind, flags, about: [group, index, term], body, crc } = frame;
        // Bodies are bounded by half a file where they enter.
        let body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let body_crc = crc.unwrap_or_else(|| crc32c::crc32c(body));
        let header = FrameHeader { body_len, kind, flags, lsn: self.next_lsn, group, index, term, body_crc };
        self.next_lsn += 1;
        self.buf.extend_from_slice(&header.encode(self.active.salt));
        self.buf.extend_from_slice(body);
        self.buf.pad_to(8);
    }

    fn put_pad(&mut self) {
        let rest = BLOCK - self.buf.len() % BLOCK;
        let room = match rest {
            BLOCK => return,
            rest if rest < FRAME_HEADER => rest + BLOCK,
            rest => rest,
        };
        let zeros = vec![0; room - FRAME_HEADER];
        self.put(Frame::new(FrameKind::Pad, [0; 3], &zeros));
    }

    fn rotate(&mut self, first_lsn: u64) -> Result<(), DiskError> {
        let salt = (self.random)();
        let (active, direct) = begin_file(&self.shared, self.active.seq + 1, first_lsn, self.direct, salt)?;
        self.active = active;
        self.direct = direct;
        self.shared.make_files();
        self.shared.update_levels();
        self.evict();
        Ok(())
    }

    /// Gives the frames in the buffer the salt of the file that they go to after all.
    fn seal_again(&mut self, old_salt: u64) {
        let salt = self.active.salt;
        let mut rest = self.buf.as_mut_slice();
        while let Some(bytes) = rest.first_chunk_mut::<FRAME_HEADER>() {
            let Some(header) = FrameHeader::decode(bytes, old_salt) else { break };
            *bytes = header.encode(salt);
            let Some((_, after)) = rest.split_at_mut_checked(header.total_len()) else { break };
            rest = after;
        }
    }

    fn set_places(&self, placed: Vec<Placed>) {
        self.shared.metrics.entries.inc_by(placed.len() as u64);
        let base = self.active.position - self.buf.len() as u64;
        for Placed { group, index, ticket, offset, relocated } in placed {
            let mut state = group.lock();
            let Some(slot) = state.slot_mut(index).filter(|slot| slot.ticket == ticket) else { continue };
            slot.place = Some(Place { file: self.active.seq, offset: base + offset });
            state.scattered |= relocated;
        }
    }

    /// Drops payloads of the oldest files while they take more memory than allowed.
    fn evict(&mut self) {
        let limit = self.shared.config.tail_cache_bytes;
        self.evicted_file = self.evicted_file.max(self.shared.files.oldest().unwrap_or(0));
        while self.shared.cached.load(Ordering::Relaxed) > limit && self.evicted_file < self.active.seq {
            let groups: Vec<_> = self.shared.lock_groups().values().cloned().collect();
            let freed = groups.iter().map(|group| group.lock().evict(self.evicted_file)).sum();
            self.shared.uncache(freed);
            self.evicted_file += 1;
        }
    }

    fn count_recovered(&self) {
        let groups = self.shared.lock_groups();
        let cached = groups.values().map(|group| group.lock().cached_bytes()).sum();
        self.shared.cached.store(cached, Ordering::Relaxed);
        self.shared.metrics.cached_bytes.set(cached);
    }

    /// Completes requests in the order in which they came. Of the appends of one group only the newest is told: openraft
    /// takes the newest completed write as a watermark.
    fn complete(&self, requests: Vec<Request>) {
        let mut newest = BTreeMap::new();
        for (at, request) in requests.iter().enumerate() {
            if let Done::Append { group, coalesce: true, .. } = &request.done {
                newest.insert(*group, at);
            }
        }
        for (at, request) in requests.into_iter().enumerate() {
            match (request.op, request.done) {
                (Op::Snapshot { id, reply }, _) => {
                    let _ = reply.send(self.snapshot(id));
                }
                (_, Done::Append { group, coalesce: true, tokens, .. })
                    if newest.get(&group) != Some(&at) =>
                {
                    for (position, token) in tokens {
                        token.fire(position);
                    }
                }
                (_, done) => done.complete(Ok(())),
            }
        }
    }

    /// What a checkpoint at the present LSN says.
    fn snapshot(&self, id: u64) -> Checkpoint {
        let mut floor_file = self.active.seq;
        let mut groups = BTreeMap::new();
        for group in self.shared.lock_groups().values() {
            let mut state = group.lock();
            // A group whose creation is still in the queue is not part of this LSN.
            if state.created_lsn == 0 {
                continue;
            }
            floor_file = floor_file.min(state.oldest_file().unwrap_or(floor_file));
            groups.insert(
                group.group,
                CheckpointGroup {
                    group: group.group,
                    replica: group.replica,
                    topic: group.topic,
                    partition: group.partition,
                    created_lsn: state.created_lsn,
                    vote: state.vote,
                    purged: state.purged,
                    committed: state.committed,
                    mark: state.mark,
                    damaged: state.damaged,
                },
            );
        }
        let floor_lsn = self.shared.files.first_lsn(floor_file).unwrap_or(0);
        Checkpoint { id, lsn: self.next_lsn - 1, floor_file, floor_lsn, groups }
    }
}

impl Op {
    /// Bytes that the request takes in a write, about: with its header, and with a hint before it.
    fn cost(&self) -> u64 {
        let body = match self {
            Self::Entry { body, .. } => frame::frame_len(body.len()) + FRAME_HEADER,
            Self::Snapshot { .. } => 0,
            _ => 2 * FRAME_HEADER,
        };
        body as u64
    }
}

/// Begins a file: its header and its name are durable when this returns.
///
/// The header is durable before the file gets its name, so a named file without a readable header is damage and never
/// the trace of a crash.
fn begin_file(
    shared: &Arc<Shared>,
    seq: u64,
    first_lsn: u64,
    direct: bool,
    salt: u64,
) -> Result<(Active, bool), DiskError> {
    let taken = shared.files.take_ready();
    let (Taken::Ready(number) | Taken::Hurried(number)) = taken;
    let path = layout::recycle_file(&shared.root, number);
    let (file, direct) = open_file(shared.disk.as_ref(), &path, direct)?;
    if matches!(taken, Taken::Hurried(_)) {
        file.zero(0, HURRIED_ZEROS.min(shared.config.file_bytes))?;
    }
    let header = FileHeader { direct, seq, salt, first_lsn, previous_last_lsn: first_lsn - 1 };
    let mut block = AlignedBuf::with_capacity(BLOCK);
    block.extend_from_slice(&header.encode());
    file.write_at(block.as_slice(), 0)?;
    if shared.config.fsync {
        file.sync_data()?;
    }
    shared.disk.rename(&path, &layout::wal_file(&shared.root, seq))?;
    shared.disk.sync_dir(&layout::wal_dir(&shared.root))?;
    let position = BLOCK as u64;
    shared.files.add_used(seq, UsedFile::new(first_lsn, position));
    shared.budget.wrote(position);
    Ok((Active { seq, file, salt, position, length: shared.config.file_bytes }, direct))
}

/// Drives the writer until the WAL is closed or fails, in a thread of its own.
///
/// # Errors
/// If the operating system gives no thread.
pub fn drive_in_thread(mut writer: WalWriter) -> std::io::Result<WalThread> {
    let shared = Arc::clone(&writer.shared);
    let thread = std::thread::Builder::new().name("wal".into()).spawn(move || {
        let _guard = FailOnPanic(Arc::clone(&writer.shared));
        while !matches!(writer.step(Wait::Block), Step::Closed | Step::Failed) {}
    })?;
    Ok(WalThread { shared, thread: Some(thread) })
}

/// Drives the writer until the WAL is closed or fails, in the calling task. Each step goes through the WAL's `Io`, so
/// that a simulation decides how long the device takes; meanwhile requests gather as they do before a real one.
pub async fn drive_in_task(mut writer: WalWriter) {
    loop {
        let timeout = writer.mark_owed().then_some(MARK_AFTER);
        let shared = Arc::clone(&writer.shared);
        let wait = match shared.queue.wait_async(timeout).await {
            Waited::Timeout => Wait::Mark,
            Waited::Work | Waited::Closed => Wait::No,
        };
        let (returned, step) = shared
            .io
            .run(move || {
                let step = writer.step(wait);
                (writer, step)
            })
            .await;
        if matches!(step, Step::Closed | Step::Failed) {
            return;
        }
        writer = returned;
    }
}

/// Nobody may wait for a writer that panicked.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&WalError::Failed { reason: "the writer panicked".to_owned() });
        }
    }
}

/// The thread that drives the writer.
pub struct WalThread {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for WalThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WalThread")
    }
}

impl WalThread {
    /// Closes the WAL and waits until what was submitted is written. Blocks.
    pub fn close(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.shared.queue.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the WAL thread panicked");
        }
    }
}

impl Drop for WalThread {
    fn drop(&mut self) {
        self.join();
    }
}
