//! Why a group refuses a command. Refusals are replicated like replies: the same on every broker.

use serde::{Deserialize, Serialize};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, MemberEpoch, MemberId, Offset, TopicIdPartition};

/// Why a command was refused; nothing was changed (all are definite). Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GroupError {
    /// No such group.
    #[error("there is no consumer group {group:?}", group = .group.0)]
    UnknownGroup {
        /// The id asked for.
        group: GroupId,
    },
    /// No such member, or not any more.
    #[error("the group has no member {member}")]
    UnknownMember {
        /// The id asked for.
        member: MemberId,
    },
    /// An epoch that the member was never told.
    #[error("member epoch {given} was never given to the member, which is at {known}")]
    FencedEpoch {
        /// Sent.
        given: MemberEpoch,
        /// Last told.
        known: MemberEpoch,
    },
    /// The partition was assigned anew since.
    #[error("partition {} was assigned at epoch {since}, the member was last told {given}", .at.partition)]
    Stale {
        /// The partition.
        at: TopicIdPartition,
        /// Sent.
        given: MemberEpoch,
        /// When it was assigned.
        since: MemberEpoch,
    },
    /// The partition is somebody else's or nobody's.
    #[error("the member does not own partition {}", .at.partition)]
    NotOwner {
        /// The partition.
        at: TopicIdPartition,
    },
    /// A commit without a member while there are members.
    #[error("the group has {members} members, only they may commit")]
    MembersOnly {
        /// How many.
        members: u32,
    },
    /// Before the committed offset.
    #[error("offset {given} lies before the committed offset {committed} of partition {}", .at.partition)]
    GoesBack {
        /// The partition.
        at: TopicIdPartition,
        /// Sent.
        given: Offset,
        /// Committed.
        committed: Offset,
    },
    /// Another live member holds the instance id.
    #[error("another live member has the instance id {instance:?}")]
    InstanceInUse {
        /// The id.
        instance: String,
    },
    /// There are members.
    #[error("the group has {members} members")]
    NotEmpty {
        /// How many.
        members: u32,
    },
    /// A member owns the partition.
    #[error("a member owns partition {}", .at.partition)]
    Owned {
        /// The partition.
        at: TopicIdPartition,
    },
    /// A bound is reached.
    #[error("{what} are limited to {most}")]
    Limit {
        /// What is counted.
        what: String,
        /// The bound.
        most: u32,
    },
    /// The text beside an offset is too long.
    #[error("the text beside an offset has {bytes} bytes, at most {most} are allowed")]
    MetadataTooLarge {
        /// Its length.
        bytes: u32,
        /// The bound.
        most: u32,
    },
    /// No such partition, or its topic is deleted.
    #[error("topic {} has no partition {}", .at.topic, .at.partition)]
    UnknownPartition {
        /// The partition.
        at: TopicIdPartition,
    },
    /// The group was used since.
    #[error("the group was used meanwhile")]
    NotIdle,
}

impl GroupError {
    /// The row of the error table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownGroup { .. } => ErrorCode::UnknownGroup,
            Self::UnknownMember { .. } => ErrorCode::UnknownMember,
            Self::FencedEpoch { .. } => ErrorCode::FencedMemberEpoch,
            Self::Stale { .. } => ErrorCode::StaleGeneration,
            Self::NotOwner { .. } | Self::MembersOnly { .. } => ErrorCode::NotOwner,
            Self::GoesBack { .. } => ErrorCode::CommitGoesBack,
            Self::InstanceInUse { .. } => ErrorCode::InstanceIdInUse,
            Self::NotEmpty { .. } | Self::Owned { .. } => ErrorCode::GroupNotEmpty,
            Self::Limit { .. } => ErrorCode::GroupLimit,
            Self::MetadataTooLarge { .. } => ErrorCode::CommitMetadataTooLarge,
            Self::UnknownPartition { .. } => ErrorCode::UnknownPartition,
            Self::NotIdle => ErrorCode::Conflict,
        }
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
