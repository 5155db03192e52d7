//! `altair-cli consume --group` and `altair-cli group` against a real broker.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use client::{Client, GroupConfig, ProducerConfig, ProducerRecord};
use cluster_test::harness::{Member, TestCluster, altair_cli, eventually, run};
use serde_json::{Value, json};

async fn cli(cluster: &TestCluster, line: &str) -> Result<Output> {
    let addresses = cluster.brokers.bootstrap().join(",");
    run(altair_cli(), ["--addr", addresses.as_str()].into_iter().chain(line.split(' ')), None).await
}

/// What a command that must succeed says, as text.
async fn text(cluster: &TestCluster, line: &str) -> Result<String> {
    let output = cli(cluster, line).await?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn json_of(cluster: &TestCluster, line: &str) -> Result<Value> {
    serde_json::from_str(&text(cluster, &format!("{line} -o json")).await?).context("the output is JSON")
}

async fn code(cluster: &TestCluster, line: &str) -> Result<Option<i32>> {
    Ok(cli(cluster, line).await?.status.code())
}

/// Ten records in each of two partitions, all different.
async fn fill(client: &Client) -> Result<()> {
    let producer = client.producer(ProducerConfig::default())?;
    for number in 0..20 {
        // The outcome is that of the flush.
        drop(producer.send(ProducerRecord::new("orders", number.to_string()).partition(number % 2)).await?);
    }
    producer.flush().await?;
    Ok(producer.close().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_read_looked_at_moved_and_deleted() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 2, 1).await?;
    fill(&client).await?;

    // Two runs share the group's progress: nothing comes twice.
    let mut lines = text(&cluster, "consume orders --group billing -n 7").await?;
    ensure!(lines.lines().count() == 7, "{lines}");
    lines.push_str(&text(&cluster, "consume orders --group billing").await?);
    let mut numbers: Vec<u32> = lines.lines().map(str::parse).collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    ensure!(numbers.into_iter().eq(0..20), "{lines}");
    ensure!(text(&cluster, "consume orders --group billing").await?.is_empty(), "all of it is done");

    let list = json_of(&cluster, "group list").await?;
    ensure!(list["groups"][0]["group_id"] == "billing" && list["groups"][0]["state"] == "empty", "{list}");
    ensure!(text(&cluster, "group list -o name").await? == "billing\n");
    let lag = json_of(&cluster, "group lag billing").await?;
    ensure!(lag["groups"][0]["lag_records"] == 0, "{lag}");

    let preview = json_of(&cluster, "group seek billing --to -3 --dry-run").await?;
    let moved = json!([preview["partitions"][0]["before"], preview["partitions"][0]["after"]]);
    ensure!(moved == json!([10, 7]), "{preview}");
    ensure!(text(&cluster, "consume orders --group billing").await?.is_empty(), "a preview moves nothing");
    text(&cluster, "group seek billing --to -3 --yes").await?;
    text(&cluster, "group seek billing --shift -2 --partition orders/1 --yes").await?;
    let lag = json_of(&cluster, "group lag billing --partitions").await?;
    let behind: Vec<&Value> = (0..2).map(|partition| &lag["partitions"][partition]["lag_records"]).collect();
    ensure!(behind == [&json!(3), &json!(5)], "{lag}");

    with_a_member(&cluster).await?;
    text(&cluster, "group delete billing --dry-run").await?;
    text(&cluster, "group delete billing --yes").await?;
    ensure!(json_of(&cluster, "group list").await?["groups"] == json!([]));
    for (line, expected) in [
        ("group describe billing", 3),
        ("group seek billing --to earliest --yes", 3),
        ("group pause billing", 3),
        ("consume a* --group billing", 2),
        ("consume orders --group billing --from -5", 2),
    ] {
        let ended = code(&cluster, line).await?;
        ensure!(ended == Some(expected), "{line}: {ended:?} instead of {expected}");
    }
    Ok(())
}

/// What the commands say while somebody is there.
async fn with_a_member(cluster: &TestCluster) -> Result<()> {
    let member = Member::start(cluster.brokers.bootstrap(), GroupConfig::new("billing"), "orders").await?;
    eventually("the rest of the records", std::time::Duration::from_secs(30), || async {
        (member.notes().read.len() == 8).then_some(())
    })
    .await?;
    let group = json_of(cluster, "group describe billing").await?;
    ensure!(group["members"][0]["host"] == "127.0.0.1" && group["coordinator"] == 1, "{group}");
    ensure!(group["partitions"][0]["member_id"] == group["members"][0]["member_id"], "{group}");
    let page = text(cluster, "group describe billing").await?;
    for part in ["group billing   stable", "joined; 0 partitions moved", "orders/0"] {
        ensure!(page.contains(part), "{part:?} in\n{page}");
    }
    ensure!(code(cluster, "group delete billing --yes").await? == Some(4), "it has a member");
    ensure!(text(cluster, "group pause billing").await?.contains("paused"));
    ensure!(json_of(cluster, "group resume billing").await?["groups"][0]["paused"] == false);
    member.close().await?;
    Ok(())
}
