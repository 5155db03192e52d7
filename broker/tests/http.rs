//! The HTTP door of one broker: what it says, and what it does with garbage.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "helpers of tests fail the test that uses them"
)]

mod support;

use std::time::Duration;

use support::{parse, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_broker_is_healthy_in_every_component() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let (status, body) = broker.get("/health").await;
    let document: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, document["status"].as_str()), (200, Some("healthy")), "{body}");
    for component in ["wal", "partition_logs", "raft_groups", "metadata", "peers", "disk"] {
        assert_eq!(document["components"][component]["status"], "healthy", "{component}: {body}");
    }
    assert_eq!(document["summary"]["total_components"], 6);
    for path in ["/health/live", "/health/ready", "/health/startup"] {
        assert_eq!(broker.get(path).await.0, 200, "{path}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_its_cluster_is_alive_and_not_ready() {
    let mut config = support::config();
    config.cluster.seeds = vec!["127.0.0.1:1".into()];
    config.cluster.bootstrap_expect = Some(3);
    let fatal = broker::runtime::Fatal::new();
    let seams = broker::runtime::Seams {
        disk: std::sync::Arc::new(disk::faulty::FaultyDisk::quiet()),
        io: broker::runtime::disk_io(),
        net: std::sync::Arc::new(broker::runtime::TcpNet),
        clock: broker::runtime::Clock::system(),
        random: broker::runtime::Random::from_os().expect("randomness"),
        tasks: broker::runtime::Tasks::root(fatal.clone()),
        fatal: fatal.clone(),
        wal: broker::runtime::WalDriver::Thread,
        keyed: broker::runtime::KeyedKind::Disk,
        probe: broker::runtime::Probe::default(),
    };
    let disk = seams.disk.clone();
    let node = broker::node::Node::start(config, seams).await.expect("it starts");
    let broker = support::TestBroker { node, disk, fatal };
    assert_eq!(broker.get("/health/live").await.0, 200);
    for path in ["/health/ready", "/health/startup", "/health"] {
        assert_eq!(broker.get(path).await.0, 503, "{path}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_carry_their_promised_names() {
    let broker = start().await;
    let (status, text) = broker.get("/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "altair_messages_received_total",
        "altair_messages_stored_total",
        "altair_batch_size",
        "altair_flush_duration_seconds",
        "altair_health_status 1.0",
        "altair_component_health{component=\"wal\"}",
        "altair_active_connections",
        "altair_connections_total",
        "altair_connection_errors_total",
        "altair_messages_failed_total{reason=\"overloaded\"} 0",
        "altair_disk_free_bytes",
        "altair_produce_seconds",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
    assert!(text.ends_with("# EOF\n"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_a_problem_document() {
    let broker = start().await;
    let (status, body) = broker.get("/nope").await;
    let problem: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (status, problem["status"].as_u64(), problem["code"].as_str()),
        (404, Some(404), Some("ALT-1001"))
    );
    let post = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = broker.raw(broker.node.addresses().http, post).await;
    assert_eq!(parse(&answer).0, 405);
    let head = b"HEAD /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(parse(&broker.raw(broker.node.addresses().http, head).await), (200, String::new()));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_or_closed_and_the_door_stays_open() {
    let broker = start().await;
    let address = broker.node.addresses().http;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let many: String = (0..500).map(|n| format!("h{n}: v\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    let body =
        [b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".as_slice(), &[b'x'; 300_000]]
            .concat();
    let noise: Vec<u8> = (0..50_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let cases: [&[u8]; 9] = [
        b"",
        &noise,
        long.as_bytes(),
        many.as_bytes(),
        &body,
        b"GET /health HTTP/9.9\r\n\r\n",
        b"\xff\xfe /health HTTP/1.1\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nabcde",
    ];
    for bytes in cases {
        let (status, _) = parse(&broker.raw(address, bytes).await);
        assert!(status == 0 || (400..600).contains(&status), "{status}");
    }
    assert_eq!(broker.get("/health/live").await.0, 200);
    assert_eq!(broker.fatal.reason(), None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_finishes_its_head_is_cut_off() {
    let broker = start().await;
    let mut stream = TcpStream::connect(broker.node.addresses().http).await.expect("connected");
    stream.write_all(b"GET /health HTTP/1.1\r\nHo").await.expect("sent");
    let mut answer = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(25), stream.read_to_end(&mut answer)).await;
    let _ = cut.expect("the connection ends by itself");
    broker.stop().await;
}
