//! Ids and quantities that must not be mixed up, each its own type.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// A broker, as the operator numbers it (`node.id`); at least 1.
    BrokerId(u32)
}
number! {
    /// A replica of one Raft group: unique in the cluster, given by the metadata group, never used again (I4).
    /// In the metadata group it is the data directory's own random number.
    ReplicaId(u64)
}
number! {
    /// A Raft group; 0 is the metadata group.
    RaftGroupId(u64)
}
number! {
    /// Position of an entry in a Raft log; never an offset.
    RaftIndex(u64)
}
number! {
    /// Number of a partition within its topic, from 0.
    PartitionIndex(u32)
}
number! {
    /// Position of a record in a partition, dense from 0, the same on every replica (I6).
    Offset(u64)
}
number! {
    /// Raft term under which a record was appended, as clients see it.
    LeaderEpoch(u32)
}
number! {
    /// An idempotent producer's id; given by the metadata group, never used again. Ids start at 1.
    ProducerId(u64)
}

number! {
    /// Counts the rebalances of a consumer group; grows with each.
    Generation(u64)
}
number! {
    /// Counts the changes of a consumer group's assignment. A member returns the one it was last told, which fences
    /// what it sends.
    MemberEpoch(u64)
}

impl RaftGroupId {
    /// The metadata group.
    pub const METADATA: Self = Self(0);
}

/// Identity of a topic; its name is an alias that may be used again after a deletion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub Uuid);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({})", self.0)
    }
}

/// A partition by its topic's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TopicIdPartition {
    /// The topic.
    pub topic: TopicId,
    /// Partition within the topic.
    pub partition: PartitionIndex,
}

/// A consumer group, as its users name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub String);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({:?})", self.0)
    }
}

/// A member of a consumer group: drawn at random when it joins, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub Uuid);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberId({})", self.0)
    }
}

/// A partition by the name that users know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: String,
    /// Partition within the topic.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
