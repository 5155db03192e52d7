//! Wall clocks that jump: brokers run under `libfaketime`, each with a file of its own that says how far its clock is off.
//!
//! Only wall time is set apart. The monotonic clock, on which every timer and every lease runs, stays true: no correctness
//! may hang on the other one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where Debian and its relatives put the library.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// How old the file's content may be to a broker. Unit: s.
const CACHE_SECONDS: &str = "1";

/// Whether this machine can set a broker's clock apart.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), String> {
    library().map(|_| ()).ok_or_else(|| "libfaketime is not installed (package libfaketime)".to_owned())
}

fn library() -> Option<&'static str> {
    LIBRARIES.iter().copied().find(|path| Path::new(path).is_file())
}

/// The clock of one broker.
#[derive(Debug, Clone)]
pub struct BrokerClock {
    file: PathBuf,
}

impl BrokerClock {
    /// A clock whose offset stands in a file of `folder`, which must exist. It is true at first.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn make(folder: &Path, broker: u32) -> Result<Self> {
        let clock = Self { file: folder.join(format!("clock-{broker}")) };
        clock.set(0)?;
        Ok(clock)
    }

    /// Environment of the broker's process; empty where the library is missing.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let Some(library) = library() else { return BTreeMap::new() };
        let file = self.file.to_string_lossy().into_owned();
        let pairs = [
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_CACHE_DURATION", CACHE_SECONDS.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Sets the clock off by so many seconds; the broker sees it within a second or two.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // Renamed into place: a broker never reads half a file.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, format!("{seconds:+}\n"))
            .with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &self.file).with_context(|| format!("writing {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Seconds since the epoch as a program sees them under these variables.
    fn seconds(environment: &BTreeMap<String, String>) -> i64 {
        let output = Command::new("date").arg("+%s").envs(environment).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    #[test]
    fn a_program_sees_the_clock_that_was_set() {
        if let Err(missing) = check() {
            eprintln!("skipped: {missing}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let clock = BrokerClock::make(folder.path(), 1).unwrap();
        let truth = seconds(&BTreeMap::new());
        assert!((seconds(&clock.environment()) - truth).abs() < 60);
        clock.set(7_200).unwrap();
        assert!((seconds(&clock.environment()) - truth - 7_200).abs() < 60);
        clock.set(-3_600).unwrap();
        assert!((seconds(&clock.environment()) - truth + 3_600).abs() < 60);
    }
}
