//! Counts of what a history holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::history::{AckLevel, Answer, Call, FaultOutcome, History, Op, Outcome};

/// Calls by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Answered.
    pub ok: u64,
    /// Certainly without effect.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
}

impl Calls {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Ok(_) => self.ok += 1,
            Outcome::Fail(_) => self.failed += 1,
            Outcome::Info(_) => self.unknown += 1,
        }
    }
}

/// Records sent with one level of acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SentRecords {
    /// Handed to a producer.
    pub sent: u64,
    /// With a receipt.
    pub acked: u64,
    /// Certainly not written.
    pub failed: u64,
    /// Perhaps written.
    pub unknown: u64,
}

/// Records sent, by the level of acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sends {
    /// `acks=all`.
    pub all: SentRecords,
    /// `acks=leader`.
    pub leader: SentRecords,
    /// `acks=none`.
    pub none: SentRecords,
}

impl Sends {
    /// Records with a receipt of any level.
    #[must_use]
    pub const fn acked(&self) -> u64 {
        self.all.acked + self.leader.acked + self.none.acked
    }

    const fn level(&mut self, acks: AckLevel) -> &mut SentRecords {
        match acks {
            AckLevel::All => &mut self.all,
            AckLevel::Leader => &mut self.leader,
            AckLevel::None => &mut self.none,
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reads {
    /// Polls of consumers.
    pub polls: Calls,
    /// Records that they brought.
    pub records: u64,
    /// Seeks of consumers.
    pub seeks: u64,
    /// Reads of whole replicas at the end; one that failed and was tried again counts as both.
    pub final_reads: Calls,
    /// Records that they brought, each counted once for each replica.
    pub final_records: u64,
}

/// What members of consumer groups did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GroupCounts {
    /// Partitions that members began with.
    pub assigned: u64,
    /// Commits.
    pub commits: Calls,
    /// Groups that read everything to the end.
    pub drained: u64,
}

/// Faults of one kind, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    /// They took hold.
    pub installed: u64,
    /// There was nothing to strike.
    pub skipped: u64,
    /// Nobody knows.
    pub indeterminate: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sends: Sends,
    pub(super) reads: Reads,
    pub(super) list_offsets: Calls,
    pub(super) metadata: Calls,
    pub(super) groups: GroupCounts,
    pub(super) faults: BTreeMap<String, FaultCounts>,
    places: BTreeSet<(Arc<str>, u32)>,
}

impl Counts {
    pub(super) fn of(history: &History) -> Self {
        let mut counts = Self::default();
        for call in &history.calls {
            counts.add(call);
        }
        for fault in &history.faults {
            let of_kind = counts.faults.entry(fault.fault.kind.clone()).or_default();
            match fault.fault.outcome {
                FaultOutcome::Installed => of_kind.installed += 1,
                FaultOutcome::Skipped => of_kind.skipped += 1,
                FaultOutcome::Indeterminate => of_kind.indeterminate += 1,
            }
        }
        counts
    }

    pub(super) fn topics(&self) -> usize {
        self.places.iter().map(|(topic, _)| topic).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn partitions(&self) -> usize {
        self.places.len()
    }

    fn add(&mut self, call: &Call) {
        match &call.op {
            Op::Send(send) => {
                self.place(&send.topic, send.part);
                let records = send.vals.len() as u64;
                let of_level = self.sends.level(send.acks);
                of_level.sent += records;
                match call.outcome {
                    Outcome::Ok(_) => of_level.acked += records,
                    Outcome::Fail(_) => of_level.failed += records,
                    Outcome::Info(_) => of_level.unknown += records,
                }
            }
            Op::Poll(_) => {
                self.reads.polls.add(&call.outcome);
                if let Outcome::Ok(Answer::Poll(answer)) = &call.outcome {
                    for part in &answer.parts {
                        self.place(&part.topic, part.part);
                        self.reads.records += part.recs.len() as u64;
                    }
                }
            }
            Op::Seek(_) => self.reads.seeks += 1,
            Op::ListOffsets(_) => self.list_offsets.add(&call.outcome),
            Op::Metadata(_) => self.metadata.add(&call.outcome),
            Op::FinalRead(read) => {
                self.place(&read.topic, read.part);
                self.reads.final_reads.add(&call.outcome);
                if let Outcome::Ok(Answer::FinalRead(answer)) = &call.outcome {
                    self.reads.final_records += answer.recs.len() as u64;
                }
            }
            Op::Assign(_) => self.groups.assigned += 1,
            Op::Commit(_) => self.groups.commits.add(&call.outcome),
            Op::Drain(_) => self.groups.drained += u64::from(matches!(call.outcome, Outcome::Ok(_))),
            Op::Release(_) | Op::Committed(_) => {}
        }
    }

    fn place(&mut self, topic: &Arc<str>, part: u32) {
        self.places.insert((Arc::clone(topic), part));
    }
}
