//! Consumer groups as they are stored: each group under its own key, offsets in blocks; in a snapshot as envelopes behind
//! the first one, so that a snapshot without groups is what it always was. Field order is the format.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft_store::codec::CodecError;
use serde::{Deserialize, Serialize};
use wire::ids::{GroupId, PartitionIndex, TopicId};

use crate::group::{Committed, Group, GroupEntry, Groups, OffsetBlock, TopicOffsets};
use crate::metadata::codec::{self, DecodeError};

/// A part of a snapshot ends before the piece that would make it longer than this; a larger piece has a part of its own.
const PART_BYTES: usize = 4 << 20;

/// Offsets of a group for some partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredOffsets {
    group: GroupId,
    topic: TopicId,
    offsets: Vec<(PartitionIndex, Committed)>,
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct StoredPart {
    groups: Vec<(GroupId, Group)>,
    offsets: Vec<StoredOffsets>,
}

/// Appends the groups to a snapshot; nothing if there are none.
///
/// # Errors
/// If a single group is larger than an envelope may be.
pub(super) fn append(groups: &Groups, snapshot: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut parts = PartWriter { part: StoredPart::default(), bytes: 0, snapshot };
    for (id, entry) in groups.all() {
        parts.make_room(entry.group.bytes())?;
        parts.part.groups.push((id.clone(), Group::clone(&entry.group)));
        for offsets in entry.blocks().into_iter().filter_map(|block| stored_offsets(id, entry, block)) {
            parts.make_room(offsets.offsets.iter().map(|(_, at)| at.bytes()).sum())?;
            parts.part.offsets.push(offsets);
        }
    }
    parts.flush()
}

/// Gathers pieces into parts.
struct PartWriter<'a> {
    part: StoredPart,
    bytes: usize,
    snapshot: &'a mut Vec<u8>,
}

impl PartWriter<'_> {
    /// Ends the part if the next piece would make it too long.
    fn make_room(&mut self, piece: usize) -> Result<(), CodecError> {
        if self.bytes + piece > PART_BYTES {
            self.flush()?;
        }
        self.bytes += piece;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CodecError> {
        let part = std::mem::take(&mut self.part);
        self.bytes = 0;
        if part != StoredPart::default() {
            self.snapshot.extend(codec::encode(codec::GROUPS, &part)?);
        }
        Ok(())
    }
}

fn stored_offsets(group: &GroupId, entry: &GroupEntry, block: OffsetBlock) -> Option<StoredOffsets> {
    let of_topic = entry.offsets.get(&block.topic)?;
    let offsets: Vec<_> = block.of_topic(of_topic).map(|(index, at)| (index, at.clone())).collect();
    (!offsets.is_empty()).then(|| StoredOffsets { group: group.clone(), topic: block.topic, offsets })
}

/// The value of a group's key; `None` if there is no such group.
///
/// # Errors
/// If it cannot be encoded.
pub(super) fn group_value(groups: &Groups, id: &GroupId) -> Result<Option<Vec<u8>>, CodecError> {
    groups.get(id).map(|entry| codec::encode(codec::KEYED, &(id, &*entry.group))).transpose()
}

/// The value of a block of offsets; `None` if there are none.
///
/// # Errors
/// If it cannot be encoded.
pub(super) fn offsets_value(
    groups: &Groups,
    id: &GroupId,
    block: OffsetBlock,
) -> Result<Option<Vec<u8>>, CodecError> {
    let stored = groups.get(id).and_then(|entry| stored_offsets(id, entry, block));
    stored.map(|stored| codec::encode(codec::KEYED, &stored)).transpose()
}

/// The key of a block of offsets, behind its tag: length and bytes of the group's id, topic, block.
pub(super) fn offsets_key(id: &GroupId, block: OffsetBlock) -> Vec<u8> {
    let length = u8::try_from(id.0.len()).unwrap_or(u8::MAX);
    [&[length], id.0.as_bytes(), block.topic.0.as_bytes(), &block.block.to_be_bytes()].concat()
}

/// Stored pieces of groups on their way to a state.
#[derive(Default)]
pub(super) struct GroupParts {
    groups: BTreeMap<GroupId, Group>,
    offsets: BTreeMap<GroupId, BTreeMap<TopicId, TopicOffsets>>,
}

impl GroupParts {
    /// Takes one envelope of a snapshot.
    pub(super) fn part(&mut self, envelope: &[u8]) -> Result<(), DecodeError> {
        let part: StoredPart = codec::decode(codec::GROUPS, envelope)?;
        for (id, group) in part.groups {
            self.add_group(id, group)?;
        }
        part.offsets.into_iter().try_for_each(|offsets| self.add_offsets(offsets))
    }

    /// Takes the value of a group's key.
    pub(super) fn group(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let (id, group) = codec::decode(codec::KEYED, value)?;
        self.add_group(id, group)
    }

    /// Takes the value of a block of offsets.
    pub(super) fn offsets(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        self.add_offsets(codec::decode(codec::KEYED, value)?)
    }

    fn add_group(&mut self, id: GroupId, group: Group) -> Result<(), DecodeError> {
        match self.groups.insert(id, group) {
            None => Ok(()),
            Some(_) => Err(DecodeError::Contradiction("one consumer group stands twice")),
        }
    }

    fn add_offsets(&mut self, stored: StoredOffsets) -> Result<(), DecodeError> {
        let of_topic = self.offsets.entry(stored.group).or_default().entry(stored.topic).or_default();
        for (index, committed) in stored.offsets {
            if of_topic.insert(index, committed).is_some() {
                return Err(DecodeError::Contradiction("one committed offset stands twice"));
            }
        }
        Ok(())
    }

    /// Puts the groups together.
    pub(super) fn assemble(mut self) -> Result<Groups, DecodeError> {
        let mut entries = BTreeMap::new();
        for (id, group) in self.groups {
            let offsets = self.offsets.remove(&id).unwrap_or_default();
            let offsets = offsets.into_iter().map(|(topic, of_topic)| (topic, Arc::new(of_topic))).collect();
            entries.insert(id, GroupEntry::new(group, offsets));
        }
        if self.offsets.is_empty() {
            Ok(Groups::restored(entries))
        } else {
            Err(DecodeError::Contradiction("offsets have no consumer group"))
        }
    }
}
