//! The lines of a history: calls, their outcomes, faults.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::group::{Assign, Commit, Committed, CommittedAnswer, Drain, Release};

/// Version of the format that this code writes and reads. Raised when a line gets another meaning, or a new line is one
/// that older code must not pass over.
pub const VERSION: u32 = 1;

/// One call of a history file; counts from 1 in the order of the `invoke` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One line of a history. The module's doc shows the form of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When. Unit: ns since the harness began.
    pub t: u64,
    /// Who: the number of the worker; 0 for the harness itself.
    pub w: u32,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub enum EventKind {
    /// The first line of a recording.
    Begin {
        /// Version of the format, [`VERSION`].
        version: u32,
    },
    /// What the judge may take for granted; at most once.
    Expect(Expectations),
    /// A call begins.
    Invoke {
        /// The call.
        id: CallId,
        /// What is asked.
        #[serde(flatten)]
        op: Op,
    },
    /// The call happened.
    Ok {
        /// The call.
        id: CallId,
        /// What was answered.
        #[serde(flatten)]
        answer: Answer,
    },
    /// The call certainly did not happen.
    Fail {
        /// The call.
        id: CallId,
        /// Name of the error.
        err: String,
    },
    /// Nobody knows whether the call happened: a timeout, a lost connection.
    Info {
        /// The call.
        id: CallId,
        /// Name of the error.
        err: String,
    },
    /// Something was done to the cluster.
    Fault(Fault),
    /// The recording was finished in order.
    End {
        /// Lines before this one.
        events: u64,
    },
}

/// What may be taken for granted about a run, told by whoever set it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expectations {
    /// True if records may be deleted from the start of a log while the run goes on. Default false: a record missing
    /// below the log start is then lost.
    pub retention: bool,
    /// Replicas that each partition must have been read from at the end; 0 if there need be no final read, and what it
    /// would show stays open. Default 0.
    pub replicas: u32,
    /// True if every offset holds a record of the workload. Default true.
    pub dense: bool,
    /// True if topics may be given more partitions while the run goes on. Default false.
    pub grows: bool,
}

impl Default for Expectations {
    fn default() -> Self {
        Self { retention: false, replicas: 0, dense: true, grows: false }
    }
}

/// What is asked of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Records are written to one partition.
    Send(Send),
    /// A consumer takes what has arrived for it.
    Poll(Poll),
    /// A consumer continues elsewhere, or begins there.
    Seek(Seek),
    /// Where a partition begins or ends.
    ListOffsets(ListOffsets),
    /// Topics, partitions and leaders as one broker tells them.
    Metadata(Metadata),
    /// One replica's whole content of one partition, at the end of a run.
    FinalRead(FinalRead),
    /// A member of a group begins with a partition.
    Assign(Assign),
    /// A member has a partition no more.
    Release(Release),
    /// A member commits how far it is.
    Commit(Commit),
    /// What is committed.
    Committed(Committed),
    /// A group reads everything to the end.
    Drain(Drain),
}

/// What was answered; the same kind as the call's [`Op`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Answer {
    /// The records were acknowledged at the level asked for.
    Send(SendAnswer),
    /// Records arrived, perhaps none.
    Poll(PollAnswer),
    /// The position was set.
    Seek,
    /// The offset.
    ListOffsets(ListOffsetsAnswer),
    /// The topics.
    Metadata(MetadataAnswer),
    /// The content.
    FinalRead(FinalReadAnswer),
    /// It is so.
    Assign,
    /// It is so.
    Release,
    /// All of it is committed.
    Commit,
    /// The offset.
    Committed(CommittedAnswer),
    /// Everything is read and committed.
    Drain,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckLevel {
    /// Nothing: the record may be lost, and its receipt says nothing.
    None,
    /// On the leader's own disk: lost if that leader fails. The receipt has no offset.
    Leader,
    /// Committed: it stays, at the offset of the receipt.
    All,
}

impl From<client::Acks> for AckLevel {
    fn from(acks: client::Acks) -> Self {
        match acks {
            client::Acks::None => Self::None,
            client::Acks::Leader => Self::Leader,
            client::Acks::All => Self::All,
        }
    }
}

/// A send of one record or of one batch that is written as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// The producer, a number that no other producer of the run has; not the broker's producer id.
    pub producer: u64,
    /// True if the producer is idempotent: none of its records may be written twice, and their order is kept.
    pub idem: bool,
    /// What the acknowledgement promises.
    pub acks: AckLevel,
    /// Place among the sends of this producer, in the order handed to it. Counts from 0, gaps are allowed.
    pub seq: u64,
    /// The values, in order. Never sent before: a retry by the client library is part of the same call.
    pub vals: Vec<u64>,
}

/// The receipt of a send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAnswer {
    /// The offset of each value; empty if the receipt has none (`acks` of `leader` or `none`).
    #[serde(default)]
    pub off: Vec<u64>,
    /// Epoch of the leader that took it; 0 if not told.
    #[serde(default)]
    pub epoch: u32,
    /// Raft index of the entry; 0 if not told.
    #[serde(default)]
    pub index: u64,
    /// True if an earlier attempt of the same call had written it.
    #[serde(default)]
    pub dup: bool,
}

/// A poll by a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// The consumer, a number that no other consumer of the run has. A consumer that is made anew has a new number.
    pub consumer: u64,
}

/// What a poll returned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// Records by partition; partitions with nothing to tell may be left out.
    pub parts: Vec<PolledPartition>,
}

