//! The gRPC door of one broker, through the generated client and real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "helpers of tests fail the test that uses them"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{PATIENCE, config, record, start, start_on, start_with};
use tokio_stream::StreamExt as _;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::ProducerId;
use wire::pb;
use wire::record::{Compression, RecordBatchBuilder};

fn batch(values: &[&str]) -> bytes::Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    values.iter().for_each(|value| builder.push(1_700_000_000_000, Some(b"k"), Some(value.as_bytes()), &[]));
    builder.build().expect("a batch")
}

fn produce(topic: &str, partition: Option<u32>, batches: bytes::Bytes) -> pb::ProduceRequest {
    let item = pb::PartitionProduce { topic: topic.into(), partition, batches, records: Vec::new() };
    pb::ProduceRequest { partitions: vec![item], ..Default::default() }
}

fn fetch(topic: &str, partition: u32, offset: u64) -> pb::FetchRequest {
    let item = pb::PartitionFetch { topic: topic.into(), partition, offset, ..Default::default() };
    pb::FetchRequest { partitions: vec![item], plain: true, ..Default::default() }
}

fn values(fetched: &pb::PartitionFetched) -> Vec<String> {
    let value = |stored: &pb::StoredRecord| {
        let record = stored.record.clone().unwrap_or_default();
        String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text")
    };
    fetched.records.iter().map(value).collect()
}

