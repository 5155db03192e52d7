//! Who shall read what: three ways, all pure.

mod range;
mod round_robin;
mod sticky;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{MemberId, PartitionIndex, TopicId, TopicIdPartition};

/// How partitions are shared out. Order is part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Assignor {
    /// Even, with as few moves as possible.
    #[default]
    Sticky,
    /// Neighbouring partitions of each topic; the same numbers of different topics go to the same member.
    Range,
    /// Partition by partition, around the members.
    RoundRobin,
}

impl Assignor {
    /// The word that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Range => "range",
            Self::RoundRobin => "round_robin",
        }
    }

    /// The targets of all partitions that somebody reads.
    pub(super) fn assign(self, input: &Input<'_>) -> BTreeMap<TopicIdPartition, MemberId> {
        match self {
            Self::Sticky => sticky::assign(input),
            Self::Range => range::assign(input),
            Self::RoundRobin => round_robin::assign(input),
        }
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Assignor {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "sticky" => Ok(Self::Sticky),
            "range" => Ok(Self::Range),
            "round_robin" | "round-robin" | "roundrobin" => Ok(Self::RoundRobin),
            other => {
                let shown: String = other.chars().take(60).collect();
                Err(ApiError::new(ErrorCode::UnknownAssignor, format!("there is no assignor {shown:?}")))
            }
        }
    }
}

/// What an assignor decides on.
#[derive(Debug)]
pub(super) struct Input<'a> {
    /// Members in the order in which they joined, each with the topics that it reads.
    pub(super) members: &'a [(MemberId, BTreeSet<TopicId>)],
    /// Number of partitions of every topic that somebody reads.
    pub(super) topics: &'a BTreeMap<TopicId, u32>,
    /// Who has which partition now.
    pub(super) holders: &'a BTreeMap<TopicIdPartition, MemberId>,
}

impl Input<'_> {
    /// All partitions, in order.
    fn partitions(&self) -> impl Iterator<Item = TopicIdPartition> + '_ {
        self.topics.iter().flat_map(|(topic, count)| {
            (0..*count).map(|n| TopicIdPartition { topic: *topic, partition: PartitionIndex(n) })
        })
    }
}

#[cfg(test)]
mod tests;
