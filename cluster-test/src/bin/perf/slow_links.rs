//! What an ack costs when the brokers are apart: proxies between them hold every byte for some milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use cluster_test::chaos::fabric::proxy::ProxyFabric;
use cluster_test::chaos::fabric::{Disks, End, Fabric, FabricSpec, LinkState, Shape};
use cluster_test::chaos::reach::Reach;
use cluster_test::harness::altair;

use super::altair::bench_at;
use super::contest::Figures;

const BROKERS: u32 = 3;
/// One way. Unit: ms.
const DELAY_MS: u32 = 5;
const READY: Duration = Duration::from_secs(60);

/// Acks of single records, with `leader` or `all`.
///
/// # Errors
/// If the cluster or the benchmark fails.
pub(super) async fn acks(acks: &'static str, seconds: u64) -> Result<Figures> {
    let dir = tempfile::tempdir()?;
    let spec = FabricSpec {
        brokers: BROKERS,
        dir: dir.path().to_owned(),
        run: dir.path().to_owned(),
        binary: altair(),
        image: String::new(),
        settings: BTreeMap::new(),
        environment: BTreeMap::new(),
        disks: Disks::Plain,
    };
    let mut fabric = ProxyFabric::prepare(&spec, 1).await?;
    for id in 1..=BROKERS {
        fabric.start(id).await?;
    }
    for id in 1..=BROKERS {
        fabric.ready(id, READY).await?;
    }
    let slow = LinkState::Shaped(Shape { delay_ms: DELAY_MS, ..Shape::default() });
    let pairs = (1..=BROKERS).flat_map(|from| (1..=BROKERS).map(move |to| (from, to)));
    let links =
        pairs.filter(|(from, to)| from != to).map(|(from, to)| (End::Broker(from), End::Broker(to), slow));
    fabric.set_links(&links.collect::<Vec<_>>()).await?;
    let args =
        ["produce", "--acks", acks, "--rate", "200", "--linger", "0ms", "--partitions", "3", "--rf", "3"];
    bench_at(&fabric.client(&Reach::All).bootstrap, &args, Some(seconds)).await
}
