//! How long the simulated disk takes.

use std::sync::Arc;
use std::time::Duration;

use broker::runtime::{Random, Tasks};
use disk::faulty::FaultyDisk;
use disk::{Io, Submit};

/// Runs disk jobs in tasks of the simulated host, each after the time that the device takes.
struct Device {
    tasks: Tasks,
    disk: FaultyDisk,
    random: Random,
    /// Longest wait of a healthy device. Unit: ms.
    base_ms: u64,
}

impl Submit for Device {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        let healthy = Duration::from_millis(self.random.range(0..self.base_ms + 1));
        let wait = healthy + self.disk.slow();
        if wait.is_zero() {
            job();
            return;
        }
        self.tasks.spawn("device", 0, async move {
            tokio::time::sleep(wait).await;
            job();
        });
    }
}

/// The way to `disk` for one life of a broker; jobs that wait die with `tasks`.
pub(super) fn io(tasks: Tasks, disk: FaultyDisk, random: Random, base_ms: u64) -> Io {
    Io::new(Arc::new(Device { tasks, disk, random, base_ms }))
}
