//! The doors of a broker to the world: tasks, time, randomness, network, disk threads, and the fatal stop.
//!
//! Everything above is built from one [`Seams`]; a simulation hands in its own and so owns the whole broker.
//!
//! **Invariant:** no other module spawns a task, reads a clock, opens a socket or draws a random number by itself.
//! Waiting uses `tokio::time`, which a paused runtime drives.

mod clock;
mod disk_io;
mod fatal;
mod http_executor;
mod net;
mod probe;
mod raft_runtime;
mod random;
mod tasks;
pub mod telemetry;

use std::sync::Arc;

pub use clock::Clock;
pub use disk_io::disk_io;
pub use fatal::Fatal;
pub use http_executor::HttpExecutor;
pub use net::{BoxStream, Duplex, Listener, Net, TcpNet};
pub(crate) use probe::ReplicaProbe;
pub use probe::{Probe, ProbeEvent};
pub use raft_runtime::{RaftRuntime, RaftTask, RaftTaskError, TickInstant, set_raft_seed};
pub use random::Random;
pub use tasks::Tasks;

/// Everything through which a broker touches the world; cheap to clone.
#[derive(Clone)]
pub struct Seams {
    /// Files.
    pub disk: Arc<dyn disk::Disk>,
    /// How async code calls `disk`.
    pub io: disk::Io,
    /// Sockets.
    pub net: Arc<dyn Net>,
    /// Wall clock, for the timestamps of records only.
    pub clock: Clock,
    /// Seeded randomness and ids.
    pub random: Random,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// Stops the broker for good.
    pub fatal: Fatal,
    /// Who drives the write-ahead log.
    pub wal: WalDriver,
    /// Where keyed state stands with `storage.mode: disk`; with `memory` it is always in memory.
    pub keyed: KeyedKind,
    /// Who watches what happens inside; nobody in production.
    pub probe: Probe,
}

/// Where the keyed state of state machines stands. It is never the only copy of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyedKind {
    /// In sled, below the data directory.
    #[default]
    Disk,
    /// In memory, lost at every stop: in a simulation, and with `storage.mode: memory`.
    Memory,
}

/// Who drives the one writer of the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalDriver {
    /// A thread of its own, which blocks in the disk.
    #[default]
    Thread,
    /// A task of [`Tasks`]: a simulation has no threads, and its disk does not block.
    Task,
}

/// Memory of this machine in bytes.
#[must_use]
pub fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}
