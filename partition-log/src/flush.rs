//! Makes appended bytes durable, seals full segments, removes dead ones. Runs beside appends and reads.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use disk::DiskError;
use disk::frame::write_framed;

use crate::LogError;
use crate::log::Shared;
use crate::paths::{SUFFIXES, floor_file, segment_file};
use crate::segment::Segment;
use crate::state::CutMark;

/// Magic of the floor file; its payload is the floor as u64, little endian.
pub(crate) const FLOOR_MAGIC: [u8; 8] = *b"ALTRFLOR";
pub(crate) const FLOOR_VERSION: u16 = 1;

/// Work of one flush, made by [`crate::PartitionLog::flush_plan`].
#[derive(Debug)]
#[must_use = "a plan does nothing until it runs"]
pub struct FlushPlan {
    shared: Arc<Shared>,
    full: Vec<Arc<Segment>>,
    active: Option<Arc<Segment>>,
    mark: CutMark,
}

impl FlushPlan {
    pub(crate) fn new(
        shared: Arc<Shared>,
        full: Vec<Arc<Segment>>,
        active: Option<Arc<Segment>>,
        mark: CutMark,
    ) -> Self {
        Self { shared, full, active, mark }
    }

    /// Syncs full segments and writes their `.sealed` files, syncs the active one, then the directory; at last removes
    /// segments below the log start that nobody holds any more. Returns the mark of the moment of the plan.
    ///
    /// # Errors
    /// Any error is fatal to the broker (I3); the log takes no more writes.
    pub fn run(self) -> Result<CutMark, LogError> {
        self.shared.check()?;
        let shared = self.shared.clone();
        shared.guard(self.sync())?;
        let mark = self.mark;
        // The plan is a holder too: what was trimmed while it ran may go now.
        drop(self);
        shared.guard(reap(&shared))?;
        Ok(mark)
    }

    fn sync(&self) -> Result<(), LogError> {
        for segment in &self.full {
            segment.seal()?;
            // The `.sealed` file is a new name.
            self.shared.names_unsynced.store(true, Ordering::Release);
        }
        if let Some(active) = &self.active {
            active.flush()?;
        }
        // Lowered before the sync: a file created meanwhile raises it again.
        if self.shared.names_unsynced.swap(false, Ordering::AcqRel) {
            self.shared.place.disk.sync_dir(&self.shared.place.dir)?;
        }
        Ok(())
    }
}

/// Removes the files of segments below the log start that no reader holds.
///
/// A state that is restored later may still name them. So the floor is made durable first: below it a missing segment
/// was removed by a committed command, above it one is lost (I11).
fn reap(shared: &Shared) -> Result<(), LogError> {
    let mut dead = Vec::new();
    {
        let mut graveyard = shared.graveyard.lock().unwrap_or_else(PoisonError::into_inner);
        graveyard.retain(|segment| {
            // The only holder is the graveyard itself, and nobody can get another from it.
            let free = Arc::strong_count(segment) == 1;
            if free {
                dead.push((segment.base(), segment.next()));
            }
            !free
        });
    }
    let Some(floor) = dead.iter().map(|&(_, next)| next).max() else { return Ok(()) };
    let (disk, dir) = (&*shared.place.disk, &shared.place.dir);
    write_framed(disk, &floor_file(dir), FLOOR_MAGIC, FLOOR_VERSION, &floor.to_le_bytes())?;
    for (base, _) in dead {
        for suffix in SUFFIXES {
            match disk.remove(&segment_file(dir, base, suffix)) {
                Ok(()) | Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(disk.sync_dir(dir)?)
}
