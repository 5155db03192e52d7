//! The files of the workspace as text.

use std::path::{Path, PathBuf};

/// One Rust file.
pub(crate) struct Source {
    /// Path from the workspace's root, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl Source {
    /// The text without comments and without the unit tests at its end.
    pub(crate) fn code(&self) -> String {
        let mut code = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("#[cfg(test)]") && !line.starts_with(' ') {
                break;
            }
            if !line.trim_start().starts_with("//") {
                code.push_str(line);
                code.push('\n');
            }
        }
        code
    }
}

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Text of one file of the workspace.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files but generated ones.
pub(crate) fn sources() -> Vec<Source> {
    let files = workspace_files(".rs");
    assert!(files.len() > 20, "only {} Rust files found: is this the workspace's root?", files.len());
    files.into_iter().map(|path| Source { text: text(&path), path }).collect()
}

/// Paths of all files with an ending, sorted, build output left out.
pub(crate) fn workspace_files(ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if entry.path().is_dir() {
                let skipped = matches!(name.as_str(), "target" | "data") || name.starts_with('.');
                if !skipped {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
