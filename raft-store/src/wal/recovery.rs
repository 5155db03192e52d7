//! What a data directory's WAL holds after a start.
//!
//! The newest valid checkpoint is the base; every frame of the retained files is replayed over it in order of its LSN.
//! A frame that fails its check is one of two things:
//!
//! - **A torn tail**: the last write did not land whole. Nobody was told of it; the log is cut there.
//! - **Damage**: a later write, or a later file, proves that the frame was on disk once. Then something was lost that
//!   may have been acknowledged. The groups that lost it are marked as damaged (they must come back as new replicas,
//!   I4), everybody else goes on.
//!
//! The proof is the `durable_lsn` of a later `GroupStart`, or that a later file begins with a higher LSN: a file is begun
//! only when all before it is durable. Whose frames were lost is told by the frame's own header if that holds or can be
//! mended, else by the list of groups in the next `GroupStart`; where that is missing too, all groups are marked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use disk::mutant::{self, Mutant};
use disk::{Disk, DiskError, OpenOptions};
use uuid::Uuid;

use super::files::UsedFile;
use super::frame::{BLOCK, FileHeader, FrameHeader, FrameKind, GroupStart};
use super::group::{Group, GroupState, Place, Slot};
use super::scan::{Candidate, FileImage};
use super::{KeptCheckpoints, WalConfig, WalError};
use crate::checkpoint::{Checkpoint, CheckpointGroup, GroupMark};
use crate::entry;
use crate::layout;
use crate::types::{LogPosition, Vote};

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Every group that has a log here.
    pub groups: BTreeMap<u64, RecoveredGroup>,
    /// What happened on the way.
    pub report: RecoveryReport,
}

/// One group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Group.
    pub group: u64,
    /// Replica; 0 if the frame that created the group was lost.
    pub replica: u64,
    /// Topic; nil for the metadata group.
    pub topic: Uuid,
    /// Partition of the topic.
    pub partition: u32,
    /// What its own files hold durably: replay begins after it.
    pub mark: Option<GroupMark>,
    /// It lost frames that were durable: the replica must not take part again, and be replaced (I4).
    pub damaged: bool,
    /// Last entry, or last purged one.
    pub last: Option<LogPosition>,
    /// Last purged entry.
    pub purged: Option<LogPosition>,
    /// Last entry known to be committed.
    pub committed: Option<LogPosition>,
    /// Last vote; an own vote that was committed counts as a candidate's again (I9).
    pub vote: Option<Vote>,
}

/// What recovery did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Id of the checkpoint it began from.
    pub checkpoint: Option<u64>,
    /// Checkpoint files that were damaged and set aside.
    pub damaged_checkpoints: usize,
    /// WAL files read.
    pub files: usize,
    /// Frames replayed.
    pub frames: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The last write was not whole and was cut off.
    pub torn_tail: bool,
    /// Frames whose header had one flipped bit and was mended.
    pub mended_frames: u64,
    /// LSN ranges `[from, to)` that were durable and are lost.
    pub lost: Vec<(u64, u64)>,
    /// Groups that are marked as damaged.
    pub damaged_groups: Vec<u64>,
}

impl Recovery {
    pub(super) fn of(groups: &BTreeMap<u64, Arc<Group>>, report: RecoveryReport) -> Self {
        let recovered = |group: &Arc<Group>| {
            let state = group.lock();
            RecoveredGroup {
                group: group.group,
                replica: group.replica,
                topic: group.topic,
                partition: group.partition,
                mark: state.mark,
                damaged: state.damaged,
                last: state.last(),
                purged: state.purged,
                committed: state.committed,
                vote: state.vote,
            }
        };
        Self { groups: groups.iter().map(|(id, group)| (*id, recovered(group))).collect(), report }
    }
}

/// Where the writer goes on.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) files: Vec<(u64, UsedFile)>,
    pub(super) ready: Vec<u64>,
    pub(super) unused: Vec<u64>,
    pub(super) next_seq: u64,
    pub(super) next_lsn: u64,
}

/// Everything that [`recover`] found.
pub(super) struct Recovered {
    pub(super) groups: BTreeMap<u64, Arc<Group>>,
    pub(super) checkpoints: KeptCheckpoints,
    pub(super) tail: Tail,
    pub(super) next_ticket: u64,
    pub(super) report: RecoveryReport,
}

