//! A broker's whole data directory is removed; it comes back under its number without help.

use std::time::Duration;

use anyhow::Result;
use cluster_test::harness::{TestCluster, Writer, eventually};

const RUN: Duration = Duration::from_secs(2);
const PARTITIONS: u32 = 3;
/// Far more than replacing three small replicas takes, so that only a hang trips it.
const REBUILT: Duration = Duration::from_secs(60);

async fn acks_for(time: Duration) {
    // Load is meant to run for this long: a duration, not a stand-in for a condition.
    tokio::time::sleep(time).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_data_directory_was_removed_is_rebuilt_and_then_carries_the_cluster() -> Result<()> {
    let mut cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", PARTITIONS, 3).await?;
    let writer = Writer::start(&client, "orders", PARTITIONS)?;
    acks_for(RUN).await;

    let victim = cluster.leader(&client, "orders", 0, None).await?;
    cluster.brokers.kill(victim).await?;
    std::fs::remove_dir_all(cluster.brokers.dir(victim)?.join("data"))?;
    cluster.restart(victim).await?;
    for partition in 0..PARTITIONS {
        eventually("a full set of replicas", REBUILT, || async {
            let partition = cluster.describe(&client, "orders", partition).await?;
            (partition.isr.len() == 3).then_some(())
        })
        .await?;
    }
    cluster.healthy(&client).await?;

    // Without the rebuilt broker there is no majority now.
    let other = cluster.brokers.ids().find(|id| *id != victim).unwrap_or(victim);
    cluster.brokers.kill(other).await?;
    acks_for(RUN).await;
    cluster.restart(other).await?;
    let ledger = writer.finish().await?;
    assert!(ledger.acked() > 100, "only {} records were acked", ledger.acked());
    ledger.check(&client).await?;
    cluster.healthy(&client).await
}
