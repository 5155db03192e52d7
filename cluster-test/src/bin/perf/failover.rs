//! How long a killed leader is missed: the longest time without an ack in `altair demo`.

use anyhow::{Context, Result, ensure};
use cluster_test::harness::{altair, run};
use serde_json::Value;

use super::contest::Figures;

/// One demo: three brokers, a producer at full speed, the leader killed.
///
/// # Errors
/// If the demo fails, which it does if anything acknowledged is lost.
pub(super) async fn demo() -> Result<Figures> {
    let output = run(altair(), ["demo", "--output", "json"], None).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(text.lines().last().context("the demo said nothing")?)?;
    let gap = report.get("unavailable_ms").and_then(Value::as_f64).context("unavailable_ms")?;
    Ok(Figures::from([("gap", gap)]))
}
