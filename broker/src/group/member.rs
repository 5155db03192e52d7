//! A member and what it wants to read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wire::ids::{MemberEpoch, TopicId};
use wire::topic_pattern::TopicPattern;

use super::assignor::Assignor;
use super::catalog::TopicCatalog;

/// What a member reads: topics by name and by pattern. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subscription {
    /// Names; a topic that is not there yet is read as soon as it is.
    pub topics: BTreeSet<String>,
    /// Patterns; a topic that fits and appears later is read too.
    pub patterns: BTreeSet<TopicPattern>,
}

impl Subscription {
    /// True if the subscription asks for a topic of this name.
    pub fn covers(&self, name: &str) -> bool {
        self.topics.contains(name) || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Names and patterns together.
    pub fn len(&self) -> usize {
        self.topics.len() + self.patterns.len()
    }

    /// True if it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The topics that are there now.
    pub(crate) fn resolve(&self, catalog: &dyn TopicCatalog) -> BTreeSet<TopicId> {
        let mut found: BTreeSet<TopicId> =
            self.topics.iter().filter_map(|name| catalog.by_name(name)).map(|topic| topic.id).collect();
        if !self.patterns.is_empty() {
            catalog.each(&mut |name, topic| {
                if self.patterns.iter().any(|pattern| pattern.matches(name)) {
                    found.insert(topic.id);
                }
            });
        }
        found
    }
}

/// A member of a group. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `group.instance.id` of a static member: it keeps its partitions while it restarts.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads.
    pub subscription: Subscription,
    /// The assignor that it would like; the group takes the one named most.
    pub assignor: Option<Assignor>,
    /// Silence after which the coordinator expels it. Unit: ms.
    pub session_timeout_ms: u32,
    /// Epoch of the group when it joined.
    pub joined: MemberEpoch,
    /// Epoch of the last change that it must hear of. A member that was told an older one has news to fetch.
    pub epoch: MemberEpoch,
    /// When it joined, by the coordinator's wall clock. Unit: ms since 1970.
    pub joined_ms: i64,
    /// A static member that closed and is expected back; nobody reads its partitions meanwhile.
    pub away: bool,
}