/// Reads checkpoints and WAL files of a data directory.
pub(super) fn recover(disk: &Arc<dyn Disk>, root: &Path, config: &WalConfig) -> Result<Recovered, WalError> {
    let mut report = RecoveryReport::default();
    for directory in [layout::wal_dir(root), layout::checkpoint_dir(root)] {
        disk.create_dir_all(&directory)?;
    }
    // What is believed from here on must outlive a power cut: a process that was killed may have left names that it had
    // not synced, which its successor sees all the same.
    for directory in [layout::wal_dir(root), layout::checkpoint_dir(root), root.to_path_buf()] {
        disk.sync_dir(&directory)?;
    }
    let checkpoints = load_checkpoints(&**disk, root, &mut report)?;
    let base = checkpoints.kept.last();
    report.checkpoint = base.map(|base| base.id);
    let mut tail = list_files(&**disk, root, config)?;
    let seqs = std::mem::take(&mut tail.files);
    let floor = base.map_or(0, |base| oldest_needed(&checkpoints, base));
    let (needed, stale): (Vec<_>, Vec<_>) =
        seqs.into_iter().map(|(seq, _)| seq).partition(|seq| *seq >= floor);
    tail.unused.extend(stale);
    tail.next_seq = needed.last().map_or(floor.max(1), |last| last.saturating_add(1));
    let mut replay = Replay::new(base, config, report);
    let headers = read_headers(disk, root, &needed)?;
    replay.begin(base, &headers)?;
    let mut buffer = Vec::new();
    for (at, (seq, header)) in headers.iter().enumerate() {
        let next_first =
            headers[at + 1..].iter().find_map(|(_, header)| header.map(|header| header.first_lsn));
        let file = disk.open(&layout::wal_file(root, *seq), OpenOptions::default())?;
        let mut image = FileImage::new(file, std::mem::take(&mut buffer))?;
        let (first, bytes) = match header {
            Some(header) => {
                replay.jump_to(header.first_lsn);
                (header.first_lsn, replay.file(&mut image, *header, next_first)?)
            }
            None => {
                replay.lost_file(next_first);
                replay.last_write = image.length() as u64;
                (replay.expected, image.length())
            }
        };
        replay.report.files += 1;
        replay.report.bytes += bytes as u64;
        tail.files.push((*seq, UsedFile::new(first, bytes as u64)));
        buffer = image.into_buffer();
    }
    if let Some((seq, UsedFile { bytes, .. })) = tail.files.last().filter(|_| config.fsync) {
        settle_last_write(&**disk, root, *seq, replay.last_write..*bytes)?;
    }
    tail.next_lsn = replay.expected;
    let (groups, next_ticket, report) = replay.finish();
    Ok(Recovered { groups, checkpoints, tail, next_ticket, report })
}

/// Makes the last write of the newest file durable, which nothing proves to be so: its process may have been killed
/// between the write and the fsync, or the fsync failed and left pages in the cache that count as clean. What recovery
/// hands out as durable must not go with the next loss of power, so the bytes are written again and synced.
///
/// The same bytes over themselves: however this ends, the log is no worse than before.
fn settle_last_write(disk: &dyn Disk, root: &Path, seq: u64, bytes: Range<u64>) -> Result<(), DiskError> {
    let options = OpenOptions { write: true, ..OpenOptions::default() };
    let file = disk.open(&layout::wal_file(root, seq), options)?;
    let length = usize::try_from(bytes.end.saturating_sub(bytes.start)).unwrap_or(usize::MAX);
    let mut write = vec![0; length];
    file.read_exact_at(&mut write, bytes.start)?;
    file.write_at(&write, bytes.start)?;
    file.sync_data()
}

/// Files before this one are needed by no kept checkpoint.
fn oldest_needed(checkpoints: &KeptCheckpoints, base: &Checkpoint) -> u64 {
    checkpoints.kept.iter().map(|checkpoint| checkpoint.floor_file).min().unwrap_or(base.floor_file)
}

fn load_checkpoints(
    disk: &dyn Disk,
    root: &Path,
    report: &mut RecoveryReport,
) -> Result<KeptCheckpoints, WalError> {
    let mut kept = KeptCheckpoints { kept: Vec::new(), next_id: 1 };
    for item in disk.list(&layout::checkpoint_dir(root))? {
        let Some(id) = layout::parse_checkpoint_name(&item.name).filter(|_| !item.is_dir) else { continue };
        kept.next_id = kept.next_id.max(id.saturating_add(1));
        match Checkpoint::load(disk, root, id) {
            Some(checkpoint) => kept.kept.push(checkpoint),
            None => {
                report.damaged_checkpoints += 1;
                tracing::error!(checkpoint = id, "checkpoint is damaged and set aside");
                let aside = layout::quarantine_dir(root);
                disk.create_dir_all(&aside)?;
                disk.rename(&layout::checkpoint_file(root, id), &aside.join(&item.name))?;
            }
        }
    }
    // Names are sorted, so the newest stand last. A crash between a new checkpoint and the removal of the third leaves three.
    let surplus = kept.kept.len().saturating_sub(2);
    for old in kept.kept.drain(..surplus) {
        disk.remove(&layout::checkpoint_file(root, old.id))?;
    }
    Ok(kept)
}

