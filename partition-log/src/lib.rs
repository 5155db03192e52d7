//! The product's log: segments of record batches with their indexes.
//!
//! Synchronous code that knows nothing of Raft and nothing of requests. One writer ([`PartitionLog`]) appends batches that
//! are committed already and gives them dense offsets; any number of readers ([`LogReader`]) share what it has written.
//!
//! ```text
//!            log start                                                        next offset
//!                │                                                                 │
//!   ┌── 0.log ───▼──────┐┌── 8120.log ───────┐┌── 16377.log (active) ──────────────▼
//!   │ sealed            ││ sealed            ││ ……… synced …………│ page cache …… │tail cache│
//!   └───────────────────┘└───────────────────┘└────────────────▲────────────────────
//!    .index .timeindex .sealed                             mark (CutMark)
//! ```
//!
//! | file, named by its first offset in 20 digits | content |
//! |---|---|
//! | `.log` | record batches as consumers get them, base offset and leader epoch stamped |
//! | `.index`, `.timeindex` | sparse indexes, see `index.rs`; hints, checked by CRC-32C and rebuilt |
//! | `.sealed` | 64 bytes that name length and checksums of a segment that grows no more, see `footer.rs` |
//! | `log-start.floor` | framed; offset below which segments may be missing because a committed command removed them |
//! | `incoming/` | segments that a lagging replica is pulling from a peer |
//!
//! - **Invariant:** offsets are dense; the bytes at an offset are the same on every replica (I6).
//! - **Invariant:** only committed batches are appended, so nothing is ever cut but what recovery writes again.
//! - **Invariant:** recovery keeps what the restored [`StateSnapshot`] names and nothing above it, so that producer state
//!   and log are of the same moment (architecture, section 14.3).
//! - **Invariant:** bytes that come from the disk are checked before they are returned: CRC-32C of the batch, its place in
//!   the chain of offsets, its leader epoch. That costs about 0.1 s of one core per GiB read; the tail cache holds what was
//!   written by this process and is not checked.

mod config;
mod error;
mod flush;
mod footer;
mod index;
mod install;
mod leader_epochs;
mod log;
mod paths;
mod producer_state;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
mod segment_cache;
mod stamped;
mod state;
mod tail_cache;

pub use config::LogConfig;
pub use error::LogError;
pub use flush::FlushPlan;
pub use install::{SegmentWriter, discard_incoming};
pub use leader_epochs::{EpochStart, LeaderEpochs};
pub use log::{Appended, PartitionLog};
pub use producer_state::{BATCHES_REMEMBERED, ProducerEntry, ProducerState, RememberedBatch, Verdict};
pub use reader::{LogReader, ReadOutcome};
pub use recovery::OpenReport;
pub use segment_cache::SegmentCache;
pub use state::{CutMark, SegmentInfo, StateError, StateSnapshot};
