//! Directories whose names outlive a power cut.

use std::path::Path;

use crate::{Disk, Result};

/// Creates a directory and its parents, and makes the names of all of them durable: what is synced within a directory is
/// gone all the same if the directory's own name is not there after a power cut.
///
/// Directories that were there before are synced too, since an earlier process may have died between making and syncing
/// them; there an error is no failure, as the directory may belong to somebody else who does not let us read it.
///
/// # Errors
/// A directory cannot be made, or the name of one that was made cannot be synced.
pub fn create_dir_all_durable(disk: &dyn Disk, path: &Path) -> Result<()> {
    let names = || path.ancestors().filter(|name| name.parent().is_some() && !name.as_os_str().is_empty());
    let made = names().take_while(|name| !disk.exists(name)).count();
    disk.create_dir_all(path)?;
    for (nth, name) in names().enumerate() {
        let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty());
        match disk.sync_dir(parent.unwrap_or(Path::new("."))) {
            Err(error) if nth < made => return Err(error),
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}
