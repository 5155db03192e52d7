//! Disks fill up and lie.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::{ProducerConfig, ProducerRecord};
use cluster_test::harness::{TestCluster, eventually};
use disk::Disk;
use wire::error_code::ErrorCode;

/// Bytes that the ballast leaves: below 5 % of the filesystem, above what the broker needs to go on.
const LEFT_FREE: u64 = 60 << 20;

/// A small filesystem of its own, unmounted when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    /// `None` where this machine does not let the test mount.
    fn tmpfs(at: &std::path::Path, size: &str) -> Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()?;
        Ok(done.status.success().then(|| Self(at.to_owned())))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_serves_reads_and_resumes() -> Result<()> {
    let mut cluster = TestCluster::prepare(1, &[]).await?;
    let data = cluster.brokers.dir(1)?.join("data");
    let Some(_mount) = Mount::tmpfs(&data, "2500m")? else {
        eprintln!("skipped: this test needs the right to mount a tmpfs");
        return Ok(());
    };
    cluster.brokers.start_all(Duration::from_secs(60)).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 1, 1).await?;
    let producer =
        client.producer(ProducerConfig { delivery_timeout_ms: 2_000, ..ProducerConfig::default() })?;
    let record = || ProducerRecord::new("orders", Bytes::from_static(b"one")).partition(0);
    producer.send(record()).await?.await?;

    // Somebody else fills the disk, up to less than what the broker keeps free (5 % here).
    let ballast = data.join("ballast");
    let free = disk::OsDisk::new().space(&data)?.free;
    let size = free.saturating_sub(LEFT_FREE).to_string();
    let filled = Command::new("fallocate").args(["-l", &size]).arg(&ballast).status().context("fallocate")?;
    ensure!(filled.success());
    let refused = eventually("a refusal", Duration::from_secs(30), || async {
        let delivery = producer.send(record()).await.ok()?;
        delivery.await.err()
    })
    .await?;
    // The producer went on trying until its deadline; what it met stands in the reason.
    ensure!(refused.to_string().contains(ErrorCode::StorageFull.code()), "{refused}");
    ensure!(refused.definite(), "a refusal before the append is definite: {refused}");

    let mut consumer = client.consumer(client::ConsumerConfig::default())?;
    consumer.assign([("orders", 0)]).await?;
    let read = consumer.poll(Duration::from_secs(10)).await?;
    ensure!(!read.is_empty(), "reads go on while the disk is full");

    std::fs::remove_file(&ballast)?;
    eventually("writes again", Duration::from_secs(30), || async {
        let delivery = producer.send(record()).await.ok()?;
        delivery.await.ok()
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_error_stops_the_broker_with_a_clear_last_line() -> Result<()> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: this test needs strace");
        return Ok(());
    }
    let mut cluster = TestCluster::start(1).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 1, 1).await?;
    let broker::supervise::ProcessState::Running { pid } = cluster.brokers.state(1)? else {
        panic!("the broker does not run")
    };
    let mut tracer = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync",
            "-e",
            "inject=fdatasync:error=EIO",
            "-p",
        ])
        .arg(pid.to_string())
        .spawn()?;
    let producer =
        client.producer(ProducerConfig { delivery_timeout_ms: 1_000, ..ProducerConfig::default() })?;
    let ended = eventually("the broker's end", Duration::from_secs(30), || async {
        let record = ProducerRecord::new("orders", Bytes::from_static(b"one")).partition(0);
        if let Ok(delivery) = producer.send(record).await {
            let _ = delivery.await;
        }
        match cluster.brokers.state(1).ok()? {
            broker::supervise::ProcessState::Exited { code, .. } => Some(code),
            _ => None,
        }
    })
    .await;
    let _ = tracer.kill();
    let _ = tracer.wait();
    ensure!(ended? == Some(1), "the broker must end by itself with code 1");
    let log = cluster.brokers.log_tail(1);
    let last = log.lines().last().unwrap_or_default();
    ensure!(
        last.contains("fdatasync") || last.contains("sync"),
        "the last line does not name the cause: {log}"
    );
    cluster.restart(1).await
}