/// One partition's records of a poll, in the order returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolledPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// Offset and value of each record.
    pub recs: Vec<(u64, u64)>,
    /// High watermark that came with them, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw: Option<u64>,
    /// Log start that came with them, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
}

/// A consumer's position in one partition is set: after its assignment, or to read again.
///
/// Without one, the first record of a consumer is believed; with one, records left out before it are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// The consumer.
    pub consumer: u64,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// Where it continues.
    pub to: SeekTo,
}

/// Where a consumer continues: `"earliest"`, `"latest"` or an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeekTo {
    /// At the log start.
    Earliest,
    /// Anywhere: at an end that moves, or at a time.
    Latest,
    /// At this offset.
    #[serde(untagged)]
    Offset(u64),
}

/// A question about one partition's bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsets {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// Which bound.
    pub what: OffsetKind,
    /// True if the answer must count every record acknowledged before the call.
    pub linearizable: bool,
}

/// A bound of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetKind {
    /// The log start: the oldest offset that is kept.
    Start,
    /// The high watermark: the offset after the newest committed record.
    End,
}

/// A partition's bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsetsAnswer {
    /// The offset.
    pub off: u64,
}

/// A question for the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The broker that was asked; 0 if any.
    #[serde(default)]
    pub broker: u32,
}

/// What a broker told of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataAnswer {
    /// The topics of the workload; those not known yet are left out.
    pub topics: Vec<TopicView>,
}

/// One topic as a broker tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicView {
    /// Name.
    pub topic: Arc<str>,
    /// Its id, as the broker writes it.
    pub id: String,
    /// Its partitions, from 0.
    pub parts: Vec<PartitionLeader>,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionLeader {
    /// The leader; `None` if nobody is known to lead.
    pub leader: Option<u32>,
    /// Its epoch; 0 if none is known.
    pub epoch: u32,
}

/// The content of one partition as one replica has it, from its log start to its high watermark.
///
/// Taken after all faults are healed and the replicas have caught up; one call reads it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalRead {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub part: u32,
    /// The broker that was read.
    pub replica: u32,
}

/// The content of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalReadAnswer {
    /// Log start of the replica.
    pub start: u64,
    /// High watermark of the replica.
    pub hw: u64,
    /// Every record of `[start, hw)`.
    pub recs: Vec<FinalRecord>,
}

/// One stored record; written as `[offset, value, leader epoch, checksum]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u32, u32)", into = "(u64, u64, u32, u32)")]
pub struct FinalRecord {
    /// Offset.
    pub off: u64,
    /// Value.
    pub val: u64,
    /// Leader epoch stored with it; 0 if not known.
    pub epoch: u32,
    /// Checksum over its stored bytes, or its batch's; 0 if not known.
    pub sum: u32,
}

impl From<(u64, u64, u32, u32)> for FinalRecord {
    fn from((off, val, epoch, sum): (u64, u64, u32, u32)) -> Self {
        Self { off, val, epoch, sum }
    }
}

impl From<FinalRecord> for (u64, u64, u32, u32) {
    fn from(record: FinalRecord) -> Self {
        (record.off, record.val, record.epoch, record.sum)
    }
}

/// Something done to the cluster or to its surroundings, also its end (`kind` then says so, as in `heal`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind of fault; few different words.
    pub kind: String,
    /// What it struck.
    pub target: String,
    /// Whether it took hold.
    pub outcome: FaultOutcome,
    /// Anything a person wants to know; may be empty.
    #[serde(default)]
    pub detail: String,
}

/// Whether a fault took hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultOutcome {
    /// It is certain.
    Installed,
    /// It was not tried: there was nothing to strike.
    Skipped,
    /// It was tried, and nobody knows.
    Indeterminate,
}

impl FaultOutcome {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Skipped => "skipped",
            Self::Indeterminate => "indeterminate",
        }
    }
}

impl Op {
    pub(super) const fn name(&self) -> OpName {
        match self {
            Self::Send(_) => OpName::Send,
            Self::Poll(_) => OpName::Poll,
            Self::Seek(_) => OpName::Seek,
            Self::ListOffsets(_) => OpName::ListOffsets,
            Self::Metadata(_) => OpName::Metadata,
            Self::FinalRead(_) => OpName::FinalRead,
            Self::Assign(_) => OpName::Assign,
            Self::Release(_) => OpName::Release,
            Self::Commit(_) => OpName::Commit,
            Self::Committed(_) => OpName::Committed,
            Self::Drain(_) => OpName::Drain,
        }
    }
}

impl Answer {
    pub(super) const fn name(&self) -> OpName {
        match self {
            Self::Send(_) => OpName::Send,
            Self::Poll(_) => OpName::Poll,
            Self::Seek => OpName::Seek,
            Self::ListOffsets(_) => OpName::ListOffsets,
            Self::Metadata(_) => OpName::Metadata,
            Self::FinalRead(_) => OpName::FinalRead,
            Self::Assign => OpName::Assign,
            Self::Release => OpName::Release,
            Self::Commit => OpName::Commit,
            Self::Committed(_) => OpName::Committed,
            Self::Drain => OpName::Drain,
        }
    }
}

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OpName {
    Send,
    Poll,
    Seek,
    ListOffsets,
    Metadata,
    FinalRead,
    Assign,
    Release,
    Commit,
    Committed,
    Drain,
}
