//! The power of disks is cut under load, behind proxies; nothing acked is lost, nothing stands twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::Client;
use cluster_test::chaos::fabric::proxy::ProxyFabric;
use cluster_test::chaos::{Disks, End, Fabric, FabricSpec, LinkState, Reach, power};
use cluster_test::harness::{Writer, altair};
use wire::pb::CreateTopicRequest;

const BROKERS: u32 = 3;
const PARTITIONS: u32 = 3;
/// Size of each disk. Unit: bytes.
const DISK_BYTES: u64 = 768 << 20;
/// Far more than a start takes, so that only a hang trips it.
const READY: Duration = Duration::from_secs(60);
/// How long each state of the cluster sees load.
const RUN: Duration = Duration::from_millis(1_500);

/// The cluster, ready, or `None` where this machine does not let tests mount.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
async fn cluster(dir: &tempfile::TempDir) -> Result<Option<ProxyFabric>> {
    let small = [("storage.wal_file_bytes", "32MiB"), ("storage.wal_pool_files", "2")];
    let spec = FabricSpec {
        brokers: BROKERS,
        dir: dir.path().to_owned(),
        run: dir.path().to_owned(),
        binary: altair(),
        image: String::new(),
        settings: small.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        environment: BTreeMap::new(),
        disks: Disks::Image(DISK_BYTES),
    };
    let made = match power::check() {
        Ok(()) => ProxyFabric::prepare(&spec, 7).await,
        Err(missing) => Err(anyhow::Error::msg(missing)),
    };
    let mut fabric = match made {
        Ok(fabric) => fabric,
        Err(error) => {
            eprintln!("skipped: this test needs disks of its own: {error:#}");
            return Ok(None);
        }
    };
    start(&mut fabric, &[1, 2, 3]).await?;
    Ok(Some(fabric))
}

async fn start(fabric: &mut ProxyFabric, ids: &[u32]) -> Result<()> {
    for id in ids {
        fabric.start(*id).await?;
    }
    for id in ids {
        fabric.ready(*id, READY).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_of_one_disk_and_of_all_lose_nothing_that_was_acked() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(mut fabric) = cluster(&dir).await? else { return Ok(()) };
    let client = Client::connect(fabric.client(&Reach::All)).await.context("connecting")?;
    let topic = CreateTopicRequest {
        name: "orders".to_owned(),
        partitions: PARTITIONS,
        replication_factor: BROKERS,
        wait_ms: 30_000,
        ..CreateTopicRequest::default()
    };
    client.admin().create_topic(topic).await.context("creating the topic")?;
    let writer = Writer::start(&client, "orders", PARTITIONS)?;
    for victims in [vec![1], vec![1, 2, 3], vec![2], vec![1, 2, 3]] {
        // Load is meant to run for this long: a duration, not a stand-in for a condition.
        tokio::time::sleep(RUN).await;
        fabric.cut_power(&victims).await.with_context(|| format!("cutting the power of {victims:?}"))?;
        start(&mut fabric, &victims).await?;
    }
    // A broker that nobody reaches and that reaches nobody, and is back afterwards.
    let others = [End::Broker(1), End::Broker(2)];
    let cut = |state| others.map(|other| [(End::Broker(3), other, state), (other, End::Broker(3), state)]);
    fabric.set_links(&cut(LinkState::BlackHole).concat()).await?;
    tokio::time::sleep(RUN).await;
    fabric.heal().await?;
    tokio::time::sleep(RUN).await;
    let ledger = writer.finish().await?;
    ensure!(ledger.acked() > 100, "only {} records were acked", ledger.acked());
    ledger.check(&client).await?;
    let (carried, unknown) = fabric.connections();
    ensure!(carried > u64::from(BROKERS * (BROKERS - 1)), "only {carried} connections went through proxies");
    eprintln!("{} acked, {carried} connections, {unknown} of diallers that were gone", ledger.acked());
    Ok(())
}
