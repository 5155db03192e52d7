//! `altair-cli verify` against real brokers: a run through a killed broker is judged clean, and what is changed in its
//! history afterwards is found.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::Client;
use cluster_test::harness::{TestCluster, altair_cli, eventually, run};
use rustix::process::{Pid, Signal, kill_process};
use verify::history::{Answer, History, Op, Outcome};
use wire::pb;

const PATIENCE: Duration = Duration::from_secs(120);
const PREFIX: &str = "proof";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn cli(cluster: &TestCluster, args: &[&str]) -> Result<Output> {
    let addresses = cluster.brokers.bootstrap().join(",");
    run(altair_cli(), ["--addr", addresses.as_str()].iter().chain(args), None).await
}

/// A run at work; it ends when it is told to.
fn start(cluster: &TestCluster, keep: &Path) -> Result<Child> {
    let addresses = cluster.brokers.bootstrap().join(",");
    let run = "verify run --minutes 60 --partitions 3 --with transfers --yes -o json --topic-prefix";
    Command::new(altair_cli())
        .args(["--addr", addresses.as_str()])
        .args(run.split(' '))
        .arg(PREFIX)
        .arg("--keep")
        .arg(keep)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting altair-cli")
}

/// Names of the topics that runs made.
async fn topics(client: &Client) -> Option<Vec<String>> {
    let answer = client.admin().describe_topics(pb::DescribeTopicsRequest::default()).await.ok()?;
    let mut names: Vec<String> = answer.topics.into_iter().map(|topic| topic.name).collect();
    names.retain(|name| name.starts_with(PREFIX));
    Some(names)
}

/// The sum over all partitions, if each has some: records committed, and leader epochs.
async fn progress(client: &Client, topic: &str) -> Option<(u64, u64)> {
    let request = pb::DescribePartitionsRequest { topic: topic.to_owned(), ..Default::default() };
    let replicas = client.admin().describe_partitions(request).await.ok()?.replicas;
    let of = |partition: u32| {
        let own = replicas.iter().filter(move |replica| replica.partition == partition);
        own.map(|replica| (replica.high_watermark, replica.term)).max()
    };
    let all: Option<Vec<(u64, u64)>> = (0..3).map(of).collect();
    let all = all.filter(|all| all.iter().all(|(records, _)| *records > 0))?;
    Some((all.iter().map(|(records, _)| records).sum(), all.iter().map(|(_, epoch)| epoch).sum()))
}

