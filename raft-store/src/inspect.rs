//! Read-only views of a stopped data directory, for people who look at one.
//!
//! Nothing is repaired and nothing is written. A running broker's directory may be looked at too, but the tail of its
//! active file then looks torn.

use std::path::Path;

use disk::{Disk, OpenOptions};

use crate::checkpoint::{Checkpoint, GroupMark};
use crate::entry;
use crate::layout;
use crate::types::{LogPosition, Vote};
use crate::wal::WalError;
use crate::wal::frame::{BLOCK, FileHeader, FrameHeader, FrameKind, GroupStart};
use crate::wal::scan::{Candidate, FileImage};

/// A WAL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFileView {
    /// Sequence number in its name.
    pub seq: u64,
    /// Length in bytes.
    pub len: u64,
    /// LSN of its first frame; `None` if no copy of its header is whole.
    pub first_lsn: Option<u64>,
    /// Written by direct I/O.
    pub direct: bool,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameView {
    /// Offset in the file.
    pub offset: u64,
    /// LSN.
    pub lsn: u64,
    /// Group; 0 also for frames of no group.
    pub group: u64,
    /// Length with header and padding.
    pub len: u64,
    /// What it says.
    pub content: FrameContent,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameContent {
    /// A write begins.
    GroupStart {
        /// Everything up to here was on disk before.
        durable_lsn: u64,
    },
    /// A log entry.
    Entry {
        /// Term and index.
        position: LogPosition,
        /// "blank", "normal", "membership" or "unknown".
        kind: &'static str,
        /// The payload.
        body: Vec<u8>,
        /// It repeats an older frame.
        relocated: bool,
    },
    /// A vote.
    Vote(Option<Vote>),
    /// The log ends before this index.
    Truncate {
        /// First index removed.
        from: u64,
    },
    /// The log begins after this position.
    Purge(LogPosition),
    /// Committed up to here.
    Committed(LogPosition),
    /// A group begins.
    GroupCreate {
        /// Its replica here.
        replica: u64,
    },
    /// A group ends.
    GroupDelete,
    /// Padding.
    Pad,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointView {
    /// Id in its name.
    pub id: u64,
    /// LSN up to which it holds; `None` if it is damaged.
    pub lsn: Option<u64>,
    /// Oldest WAL file that it needs.
    pub floor_file: u64,
    /// Group, replica and mark of every group.
    pub groups: Vec<(u64, u64, Option<GroupMark>)>,
}

/// The WAL files of a data directory, by sequence number.
///
/// # Errors
/// [`WalError::Disk`].
pub fn wal_files(disk: &dyn Disk, root: &Path) -> Result<Vec<WalFileView>, WalError> {
    let mut files = Vec::new();
    for item in disk.list(&layout::wal_dir(root))? {
        let Some(seq) = layout::parse_wal_name(&item.name) else { continue };
        let file = disk.open(&layout::wal_file(root, seq), OpenOptions::default())?;
        let header = header_of(&mut FileImage::new(file, Vec::new())?, seq)?;
        files.push(WalFileView {
            seq,
            len: item.len,
            first_lsn: header.map(|header| header.first_lsn),
            direct: header.is_some_and(|header| header.direct),
        });
    }
    Ok(files)
}

/// The checkpoints of a data directory, oldest first.
///
/// # Errors
/// [`WalError::Disk`].
pub fn checkpoints(disk: &dyn Disk, root: &Path) -> Result<Vec<CheckpointView>, WalError> {
    let items = disk.list(&layout::checkpoint_dir(root))?;
    let ids = items.iter().filter_map(|item| layout::parse_checkpoint_name(&item.name));
    Ok(ids
        .map(|id| {
            let checkpoint = Checkpoint::load(disk, root, id);
            let lsn = checkpoint.as_ref().map(|checkpoint| checkpoint.lsn);
            let checkpoint = checkpoint.unwrap_or_default();
            let groups = checkpoint.groups.values().map(|group| (group.group, group.replica, group.mark));
            CheckpointView { id, lsn, floor_file: checkpoint.floor_file, groups: groups.collect() }
        })
        .collect())
}

/// Walks the frames of one WAL file in order until `visit` returns false or no valid frame follows. Returns the offset at
/// which it ended.
///
/// # Errors
/// [`WalError::Disk`].
pub fn frames(
    disk: &dyn Disk,
    root: &Path,
    seq: u64,
    mut visit: impl FnMut(FrameView) -> bool,
) -> Result<u64, WalError> {
    let file = disk.open(&layout::wal_file(root, seq), OpenOptions::default())?;
    let mut image = FileImage::new(file, Vec::new())?;
    let Some(header) = header_of(&mut image, seq)? else { return Ok(0) };
    let (mut position, mut lsn) = (BLOCK, header.first_lsn);
    while let Candidate::Good(frame) = image.frame(position, header.salt)? {
        if frame.lsn != lsn {
            break;
        }
        let content = content_of(&frame, image.body(position, &frame)?);
        let len = frame.total_len();
        let view = FrameView { offset: position as u64, lsn, group: frame.group, len: len as u64, content };
        position += len;
        lsn += 1;
        if !visit(view) {
            break;
        }
    }
    Ok(position as u64)
}

fn header_of(image: &mut FileImage, seq: u64) -> Result<Option<FileHeader>, WalError> {
    let header = FileHeader::decode(image.bytes(0, BLOCK)?);
    Ok(header.filter(|header| header.seq == seq))
}

fn content_of(frame: &FrameHeader, body: &[u8]) -> FrameContent {
    let position = LogPosition { term: frame.term, index: frame.index };
    match frame.kind {
        FrameKind::GroupStart => {
            FrameContent::GroupStart { durable_lsn: GroupStart::decode(body).unwrap_or_default().durable_lsn }
        }
        FrameKind::Entry => FrameContent::Entry {
            position,
            kind: match frame.payload_kind() {
                entry::KIND_BLANK => "blank",
                entry::KIND_NORMAL => "normal",
                entry::KIND_MEMBERSHIP => "membership",
                _ => "unknown",
            },
            body: body.to_vec(),
            relocated: frame.relocated(),
        },
        FrameKind::Vote => {
            let mut rest = body;
            FrameContent::Vote(entry::decode_vote(&mut rest).ok())
        }
        FrameKind::Truncate => FrameContent::Truncate { from: frame.index },
        FrameKind::Purge => FrameContent::Purge(position),
        FrameKind::Committed => FrameContent::Committed(position),
        FrameKind::GroupCreate => {
            let replica = body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            FrameContent::GroupCreate { replica }
        }
        FrameKind::GroupDelete => FrameContent::GroupDelete,
        FrameKind::Pad => FrameContent::Pad,
    }
}
