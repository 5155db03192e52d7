//! What this machine can do without a broker: the disk's syncs, the log's way to the disk, the loopback interface.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use disk::{AlignedBuf, Disk, OpenOptions, OsDisk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::contest::Figures;

/// Length of the file that is written round and round, zeroed ahead as the write-ahead log's files are.
const FILE: u64 = 64 << 20;
/// A batch, and how many of them a producer has on their way at once.
const BATCH: usize = 64 << 10;
const IN_FLIGHT: usize = 5;
const MIB: f64 = 1024.0 * 1024.0;

/// Syncs of 4 KiB a second.
///
/// # Errors
/// The disk's.
pub(super) async fn syncs(span: Duration) -> Result<Figures> {
    let rate = tokio::task::spawn_blocking(move || -> Result<f64> {
        let dir = tempfile::tempdir()?;
        let mut log = Ring::open(dir.path(), 4096)?;
        let begun = Instant::now();
        let mut count = 0.0;
        while begun.elapsed() < span {
            log.append()?;
            count += 1.0;
        }
        Ok(count / begun.elapsed().as_secs_f64())
    });
    Ok(Figures::from([("records", rate.await??)]))
}

/// The way of batches to the disk and into a segment, and nothing else: as many as are on their way at once in one synced
/// write, their checksum, and the same bytes once more through the page cache.
///
/// # Errors
/// The disk's.
pub(super) async fn pipeline(span: Duration) -> Result<Figures> {
    let rate = tokio::task::spawn_blocking(move || -> Result<f64> {
        let dir = tempfile::tempdir()?;
        let mut log = Ring::open(dir.path(), BATCH * IN_FLIGHT)?;
        let disk = OsDisk::new();
        let created = OpenOptions { create: true, write: true, ..OpenOptions::default() };
        let segment = disk.open(&dir.path().join("segment"), created)?;
        let begun = Instant::now();
        let (mut end, mut sum) = (0_u64, 0_u32);
        while begun.elapsed() < span {
            log.append()?;
            sum ^= crc32c::crc32c(log.bytes());
            segment.write_at(log.bytes(), end)?;
            end += log.bytes().len() as u64;
        }
        std::hint::black_box(sum);
        Ok(end as f64 / begun.elapsed().as_secs_f64() / MIB)
    });
    Ok(Figures::from([("mib", rate.await??)]))
}

/// A file that is written round and round, past the page cache where that is possible.
struct Ring {
    file: std::sync::Arc<dyn disk::DiskFile>,
    buf: AlignedBuf,
    at: u64,
}

impl Ring {
    fn open(dir: &Path, len: usize) -> Result<Self> {
        let disk = OsDisk::new();
        let path = dir.join("ring");
        let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
        let file = disk.open(&path, options)?;
        file.zero(0, FILE)?;
        file.sync_data()?;
        let file = disk.open(&path, OpenOptions { direct: true, ..options }).unwrap_or(file);
        Ok(Self { file, buf: AlignedBuf::zeroed(len), at: 0 })
    }

    fn bytes(&self) -> &[u8] {
        self.buf.as_slice()
    }

    /// One synced write.
    fn append(&mut self) -> Result<()> {
        let len = self.buf.as_slice().len() as u64;
        if self.at + len > FILE {
            self.at = 0;
        }
        self.file.write_at(self.buf.as_slice(), self.at)?;
        self.file.sync_data()?;
        self.at += len;
        Ok(())
    }
}

/// Bytes a second through one connection on the loopback interface.
///
/// # Errors
/// The network's.
pub(super) async fn loopback(span: Duration) -> Result<Figures> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let read = async {
        let (mut stream, _) = listener.accept().await?;
        let (mut buf, mut total) = (vec![0; BATCH], 0_u64);
        loop {
            match stream.read(&mut buf).await? {
                0 => return Ok::<u64, anyhow::Error>(total),
                count => total += count as u64,
            }
        }
    };
    let write = async {
        let mut stream = TcpStream::connect(address).await?;
        let buf = vec![7; BATCH];
        let begun = Instant::now();
        while begun.elapsed() < span {
            stream.write_all(&buf).await?;
        }
        stream.shutdown().await.context("closing")?;
        Ok(begun.elapsed())
    };
    let (total, took) = tokio::try_join!(read, write)?;
    Ok(Figures::from([("mib", total as f64 / took.as_secs_f64() / MIB)]))
}
