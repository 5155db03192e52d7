//! What runs leave when they are killed: directories, disks, containers. Found by the names that the harness gives, and
//! touched only when the lock of the run that made them is free.
//!
//! Namespaces with everything in them are not here: the kernel removes those itself, see [`sandbox`](super::sandbox).

use std::path::Path;

use anyhow::Result;

use super::fabric::docker;
use super::{power, workdir};

/// Removes what dead runs left on this machine; says what it was.
///
/// # Errors
/// If something is there and cannot be removed.
pub fn clear() -> Result<Vec<String>> {
    let mut removed = docker::clear_stale()?;
    let paths = power::clear_stale()?.into_iter().chain(workdir::clear_stale()?);
    removed.extend(paths.map(|path| path.display().to_string()));
    Ok(removed)
}

/// Removes what the run in `work` has made, as far as it can: the run is about to end in the middle of something.
pub fn abandon(work: &Path) {
    docker::remove(work);
    // Brokers may still write to it, and have disks in it; what is left is removed by the next run.
    let _ = workdir::remove(work);
}
