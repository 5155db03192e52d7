//! Real input: the Debian package index, a stanza a record, keyed by package name, through `altair-cli` into a replicated
//! topic while a leader is killed and restarted. What comes back is byte for byte what went in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::TopicPartition;
use cluster_test::harness::{TestCluster, altair_cli, eventually, run};

const PARTITIONS: u32 = 12;
/// Records that must be in before the leader is killed, so that the kill falls into the middle.
const RECORDS_BEFORE_KILL: u64 = 200;

/// The machine's own index where there is one, else the sample in the repository.
fn index(dir: &Path) -> Result<PathBuf> {
    let own = Command::new("apt-cache").arg("dumpavail").output();
    let text = match own {
        Ok(output) if output.status.success() && output.stdout.len() > 1_000_000 => output.stdout,
        _ => std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/packages.txt"))?,
    };
    let path = dir.join("packages.txt");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The stanzas of an index, as `--delimiter '\n\n'` cuts them.
fn stanzas(text: &str) -> Vec<&str> {
    text.split("\n\n").filter(|stanza| !stanza.is_empty()).collect()
}

fn package(stanza: &str) -> Option<&str> {
    stanza.lines().find_map(|line| line.strip_prefix("Package: "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_package_index_comes_back_byte_for_byte_though_a_leader_dies() -> Result<()> {
    let mut cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "packages", PARTITIONS, 3).await?;
    let path = index(cluster.dir())?;
    let text = std::fs::read_to_string(&path)?;
    let wanted = stanzas(&text);
    ensure!(wanted.len() > 100, "only {} stanzas", wanted.len());

    let partitions: Vec<TopicPartition> = (0..PARTITIONS)
        .map(|number| TopicPartition { topic: "packages".to_owned(), partition: number.into() })
        .collect();
    let mut consumer = client.consumer(client::ConsumerConfig::default())?;
    consumer.assign_topic("packages").await?;

    let addresses = cluster.brokers.bootstrap().join(",");
    let file = path.display().to_string();
    let produce = [
        "--addr",
        &addresses,
        "produce",
        "packages",
        "--delimiter",
        "\\n\\n",
        "--key-field",
        "Package",
        "--file",
        &file,
    ];
    let produced = run(altair_cli(), produce, None);
    let kill = async {
        eventually("the first records", Duration::from_secs(60), || async {
            let ends = consumer.end_offsets(&partitions).await.ok()?;
            (ends.values().sum::<u64>() >= RECORDS_BEFORE_KILL).then_some(())
        })
        .await?;
        let victim = cluster.leader(&client, "packages", 0, None).await?;
        cluster.brokers.kill(victim).await?;
        cluster.leader(&client, "packages", 0, Some(victim)).await?;
        cluster.restart(victim).await
    };
    let (produced, killed) = tokio::join!(produced, kill);
    killed?;
    let produced = produced?;
    ensure!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));

    let read = by_key(&mut consumer, wanted.len()).await?;
    let ends = consumer.end_offsets(&partitions).await?;
    ensure!(ends.values().sum::<u64>() == wanted.len() as u64, "{ends:?} for {} stanzas", wanted.len());

    let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for stanza in wanted {
        let key = package(stanza).with_context(|| format!("no package name in {stanza:?}"))?;
        expected.entry(key.to_owned()).or_default().push(stanza.as_bytes().to_vec());
    }
    for (key, stanzas) in &expected {
        ensure!(
            read.get(key) == Some(stanzas),
            "package {key} came back changed, missing, repeated or out of order"
        );
    }
    ensure!(read.len() == expected.len(), "{} names came back for {}", read.len(), expected.len());
    Ok(())
}

/// The values of each key in reading order, once `count` records have come or nothing comes any more.
async fn by_key(consumer: &mut client::Consumer, count: usize) -> Result<BTreeMap<String, Vec<Vec<u8>>>> {
    let mut read: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut came = 0;
    let mut silent = 0;
    while came < count && silent < 60 {
        let records = consumer.poll(Duration::from_millis(500)).await?;
        silent = if records.is_empty() { silent + 1 } else { 0 };
        for record in records {
            came += 1;
            let key = String::from_utf8(record.key.as_deref().context("a record without a key")?.to_vec())?;
            read.entry(key).or_default().push(record.value.as_deref().unwrap_or_default().to_vec());
        }
    }
    Ok(read)
}