fn list_files(disk: &dyn Disk, root: &Path, config: &WalConfig) -> Result<Tail, WalError> {
    let mut tail = Tail::default();
    for item in disk.list(&layout::wal_dir(root))? {
        if item.is_dir {
            continue;
        }
        if let Some(seq) = layout::parse_wal_name(&item.name) {
            tail.files.push((seq, UsedFile::new(0, 0)));
        } else if let Some(number) = layout::parse_recycle_name(&item.name) {
            if item.len == config.file_bytes && tail.ready.len() < config.pool_files {
                tail.ready.push(number);
            } else {
                // Of another configuration, or half made when the broker stopped.
                disk.remove(&layout::wal_dir(root).join(&item.name))?;
            }
        }
    }
    tail.files.sort_by_key(|(seq, _)| *seq);
    Ok(tail)
}

fn read_headers(
    disk: &Arc<dyn Disk>,
    root: &Path,
    seqs: &[u64],
) -> Result<Vec<(u64, Option<FileHeader>)>, WalError> {
    let mut headers = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let file = disk.open(&layout::wal_file(root, *seq), OpenOptions::default())?;
        let mut block = vec![0; BLOCK];
        let read = file.read_at(&mut block, 0)?;
        let header = FileHeader::decode(block.get(..read).unwrap_or(&[]));
        headers.push((*seq, header.filter(|header| header.seq == *seq)));
    }
    Ok(headers)
}

/// One group while frames are replayed.
struct GroupReplay {
    base: CheckpointGroup,
    slots: BTreeMap<u64, Slot>,
    /// Entries that were durable and cannot be read.
    lost: BTreeMap<u64, u64>,
    vote_lost: bool,
    purged: Option<LogPosition>,
}

/// LSNs that are lost, of groups not known yet.
struct Gap {
    from: u64,
    to: u64,
}

struct Replay {
    expected: u64,
    base_lsn: u64,
    groups: BTreeMap<u64, GroupReplay>,
    gaps: Vec<Gap>,
    /// Groups that lost frames.
    damaged: BTreeSet<u64>,
    all_damaged: bool,
    cache_left: u64,
    ticket: u64,
    /// Where the last write of the present file begins; the writes before it are proven to be durable.
    last_write: u64,
    report: RecoveryReport,
}

impl Replay {
    fn new(base: Option<&Checkpoint>, config: &WalConfig, report: RecoveryReport) -> Self {
        let groups = base.into_iter().flat_map(|base| base.groups.values());
        Self {
            expected: 1,
            base_lsn: base.map_or(0, |base| base.lsn),
            groups: groups.map(|group| (group.group, GroupReplay::new(group.clone()))).collect(),
            gaps: Vec::new(),
            damaged: BTreeSet::new(),
            all_damaged: false,
            cache_left: config.tail_cache_bytes,
            ticket: 0,
            last_write: 0,
            report,
        }
    }

    /// Where replay begins, and whether the files that are there reach back far enough.
    fn begin(
        &mut self,
        base: Option<&Checkpoint>,
        headers: &[(u64, Option<FileHeader>)],
    ) -> Result<(), WalError> {
        let first = headers.iter().find_map(|(_, header)| header.map(|header| header.first_lsn));
        match (base, first) {
            (None, Some(first)) if first > 1 => {
                let reason = "no checkpoint is readable and older WAL files were released";
                Err(WalError::Unrecoverable { reason })
            }
            (None, None) if !headers.is_empty() && self.report.damaged_checkpoints > 0 => {
                Err(WalError::Unrecoverable { reason: "neither a checkpoint nor a WAL file is readable" })
            }
            (None, _) => Ok(()),
            (Some(base), first) => {
                // Older files may be there for the sake of the older checkpoint.
                self.expected = first.map_or(base.floor_lsn, |first| first.min(base.floor_lsn)).max(1);
                if headers.is_empty() {
                    // The checkpoint's own file is gone, with all that came after it.
                    self.all_damaged = true;
                    self.report.lost.push((base.floor_lsn, base.lsn.saturating_add(1)));
                    self.expected = base.lsn.saturating_add(1);
                }
                Ok(())
            }
        }
    }

