//! What was found: names, evidence, the verdict.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Everything that can be wrong with a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// Two values were seen at one offset.
    InconsistentOffset,
    /// Two replicas hold different records below both their high watermarks.
    ReplicaDivergence,
    /// A record that was acknowledged with its offset, or seen by a consumer, is not there any more.
    LostWrite,
    /// A record is there, but not on every replica: one still lags, or was not read at the end.
    Unseen,
    /// A value of an idempotent producer stands at two offsets.
    Duplicate,
    /// The value of a send that certainly failed was seen.
    FailedRead,
    /// A value was seen that nobody had sent there, or before it was sent.
    Phantom,
    /// A consumer or a final read returned an offset at or below one it had returned.
    NonmonotonicPoll,
    /// A consumer jumped over a record that others prove to be visible.
    PollSkip,
    /// A record sent after another was acknowledged stands before it in the log.
    NonmonotonicSend,
    /// Records of an idempotent producer do not stand in the order in which they were handed to it.
    ProducerOrder,
    /// A linearizable question for the end was answered with less than was known before it was asked.
    RealtimeStale,
    /// A high watermark or log start moved back in the eyes of one client.
    WatermarkRegress,
    /// `acks=all` was acknowledged without offsets.
    MissingOffset,
    /// An offset below the high watermark holds no record.
    OffsetHole,
    /// A topic's id changed, two topics share one, or its number of partitions changed without cause.
    TopicChanged,
    /// Two brokers led one partition in one leader epoch.
    TwoLeaders,
    /// Two members of a group had a partition at a time.
    TwoOwners,
    /// A commit was taken from a member whose partition was another's already.
    StaleCommit,
    /// A committed offset went back.
    CommitRegress,
    /// A group passed over a record: no member was given it.
    Unprocessed,
}

impl Anomaly {
    /// All of them, in the order of reports.
    pub const ALL: &[Self] = &[
        Self::InconsistentOffset,
        Self::ReplicaDivergence,
        Self::LostWrite,
        Self::Unseen,
        Self::Duplicate,
        Self::FailedRead,
        Self::Phantom,
        Self::NonmonotonicPoll,
        Self::PollSkip,
        Self::NonmonotonicSend,
        Self::ProducerOrder,
        Self::RealtimeStale,
        Self::WatermarkRegress,
        Self::MissingOffset,
        Self::OffsetHole,
        Self::TopicChanged,
        Self::TwoLeaders,
        Self::TwoOwners,
        Self::StaleCommit,
        Self::CommitRegress,
        Self::Unprocessed,
    ];

    /// The name people and scripts use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "inconsistent-offset",
            Self::ReplicaDivergence => "replica-divergence",
            Self::LostWrite => "lost-write",
            Self::Unseen => "unseen",
            Self::Duplicate => "duplicate",
            Self::FailedRead => "failed-read",
            Self::Phantom => "phantom",
            Self::NonmonotonicPoll => "nonmonotonic-poll",
            Self::PollSkip => "poll-skip",
            Self::NonmonotonicSend => "nonmonotonic-send",
            Self::ProducerOrder => "producer-order",
            Self::RealtimeStale => "realtime-stale",
            Self::WatermarkRegress => "watermark-regress",
            Self::MissingOffset => "missing-offset",
            Self::OffsetHole => "offset-hole",
            Self::TopicChanged => "topic-changed",
            Self::TwoLeaders => "two-leaders",
            Self::TwoOwners => "two-owners",
            Self::StaleCommit => "stale-commit",
            Self::CommitRegress => "commit-regress",
            Self::Unprocessed => "unprocessed",
        }
    }

    /// What it means, in one line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "two values were seen at one offset",
            Self::ReplicaDivergence => "two replicas hold different records below both their high watermarks",
            Self::LostWrite => "a record that was acknowledged or seen is not there any more",
            Self::Unseen => {
                "a record is missing on a replica that lags, or a replica was not read at the end"
            }
            Self::Duplicate => "a value of an idempotent producer stands at two offsets",
            Self::FailedRead => "the value of a send that certainly failed was seen",
            Self::Phantom => "a value was seen that nobody had sent there, or before it was sent",
            Self::NonmonotonicPoll => "a reader returned an offset at or below one it had returned",
            Self::PollSkip => "a consumer jumped over a record that others prove to be visible",
            Self::NonmonotonicSend => "a record sent after another was acknowledged stands before it",
            Self::ProducerOrder => "records of an idempotent producer stand in another order than sent",
            Self::RealtimeStale => "a linearizable end offset leaves out what was known before it was asked",
            Self::WatermarkRegress => "a high watermark or log start moved back for one client",
            Self::MissingOffset => "acks=all was acknowledged without offsets",
            Self::OffsetHole => "an offset below the high watermark holds no record",
            Self::TopicChanged => "a topic changed its id or its number of partitions, or shares its id",
            Self::TwoLeaders => "two brokers led one partition in one leader epoch",
            Self::TwoOwners => "two members of a consumer group had a partition at a time",
            Self::StaleCommit => "a commit was taken from a member whose partition was another's already",
            Self::CommitRegress => "a committed offset of a consumer group went back",
            Self::Unprocessed => "a consumer group passed over a record",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is wrong, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub anomaly: Anomaly,
    /// Topic and partition as `topic/3`, or the topic alone.
    pub place: String,
    /// Values, offsets, calls and times, in one line.
    pub evidence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.anomaly, self.place, self.evidence)
    }
}

/// Findings of one anomaly that are kept with their evidence; more are only counted.
pub(super) const KEPT_MAX: u64 = 20;

/// Collects what the checks find.
#[derive(Debug, Default)]
pub(super) struct Findings {
    counts: BTreeMap<Anomaly, u64>,
    kept: Vec<Finding>,
    notes: Vec<String>,
}

impl Findings {
    /// One more. The evidence is only put into words if it will be kept.
    pub(super) fn add(
        &mut self,
        anomaly: Anomaly,
        place: &impl fmt::Display,
        evidence: impl FnOnce() -> String,
    ) {
        let count = self.counts.entry(anomaly).or_default();
        *count += 1;
        if *count <= KEPT_MAX {
            self.kept.push(Finding { anomaly, place: place.to_string(), evidence: evidence() });
        }
    }

    /// Something that is not wrong, but that a reader of the verdict must know.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub(super) fn verdict(mut self) -> Verdict {
        self.kept.sort_by_key(|finding| finding.anomaly);
        Verdict { counts: self.counts, findings: self.kept, notes: self.notes }
    }
}

/// What a history shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How often each anomaly was found; those not found are left out.
    pub counts: BTreeMap<Anomaly, u64>,
    /// The first 20 findings of each anomaly.
    pub findings: Vec<Finding>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
}

impl Verdict {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Everything that is wrong, counted.
    pub fn violations(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How often one anomaly was found.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.counts.get(&anomaly).copied().unwrap_or(0)
    }
}
