//! Checkpoints: what every group was at one LSN, so that the WAL behind it can be released.
//!
//! A checkpoint is a framed file (`disk::frame`, magic `ALTRCKPT`). The newest two are kept, and WAL files are released
//! only behind the older of them: if the newest turns out damaged, the older one and the WAL still give everything.
//!
//! Payload, little endian:
//!
//! | size | field |
//! |---|---|
//! | 8 | id |
//! | 8 | LSN: the checkpoint holds the effect of every frame up to here |
//! | 8 | sequence number of the oldest WAL file that is needed |
//! | 8 | LSN of the first frame of that file |
//! | 4 | number of groups |
//! | … | groups |
//!
//! One group:
//!
//! | size | field |
//! |---|---|
//! | 8 | group |
//! | 8 | replica |
//! | 16 | topic UUID |
//! | 4 | partition |
//! | 8 | LSN of the group's creation |
//! | 1 | flags: bit 0 vote, 1 purged, 2 committed, 3 mark present; bit 4 damaged |
//! | 17 | vote |
//! | 16 | purged: term, index |
//! | 16 | committed: term, index |
//! | 48 | mark: applied term, applied index, next offset, segment base, synced length, state index |

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Buf, BufMut};
use disk::{Disk, DiskError, frame};
use uuid::Uuid;

use crate::entry;
use crate::layout;
use crate::observe::{CheckpointMark, GroupReplica, WalEvent};
use crate::types::{LogPosition, Vote};

/// Magic of a checkpoint file.
pub(crate) const MAGIC: [u8; 8] = *b"ALTRCKPT";
/// Version of the payload.
pub(crate) const VERSION: u16 = 1;

const GROUP_LEN: usize = 8 + 8 + 16 + 4 + 8 + 1 + entry::VOTE_LEN + 16 + 16 + 48;

/// How far a replica's own files are durable: what it starts from after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupMark {
    /// Group.
    pub group: u64,
    /// Replica.
    pub replica: u64,
    /// Entries up to here are in the replica's fsynced files.
    pub applied: LogPosition,
    /// Offset that the next record gets.
    pub next_offset: u64,
    /// Base offset of the active segment.
    pub segment_base: u64,
    /// Bytes of the active segment that are fsynced.
    pub synced_len: u64,
    /// Raft index that names the state file `state-<index>.snap`; 0 for none.
    pub state_index: u64,
}

/// One group in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointGroup {
    pub(crate) group: u64,
    pub(crate) replica: u64,
    pub(crate) topic: Uuid,
    pub(crate) partition: u32,
    pub(crate) created_lsn: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogPosition>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) mark: Option<GroupMark>,
    pub(crate) damaged: bool,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) id: u64,
    pub(crate) lsn: u64,
    pub(crate) floor_file: u64,
    pub(crate) floor_lsn: u64,
    pub(crate) groups: BTreeMap<u64, CheckpointGroup>,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(36 + self.groups.len() * GROUP_LEN);
        for field in [self.id, self.lsn, self.floor_file, self.floor_lsn] {
            out.put_u64_le(field);
        }
        // More groups than u32 counts do not fit in memory.
        out.put_u32_le(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        for group in self.groups.values() {
            group.encode(&mut out);
        }
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let id = rest.try_get_u64_le().ok()?;
        let lsn = rest.try_get_u64_le().ok()?;
        let floor_file = rest.try_get_u64_le().ok()?;
        let floor_lsn = rest.try_get_u64_le().ok()?;
        let count = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        if rest.len() != count.checked_mul(GROUP_LEN)? {
            return None;
        }
        let mut groups = BTreeMap::new();
        for _ in 0..count {
            let group = CheckpointGroup::decode(rest)?;
            groups.insert(group.group, group);
        }
        Some(Self { id, lsn, floor_file, floor_lsn, groups })
    }

    /// What an observer is told of it.
    pub(crate) fn event(&self) -> WalEvent {
        let mark = |group: &CheckpointGroup| CheckpointMark {
            of: GroupReplica { group: group.group, replica: group.replica },
            vote: group.vote,
            purged: group.purged,
            applied: group.mark.map(|mark| mark.applied),
        };
        WalEvent::Checkpoint { id: self.id, marks: self.groups.values().map(mark).collect() }
    }

    /// Writes the checkpoint durably.
    pub(crate) fn save(&self, disk: &dyn Disk, root: &Path) -> Result<(), DiskError> {
        frame::write_framed(disk, &layout::checkpoint_file(root, self.id), MAGIC, VERSION, &self.encode())
    }

    /// Reads a checkpoint; `None` if it is damaged or of a version that this build does not know.
    pub(crate) fn load(disk: &dyn Disk, root: &Path, id: u64) -> Option<Self> {
        let (version, payload) = frame::read_framed(disk, &layout::checkpoint_file(root, id), MAGIC).ok()?;
        if version != VERSION {
            return None;
        }
        Self::decode(&payload).filter(|checkpoint| checkpoint.id == id)
    }
}

