//! Refuses produces before the disk is full, so that the WAL never fails for want of room (storage.md 7.6).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use disk::{Disk, Io, Space};

use crate::runtime::Tasks;

/// How often free space is looked at; between two looks a broker writes at most a few hundred MiB, which the distance
/// between the marks covers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// State of the room on the data directory's filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    Ample,
    /// Little: retention runs at once.
    Low,
    /// Too little: produces are refused, reads go on.
    Refusing,
    /// Almost none: this broker should give its leaderships away.
    Critical,
}

/// Free-space marks. Produces are refused below the *smaller* of `reject_bytes` and `reject_percent` of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomMarks {
    /// Produces are refused when fewer bytes are free.
    pub reject_bytes: u64,
    /// Produces are refused when less than this share of the filesystem is free; 0..=100.
    pub reject_percent: u64,
}

/// Below this many free bytes leaderships are given away, whatever the configuration says.
const CRITICAL_BYTES: u64 = 256 * 1024 * 1024;

impl RoomMarks {
    /// What `space` means under these marks. Retention is forced at twice the refusing mark; room returns to ample only
    /// a sixteenth above a mark, so that the state does not flap.
    #[must_use]
    pub fn judge(&self, space: Space, before: Room) -> Room {
        let by_percent =
            u64::try_from(u128::from(space.total) * u128::from(self.reject_percent.min(100)) / 100)
                .unwrap_or(u64::MAX);
        let reject = self.reject_bytes.min(by_percent);
        let critical = CRITICAL_BYTES.min(reject / 4);
        let low = reject.saturating_mul(2);
        let with_margin =
            |mark: u64, state: Room| if before >= state { mark.saturating_add(mark / 16) } else { mark };
        if space.free < with_margin(critical, Room::Critical) {
            Room::Critical
        } else if space.free < with_margin(reject, Room::Refusing) {
            Room::Refusing
        } else if space.free < with_margin(low, Room::Low) {
            Room::Low
        } else {
            Room::Ample
        }
    }
}

/// The filesystem to watch.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Async door to them.
    pub io: Io,
    /// A path on the filesystem: the data directory.
    pub path: PathBuf,
}

/// The gate that every produce passes; cheap to clone.
#[derive(Debug, Clone)]
pub struct StorageGate(Arc<AtomicU8>);

impl Default for StorageGate {
    fn default() -> Self {
        Self::new()
    }
}

impl StorageGate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU8::new(0)))
    }

    /// The present state.
    #[must_use]
    pub fn room(&self) -> Room {
        match self.0.load(Ordering::Relaxed) {
            0 => Room::Ample,
            1 => Room::Low,
            2 => Room::Refusing,
            _ => Room::Critical,
        }
    }

    /// True if produces are refused.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.room() >= Room::Refusing
    }

    /// Sets the state; the monitor does, and tests do.
    pub fn set(&self, room: Room) {
        let value = match room {
            Room::Ample => 0,
            Room::Low => 1,
            Room::Refusing => 2,
            Room::Critical => 3,
        };
        self.0.store(value, Ordering::Relaxed);
    }

    /// Watches the free space each second until the tasks' scope ends.
    pub fn watch(&self, tasks: &Tasks, volume: Volume, marks: RoomMarks) {
        let Volume { disk, io, path } = volume;
        let gate = self.clone();
        let stop = tasks.token();
        tasks.spawn("disk-space", 0, async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let (disk, path) = (disk.clone(), path.clone());
                match io.run(move || disk.space(&path)).await {
                    Ok(space) => gate.note(marks.judge(space, gate.room()), space),
                    Err(error) => tracing::warn!(error = %error, "free space cannot be read"),
                }
            }
        });
    }

    fn note(&self, room: Room, space: Space) {
        if room == self.room() {
            return;
        }
        if room >= Room::Refusing {
            tracing::error!(free_bytes = space.free, state = ?room, "disk almost full, produces are refused");
        } else {
            tracing::info!(free_bytes = space.free, state = ?room, "disk space changed");
        }
        self.set(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MARKS: RoomMarks = RoomMarks { reject_bytes: GIB, reject_percent: 5 };

    #[test]
    fn the_smaller_mark_counts() {
        let large = Space { free: GIB - 1, total: 1000 * GIB };
        assert_eq!(MARKS.judge(large, Room::Ample), Room::Refusing);
        let small = Space { free: GIB - 1, total: 10 * GIB };
        assert_eq!(MARKS.judge(small, Room::Ample), Room::Low);
        assert_eq!(MARKS.judge(Space { free: GIB / 4, total: 10 * GIB }, Room::Ample), Room::Refusing);
    }

    #[test]
    fn the_gate_opens_again_only_with_a_margin() {
        let at_mark = Space { free: GIB, total: 1000 * GIB };
        assert_eq!(MARKS.judge(at_mark, Room::Ample), Room::Low);
        assert_eq!(MARKS.judge(at_mark, Room::Refusing), Room::Refusing);
        assert_eq!(MARKS.judge(Space { free: GIB + GIB / 16, total: 1000 * GIB }, Room::Refusing), Room::Low);
    }

    #[test]
    fn almost_nothing_is_critical() {
        assert_eq!(MARKS.judge(Space { free: 1, total: 1000 * GIB }, Room::Ample), Room::Critical);
        assert_eq!(MARKS.judge(Space { free: 1000 * GIB, total: 1000 * GIB }, Room::Critical), Room::Ample);
    }
}