/// Waits until every partition has taken records, many more than before, and a leader has moved.
async fn goes_on(client: &Client, topic: &str) -> Result<()> {
    let before = eventually("records in every partition", PATIENCE, || progress(client, topic)).await?;
    eventually("more records and another leader", PATIENCE, || async {
        let now = progress(client, topic).await?;
        (now.0 > before.0 + 100 && now.1 > before.1).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_through_a_killed_broker_is_clean_and_a_doctored_history_is_not() -> Result<()> {
    let mut cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    let kept = cluster.dir().join("kept");
    let child = start(&cluster, &kept)?;
    let pid = Pid::from_child(&child);
    let disturbed = disturb(&mut cluster, &client).await;
    // However that went, the run ends.
    kill_process(pid, Signal::INT)?;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    disturbed.with_context(|| text(&output.stderr))?;

    ensure!(output.status.code() == Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["verdict"] == "clean" && report["interrupted"] == true, "{report}");
    ensure!(report["acked"].as_u64() > Some(100) && report["topic_kept"] == false, "{report}");
    ensure!(report["faults"]["transfer"]["installed"].as_u64() > Some(0), "{report}");
    ensure!(report["expectations"]["replicas"] == 3 && report["unread"] == serde_json::json!([]), "{report}");
    ensure!(topics(&client).await == Some(Vec::new()), "the topic of the run is still there");

    judged_again(&cluster, &kept).await
}

/// Kills and restarts the leader of a partition of the run's topic while writes go on.
async fn disturb(cluster: &mut TestCluster, client: &Client) -> Result<()> {
    let topic =
        eventually("the topic of the run", PATIENCE, || async { topics(client).await?.pop() }).await?;
    goes_on(client, &topic).await?;
    let victim = cluster.leader(client, &topic, 0, None).await?;
    cluster.brokers.kill(victim).await?;
    goes_on(client, &topic).await.context("with one broker dead")?;
    cluster.restart(victim).await?;
    goes_on(client, &topic).await.context("with all brokers back")?;
    cluster.healthy(client).await
}

/// The kept history gives the same verdict, one that was changed another, and one with a hole none.
async fn judged_again(cluster: &TestCluster, kept: &Path) -> Result<()> {
    let report = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        async move { cli(cluster, &["verify", "report", &path]).await }
    };
    let clean = report(kept).await?;
    ensure!(clean.status.code() == Some(0), "{}{}", text(&clean.stdout), text(&clean.stderr));
    ensure!(text(&clean.stdout) == std::fs::read_to_string(kept.join("report.txt"))?);

    let file = kept.join("history.jsonl");
    let whole = std::fs::read_to_string(&file)?;
    let doctored = cluster.dir().join("doctored");
    std::fs::create_dir(&doctored)?;
    let (history, lost) = without_one_record(&file)?;
    history.write(&doctored)?;
    let output = report(&doctored).await?;
    let said = text(&output.stdout);
    ensure!(output.status.code() == Some(10), "{said}{}", text(&output.stderr));
    ensure!(said.starts_with("verdict      VIOLATED") && said.contains("\nlost-write: "), "{said}");
    ensure!(said.contains(&format!("at offset {lost} was acknowledged to send #")), "{said}");

    let holed = cluster.dir().join("holed.jsonl");
    let mut lines: Vec<&str> = whole.split_inclusive('\n').collect();
    lines.remove(lines.len() / 2);
    std::fs::write(&holed, lines.concat())?;
    let output = report(&holed).await?;
    ensure!(output.status.code() == Some(2), "{}", text(&output.stdout));
    ensure!(text(&output.stderr).starts_with("error[ALT-7007]: "), "{}", text(&output.stderr));
    Ok(())
}

/// The history as if one acknowledged record had vanished from every replica, and its offset.
fn without_one_record(file: &Path) -> Result<(History, u64)> {
    let mut history = History::read(&[file])?;
    let committed = |call: &verify::history::Call| match (&call.op, &call.outcome) {
        (Op::Send(send), Outcome::Ok(Answer::Send(receipt))) => Some((send.vals[0], *receipt.off.first()?)),
        _ => None,
    };
    let (value, offset) = history.calls.iter().find_map(committed).context("no acknowledged record")?;
    for call in &mut history.calls {
        if let Outcome::Ok(Answer::FinalRead(read)) = &mut call.outcome {
            read.recs.retain(|record| record.val != value);
        }
    }
    Ok((history, offset))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_be_is_refused_before_anything_is_made() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    let client = cluster.client().await?;
    let occupied = cluster.dir().join("occupied");
    std::fs::create_dir(&occupied)?;
    std::fs::write(occupied.join("history.jsonl"), "of another run")?;
    let occupied = occupied.to_string_lossy().into_owned();
    let beneath_a_file = format!("{occupied}/history.jsonl/kept");
    for (flags, exit, said) in [
        (["--rf", "3"], 4, "needs 3 brokers for --rf 3"),
        (["--keep", &occupied], 4, "exists already"),
        (["--keep", &beneath_a_file], 1, "cannot be written"),
        (["--topic-prefix", "a b"], 2, "is not allowed"),
    ] {
        let output = cli(&cluster, &[&["verify", "run", "--duration", "1s"], &flags[..]].concat()).await?;
        let told = text(&output.stderr);
        ensure!(output.status.code() == Some(exit), "{flags:?}: {told}{}", text(&output.stdout));
        ensure!(told.contains(said) && told.contains("\n  try: "), "{flags:?}: {told}");
    }
    let made = client.admin().describe_topics(pb::DescribeTopicsRequest::default()).await?.topics;
    ensure!(made.is_empty(), "{made:?}");
    ensure!(std::fs::read_to_string(format!("{occupied}/history.jsonl"))? == "of another run");
    Ok(())
}
