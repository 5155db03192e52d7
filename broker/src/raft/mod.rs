//! Consensus: Raft groups, the links between brokers that carry them, and who is alive.

mod cell;
mod elections;
mod error;
mod groups;
mod identity;
mod liveness;
mod peers;
mod port;
mod snapshot;
mod status;
mod transport;
mod types;

pub use error::{GroupError, PeerError};
pub use groups::{Groups, OpenGroup};
pub use identity::{Hello, HelloError, LocalIdentity, PROTOCOL_VERSION};
pub use liveness::{PeerHealth, Verdict};
pub use peers::{CALL_MAX, PeerAddress, PeerConfig, PeerService, Peers};
pub use snapshot::{RANGE_MAX, RangePuller, SnapshotDoor};
pub use status::{GroupStatus, Member, Role};
pub use types::{Group, GroupKind, Payload, Profile, SnapshotMeta, Types};

#[cfg(test)]
mod tests;
