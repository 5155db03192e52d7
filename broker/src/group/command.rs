//! What a group is asked to do, and what comes of it.
//!
//! Variants and fields are only ever appended: their order is the stored format, kept by golden bytes in the tests of
//! `metadata`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wire::ids::{Generation, LeaderEpoch, MemberEpoch, MemberId, Offset, TopicIdPartition};

use super::assignor::Assignor;
use super::error::GroupError;
use super::member::Subscription;
use super::offsets::OffsetBlock;

/// A member joins, or changes what it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Drawn at random by the client or the proposer: a retry carries the same one and finds its own member.
    pub member: MemberId,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads.
    pub subscription: Subscription,
    /// The assignor that it would like.
    pub assignor: Option<Assignor>,
    /// Silence after which it is expelled. Unit: ms.
    pub session_timeout_ms: u32,
    /// The coordinator found the present holder of the instance id silent: it may be replaced.
    pub take_over: bool,
    /// The coordinator's wall clock. Unit: ms since 1970.
    pub time_ms: i64,
}

/// One partition of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitOffset {
    /// The partition.
    pub at: TopicIdPartition,
    /// The next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record that was read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The consumer's own text.
    pub metadata: String,
}

/// Offsets of several partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The member and the epoch that it was last told; `None` = a tool, while the group has no members.
    pub by: Option<(MemberId, MemberEpoch)>,
    /// The offsets; each is taken or refused by itself.
    pub offsets: Vec<CommitOffset>,
    /// The coordinator's wall clock. Unit: ms since 1970.
    pub time_ms: i64,
}

/// One change of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupCommand {
    /// A member joins or changes its subscription; the first one brings the group into being.
    Join(Join),
    /// A member reads these partitions no more, as it was told at `epoch`.
    Release {
        /// The member.
        member: MemberId,
        /// The epoch that it was last told.
        epoch: MemberEpoch,
        /// The partitions.
        partitions: Vec<TopicIdPartition>,
    },
    /// A member closes.
    Leave {
        /// The member.
        member: MemberId,
        /// A static member that will come back keeps its partitions until its session ends.
        keep_place: bool,
        /// The coordinator's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// A member was silent for too long.
    Expire {
        /// The member.
        member: MemberId,
        /// The coordinator's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// Commits offsets.
    Commit(Commit),
    /// Sets offsets wherever they are to be, backwards too. Owners begin again from there.
    Reset {
        /// The partitions and their next record.
        offsets: Vec<(TopicIdPartition, Offset)>,
        /// The coordinator's wall clock. Unit: ms since 1970.
        time_ms: i64,
    },
    /// Forgets offsets of partitions that nobody owns.
    DeleteOffsets {
        /// The partitions.
        partitions: Vec<TopicIdPartition>,
    },
    /// Removes a group without members.
    Delete,
    /// Members stop or go on reading, and keep what they own.
    SetPaused {
        /// True = stop.
        paused: bool,
    },
    /// Removes a group that was without members, and without commits, since a time.
    Forget {
        /// What the coordinator saw; anything later keeps the group.
        idle_since_ms: i64,
    },
}

/// A partition of a commit that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Place in the commit.
    pub at: u32,
    /// Why.
    pub error: GroupError,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupReply {
    /// It is done, and there is nothing to tell.
    Done,
    /// The member is in the group.
    Joined {
        /// The epoch that it is told with its assignment.
        epoch: MemberEpoch,
        /// Rebalances of the group so far.
        generation: Generation,
    },
    /// All offsets were committed but these.
    Committed {
        /// In their order.
        refused: Vec<Refused>,
    },
}

/// Which stored pieces of a group a command touched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Members, assignment, or anything else but offsets.
    pub group: bool,
    /// Parts of the offsets that are not as before.
    pub offsets: BTreeSet<OffsetBlock>,
}

impl GroupCommand {
    /// True if applying the command a second time, after an attempt of unknown outcome, ends in the same state.
    pub fn is_retry_safe(&self) -> bool {
        // Between two attempts somebody else may have committed, paused, or brought the group into being again.
        !matches!(
            self,
            Self::Reset { .. } | Self::DeleteOffsets { .. } | Self::Delete | Self::SetPaused { .. }
        )
    }
}
