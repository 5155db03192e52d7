//! The lines of consumer groups: what members own, commit, and are told to be committed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A member of a group begins with a partition.
///
/// Its polls say what it is given; until its [`Release`] it may be given more. A member that is made anew has a new
/// consumer number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// The consumer, as in its polls.
    pub consumer: u64,
    /// The group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// Epoch of the group at which it got the partition: nobody else may have the same.
    pub since: u64,
    /// Committed offset that it begins at; not there: nothing was committed, and it begins at the log start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// A member has a partition no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The consumer.
    pub consumer: u64,
    /// The group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
}

/// A member commits how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The consumer.
    pub consumer: u64,
    /// The group.
    pub group: Arc<str>,
    /// What it commits.
    pub parts: Vec<CommitPart>,
}

/// One partition of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPart {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// The next record to read.
    pub off: u64,
}

/// A question for the committed offset of one partition, which must count every commit acknowledged before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
}

/// A committed offset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedAnswer {
    /// Not there: nothing is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<u64>,
}

/// A last member of a group reads on until everything is read and committed; with the outcome ok it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The group.
    pub group: Arc<str>,
    /// Its topics.
    pub topics: Vec<Arc<str>>,
}
