//! One broker in the test's own process, on loopback with ports of its own, reached through real sockets.

#![allow(dead_code, reason = "each test file uses its own part of this one")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::config::{BrokerConfig, StorageMode};
use broker::node::{Node, StartError};
use broker::runtime::{Clock, Fatal, Random, Seams, Tasks, TcpNet, disk_io};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use wire::pb;
use wire::pb::admin_client::AdminClient;
use wire::pb::broker_client::BrokerClient;

/// Nothing in these tests takes longer on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A broker and the disk that it stands on.
pub struct TestBroker {
    pub node: Node,
    pub disk: Arc<dyn disk::Disk>,
    pub fatal: Fatal,
}

/// Defaults, with free ports and everything in memory.
pub fn config() -> BrokerConfig {
    let mut config = BrokerConfig::default();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    (config.grpc.addr, config.http.addr, config.peer.addr) = (any, any, any);
    config.storage.mode = StorageMode::Memory;
    config.storage.data_dir = "/altair".into();
    config.topics.default_partitions = 2;
    config
}

/// Starts a broker on a disk.
pub async fn start_on(config: BrokerConfig, disk: Arc<dyn disk::Disk>) -> Result<TestBroker, StartError> {
    let fatal = Fatal::new();
    let seams = Seams {
        disk: disk.clone(),
        io: disk_io(),
        net: Arc::new(TcpNet),
        clock: Clock::system(),
        random: Random::from_os().unwrap(),
        tasks: Tasks::root(fatal.clone()),
        fatal: fatal.clone(),
        // As a simulation does it; the tests of the binary have the thread.
        wal: broker::runtime::WalDriver::Task,
        keyed: broker::runtime::KeyedKind::Disk,
        probe: broker::runtime::Probe::default(),
    };
    let node = Node::start(config, seams).await?;
    tokio::time::timeout(PATIENCE, node.ready()).await.expect("the broker gets ready");
    Ok(TestBroker { node, disk, fatal })
}

/// Starts a broker in memory.
pub async fn start() -> TestBroker {
    start_with(config()).await
}

/// Starts a broker in memory with these settings.
pub async fn start_with(config: BrokerConfig) -> TestBroker {
    start_on(config, Arc::new(disk::faulty::FaultyDisk::quiet())).await.expect("the broker starts")
}

impl TestBroker {
    pub async fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.node.addresses().grpc);
        Channel::from_shared(uri)
            .unwrap()
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .connect()
            .await
            .unwrap()
    }

    pub async fn broker(&self) -> BrokerClient<Channel> {
        BrokerClient::new(self.channel().await)
    }

    pub async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await)
    }

    /// Creates a topic and waits for its leaders.
    pub async fn topic(&self, name: &str, partitions: u32) {
        let request = pb::CreateTopicRequest {
            name: name.into(),
            partitions,
            replication_factor: 1,
            wait_ms: 10_000,
            ..Default::default()
        };
        let created = self.admin().await.create_topic(request).await.expect("the topic").into_inner();
        assert!(created.ready_ms > 0, "{:?}", created.warnings);
    }

    /// Sends bytes to a port as they are and reads what comes back until the other side closes.
    pub async fn raw(&self, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the broker closes the connection");
        answer
    }

    /// GET over HTTP/1.1: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = self.raw(self.node.addresses().http, request.as_bytes()).await;
        parse(&answer)
    }

    /// Stops it cleanly.
    pub async fn stop(self) {
        assert!(self.node.shutdown(PATIENCE).await, "the broker stops by itself");
        assert_eq!(self.fatal.reason(), None);
    }
}

/// Status and body of an HTTP answer; status 0 if it is none.
pub fn parse(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer);
    let status = text.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// A plain record.
pub fn record(key: &str, value: &str) -> pb::Record {
    pb::Record {
        key: Some(key.as_bytes().to_vec().into()),
        value: Some(value.as_bytes().to_vec().into()),
        ..Default::default()
    }
}
