//! Names of a log's files.

use std::path::{Path, PathBuf};

/// Suffixes of the files of a segment.
pub(crate) const SUFFIXES: [&str; 4] = ["log", "index", "timeindex", "sealed"];

pub(crate) fn segment_file(dir: &Path, base: u64, suffix: &str) -> PathBuf {
    dir.join(format!("{base:020}.{suffix}"))
}

/// First offset of the segment that a file name belongs to.
pub(crate) fn base_of(name: &str) -> Option<u64> {
    let (base, suffix) = name.split_once('.')?;
    let ours =
        SUFFIXES.contains(&suffix) && base.len() == 20 && base.bytes().all(|byte| byte.is_ascii_digit());
    if ours { base.parse().ok() } else { None }
}

pub(crate) fn floor_file(dir: &Path) -> PathBuf {
    dir.join("log-start.floor")
}

pub(crate) fn incoming(dir: &Path) -> PathBuf {
    dir.join("incoming")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segment_files_have_a_base() {
        assert_eq!(base_of("00000000000000000042.timeindex"), Some(42));
        for other in
            ["state-42.snap", "42.log", "00000000000000000042.tmp", "0000000000000000004x.log", "log"]
        {
            assert_eq!(base_of(other), None, "{other}");
        }
        let path = segment_file(Path::new("d"), 7, "log");
        assert_eq!(base_of(path.file_name().unwrap().to_str().unwrap()), Some(7));
    }
}
