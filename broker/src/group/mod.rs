//! Consumer groups as a pure state machine: who is a member, who reads which partition, and what is committed.
//!
//! It knows neither Raft nor the metadata that hosts it: commands and a view of the topics go in, a reply and what was
//! changed come out. There is no join barrier: a member keeps reading what it keeps, and a partition goes to its new
//! owner only after the old one released it or is gone from the group (as in KIP-848).
//!
//! **Invariant** (I12): a partition has at most one owner; a commit holds only if its member owns the partition and was
//! told of it after it was assigned; committed offsets never go back except through [`GroupCommand::Reset`].
//!
//! **Invariant** (I8): no clock, no randomness, no I/O. A refused command changes nothing.

mod assignment;
mod assignor;
mod catalog;
mod command;
mod error;
mod member;
mod offsets;
mod one;
mod registry;
mod size;
#[cfg(test)]
mod tests;

pub use assignment::{Assignment, Owner, Slot};
pub use assignor::Assignor;
pub use catalog::{TopicCatalog, TopicShape};
pub use command::{Changes, Commit, CommitOffset, GroupCommand, GroupReply, Join, Refused};
pub use error::GroupError;
pub use member::{Member, Subscription};
pub use offsets::{Committed, OffsetBlock, TopicOffsets};
pub use one::{Cause, Group, Phase, Rebalance};
pub use registry::{GroupEntry, Groups};

/// Most groups of a cluster: each is kept in the memory of every broker.
pub const GROUPS_MAX: usize = 10_000;
/// Most members of a group.
pub const MEMBERS_MAX: usize = 1_000;
/// Most topics and patterns of one subscription.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Longest text beside a committed offset, in bytes.
pub const COMMIT_METADATA_BYTES_MAX: usize = 4_096;
/// Longest group id, instance id, client id or host, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// Most bytes of names and patterns of one subscription.
pub const SUBSCRIPTION_BYTES_MAX: usize = 64 << 10;
/// Most bytes of members and assignment of one group: it is stored as one value, of which 16 MiB are allowed, and grows
/// by itself when topics do.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most bytes of all groups: they are in the memory and in the snapshots of every broker.
pub const GROUPS_BYTES_MAX: usize = 64 << 20;
