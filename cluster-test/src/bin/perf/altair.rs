//! Altair under `altair-cli bench`, on a cluster of its own in each run.

use anyhow::{Context, Result, ensure};
use cluster_test::harness::{TestCluster, altair_cli, run};
use serde_json::Value;

use super::contest::Figures;

/// A cluster and a benchmark on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bench {
    pub(super) brokers: u32,
    /// `bench` and what follows.
    pub(super) args: &'static [&'static str],
    /// Seconds of measurement, where the benchmark takes them.
    pub(super) span: Option<u64>,
}

/// Starts a cluster, runs the benchmark, stops the cluster.
///
/// # Errors
/// If either fails.
pub(super) async fn bench(bench: Bench) -> Result<Figures> {
    let cluster = TestCluster::start(bench.brokers).await?;
    bench_at(&cluster.brokers.bootstrap(), bench.args, bench.span).await
}

/// Runs a benchmark on a cluster that is there.
///
/// # Errors
/// If it fails.
pub(super) async fn bench_at(bootstrap: &[String], what: &[&str], seconds: Option<u64>) -> Result<Figures> {
    let mut args = ["--addr", &bootstrap.join(","), "-o", "json", "bench"].map(str::to_owned).to_vec();
    args.extend(what.iter().map(|arg| (*arg).to_owned()));
    if let Some(seconds) = seconds {
        args.extend(["--duration".to_owned(), format!("{seconds}s")]);
    }
    let output = run(altair_cli(), args, None).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    figures(&serde_json::from_str(&text).with_context(|| format!("the output of bench: {text}"))?)
}

/// What a benchmark reported, by the names of the rows.
fn figures(report: &Value) -> Result<Figures> {
    let report = report.get("results").and_then(|all| all.get(0)).unwrap_or(report);
    let number =
        |path: &[&str]| path.iter().try_fold(report, |value, key| value.get(key)).and_then(Value::as_f64);
    let bytes = number(&["bytes_per_second"]).context("bytes_per_second")?;
    let mut figures = Figures::from([("mib", bytes / f64::from(1 << 20))]);
    figures.insert("records", number(&["records_per_second"]).context("records_per_second")?);
    let times = if number(&["end_to_end_ms", "p50"]).is_some() { "end_to_end_ms" } else { "ack_ms" };
    for (name, field) in [("p50", "p50"), ("p99", "p99")] {
        figures.extend(number(&[times, field]).map(|ms| (name, ms)));
    }
    figures.extend(number(&["cpu_seconds_per_gb"]).map(|cpu| ("cpu", cpu)));
    figures.extend(number(&["broker_rss_bytes"]).map(|bytes| ("rss", bytes / f64::from(1 << 20))));
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_figures() {
        let report = serde_json::json!({
            "bytes_per_second": 2_097_152.0, "records_per_second": 2_048.0, "cpu_seconds_per_gb": 9.5,
            "broker_rss_bytes": 1_048_576, "ack_ms": {"p50": 1.0, "p99": 2.0},
            "end_to_end_ms": {"p50": 3.0, "p99": 4.0},
        });
        let read = figures(&report).expect("whole");
        let wanted =
            [("cpu", 9.5), ("mib", 2.0), ("p50", 3.0), ("p99", 4.0), ("records", 2_048.0), ("rss", 1.0)];
        assert_eq!(read, Figures::from(wanted));
        assert!(figures(&serde_json::json!({"bench": "produce"})).is_err());
    }
}
