//! What groups must know of topics.

use wire::ids::{TopicId, TopicIdPartition};

/// A topic as a group sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicShape {
    /// The topic.
    pub id: TopicId,
    /// Its partitions are numbered from 0 to one less.
    pub partitions: u32,
}

/// The topics that are there and not deleted. The same on every replica when a command is applied.
// SEAM: the metadata image is one; a table in the tests is the other.
pub trait TopicCatalog {
    /// The topic of a name.
    fn by_name(&self, name: &str) -> Option<TopicShape>;

    /// The topic of an id.
    fn by_id(&self, id: TopicId) -> Option<TopicShape>;

    /// Every topic, by name.
    fn each(&self, visit: &mut dyn FnMut(&str, TopicShape));

    /// True if there is such a partition.
    fn has(&self, at: TopicIdPartition) -> bool {
        self.by_id(at.topic).is_some_and(|topic| at.partition.0 < topic.partitions)
    }
}
