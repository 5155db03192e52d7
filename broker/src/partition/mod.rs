//! One replica of a partition: produce, apply, fetch, and what keeps the replica healthy.
//!
//! ```text
//! produce ─► queue ─► proposer ─► openraft ─► WAL + followers ─► commit ─► apply (state_machine)
//!                                                                   │ page cache, producer state, epochs
//! fetch ◄── read (below the high watermark) ◄── high_watermark ◄────┘
//!                                        flush: segments fsynced ─► state file ─► checkpoint ─► Raft may purge
//! ```
//!
//! [`Partitions`] runs what the metadata image says; a [`Replica`] is the handle of one of them.
//!
//! **Invariants:** nothing at or above the high watermark is readable (I5); offsets are given by `apply` alone (I6);
//! `apply` is pure (I8); data goes only by a committed command that names it (I11).
//!
//! Used by `api` and `node`; knows nothing of clients, protocols or authorisation.

mod batching;
mod command;
mod damage;
mod epoch;
mod fetch;
mod flush;
mod high_watermark;
mod install;
mod isr;
mod isr_report;
mod leader_report;
mod manifest;
mod moves;
mod open;
mod proposer;
mod queue;
mod read;
mod receipt;
mod registry;
mod replica;
mod replica_log;
mod reply;
mod retention;
mod returns;
mod snapshot;
mod state_file;
mod state_machine;
mod status;
mod storage_gate;
#[cfg(test)]
mod tests;

pub use command::{Command, CommandError};
pub use epoch::leader_epoch;
pub use fetch::{FetchArgs, Fetched, ListedOffset, OffsetSpec};
pub use high_watermark::{HighWatermark, WaitElapsed};
pub use manifest::{Manifest, ManifestError};
pub use receipt::{Acks, ProduceBatches, Receipt};
pub use registry::{Partitions, PartitionsArgs};
pub use replica::Replica;
pub use reply::{BatchOutcome, PartitionReply};
pub use state_machine::{DurableState, PartitionMachine};
pub use status::ReplicaStatus;
pub use storage_gate::{Room, RoomMarks, StorageGate, Volume};

use crate::raft::{Group, GroupKind, Types};

/// The kind of Raft group that a partition is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKind;

impl GroupKind for PartitionKind {
    type Reply = PartitionReply;
}

/// openraft's type configuration of partition groups.
pub type PartitionTypes = Types<PartitionKind>;
/// A running partition group.
pub type PartitionGroup = Group<PartitionKind, PartitionMachine>;
