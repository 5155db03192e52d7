//! Processor time and memory of processes, from `/proc` (proc(5)).

use anyhow::{Context, Result};

/// Clock ticks a second in `/proc/<pid>/stat`, fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What processes used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Processor time so far, user and system, of all of them together. Unit: s.
    pub cpu_seconds: f64,
    /// Processor time of the one that used most. Unit: s.
    pub cpu_seconds_max: f64,
    /// Memory of the one that has most. Unit: bytes.
    pub rss_bytes_max: f64,
}

impl Usage {
    /// Adds one process.
    pub(super) fn add(&mut self, pid: &str) -> Result<()> {
        let cpu = cpu_seconds(pid)?;
        self.cpu_seconds += cpu;
        self.cpu_seconds_max = self.cpu_seconds_max.max(cpu);
        self.rss_bytes_max = self.rss_bytes_max.max(rss_bytes(pid)?);
        Ok(())
    }
}

/// Processor time of a process so far, user and system, in seconds; `self` is this one.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("a line of /proc without a name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// Memory of a process, in bytes; `self` is this one.
///
/// # Errors
/// If there is no such process.
pub fn rss_bytes(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("VmRSS")?.parse()?;
    Ok(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_both_and_one_that_does_not_is_an_error() {
        let mut usage = Usage::default();
        usage.add("self").unwrap();
        assert!(usage.rss_bytes_max > 1e6 && usage.cpu_seconds >= usage.cpu_seconds_max, "{usage:?}");
        assert!(cpu_seconds("0").is_err() && rss_bytes("0").is_err());
    }
}
