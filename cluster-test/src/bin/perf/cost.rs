//! Processor time and memory of processes, from `/proc` (proc(5)).

use anyhow::{Context, Result};

/// Clock ticks a second in `/proc/<pid>/stat`, fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process so far, user and system, in seconds; `self` is this one.
///
/// # Errors
/// If there is no such process.
pub(super) fn cpu_seconds(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("a line of /proc without a name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// Memory of a process, in bytes.
///
/// # Errors
/// If there is no such process.
pub(super) fn rss_bytes(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("VmRSS")?.parse()?;
    Ok(kib * 1024.0)
}
