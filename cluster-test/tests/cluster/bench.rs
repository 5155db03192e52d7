//! `altair-cli bench` against real brokers: it counts what it did, and leaves nothing behind.

use anyhow::{Context, Result, ensure};
use cluster_test::harness::{TestCluster, altair_cli, run};
use serde_json::Value;

/// Runs one benchmark and returns its JSON.
async fn bench(cluster: &TestCluster, args: &[&str]) -> Result<Value> {
    let addr = cluster.brokers.bootstrap().join(",");
    let all = [&["bench"], args, &["--addr", &addr, "-o", "json"]].concat();
    let output = run(altair_cli(), all, None).await?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the result is JSON")
}

fn number(result: &Value, field: &str) -> f64 {
    result.pointer(field).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn benchmarks_measure_real_records_and_delete_their_topics() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    let short = ["--duration", "1s", "--warmup", "0s", "--partitions", "3"];

    let paced =
        bench(&cluster, &[&["produce", "--rate", "200", "--acks", "leader"], &short[..]].concat()).await?;
    // The machine may be slow, the pace is not exceeded.
    ensure!((1.0..=202.0).contains(&number(&paced, "/records")), "{paced}");
    ensure!(number(&paced, "/ack_ms/p50") > 0.0 && paced["corrected"] == true, "{paced}");
    ensure!(number(&paced, "/local_brokers") >= 3.0, "{paced}");

    let written = ["consume", "--preload", "2MiB", "--record-size", "1000", "--partitions", "3"];
    let read = bench(&cluster, &written).await?;
    ensure!(number(&read, "/bytes") >= f64::from(2 << 20), "{read}");
    ensure!(number(&read, "/bytes") == number(&read, "/records") * 1000.0, "{read}");

    let through = bench(&cluster, &[&["e2e", "--rate", "200"], &short[..]].concat()).await?;
    ensure!(number(&through, "/end_to_end_ms/p50") > 0.0, "{through}");
    ensure!(number(&through, "/end_to_end_ms/max") >= number(&through, "/ack_ms/p50") / 2.0, "{through}");

    let topics = client.admin().metadata(Vec::new()).await?.topics;
    ensure!(topics.is_empty(), "left behind: {topics:?}");
    Ok(())
}
