//! What the clients of a cluster asked and were told: the history that the checks judge.
//!
//! # Format
//! JSON Lines, one [`Event`] a line, in the order in which things happened. Every line has `t` (ns since the harness
//! began, one monotonic clock for all files), `w` (the worker, a number) and `e` (what it is):
//!
//! ```json
//! {"t":0,"w":0,"e":"begin","version":1}
//! {"t":10,"w":0,"e":"expect","retention":false,"replicas":3,"dense":true,"grows":false}
//! {"t":100,"w":7,"e":"invoke","id":1,"op":"send","topic":"t1","part":3,"producer":7,"idem":true,"acks":"all","seq":0,"vals":[7696581394433]}
//! {"t":450,"w":7,"e":"ok","id":1,"op":"send","off":[9123],"epoch":9,"index":9200,"dup":false}
//! {"t":460,"w":8,"e":"invoke","id":2,"op":"poll","consumer":8}
//! {"t":470,"w":8,"e":"ok","id":2,"op":"poll","parts":[{"topic":"t1","part":3,"recs":[[9123,7696581394433]],"hw":9124}]}
//! {"t":480,"w":7,"e":"invoke","id":3,"op":"list_offsets","topic":"t1","part":3,"what":"end","linearizable":true}
//! {"t":900,"w":7,"e":"info","id":3,"err":"RequestTimedOut"}
//! {"t":910,"w":9,"e":"invoke","id":4,"op":"assign","consumer":9,"group":"g","topic":"t1","part":3,"since":12,"from":9123}
//! {"t":910,"w":9,"e":"ok","id":4,"op":"assign"}
//! {"t":920,"w":9,"e":"invoke","id":5,"op":"commit","consumer":9,"group":"g","parts":[{"topic":"t1","part":3,"off":9124}]}
//! {"t":930,"w":9,"e":"ok","id":5,"op":"commit"}
//! {"t":950,"w":0,"e":"fault","kind":"kill","target":"broker 2","outcome":"installed","detail":""}
//! {"t":999,"w":0,"e":"end","events":13}
//! ```
//!
//! The first line is `begin`. `expect` says what the judge may take for granted ([`Expectations`]), so that a history
//! judged again elsewhere gets the same verdict; it may be left out, and stands at most once in all files of a run.
//!
//! A call is one `invoke`, then at most one of `ok` (it happened), `fail` (it certainly did not happen) and `info` (nobody
//! knows). An `invoke` with no outcome counts as `info`. Ids count the calls of a file from 1, so that a missing line is
//! noticed; `end` is written when a recording is finished and counts the lines before it. A file without it was cut off
//! at a line's end, which is still a history.
//!
//! Values are what tells records apart: `worker << 40 | n`, each sent once ([`value`]). A record that is not of this
//! workload is read as [`FOREIGN`].

mod event;
mod files;
mod group;
mod line;
mod merge;
mod recorder;
mod write;

pub use self::event::{
    AckLevel, Answer, CallId, Event, EventKind, Expectations, Fault, FaultOutcome, FinalRead,
    FinalReadAnswer, FinalRecord, ListOffsets, ListOffsetsAnswer, Metadata, MetadataAnswer, OffsetKind, Op,
    PartitionLeader, Poll, PollAnswer, PolledPartition, Seek, SeekTo, Send, SendAnswer, TopicView, VERSION,
};
pub use self::files::files_of;
pub use self::group::{Assign, Commit, CommitPart, Committed, CommittedAnswer, Drain, Release};
pub use self::merge::{Call, History, HistoryError, Installed, Moment, Outcome};
pub use self::recorder::{Clock, Recorder};

/// The value of a record that this workload did not write: its bytes are not 16 hex digits with optional padding.
pub const FOREIGN: u64 = u64::MAX;

/// Values of one worker: the bits left of them hold the worker's number.
const VALUE_BITS: u32 = 40;

/// The `n`-th value of a worker, different from every other worker's. `n` is below 2^40, `worker` below 2^24.
pub const fn value(worker: u32, n: u64) -> u64 {
    ((worker as u64) << VALUE_BITS) | (n & ((1 << VALUE_BITS) - 1))
}

/// The worker that made a value, and how many it had made before.
pub fn value_parts(value: u64) -> (u64, u64) {
    (value >> VALUE_BITS, value & ((1 << VALUE_BITS) - 1))
}

#[cfg(test)]
mod tests;
