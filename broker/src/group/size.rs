//! How much a group takes when it is stored, so that the whole of all groups has a bound.
//!
//! Never less than its encoded form; the same on every replica, since it depends on the state alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::ids::TopicId;

use super::member::{Member, Subscription};
use super::offsets::{Committed, TopicOffsets};
use super::one::Group;

/// Bytes that a member takes beside its texts.
const MEMBER: usize = 128;
/// Bytes that a partition takes in an assignment.
const SLOT: usize = 80;
/// Bytes that a committed offset takes beside its text, its partition's number included.
const OFFSET: usize = 48;
/// Bytes that a group takes beside its members, and a topic of it beside its offsets.
const AROUND: usize = 512;
/// Bytes that a text takes beside itself.
const TEXT: usize = 4;

impl Subscription {
    /// Bytes of its names and patterns.
    pub fn bytes(&self) -> usize {
        let patterns = self.patterns.iter().map(|pattern| pattern.as_str().len());
        self.topics.iter().map(String::len).chain(patterns).map(|bytes| bytes + TEXT).sum()
    }
}

impl Member {
    fn bytes(&self) -> usize {
        let instance = self.instance.as_ref().map_or(0, String::len);
        MEMBER + instance + self.client_id.len() + self.host.len() + self.subscription.bytes()
    }
}

impl Group {
    /// Bytes of members and assignment.
    pub fn bytes(&self) -> usize {
        let members: usize = self.members.values().map(Member::bytes).sum();
        AROUND + members + SLOT * self.assignment.slots().len()
    }
}

impl Committed {
    /// Bytes of the offset with its text.
    pub fn bytes(&self) -> usize {
        Self::bytes_with(&self.metadata)
    }

    pub(super) fn bytes_with(metadata: &str) -> usize {
        OFFSET + metadata.len()
    }
}

/// Bytes of all offsets of a group.
pub(super) fn offset_bytes(offsets: &BTreeMap<TopicId, Arc<TopicOffsets>>) -> usize {
    offsets.values().flat_map(|of_topic| of_topic.values()).map(Committed::bytes).sum()
}
