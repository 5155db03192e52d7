//! What a producer asks for and what it gets back.

use std::fmt;

use bytes::Bytes;
use tokio::time::Instant;
use wire::ids::{BrokerId, LeaderEpoch, Offset, RaftIndex};
use wire::record::BatchHeader;

/// When a produce is answered (architecture section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Once it stands in the proposer's queue; it may still be lost.
    None,
    /// Once the leader's own write of it is on disk; a new leader may still drop it.
    Leader,
    /// Once it is on disk on a majority of the voters and applied on the leader (I1).
    #[default]
    All,
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "0",
            Self::Leader => "leader",
            Self::All => "all",
        })
    }
}

/// Batches of one partition that are answered together.
#[derive(Debug, Clone)]
pub struct ProduceBatches {
    /// Checked batches with their parsed headers, in the producer's order. At least one.
    pub batches: Vec<(BatchHeader, Bytes)>,
    /// When to answer.
    pub acks: Acks,
    /// When the caller stops waiting. Before the append that is a definite failure, after it the outcome is unknown.
    pub deadline: Instant,
}

impl ProduceBatches {
    /// Bytes of all batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|(_, batch)| batch.len()).sum()
    }

    /// Records of all batches.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.batches.iter().map(|(header, _)| u64::try_from(header.record_count).unwrap_or(0)).sum()
    }
}

/// Proof of what happened to a produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The level that was reached, which is the level that was asked for.
    pub level: Acks,
    /// Offset of the first record; only at [`Acks::All`], because offsets are given when an entry is applied.
    pub base_offset: Option<Offset>,
    /// Records that the receipt stands for.
    pub record_count: u64,
    /// Epoch of the leader that took the batches; `None` at [`Acks::None`].
    pub leader_epoch: Option<LeaderEpoch>,
    /// Position in the Raft log; `None` at [`Acks::None`].
    pub raft_index: Option<RaftIndex>,
    /// True if a change of leader can still undo it: [`Acks::None`] and [`Acks::Leader`].
    pub provisional: bool,
    /// True if every batch was stored by an earlier attempt; the base offset is the one from then.
    pub duplicate: bool,
    /// Brokers known to have had the entry on disk when it was answered; at [`Acks::All`] a majority of the voters.
    pub on_disk: Vec<BrokerId>,
}
