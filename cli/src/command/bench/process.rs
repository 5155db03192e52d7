//! What the benchmark and the brokers on this machine cost, from `/proc` (proc(5)).

use std::path::Path;

/// Clock ticks a second in `/proc/<pid>/stat`, fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// The brokers' program and its command.
const BROKER: [&str; 2] = ["altair", "serve"];

/// CPU time and memory at one moment; zero where there is no `/proc`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Brokers found on this machine.
    pub(super) brokers: u64,
    pub(super) client_cpu_seconds: f64,
    pub(super) broker_cpu_seconds: f64,
    pub(super) broker_rss_bytes: u64,
}

impl Cost {
    /// The cost so far.
    pub(super) fn now() -> Self {
        let mut cost = Self { client_cpu_seconds: cpu_seconds("self"), ..Self::default() };
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else { continue };
            if is_broker(pid) {
                cost.brokers += 1;
                cost.broker_cpu_seconds += cpu_seconds(pid);
                cost.broker_rss_bytes += rss_bytes(pid);
            }
        }
        cost
    }

    /// What was spent since `earlier`; memory as it is now.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            client_cpu_seconds: self.client_cpu_seconds - earlier.client_cpu_seconds,
            broker_cpu_seconds: self.broker_cpu_seconds - earlier.broker_cpu_seconds,
            ..self
        }
    }
}

fn read(pid: &str, file: &str) -> String {
    std::fs::read_to_string(Path::new("/proc").join(pid).join(file)).unwrap_or_default()
}

/// `altair serve …`, wherever the program lies.
fn is_broker(pid: &str) -> bool {
    let line = read(pid, "cmdline");
    let mut words = line.split('\0');
    let program = words.next().and_then(|path| path.rsplit('/').next());
    program == Some(BROKER[0]) && words.next() == Some(BROKER[1])
}

/// User and system time: fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_seconds(pid: &str) -> f64 {
    let stat = read(pid, "stat");
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

fn rss_bytes(pid: &str) -> u64 {
    let status = read(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_memory() {
        assert!(rss_bytes("self") > 1 << 20);
        assert!(cpu_seconds("self") >= 0.0);
    }
}