    /// A file begins with `first`: frames up to there that were not seen are lost.
    fn jump_to(&mut self, first: u64) {
        if first > self.expected {
            self.gap(self.expected, first);
        }
        self.expected = self.expected.max(first);
    }

    /// A file without a readable header: a header is durable before its file gets its name, so this is damage.
    fn lost_file(&mut self, next_first: Option<u64>) {
        self.all_damaged = true;
        let next = next_first.unwrap_or_else(|| self.expected.max(self.base_lsn.saturating_add(1)));
        self.report.lost.push((self.expected, next));
        self.expected = self.expected.max(next);
    }

    fn gap(&mut self, from: u64, to: u64) {
        self.report.lost.push((from, to));
        self.gaps.push(Gap { from, to });
    }

    /// Replays one file; returns where its frames end.
    fn file(
        &mut self,
        image: &mut FileImage,
        header: FileHeader,
        next_first: Option<u64>,
    ) -> Result<usize, DiskError> {
        let mut position = BLOCK;
        self.last_write = BLOCK as u64;
        let sealed = |expected: u64| next_first.is_some_and(|next| expected >= next);
        while !sealed(self.expected) {
            let found = image.frame(position, header.salt)?;
            if let Candidate::Good(frame) = found
                && frame.lsn == self.expected
            {
                self.good(image, header.seq, position, &frame)?;
                position += frame.total_len();
                continue;
            }
            let proven = next_first.is_some()
                || (!mutant::on(Mutant::DamageAsTornTail)
                    && image.proves_durable(position, header.salt, self.expected)?);
            if !proven {
                self.report.torn_tail |= !matches!(found, Candidate::Bad) || has_bytes(image, position)?;
                break;
            }
            position = self.damage(image, header, position, next_first)?;
        }
        Ok(position.min(image.length()))
    }

    /// Steps over damage at `position`; returns where to go on.
    fn damage(
        &mut self,
        image: &mut FileImage,
        header: FileHeader,
        position: usize,
        next_first: Option<u64>,
    ) -> Result<usize, DiskError> {
        let lsn = self.expected;
        let mut found = image.frame(position, header.salt)?;
        if found == Candidate::Bad {
            found = image.mend(position, header.salt, lsn)?;
            self.report.mended_frames += u64::from(matches!(found, Candidate::Good(_)));
        }
        match found {
            Candidate::Good(frame) if frame.lsn == lsn => {
                self.good(image, header.seq, position, &frame)?;
                return Ok(position + frame.total_len());
            }
            Candidate::BadBody(frame) if frame.lsn == lsn => {
                self.bad_body(&frame);
                return Ok(position + frame.total_len());
            }
            _ => {}
        }
        let end = next_first.unwrap_or(u64::MAX);
        match image.next_frame(position, header.salt, lsn + 1..end)? {
            Some((at, frame)) => {
                self.gap(lsn, frame.lsn);
                self.expected = frame.lsn;
                Ok(at)
            }
            None => {
                // Lost up to the next file. Without one there would be no proof of damage.
                self.gap(lsn, next_first.unwrap_or(lsn));
                self.expected = next_first.unwrap_or(lsn);
                Ok(image.length())
            }
        }
    }

    /// A frame whose body is lost.
    fn bad_body(&mut self, frame: &FrameHeader) {
        self.report.lost.push((frame.lsn, frame.lsn + 1));
        self.expected = frame.lsn + 1;
        match frame.kind {
            FrameKind::Entry => {
                if let Some(group) = self.live(frame) {
                    group.lost.insert(frame.index, frame.term);
                }
            }
            FrameKind::Vote => {
                if let Some(group) = self.live(frame) {
                    group.vote_lost = true;
                }
            }
            FrameKind::GroupCreate => {
                self.damaged.insert(frame.group);
            }
            FrameKind::GroupDelete if frame.lsn > self.base_lsn => {
                self.groups.remove(&frame.group);
            }
            // A GroupStart is only lost as a proof, a pad says nothing, the others have no body.
            _ => {}
        }
    }

    /// The group of a frame if the frame counts for it.
    fn live(&mut self, frame: &FrameHeader) -> Option<&mut GroupReplay> {
        self.groups.get_mut(&frame.group).filter(|group| frame.lsn > group.base.created_lsn)
    }

