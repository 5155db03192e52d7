//! Real SDK clients at work, every call and its outcome written into a history.
//!
//! Writers send unique values, readers poll and seek, observers ask for offsets and metadata, members of consumer groups
//! share the reading and commit, bare writers do without the SDK's producer; none of them ends because of an error. What
//! they choose comes from one seed and all time from `tokio::time`, so a workload runs in a simulation as it runs against
//! real brokers.
//!
//! ```no_run
//! # async fn example(recorder: verify::history::Recorder) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use client::ClientConfig;
//! use tokio_util::sync::CancellationToken;
//! use verify::workload::{FinalReadSpec, TopicTarget, Workload, WorkloadSpec, final_read};
//!
//! let topics = vec![TopicTarget::new("orders", 3)];
//! let clients = Arc::new(|_worker| ClientConfig::new(["127.0.0.1:7400"]));
//! let workload = Workload::new(WorkloadSpec::new(7, clients, topics.clone()), recorder.clone())?;
//! let (progress, stop) = (workload.progress(), CancellationToken::new());
//! // Elsewhere: look at progress.snapshot(), inject faults, and at last stop.cancel().
//! workload.run(stop).await;
//! let read = final_read(&FinalReadSpec::new(ClientConfig::new(["127.0.0.1:7400"]), topics), &recorder).await?;
//! assert!(read.troubles.is_empty());
//! recorder.finish()?;
//! # drop(progress); Ok(())
//! # }
//! ```

mod bare;
mod choices;
mod final_read;
mod member;
mod observer;
mod progress;
mod reader;
mod replica;
mod spec;
mod value;
mod writer;

use std::sync::Arc;

use client::ClientError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::bare::Bare;
use self::choices::Choices;
use self::member::Member;
use self::observer::Observer;
use self::reader::Reader;
use self::writer::Writer;
use crate::history::{CallId, Recorder};

pub use self::final_read::{FinalReadSpec, FinalReads, Trouble, final_read};
pub use self::member::{NotDrained, drain};
pub use self::progress::{PartitionProgress, Progress, ProgressWatch, Role, WorkerProgress};
pub use self::spec::{
    BareSpec, Clients, DrainSpec, MemberSpec, ObserverSpec, Placement, ReaderSpec, SpecError, TopicTarget,
    WorkloadSpec, WriterSpec,
};

/// A workload that is ready to run.
#[derive(Debug)]
pub struct Workload {
    spec: WorkloadSpec,
    recorder: Recorder,
    progress: ProgressWatch,
}

impl Workload {
    /// Checks the specification; starts nothing.
    ///
    /// # Errors
    /// Everything that cannot work.
    pub fn new(spec: WorkloadSpec, recorder: Recorder) -> Result<Self, SpecError> {
        spec.validate()?;
        let progress = ProgressWatch::new(&spec);
        Ok(Self { spec, recorder, progress })
    }

    /// A handle to the counters, for as long as anyone wants to look.
    pub fn progress(&self) -> ProgressWatch {
        self.progress.clone()
    }

    /// Runs until `stop`, then waits at most `settle` for the outcomes of what was sent; what has none then is recorded
    /// as unknown. Returns the last counters.
    ///
    /// # Cancel safety
    /// Dropping it ends all workers at once; calls under way have no outcome in the history then, which means unknown.
    pub async fn run(self, stop: CancellationToken) -> Progress {
        let Self { spec, recorder, progress } = self;
        let places: Arc<[Place]> = Place::all(&spec.topics).into();
        let mut numbers = spec.first_worker..;
        let mut worker = || {
            let number = numbers.next().unwrap_or(u32::MAX);
            Worker {
                number,
                config: (spec.clients)(number),
                recorder: recorder.clone(),
                progress: progress.clone(),
                choices: Choices::new(spec.seed, number),
                places: Arc::clone(&places),
            }
        };
        let mut workers = JoinSet::new();
        for writer in &spec.writers {
            workers.spawn(Writer::new(worker(), writer.clone()).run(stop.clone(), spec.settle));
        }
        for reader in &spec.readers {
            workers.spawn(Reader::new(worker(), *reader).run(stop.clone()));
        }
        for observer in &spec.observers {
            workers.spawn(Observer::new(worker(), *observer).run(stop.clone()));
        }
        for member in &spec.members {
            workers.spawn(Member::new(worker(), member.clone()).run(stop.clone()));
        }
        for bare in &spec.bare {
            workers.spawn(Bare::new(worker(), *bare).run(stop.clone()));
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                // A broken tool must not look like a finished run.
                std::panic::resume_unwind(panic);
            }
        }
        progress.snapshot()
    }
}

/// A partition of the workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    topic: Arc<str>,
    part: u32,
    /// Partitions of the topic.
    of: u32,
}

impl Place {
    fn all(topics: &[TopicTarget]) -> Vec<Self> {
        let of_topic = |target: &TopicTarget| {
            let (topic, of): (Arc<str>, u32) = (target.name.as_str().into(), target.partitions);
            (0..of).map(move |part| Self { topic: Arc::clone(&topic), part, of })
        };
        topics.iter().flat_map(of_topic).collect()
    }
}

/// What every worker has.
#[derive(Debug)]
struct Worker {
    number: u32,
    config: client::ClientConfig,
    recorder: Recorder,
    progress: ProgressWatch,
    choices: Choices,
    places: Arc<[Place]>,
}

impl Worker {
    /// The number of the worker's `n`-th producer or consumer; no other in the run has it.
    fn session(&self, n: u32) -> u64 {
        u64::from(self.number) << 32 | u64::from(n)
    }

    /// Records a call that got no answer.
    fn note_error(&self, call: CallId, error: &ClientError) {
        match error {
            ClientError::Unknown(_) => self.recorder.info(call, error.code().name()),
            _ => self.recorder.fail(call, error.code().name()),
        }
        self.progress.of(self.number, |worker| worker.errors += 1);
    }
}

/// What stands in the history where the workload's own end left a call without an outcome.
const STOPPED: &str = "workload_stopped";

#[cfg(test)]
mod tests;