impl CheckpointGroup {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.group);
        out.put_u64_le(self.replica);
        out.put_slice(self.topic.as_bytes());
        out.put_u32_le(self.partition);
        out.put_u64_le(self.created_lsn);
        let flags = [
            self.vote.is_some(),
            self.purged.is_some(),
            self.committed.is_some(),
            self.mark.is_some(),
            self.damaged,
        ];
        out.put_u8(flags.iter().enumerate().fold(0, |byte, (bit, set)| byte | u8::from(*set) << bit));
        match &self.vote {
            Some(vote) => entry::encode_vote(vote, out),
            None => out.put_bytes(0, entry::VOTE_LEN),
        }
        for position in [self.purged, self.committed] {
            put_position(position.unwrap_or_default(), out);
        }
        let mark = self.mark.unwrap_or_default();
        put_position(mark.applied, out);
        for field in [mark.next_offset, mark.segment_base, mark.synced_len, mark.state_index] {
            out.put_u64_le(field);
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<Self> {
        let group = rest.try_get_u64_le().ok()?;
        let replica = rest.try_get_u64_le().ok()?;
        let mut topic = [0; 16];
        rest.try_copy_to_slice(&mut topic).ok()?;
        let partition = rest.try_get_u32_le().ok()?;
        let created_lsn = rest.try_get_u64_le().ok()?;
        let flags = rest.try_get_u8().ok()?;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let vote = entry::decode_vote(rest).ok()?;
        let purged = get_position(rest)?;
        let committed = get_position(rest)?;
        let mark = GroupMark {
            group,
            replica,
            applied: get_position(rest)?,
            next_offset: rest.try_get_u64_le().ok()?,
            segment_base: rest.try_get_u64_le().ok()?,
            synced_len: rest.try_get_u64_le().ok()?,
            state_index: rest.try_get_u64_le().ok()?,
        };
        Some(Self {
            group,
            replica,
            topic: Uuid::from_bytes(topic),
            partition,
            created_lsn,
            vote: has(0).then_some(vote),
            purged: has(1).then_some(purged),
            committed: has(2).then_some(committed),
            mark: has(3).then_some(mark),
            damaged: has(4),
        })
    }
}

fn put_position(position: LogPosition, out: &mut Vec<u8>) {
    out.put_u64_le(position.term);
    out.put_u64_le(position.index);
}

fn get_position(rest: &mut &[u8]) -> Option<LogPosition> {
    Some(LogPosition { term: rest.try_get_u64_le().ok()?, index: rest.try_get_u64_le().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Checkpoint {
        let full = CheckpointGroup {
            group: 7,
            replica: 8,
            topic: Uuid::from_u128(9),
            partition: 10,
            created_lsn: 11,
            vote: Some(Vote::new_committed(3, 8)),
            purged: Some(LogPosition { term: 2, index: 50 }),
            committed: Some(LogPosition { term: 3, index: 60 }),
            mark: Some(GroupMark {
                group: 7,
                replica: 8,
                applied: LogPosition { term: 3, index: 55 },
                next_offset: 500,
                segment_base: 400,
                synced_len: 4096,
                state_index: 55,
            }),
            damaged: false,
        };
        let empty = CheckpointGroup {
            group: 12,
            replica: 13,
            vote: None,
            purged: None,
            committed: None,
            mark: None,
            damaged: true,
            ..full.clone()
        };
        let groups = BTreeMap::from([(7, full), (12, empty)]);
        Checkpoint { id: 1, lsn: 2, floor_file: 3, floor_lsn: 4, groups }
    }

    #[test]
    fn a_checkpoint_round_trips_and_has_the_documented_length() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), 36 + 2 * GROUP_LEN);
        assert_eq!(Checkpoint::decode(&bytes), Some(sample()));
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        assert_eq!(crc32c::crc32c(&bytes), 0x34a1_578f, "the layout changed: that needs a new version");
        assert_eq!(&bytes[..9], &[1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(bytes[36], 7);
        assert_eq!(bytes[36 + 44], 0b1111);
    }

    #[test]
    fn a_count_that_is_not_there_is_refused() {
        let mut bytes = sample().encode();
        bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Checkpoint::decode(&bytes);
        }
    }
}
