//! Consensus's own log: one write-ahead log that all Raft groups of a broker share.

mod checkpoint;
pub mod codec;
pub mod entry;
pub mod inspect;
mod keyed_state;
pub mod layout;
mod log_store;
mod metrics;
pub mod node_identity;
mod observe;
mod types;
mod wal;

pub use checkpoint::GroupMark;
pub use keyed_state::{KeyValue, KeyedError, KeyedState, KeyedWrite, MemoryState, SledState};
pub use log_store::GroupLog;
pub use metrics::WalMetrics;
pub use node_identity::{IdentityError, NodeIdentity};
pub use observe::{CheckpointMark, GroupReplica, Observer, RecoveredEntry, WalEvent};
pub use types::{
    BrokerRef, CommittedLeaderId, DurableToken, Entry, EntryData, LeaderId, LogId, LogPosition, Membership,
    Payload, ReplicaId, StoreConfig, StoredMembership, Vote,
};
pub use wal::{
    BudgetPermit, ByteBudget, CheckpointReport, DirectMode, GroupSpec, RecoveredGroup, Recovery,
    RecoveryReport, Step, Wait, Wal, WalConfig, WalError, WalPressure, WalThread, WalWriter, drive_in_task,
    drive_in_thread,
};