fn code_of(result: &pb::ProduceResult) -> String {
    result.error.clone().map(|error| error.name).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_is_fetched_with_a_receipt_at_every_level() {
    let broker = start().await;
    broker.topic("orders", 1).await;
    let mut client = broker.broker().await;

    let all =
        client.produce(produce("orders", Some(0), batch(&["a", "b"]))).await.expect("acks=all").into_inner();
    let receipt = &all.results[0];
    assert_eq!((receipt.base_offset, receipt.record_count, receipt.provisional), (Some(0), 2, false));
    assert_eq!((receipt.level, receipt.on_disk_brokers.as_slice()), (pb::Acks::All.into(), &[1][..]));
    assert!(receipt.leader_epoch > 0 && receipt.raft_index > 0);

    let leader =
        pb::ProduceRequest { acks: pb::Acks::Leader.into(), ..produce("orders", Some(0), batch(&["c"])) };
    let leader = client.produce(leader).await.expect("acks=leader").into_inner();
    assert_eq!((leader.results[0].base_offset, leader.results[0].provisional), (None, true));

    let none =
        pb::ProduceRequest { acks: pb::Acks::None.into(), ..produce("orders", Some(0), batch(&["d"])) };
    let none = client.produce(none).await.expect("acks=0").into_inner();
    assert_eq!((none.results[0].raft_index, none.results[0].error.clone()), (0, None));

    // The long poll waits until both later records are committed.
    let request = pb::FetchRequest { max_wait_ms: 10_000, ..fetch("orders", 0, 3) };
    let last = client.fetch(request).await.expect("a fetch").into_inner();
    assert_eq!(values(&last.partitions[0]), ["d"]);
    let whole = client.fetch(fetch("orders", 0, 0)).await.expect("a fetch").into_inner();
    assert_eq!(values(&whole.partitions[0]), ["a", "b", "c", "d"]);
    assert_eq!(whole.partitions[0].high_watermark, 4);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_records_go_to_the_partition_of_their_key() {
    let broker = start().await;
    broker.topic("keyed", 4).await;
    let records = (0..20).map(|n| record(&format!("key-{n}"), "v")).collect();
    let item = pb::PartitionProduce { topic: "keyed".into(), partition: None, records, ..Default::default() };
    let request = pb::ProduceRequest { partitions: vec![item], ..Default::default() };
    let results = broker.broker().await.produce(request).await.expect("produced").into_inner().results;
    assert_eq!(results.iter().map(|result| result.record_count).sum::<u32>(), 20);
    let mut client = broker.broker().await;
    for partition in 0..4 {
        let read = client.fetch(fetch("keyed", partition, 0)).await.expect("a fetch").into_inner();
        for stored in &read.partitions[0].records {
            let key = stored.record.as_ref().and_then(|record| record.key.clone()).expect("a key");
            assert_eq!(wire::murmur2::partition_for_key(&key, 4).0, partition);
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_the_order_of_a_partition_and_answers_everything() {
    let broker = start().await;
    broker.topic("stream", 2).await;
    let requests: Vec<_> = (0..200_u64)
        .map(|n| pb::ProduceRequest {
            correlation_id: n,
            ..produce("stream", Some(u32::from(n % 2 == 1)), batch(&[&n.to_string()]))
        })
        .collect();
    let mut client = broker.broker().await;
    let mut answers =
        client.produce_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let mut seen = std::collections::BTreeMap::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.results[0].error, None);
        seen.insert(answer.correlation_id, answer.results[0].base_offset.expect("an offset"));
    }
    assert_eq!(seen.len(), 200);
    for (correlation, offset) in seen {
        assert_eq!(offset, correlation / 2, "request {correlation}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_stream_goes_on_from_record_to_record() {
    let broker = start().await;
    broker.topic("follow", 1).await;
    let mut client = broker.broker().await;
    client.produce(produce("follow", Some(0), batch(&["1", "2"]))).await.expect("produced");
    let mut stream = client.fetch_stream(fetch("follow", 0, 1)).await.expect("a stream").into_inner();
    let first = stream.next().await.expect("more").expect("a response");
    assert_eq!(values(&first.partitions[0]), ["2"]);
    client.produce(produce("follow", Some(0), batch(&["3"]))).await.expect("produced");
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.next())
            .await
            .expect("in time")
            .expect("more")
            .expect("a response");
        let read = values(&next.partitions[0]);
        if !read.is_empty() {
            assert_eq!(read, ["3"]);
            break;
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_of_a_producer_has_its_name() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let mut client = broker.broker().await;
    let mut damaged = batch(&["x"]).to_vec();
    *damaged.last_mut().expect("a byte") ^= 1;
    let mut lying = batch(&["x"]).to_vec();
    lying[57..61].copy_from_slice(&1_000_000_i32.to_be_bytes());
    let crc = crc32c::crc32c(&lying[21..]);
    lying[17..21].copy_from_slice(&crc.to_be_bytes());
    let large = vec![b'x'; 1 << 20];
    let cases = [
        (produce("nope", Some(0), batch(&["x"])), "unknown_topic"),
        (produce("t", Some(7), batch(&["x"])), "unknown_partition"),
        (produce("t", None, batch(&["x"])), "invalid_request"),
        (produce("t", Some(0), bytes::Bytes::new()), "invalid_request"),
        (produce("t", Some(0), damaged.into()), "corrupt_batch"),
        (produce("t", Some(0), lying.into()), "corrupt_batch"),
        (produce("t", Some(0), batch(&["x"]).slice(0..40)), "corrupt_batch"),
        (produce("t", Some(0), batch(&[std::str::from_utf8(&large).expect("text")])), "record_too_large"),
    ];
    for (request, name) in cases {
        let result = client.produce(request).await.expect("an answer").into_inner().results.remove(0);
        assert_eq!(code_of(&result), name);
        assert!(result.error.expect("an error").definite);
    }
    // One partition fails, the other succeeds.
    let mut both = produce("nope", Some(0), batch(&["x"]));
    both.partitions.extend(produce("t", Some(0), batch(&["y"])).partitions);
    let results = client.produce(both).await.expect("an answer").into_inner().results;
    assert_eq!((code_of(&results[0]).as_str(), code_of(&results[1]).as_str()), ("unknown_topic", ""));
    let empty = client.produce(pb::ProduceRequest::default()).await.expect_err("no partitions");
    assert_eq!(ApiError::from_status(&empty).code, ErrorCode::InvalidRequest);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_of_a_consumer_has_its_name() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let mut client = broker.broker().await;
    client.produce(produce("t", Some(0), batch(&["x"]))).await.expect("produced");
    for (request, name) in [
        (fetch("nope", 0, 0), "unknown_topic"),
        (fetch("t", 9, 0), "unknown_partition"),
        (fetch("t", 0, 77), "offset_out_of_range"),
    ] {
        let read = client.fetch(request).await.expect("an answer").into_inner();
        assert_eq!(read.partitions[0].error.clone().expect("an error").name, name);
    }
    let mut fenced = fetch("t", 0, 0);
    fenced.partitions[0].leader_epoch = 1_000;
    let read = client.fetch(fenced).await.expect("an answer").into_inner();
    assert_eq!(read.partitions[0].error.clone().expect("an error").name, "unknown_leader_epoch");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_retry_is_stored_once_and_told_its_first_offset() {
    let broker = start().await;
    broker.topic("once", 1).await;
    let mut client = broker.broker().await;
    let ids: Vec<_> = [
        client.init_producer(pb::InitProducerRequest::default()).await,
        client.init_producer(pb::InitProducerRequest::default()).await,
    ]
    .into_iter()
    .map(|id| id.expect("an id").into_inner().producer_id)
    .collect();
    assert!(ids[0] > 0 && ids[1] == ids[0] + 1, "{ids:?}");
    let mut builder = RecordBatchBuilder::new(Compression::Zstd).producer(ProducerId(ids[0]), 0, 0);
    builder.push(1, None, Some(b"x"), &[]);
    let batch = builder.build().expect("a batch");
    for duplicate in [false, true] {
        let result = client
            .produce(produce("once", Some(0), batch.clone()))
            .await
            .expect("an answer")
            .into_inner()
            .results
            .remove(0);
        assert_eq!((result.base_offset, result.duplicate, result.error), (Some(0), duplicate, None));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_producer_may_not_send_is_named_and_nothing_moves() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let mut client = broker.broker().await;
    let id = client
        .init_producer(pb::InitProducerRequest::default())
        .await
        .expect("an id")
        .into_inner()
        .producer_id;
    // Incarnation, sequence, and how it ends: the newer incarnation fences the older, gaps are refused, forged ids too.
    let steps = [
        (id, 1, 0, ""),
        (id, 1, 2, "out_of_order_sequence"),
        (id, 0, 1, "producer_fenced"),
        (id, 2, 1, "out_of_order_sequence"),
        (id, 2, 0, ""),
        (id, 1, 1, "producer_fenced"),
        (id + 5, 0, 3, "unknown_producer"),
        (id + 1_000_000, 0, 0, "unknown_producer"),
        (u64::MAX >> 1, 0, 0, "unknown_producer"),
        (id, 2, 1, ""),
    ];
    let mut written = Vec::new();
    for (id, epoch, sequence, expected) in steps {
        let mut builder =
            RecordBatchBuilder::new(Compression::None).producer(ProducerId(id), epoch, sequence);
        let value = format!("{epoch}:{sequence}");
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
        let request = produce("t", Some(0), builder.build().expect("a batch"));
        let answer = client.produce(request).await.expect("an answer").into_inner();
        assert_eq!(code_of(&answer.results[0]), expected, "producer {id}, {value}");
        if expected.is_empty() {
            written.push(value);
        }
    }
    let fetched = client.fetch(fetch("t", 0, 0)).await.expect("an answer").into_inner();
    assert_eq!(values(&fetched.partitions[0]), written);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_listed_by_place_and_by_time() {
    use pb::partition_offset_query::At;
    let broker = start().await;
    broker.topic("t", 1).await;
    let mut client = broker.broker().await;
    client.produce(produce("t", Some(0), batch(&["a", "b"]))).await.expect("produced");
    let cases = [
        (At::Earliest(true), 0),
        (At::Latest(true), 2),
        (At::TimestampMs(0), 0),
        (At::TimestampMs(i64::MAX), 2),
    ];
    for linearizable in [false, true] {
        for (at, offset) in cases {
            let query = pb::PartitionOffsetQuery { topic: "t".into(), partition: 0, at: Some(at) };
            let request = pb::ListOffsetsRequest { partitions: vec![query], linearizable };
            let listed =
                client.list_offsets(request).await.expect("an answer").into_inner().partitions.remove(0);
            assert_eq!((listed.offset, listed.error), (offset, None), "{at:?}");
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_changed_described_and_deleted() {
    let broker = start().await;
    let mut admin = broker.admin().await;
    let request = pb::CreateTopicRequest {
        name: "orders".into(),
        partitions: 2,
        config: [("retention_ms".to_owned(), "3d".to_owned())].into(),
        wait_ms: 10_000,
        ..Default::default()
    };
    let dry = pb::CreateTopicRequest { dry_run: true, ..request.clone() };
    let planned = admin.create_topic(dry).await.expect("a plan").into_inner().topic.expect("a topic");
    assert_eq!((planned.partitions.len(), planned.replication_factor), (2, 1));
    assert!(
        admin
            .describe_topics(pb::DescribeTopicsRequest::default())
            .await
            .expect("topics")
            .into_inner()
            .topics
            .is_empty()
    );

    let created = admin.create_topic(request.clone()).await.expect("created").into_inner();
    let topic = created.topic.expect("a topic");
    assert_eq!(topic.config["retention_ms"], (3 * 86_400_000_u64).to_string());
    assert_eq!(topic.overridden, ["retention_ms"]);
    assert!(topic.partitions.iter().all(|partition| partition.leader == Some(1)));
    assert!(!created.warnings.is_empty(), "one replica is worth a warning");

    let again = admin.create_topic(request).await.expect_err("exists");
    assert_eq!(
        (again.code(), ApiError::from_status(&again).code),
        (tonic::Code::AlreadyExists, ErrorCode::TopicExists)
    );

    let update = pb::UpdateTopicRequest {
        name: "orders".into(),
        partitions: 3,
        set: [("min.insync.replicas".to_owned(), "1".to_owned())].into(),
        reset: vec!["retention_ms".into()],
        dry_run: false,
    };
    let updated = admin.update_topic(update).await.expect("updated").into_inner().topic.expect("a topic");
    assert_eq!(updated.partitions.len(), 3);
    assert_eq!(updated.config["retention_ms"], (7 * 86_400_000_u64).to_string());

    admin
        .delete_topic(pb::DeleteTopicRequest { name: "orders".into(), dry_run: false })
        .await
        .expect("deleted");
    let described = admin.describe_topics(pb::DescribeTopicsRequest { names: vec!["orders".into()] }).await;
    let described = described.expect("an answer").into_inner().topics.remove(0);
    assert_eq!(described.error.expect("an error").name, "unknown_topic");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_of_an_administrator_has_its_name() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let mut admin = broker.admin().await;
    let create = |name: &str| pb::CreateTopicRequest { name: name.into(), ..Default::default() };
    let config = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let cases = [
        (create(""), ErrorCode::InvalidTopicName),
        (create("a/b"), ErrorCode::InvalidTopicName),
        (create(".."), ErrorCode::InvalidTopicName),
        (create(&"x".repeat(300)), ErrorCode::InvalidTopicName),
        (pb::CreateTopicRequest { partitions: 4_000_000, ..create("p") }, ErrorCode::InvalidPartitionCount),
        (pb::CreateTopicRequest { replication_factor: 3, ..create("r") }, ErrorCode::NotEnoughBrokers),
        (
            pb::CreateTopicRequest { replication_factor: 99, ..create("r") },
            ErrorCode::InvalidReplicationFactor,
        ),
        (
            pb::CreateTopicRequest { config: config("retentoin", "1d"), ..create("c") },
            ErrorCode::InvalidConfig,
        ),
        (
            pb::CreateTopicRequest { config: config("retention_ms", "soon"), ..create("c") },
            ErrorCode::InvalidConfig,
        ),
    ];
    for (request, code) in cases {
        let refused = admin.create_topic(request.clone()).await.expect_err("refused");
        let error = ApiError::from_status(&refused);
        assert_eq!((error.code, error.definite()), (code, true), "{:?}: {error}", request.name);
    }
    let refused = admin.delete_topic(pb::DeleteTopicRequest { name: "nope".into(), dry_run: false }).await;
    assert_eq!(ApiError::from_status(&refused.expect_err("refused")).code, ErrorCode::UnknownTopic);
    let shrink = pb::UpdateTopicRequest { name: "t".into(), partitions: 1, ..Default::default() };
    let refused = admin.update_topic(shrink).await.expect_err("refused");
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::InvalidPartitionCount);
    let refused = admin.describe_broker(pb::DescribeBrokerRequest { id: 9 }).await.expect_err("refused");
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::UnknownBroker);
    let transfer = pb::TransferLeaderRequest { topic: "t".into(), to_broker: Some(9), ..Default::default() };
    let refused = admin.transfer_leader(transfer).await.expect_err("refused");
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::UnknownBroker);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_of_one_is_described() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let mut admin = broker.admin().await;
    let status = admin.cluster_status(pb::ClusterStatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.verdict.as_str(), status.controller_id, status.partitions), ("healthy", Some(1), 2));
    let brokers = admin.list_brokers(pb::ListBrokersRequest {}).await.expect("brokers").into_inner().brokers;
    assert_eq!((brokers.len(), brokers[0].leaders, brokers[0].metadata_role.as_str()), (1, 2, "voter"));
    assert_eq!(brokers[0].grpc_address, broker.node.addresses().grpc.to_string());
    let replicas = admin
        .describe_partitions(pb::DescribePartitionsRequest::default())
        .await
        .expect("replicas")
        .into_inner()
        .replicas;
    assert_eq!(replicas.len(), 2);
    assert!(
        replicas.iter().all(|replica| replica.role == "leader" && replica.error.is_empty()),
        "{replicas:?}"
    );
    let transfer = pb::TransferLeaderRequest { topic: "t".into(), ..Default::default() };
    assert_eq!(admin.transfer_leader(transfer).await.expect("no move").into_inner().leader, 1);
    let metadata = broker
        .broker()
        .await
        .get_metadata(pb::GetMetadataRequest::default())
        .await
        .expect("metadata")
        .into_inner();
    assert_eq!((metadata.topics.len(), metadata.controller_id), (1, Some(1)));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_restart() {
    let disk: Arc<dyn disk::Disk> = Arc::new(disk::faulty::FaultyDisk::quiet());
    let config = || broker::config::BrokerConfig {
        storage: broker::config::StorageConfig {
            wal_file_bytes: 32 << 20,
            wal_pool_files: 1,
            ..config().storage
        },
        ..config()
    };
    let broker = start_on(config(), disk.clone()).await.expect("starts");
    broker.topic("kept", 1).await;
    broker.broker().await.produce(produce("kept", Some(0), batch(&["x"]))).await.expect("produced");
    assert!(start_on(config(), disk.clone()).await.is_err(), "a second broker on the directory");
    broker.stop().await;

    let broker = start_on(config(), disk).await.expect("starts again");
    let mut client = broker.broker().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let read = client
            .fetch(pb::FetchRequest { max_wait_ms: 1_000, ..fetch("kept", 0, 0) })
            .await
            .expect("a fetch")
            .into_inner();
        if values(&read.partitions[0]) == ["x"] {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{read:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_on_one_connection_are_refused_with_advice() {
    let mut settings = config();
    settings.limits.in_flight_requests = 2;
    let broker = start_with(settings).await;
    broker.topic("t", 1).await;
    let client = broker.broker().await;
    let waits: Vec<_> = (0..6)
        .map(|_| {
            let mut client = client.clone();
            async move { client.fetch(pb::FetchRequest { max_wait_ms: 1_500, ..fetch("t", 0, 0) }).await }
        })
        .collect();
    let answers = futures::future::join_all(waits).await;
    let refused: Vec<_> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(ApiError::from_status).collect();
    assert_eq!(refused.len(), 4, "{answers:?}");
    assert!(
        refused.iter().all(|error| error.code == ErrorCode::Overloaded && error.retry_after_ms > 0),
        "{refused:?}"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_message_is_refused_and_the_connection_lives_on() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let mut client = broker.broker().await.max_encoding_message_size(64 << 20);
    let huge = produce("t", Some(0), vec![0_u8; 17 << 20].into());
    let refused = client.produce(huge).await.expect_err("17 MiB");
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::RequestTooLarge, "{refused:?}");
    client.produce(produce("t", Some(0), batch(&["x"]))).await.expect("the connection lives on");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_with_its_own_deadline() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let mut request = tonic::Request::new(pb::FetchRequest { max_wait_ms: 60_000, ..fetch("t", 0, 0) });
    request.set_timeout(Duration::from_millis(400));
    let read = broker.broker().await.fetch(request).await.expect("an empty answer in time").into_inner();
    assert!(read.partitions[0].records.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_breaks_the_calls_and_connections_that_are_open() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let address = broker.node.addresses().grpc;
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut client = broker.broker().await;
    let waiting = pb::FetchRequest { max_wait_ms: 60_000, ..fetch("t", 0, 0) };
    let mut call = Box::pin(client.fetch(waiting));
    let early = tokio::time::timeout(Duration::from_millis(200), call.as_mut()).await;
    assert!(early.is_err(), "there is nothing to fetch yet");
    broker.node.kill();
    let ended = tokio::time::timeout(PATIENCE, call).await.expect("the call ends with its broker");
    assert!(ended.is_err(), "{ended:?}");
    let mut rest = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut idle, &mut rest);
    // Closed or reset, but not left to dangle.
    let _ = tokio::time::timeout(PATIENCE, closed).await.expect("the connection ends with its broker");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_grpc_port_closes_the_connection_and_nothing_else() {
    let broker = start().await;
    let address = broker.node.addresses().grpc;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let noise: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        noise.clone(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        preface.to_vec(),
        [preface.as_slice(), &noise].concat(),
        // A frame that declares 16 MiB.
        [preface.as_slice(), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"].concat(),
    ];
    cases.extend((0..32_usize).map(|at| [preface.as_slice(), &noise[at * 97..at * 97 + 200]].concat()));
    for bytes in cases {
        broker.raw(address, &bytes).await;
    }
    assert_eq!(broker.fatal.reason(), None);
    broker.admin().await.list_brokers(pb::ListBrokersRequest {}).await.expect("still answers");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer() {
    let broker = start().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(broker.channel().await);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = tonic_health::pb::HealthCheckRequest { service: "altair.v1.Broker".into() };
        let serving = health.check(request).await.is_ok_and(|answer| answer.into_inner().status == 1);
        if serving {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the broker never serves");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(broker.channel().await);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter([list])).await.expect("a stream").into_inner();
    let answer = answers.next().await.expect("an answer").expect("services").message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    assert!(
        names.contains(&"altair.v1.Broker".to_owned()) && names.contains(&"altair.v1.Admin".to_owned()),
        "{names:?}"
    );
    drop(answers);
    drop(reflection);
    broker.stop().await;
}
