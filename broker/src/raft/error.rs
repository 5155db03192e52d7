//! What can go wrong between brokers and with groups.

use wire::ids::{RaftGroupId, ReplicaId};

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The request never left this broker: it definitely did not happen.
    #[error("the peer is unreachable: {0}")]
    Unreachable(String),
    /// The request left and no answer came: it may have happened.
    #[error("the peer did not answer: {0}")]
    Timeout(String),
    /// The peer answered that it will not do this.
    #[error("the peer refused: {0}")]
    Refused(String),
}

/// Why a group could not be opened, closed or moved.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// No such group runs here.
    #[error("raft group {0} does not run on this broker")]
    NotHere(RaftGroupId),
    /// The group runs here already.
    #[error("raft group {0} runs on this broker already")]
    Open(RaftGroupId),
    /// The WAL refused.
    #[error("the WAL cannot serve raft group {group}")]
    Wal {
        /// The group.
        group: RaftGroupId,
        /// Why.
        #[source]
        source: raft_store::WalError,
    },
    /// openraft refused to start or stopped for good.
    #[error("raft group {group} stopped: {reason}")]
    Stopped {
        /// The group.
        group: RaftGroupId,
        /// Why.
        reason: String,
    },
    /// This replica does not lead the group.
    #[error("this broker does not lead raft group {0}")]
    NotLeader(RaftGroupId),
    /// The replica cannot take over: it is no voter, is not alive, or lags.
    #[error("replica {to} cannot lead raft group {group}: {reason}")]
    Unfit {
        /// The group.
        group: RaftGroupId,
        /// Who was to lead.
        to: ReplicaId,
        /// Why not.
        reason: String,
    },
    /// It did not happen before the deadline, and may still happen.
    #[error("raft group {0} did not finish in time")]
    Timeout(RaftGroupId),
}
