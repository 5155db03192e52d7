//! Moments at which an aimed fault strikes.

use broker::runtime::ProbeEvent;
use raft_store::WalEvent;

use super::fault::FaultKind;

/// Something that a broker is just doing or has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It gave its vote away.
    Voted,
    /// It makes a vote durable.
    Voting,
    /// It was elected.
    Elected,
    /// An entry is durable in its log, and not applied.
    Written,
    /// It heard that an entry is committed, and has not applied it.
    Committed,
    /// It applied an entry, and has not answered.
    Applied,
    /// It removed entries of a leader that was overthrown.
    Truncated,
    /// The first entry after such a removal is durable.
    Overwritten,
    /// As [`Moment::Overwritten`], and the log is shorter than it was before.
    Shortened,
    /// It created a replica's log.
    Created,
    /// It wrote a checkpoint.
    Checkpointed,
    /// It purged its log.
    Purged,
    /// It begins to put a snapshot in the place of its files.
    Installing,
    /// It has put a snapshot in the place of its files.
    Installed,
    /// It begins to hand a leadership over.
    HandingOver,
    /// It handed a leadership over.
    HandedOver,
}

impl Moment {
    /// The kind of fault that aims at it.
    pub(super) fn kind(self) -> FaultKind {
        match self {
            Self::Voted | Self::Voting | Self::Elected => FaultKind::AtVote,
            Self::Written | Self::Committed | Self::Applied => FaultKind::AtWrite,
            Self::Truncated | Self::Overwritten | Self::Checkpointed | Self::Purged => FaultKind::AtRelease,
            Self::Shortened => FaultKind::AtTruncate,
            Self::Created => FaultKind::AtCreate,
            Self::Installing | Self::Installed => FaultKind::AtInstall,
            Self::HandingOver | Self::HandedOver => FaultKind::AtTransfer,
        }
    }

    /// The moment that an event is, if it is one.
    pub(super) fn of(event: &ProbeEvent) -> Option<Self> {
        Some(match event {
            ProbeEvent::Voted { .. } => Self::Voted,
            ProbeEvent::Leads { .. } => Self::Elected,
            ProbeEvent::Applied { .. } => Self::Applied,
            ProbeEvent::Installing { .. } => Self::Installing,
            ProbeEvent::Installed { .. } => Self::Installed,
            ProbeEvent::TransferBegun { .. } => Self::HandingOver,
            ProbeEvent::TransferDone { .. } => Self::HandedOver,
            ProbeEvent::Wal(event) => match event {
                WalEvent::Vote { .. } => Self::Voting,
                WalEvent::EntryDurable { .. } => Self::Written,
                WalEvent::Committed { .. } => Self::Committed,
                WalEvent::Truncated { .. } => Self::Truncated,
                WalEvent::Created { .. } => Self::Created,
                WalEvent::Checkpoint { .. } => Self::Checkpointed,
                WalEvent::Purged { .. } => Self::Purged,
                _ => return None,
            },
            _ => return None,
        })
    }
}
