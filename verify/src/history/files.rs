//! Which files are meant when a person names files and directories.

use std::path::{Path, PathBuf};

use super::merge::HistoryError;

/// Ending of the histories that a directory is searched for.
const ENDING: &str = "jsonl";

/// The histories of one run: files as they are named, and of directories those files that end with `.jsonl`, by name.
/// Directories within directories are other runs.
///
/// # Errors
/// [`HistoryError::Io`] if a directory cannot be read, [`HistoryError::NoneThere`] if no history is in it.
pub fn files_of<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<PathBuf>, HistoryError> {
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() { files.extend(histories_in(path)?) } else { files.push(path.to_owned()) }
    }
    Ok(files)
}

fn histories_in(dir: &Path) -> Result<Vec<PathBuf>, HistoryError> {
    let unreadable = |source| HistoryError::Io { path: dir.display().to_string(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() && path.extension().is_some_and(|ending| ending == ENDING) {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(HistoryError::NoneThere { path: dir.display().to_string() });
    }
    found.sort();
    Ok(found)
}
