//! Directories whose names outlive a loss of power.

use std::io::ErrorKind;
use std::path::Path;

use crate::{Disk, DiskError, Result};

/// Makes a directory, with those above it that are missing, and syncs the directories that hold their names: what is
/// synced inside a directory is lost all the same when its own name never was.
///
/// A directory that is there may have been made by a process that was killed before it synced the name, so the names of
/// the last `levels` parts of the path are synced in any case. A parent that this process may not sync, as that of a
/// mount point, belongs to whoever made the directory, and so does the name.
///
/// # Errors
/// As the disk says.
pub fn create_dir_durably(disk: &dyn Disk, path: &Path, levels: usize) -> Result<()> {
    let missing = path.ancestors().take_while(|path| !is_start(path) && !disk.exists(path)).count();
    disk.create_dir_all(path)?;
    let names = path.ancestors().take_while(|path| !is_start(path));
    for (level, name) in names.take(missing.max(levels)).enumerate() {
        let Some(parent) = name.parent() else { break };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match disk.sync_dir(parent) {
            Err(error) if level < missing || !is_refusal(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Where a path begins: the root, or the working directory of a relative path.
fn is_start(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.parent().is_none()
}

fn is_refusal(error: &DiskError) -> bool {
    let DiskError::Io { source, .. } = error else { return false };
    matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
