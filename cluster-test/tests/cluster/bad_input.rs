//! Strangers at every port, and operators' mistakes: a clear answer or a closed connection, and the broker lives.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use broker::supervise::{ProcessState, http_get};
use cluster_test::harness::{TestCluster, altair, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time that a port may keep a caller that talks nonsense.
const PATIENCE: Duration = Duration::from_secs(40);

/// Things that strangers say.
fn nonsense() -> Vec<Vec<u8>> {
    let mut noise = Vec::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..65_536 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.push(state.to_le_bytes()[0]);
    }
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    preface.extend_from_slice(&settings);
    // A frame that claims 16 MiB less one byte of headers and then ends.
    let mut oversized = preface.clone();
    oversized.extend_from_slice(&[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1]);
    oversized.extend_from_slice(&noise[..1000]);
    let mut truncated = preface.clone();
    truncated.extend_from_slice(&[0, 1, 0, 1, 4, 0]);
    vec![
        noise.clone(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"GET /health HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /altair.v1.Broker/Produce HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n".to_vec(),
        [b"GET /".to_vec(), vec![b'a'; 100_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        preface,
        oversized,
        truncated,
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), noise[..500].to_vec()].concat(),
        // A Kafka request that claims 2 GiB.
        [vec![0x7f, 0xff, 0xff, 0xff, 0, 18, 0, 3], noise[..100].to_vec()].concat(),
        Vec::new(),
    ]
}

/// Says it, then waits until the other side hangs up or says something.
async fn say(address: SocketAddr, words: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    // The other side may hang up in the middle of it: that is an answer, too.
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.take(1 << 20).read_to_end(&mut answer)).await;
    ensure!(read.is_ok(), "{address} kept a caller that had hung up for {PATIENCE:?}");
    Ok(())
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
    Ok(pages * 4096)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_at_every_port_ends_that_connection_only() -> Result<()> {
    let mut cluster = TestCluster::start(1).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", 1, 1).await?;
    let at = cluster.brokers.addresses(1)?;
    let ProcessState::Running { pid } = cluster.brokers.state(1)? else { panic!("the broker does not run") };
    for words in nonsense() {
        for address in [at.grpc, at.http, at.peer] {
            say(address, &words).await?;
        }
    }
    let before = resident_bytes(pid)?;
    for _ in 0..20 {
        for words in nonsense() {
            for address in [at.grpc, at.http, at.peer] {
                say(address, &words).await?;
            }
        }
    }
    let after = resident_bytes(pid)?;
    ensure!(after < before + (32 << 20), "resident memory grew from {before} to {after} bytes");
    let ready = http_get(at.http, "/health/ready", Duration::from_secs(5)).await?;
    ensure!(ready.status == 200, "{ready:?}");
    let log = std::fs::read_to_string(cluster.brokers.dir(1)?.join("broker.log"))?;
    ensure!(!log.contains("panicked"), "{log}");
    cluster.topic(&client, "after", 1, 1).await?;
    ensure!(cluster.brokers.stop(1, Duration::from_secs(20)).await?, "the broker does not stop any more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_one_data_directory_is_refused() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    let data = cluster.brokers.dir(1)?.join("data");
    let args = [
        "serve".to_owned(),
        "--data-dir".to_owned(),
        data.display().to_string(),
        "--set".to_owned(),
        "grpc.addr=127.0.0.1:0".to_owned(),
        "--set".to_owned(),
        "http.addr=127.0.0.1:0".to_owned(),
        "--set".to_owned(),
        "peer.addr=127.0.0.1:0".to_owned(),
    ];
    let output = run(altair(), args, None).await?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "the second broker ran: {said}");
    ensure!(said.contains("another broker runs in"), "{said}");
    let ready = http_get(cluster.brokers.addresses(1)?.http, "/health/ready", Duration::from_secs(5)).await?;
    ensure!(ready.status == 200, "the first broker suffered: {ready:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_the_data_of_another_cluster_is_refused() -> Result<()> {
    // One broker that has been a cluster of its own, then a cluster of three that it is told to join.
    let stray = {
        let mut alone = TestCluster::start(1).await?;
        alone.brokers.stop(1, Duration::from_secs(20)).await?;
        let keep = tempfile::tempdir()?;
        let copied =
            Command::new("cp").arg("-a").arg(alone.brokers.dir(1)?.join("data")).arg(keep.path()).status()?;
        ensure!(copied.success());
        keep
    };
    let mut cluster = TestCluster::start(3).await?;
    cluster.brokers.stop(3, Duration::from_secs(20)).await?;
    let data = cluster.brokers.dir(3)?.join("data");
    std::fs::remove_dir_all(&data)?;
    let moved = Command::new("cp").arg("-a").arg(stray.path().join("data")).arg(&data).status()?;
    ensure!(moved.success());
    let properties = std::fs::read_to_string(data.join("meta.properties"))?;
    cluster.brokers.start(3)?;
    let error = cluster.brokers.wait_ready(3, Duration::from_secs(30)).await.unwrap_err().to_string();
    ensure!(error.contains("cluster") || error.contains("node.id"), "{error}");
    ensure!(std::fs::read_to_string(data.join("meta.properties"))? == properties, "its identity was changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_mistake_is_refused_with_file_line_and_the_nearest_name() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("altair.yaml");
    for (text, wanted) in [
        ("node:\n  id: 1\nstorage:\n  segment_byte: 1MiB\n", ["altair.yaml", "segment_bytes", "4"]),
        ("node:\n  id: seven\n", ["altair.yaml", "id", "2"]),
        ("cluster:\n  seeds: [\"127.0.0.1:1\"]\n", ["cluster.bootstrap_expect", "cluster.seeds", "try:"]),
    ] {
        std::fs::write(&path, text)?;
        let output = run(altair(), ["serve", "--config", &path.display().to_string()], None).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{:?}: {said}", output.status);
        for word in wanted {
            ensure!(said.contains(word), "{word:?} is not in:\n{said}");
        }
    }
    Ok(())
}