    fn good(
        &mut self,
        image: &mut FileImage,
        seq: u64,
        position: usize,
        frame: &FrameHeader,
    ) -> Result<(), DiskError> {
        self.expected = frame.lsn + 1;
        self.report.frames += 1;
        match frame.kind {
            FrameKind::GroupStart => {
                self.last_write = position as u64;
                let start = GroupStart::decode(image.body(position, frame)?);
                self.settle_gaps(frame.lsn, start.as_ref());
            }
            FrameKind::Pad => {}
            FrameKind::Entry => {
                let place = Place { file: seq, offset: position as u64 };
                self.entry(image, position, frame, place)?;
            }
            FrameKind::GroupCreate => self.create(frame, image.body(position, frame)?),
            FrameKind::GroupDelete => {
                if frame.lsn > self.base_lsn {
                    self.groups.remove(&frame.group);
                    self.damaged.remove(&frame.group);
                }
            }
            FrameKind::Vote => {
                let vote = entry::decode_vote(&mut image.body(position, frame)?);
                let newer = frame.lsn > self.base_lsn;
                if let (Some(group), Ok(vote)) = (self.live(frame), vote) {
                    group.vote_lost = false;
                    if newer {
                        group.base.vote = Some(vote);
                    }
                }
            }
            FrameKind::Truncate => {
                if let Some(group) = self.live(frame) {
                    group.truncate(frame.index);
                }
            }
            FrameKind::Purge | FrameKind::Committed => {
                let upto = LogPosition { term: frame.term, index: frame.index };
                if let Some(group) = self.live(frame) {
                    group.advance(frame.kind, upto);
                }
            }
        }
        Ok(())
    }

    /// A later `GroupStart` tells whose frames a gap held.
    fn settle_gaps(&mut self, lsn: u64, start: Option<&GroupStart>) {
        for gap in std::mem::take(&mut self.gaps) {
            let listed = start
                .filter(|start| start.previous_first_lsn != 0 && start.previous_first_lsn <= gap.from)
                .filter(|_| gap.to <= lsn)
                .and_then(|start| start.previous_groups.as_ref());
            match listed {
                Some(groups) => self.damaged.extend(groups),
                None => self.all_damaged = true,
            }
        }
    }

    fn create(&mut self, frame: &FrameHeader, mut body: &[u8]) {
        if frame.lsn <= self.base_lsn {
            return;
        }
        let (Ok(replica), Some((topic, mut rest))) = (body.try_get_u64_le(), body.split_first_chunk::<16>())
        else {
            return;
        };
        let created = CheckpointGroup {
            group: frame.group,
            replica,
            topic: Uuid::from_bytes(*topic),
            partition: rest.try_get_u32_le().unwrap_or(0),
            created_lsn: frame.lsn,
            vote: None,
            purged: None,
            committed: None,
            mark: None,
            damaged: false,
        };
        self.damaged.remove(&frame.group);
        self.groups.insert(frame.group, GroupReplay::new(created));
    }

    fn entry(
        &mut self,
        image: &mut FileImage,
        position: usize,
        frame: &FrameHeader,
        place: Place,
    ) -> Result<(), DiskError> {
        self.ticket += 1;
        let (ticket, cache_left) = (self.ticket, self.cache_left);
        let Some(group) = self.live(frame).filter(|group| !group.behind_base(frame.index)) else {
            return Ok(());
        };
        let mut slot = Slot {
            term: frame.term,
            ticket,
            place: Some(place),
            payload: None,
            kind: frame.payload_kind(),
            body_len: frame.body_len,
            body_crc: frame.body_crc,
        };
        let applied = group.base.mark.map(|mark| mark.applied.index);
        if applied.is_none_or(|applied| frame.index > applied) && slot.cost() <= cache_left {
            let body = Bytes::copy_from_slice(image.body(position, frame)?);
            slot.payload = entry::decode_payload(slot.kind, body).ok();
        }
        let cost = if slot.payload.is_some() { slot.cost() } else { 0 };
        group.insert(frame, slot);
        self.cache_left -= cost;
        Ok(())
    }

