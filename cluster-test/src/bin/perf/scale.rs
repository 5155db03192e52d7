//! The suite `scale`: what partitions cost on three brokers, from none to a thousand of them with three replicas each, and
//! ten thousand idle ones on a single broker.

use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::http_get;
use cluster_test::harness::{TestCluster, Usage};
use tokio::time::Instant;

use super::altair::bench_at;
use super::contest::{Bound, Contest, Figures, Plan, Row, Side};

pub(super) const ALTAIR: &str = "Altair";
const MIB: f64 = 1024.0 * 1024.0;
const TOPIC: &str = "scale";
/// Start-up and creation have their aftermath; what is measured is the rest.
const SETTLE: Duration = Duration::from_secs(5);
const HTTP: Duration = Duration::from_secs(5);

/// A number of partitions and who carries them.
#[derive(Debug, Clone, Copy)]
struct Point {
    name: &'static str,
    what: &'static str,
    brokers: u32,
    partitions: u32,
}

const POINTS: [Point; 6] = [
    Point { name: "partitions-0", what: "three brokers without a topic", brokers: 3, partitions: 0 },
    Point { name: "partitions-10", what: "10 partitions, RF 3", brokers: 3, partitions: 10 },
    Point { name: "partitions-100", what: "100 partitions, RF 3", brokers: 3, partitions: 100 },
    Point { name: "partitions-300", what: "300 partitions, RF 3", brokers: 3, partitions: 300 },
    Point { name: "partitions-1000", what: "1,000 partitions, RF 3", brokers: 3, partitions: 1_000 },
    Point {
        name: "one-broker-10000",
        what: "10,000 idle partitions on one broker",
        brokers: 1,
        partitions: 10_000,
    },
];

/// One contest for each number of partitions.
pub(super) fn contests(plan: Plan) -> Vec<Contest> {
    POINTS.map(|point| contest(point, plan)).into()
}

fn contest(point: Point, plan: Plan) -> Contest {
    let judged = |most: f64, applies: bool| applies.then_some(Bound::AtMost(most));
    let row = |figure, what, unit, asked| Row { asked, ..Row::plain(ALTAIR, figure, what, unit) };
    let (none, thousand) = (point.partitions == 0, point.partitions == 1_000);
    let rss = if none { judged(30.0, true) } else { judged(300.0, thousand) };
    let mut rows = vec![
        row("idle_rss", "idle: memory of the largest broker", "MiB", rss),
        row("idle_cpu", "idle: processor of the busiest broker", "% of a core", judged(5.0, thousand)),
    ];
    if !none {
        rows.push(row("created", "created after", "s", judged(15.0, thousand)));
    }
    if point.is_written() {
        rows.extend([
            row(
                "trickle_cpu",
                "a record a second in each: all brokers",
                "% of a core",
                judged(50.0, thousand),
            ),
            row("trickle_p99", "… p99 of an ack", "ms", judged(50.0, thousand)),
            row("trickle_rss", "… memory of the largest broker", "MiB", None),
            row("busy", "as fast as it goes", "records/s", None),
            row("amortised", "… appends for each fsync", "", thousand.then_some(Bound::AtLeast(20.0))),
            row("busy_rss", "… memory of the largest broker", "MiB", None),
        ]);
    }
    let side = Side::new(ALTAIR, "fsync on a majority before the ack", move || measure(point, plan.span));
    Contest { name: point.name, what: point.what, sides: vec![side], rows, runs: Some(1) }
}

impl Point {
    fn is_written(self) -> bool {
        self.brokers == 3 && self.partitions > 0
    }
}

async fn measure(point: Point, span: Duration) -> Result<Figures> {
    let Point { brokers, partitions, .. } = point;
    let cluster = TestCluster::start(brokers).await?;
    let mut figures = Figures::new();
    if partitions > 0 {
        let client = cluster.client().await?;
        let begun = Instant::now();
        cluster.topic(&client, TOPIC, partitions, brokers).await?;
        figures.insert("created", begun.elapsed().as_secs_f64());
    }
    tokio::time::sleep(SETTLE).await;
    let (cpu, used) = over(&cluster, span).await?;
    figures.insert("idle_cpu", cpu.cpu_seconds_max / span.as_secs_f64() * 100.0);
    figures.insert("idle_rss", used.rss_bytes_max / MIB);
    if point.is_written() {
        trickle(&cluster, partitions, span, &mut figures).await?;
        busy(&cluster, span, &mut figures).await?;
    }
    Ok(figures)
}

/// What the brokers use within a time, and have used at its end.
async fn over(cluster: &TestCluster, span: Duration) -> Result<(Usage, Usage)> {
    let before = cluster.usage()?;
    tokio::time::sleep(span).await;
    let after = cluster.usage()?;
    Ok((since(before, after), after))
}

fn since(before: Usage, after: Usage) -> Usage {
    Usage {
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        cpu_seconds_max: after.cpu_seconds_max - before.cpu_seconds_max,
        rss_bytes_max: after.rss_bytes_max,
    }
}

async fn trickle(
    cluster: &TestCluster,
    partitions: u32,
    span: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let rate = partitions.to_string();
    let args = ["produce", "--topic", TOPIC, "--rate", &rate, "--linger", "0ms"];
    let (before, begun) = (cluster.usage()?, Instant::now());
    let told = bench_at(&cluster.brokers.bootstrap(), &args, Some(span.as_secs())).await?;
    let used = since(before, cluster.usage()?);
    figures.insert("trickle_rss", used.rss_bytes_max / MIB);
    figures.insert("trickle_cpu", used.cpu_seconds / begun.elapsed().as_secs_f64() * 100.0);
    figures.insert("trickle_p99", *told.get("p99").context("p99")?);
    Ok(())
}

async fn busy(cluster: &TestCluster, span: Duration, figures: &mut Figures) -> Result<()> {
    let args = ["produce", "--topic", TOPIC];
    let before = counted(cluster).await?;
    let told = bench_at(&cluster.brokers.bootstrap(), &args, Some(span.as_secs())).await?;
    let after = counted(cluster).await?;
    // Each batch is an append on each of the three brokers; their waits for the disk are counted together.
    let (batches, syncs) = (after.0 - before.0, after.1 - before.1);
    figures.insert("busy", *told.get("records").context("records")?);
    figures.insert("amortised", 3.0 * batches / syncs.max(1.0));
    figures.insert("busy_rss", cluster.usage()?.rss_bytes_max / MIB);
    Ok(())
}

/// Batches that all brokers took as leaders, and their fsyncs.
async fn counted(cluster: &TestCluster) -> Result<(f64, f64)> {
    let (mut batches, mut syncs) = (0.0, 0.0);
    for id in cluster.brokers.ids() {
        let answer = http_get(cluster.brokers.addresses(id)?.http, "/metrics", HTTP).await?;
        batches += total(&answer.body, "altair_batch_size_count");
        syncs += total(&answer.body, "altair_fsync_seconds_count");
    }
    Ok((batches, syncs))
}

/// Sum of a metric over its labels.
fn total(metrics: &str, name: &str) -> f64 {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    };
    metrics.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_with_others() {
        let metrics =
            "# HELP a_count x\na_count{acks=\"all\"} 3\na_count{acks=\"leader\"} 4\na_counted 9\nb 1\n";
        assert!((total(metrics, "a_count") - 7.0).abs() < 1e-9);
        assert!((total(metrics, "b") - 1.0).abs() < 1e-9);
        assert!(total(metrics, "c").abs() < 1e-9);
    }
}