    fn finish(mut self) -> (BTreeMap<u64, Arc<Group>>, u64, RecoveryReport) {
        if !self.gaps.is_empty() {
            self.all_damaged = true;
        }
        let mut groups = BTreeMap::new();
        for id in self.damaged.iter().filter(|id| !self.groups.contains_key(id)) {
            // Its creation was lost: whatever replica it was, it must not begin anew as if nothing had been.
            let state = GroupState { damaged: true, created_lsn: 1, ..GroupState::default() };
            groups.insert(*id, Arc::new(Group::new(*id, 0, Uuid::nil(), 0, state)));
        }
        for (id, replay) in self.groups {
            let damaged = self.all_damaged || self.damaged.contains(&id);
            groups.insert(id, Arc::new(replay.finish(damaged, self.report.damaged_checkpoints > 0)));
        }
        let damaged = groups.values().filter(|group| group.lock().damaged).map(|group| group.group);
        self.report.damaged_groups = damaged.collect();
        (groups, self.ticket + 1, self.report)
    }
}

/// True if something was written at `position`.
fn has_bytes(image: &mut FileImage, position: usize) -> Result<bool, DiskError> {
    Ok(image.bytes(position, BLOCK)?.iter().any(|byte| *byte != 0))
}

impl GroupReplay {
    fn new(base: CheckpointGroup) -> Self {
        let purged = base.purged;
        Self { base, slots: BTreeMap::new(), lost: BTreeMap::new(), vote_lost: false, purged }
    }

    fn behind_base(&self, index: u64) -> bool {
        self.base.purged.is_some_and(|purged| index <= purged.index)
    }

    fn truncate(&mut self, from: u64) {
        self.slots.split_off(&from);
        self.lost.split_off(&from);
    }

    fn insert(&mut self, frame: &FrameHeader, slot: Slot) {
        if frame.relocated() {
            self.lost.remove(&frame.index);
        } else if !mutant::on(Mutant::TruncateNotPersisted) {
            // An append is always at the end: whatever stood from here on was truncated.
            self.truncate(frame.index);
        }
        self.slots.insert(frame.index, slot);
    }

    fn advance(&mut self, kind: FrameKind, upto: LogPosition) {
        let position = if kind == FrameKind::Purge { &mut self.purged } else { &mut self.base.committed };
        if position.is_none_or(|position| position.index < upto.index) {
            *position = Some(upto);
        }
    }

    /// What the frames come to. `fell_back`: a newer checkpoint was damaged.
    fn finish(self, damaged: bool, fell_back: bool) -> Group {
        let purged = self.purge_point(fell_back);
        let keep_from = purged.map_or(0, |purged| purged.index.saturating_add(1));
        let mut state = GroupState {
            purged,
            committed: self.base.committed,
            mark: self.base.mark,
            created_lsn: self.base.created_lsn,
            scattered: true,
            ..GroupState::default()
        };
        let mut whole = !self.vote_lost && self.lost.range(keep_from..).next().is_none();
        for (index, slot) in self.slots.range(keep_from..) {
            if state.next_index().is_some_and(|next| next != *index) {
                whole = false;
                break;
            }
            state.push(*index, slot.clone());
        }
        let last = state.last();
        state.committed = state.committed.filter(|_| last.is_some());
        if let (Some(committed), Some(last)) = (state.committed, last) {
            state.committed = Some(if committed.index > last.index { last } else { committed });
        }
        // After a restart nobody leads on an old term (I9): the own vote counts as a candidate's again.
        state.vote = self.base.vote.map(|vote| Vote {
            committed: vote.committed
                && (vote.leader_id.voted_for != self.base.replica || mutant::on(Mutant::ResumeAsLeader)),
            ..vote
        });
        state.damaged = damaged || self.base.damaged || !whole;
        Group::new(self.base.group, self.base.replica, self.base.topic, self.base.partition, state)
    }

    /// Up to where the log is purged: not further than the files of the replica reach according to the mark, if the
    /// entries behind it are still here. So a fall back to the older checkpoint, or to none, finds what it has to apply
    /// again.
    fn purge_point(&self, fell_back: bool) -> Option<LogPosition> {
        let index = |position: Option<LogPosition>| position.map(|position| position.index);
        let mark = self.base.mark.map(|mark| mark.applied);
        if mark.is_none() && !fell_back {
            return self.purged;
        }
        let clamped = if index(mark) < index(self.base.purged) { self.base.purged } else { mark };
        if index(self.purged) <= index(clamped) {
            return self.purged;
        }
        let first = clamped.map_or(0, |clamped| clamped.index + 1);
        let kept = self.slots.range(first..).map(|(index, _)| *index);
        let contiguous = kept.zip(first..).all(|(index, wanted)| index == wanted);
        if contiguous && self.slots.contains_key(&first) { clamped } else { self.purged }
    }
}
