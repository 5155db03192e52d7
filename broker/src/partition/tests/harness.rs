//! Brokers in one process, over real sockets, each with its own disk and WAL: everything but the API.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk::Disk;
use raft_store::{DirectMode, NodeIdentity, Wal, WalConfig, WalThread, drive_in_thread};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use wire::api_error::ApiError;
use wire::ids::{BrokerId, Offset, PartitionIndex, ProducerId, ReplicaId, TopicId};
use wire::record::{BatchHeader, Compression, OwnedRecord, RecordBatchBuilder, decode_records};

use crate::config::BrokerConfig;
use crate::metadata::command::{Command, CreateTopic};
use crate::metadata::topic_config::TopicConfig;
use crate::metadata::{KeyedKind, Metadata, MetadataConfig, MetadataParts};
use crate::partition::{Acks, FetchArgs, Partitions, PartitionsArgs, ProduceBatches, Receipt, Replica};
use crate::raft::{Groups, LocalIdentity, PeerConfig};
use crate::runtime::{Clock, Fatal, Net, Random, Seams, Tasks, TcpNet};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const TOPIC: TopicId = TopicId(Uuid::from_u128(0x70));

/// Waits until a condition holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub(super) struct Plan {
    pub(super) id: u32,
    pub(super) seeds: Vec<String>,
    pub(super) addr: String,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) root: PathBuf,
}

pub(super) struct Broker {
    pub(super) metadata: Metadata,
    pub(super) partitions: Partitions,
    pub(super) groups: Groups,
    pub(super) fatal: Fatal,
    tasks: Tasks,
    wal: Option<WalThread>,
}

fn wal_config() -> WalConfig {
    WalConfig {
        file_bytes: 1 << 20,
        pool_files: 2,
        outstanding_max: 64 << 20,
        reserve: 8 << 20,
        direct: DirectMode::Never,
        ..WalConfig::default()
    }
}

fn node_of(seams: &Seams, root: &Path, id: u32) -> NodeIdentity {
    let disk = seams.disk.as_ref();
    disk.create_dir_all(root).unwrap();
    disk.sync_dir(root.parent().unwrap()).unwrap();
    NodeIdentity::load(disk, root).unwrap().unwrap_or_else(|| {
        let node = NodeIdentity::create(id, || seams.random.u64());
        node.save(disk, root).unwrap();
        node
    })
}

pub(super) async fn start(plan: &Plan) -> Broker {
    let listener = TcpNet.listen(plan.addr.parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let fatal = Fatal::new();
    let tasks = Tasks::root(fatal.clone());
    let seams = Seams {
        disk: plan.disk.clone(),
        io: crate::runtime::disk_io(),
        net: Arc::new(TcpNet),
        clock: Clock::system(),
        random: Random::from_os().unwrap(),
        tasks: tasks.clone(),
        fatal: fatal.clone(),
        wal: crate::runtime::WalDriver::Thread,
        keyed: crate::runtime::KeyedKind::Disk,
        probe: crate::runtime::Probe::default(),
    };
    let node = node_of(&seams, &plan.root, plan.id);
    let numbers = seams.random.clone();
    let (wal, writer, recovery) =
        Wal::open(plan.disk.clone(), seams.io.clone(), &plan.root, wal_config(), move || numbers.u64())
            .unwrap();
    let thread = drive_in_thread(writer).unwrap();
    let identity = LocalIdentity {
        broker_id: BrokerId(plan.id),
        incarnation: node.incarnation,
        cluster_id: node.cluster_id,
        metadata_replica: ReplicaId(node.metadata_replica),
        grpc: format!("{addr}-grpc"),
        http: format!("{addr}-http"),
        peer: addr.clone(),
        rack: String::new(),
        version: "0".into(),
    };
    let (told, identity) = watch::channel(Arc::new(identity));
    let groups = Groups::start(&seams, wal.clone(), identity, listener, PeerConfig::default());
    let config = MetadataConfig {
        cluster_name: "altair".into(),
        seeds: plan.seeds.clone(),
        bootstrap_expect: u32::try_from(plan.seeds.len().max(1)).unwrap(),
        metadata_voters: 3,
        delete_retention: Duration::from_secs(3600),
        keyed: KeyedKind::Memory,
        offset_retention: Duration::from_secs(3600),
    };
    let parts = MetadataParts {
        seams: seams.clone(),
        wal: wal.clone(),
        groups: groups.clone(),
        config,
        root: plan.root.clone(),
        node,
        identity: told,
    };
    let metadata = Metadata::start(parts).await.unwrap();
    let mut config = BrokerConfig::default();
    config.node.id = plan.id;
    config.storage.flush_interval_ms = 200;
    config.storage.reject_free_bytes = 0;
    let partitions = Partitions::start(PartitionsArgs {
        seams,
        wal,
        recovered: recovery.groups,
        groups: groups.clone(),
        metadata: metadata.clone(),
        config: Arc::new(config),
        root: plan.root.clone(),
    });
    Broker { metadata, partitions, groups, fatal, tasks, wal: Some(thread) }
}

impl Broker {
    pub(super) async fn joined(&self) {
        tokio::select! {
            () = self.metadata.joined() => {}
            reason = self.fatal.stopped() => panic!("the broker stopped: {reason}"),
            () = tokio::time::sleep(PATIENCE) => panic!("broker {} did not join", self.metadata.me()),
        }
    }

    /// What SIGKILL does: tasks and sockets go at once; what is not on disk is not there.
    pub(super) async fn kill(mut self) {
        self.tasks.kill();
        self.tasks.shutdown(Duration::from_secs(5)).await;
        drop(self.wal.take());
    }

    /// What SIGTERM does.
    pub(super) async fn stop(mut self) {
        self.partitions.hand_over(Instant::now() + Duration::from_secs(5)).await;
        self.partitions.shutdown(Duration::from_secs(5)).await.unwrap();
        self.groups.shutdown(Duration::from_secs(5)).await;
        self.tasks.shutdown(Duration::from_secs(5)).await;
        drop(self.wal.take());
    }

    pub(super) async fn create(&self, partitions: u32, replication_factor: u32, config: TopicConfig) {
        let topic = CreateTopic {
            id: TOPIC,
            name: "orders".into(),
            partitions,
            replication_factor,
            config,
            overridden: BTreeSet::new(),
            time_ms: 0,
        };
        self.metadata.propose(Command::CreateTopic(topic), PATIENCE).await.unwrap();
    }

    pub(super) fn replica(&self) -> Option<Arc<Replica>> {
        self.partitions.get(TOPIC, PartitionIndex(0))
    }

    pub(super) fn leads(&self) -> bool {
        self.replica().is_some_and(|replica| replica.is_leader())
    }
}

/// The broker that leads partition 0.
pub(super) async fn leader(brokers: &[Broker]) -> &Broker {
    until("the partition has a leader", || brokers.iter().any(Broker::leads)).await;
    brokers.iter().find(|broker| broker.leads()).unwrap()
}

/// Ports that are free now, so that brokers know each other's addresses before they start.
pub(super) async fn addresses(n: usize) -> Vec<String> {
    let mut held = Vec::new();
    for _ in 0..n {
        held.push(TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap());
    }
    held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// Plans of a cluster of three, each broker with the disk that `disk` gives it.
pub(super) async fn plans(disk: impl Fn() -> Arc<dyn Disk>) -> Vec<Plan> {
    let seeds = addresses(3).await;
    (1..=3u32)
        .zip(seeds.clone())
        .map(|(id, addr)| Plan {
            id,
            seeds: seeds.clone(),
            addr,
            disk: disk(),
            root: PathBuf::from(format!("/b{id}")),
        })
        .collect()
}

pub(super) async fn start_all(plans: &[Plan]) -> Vec<Broker> {
    let mut brokers = Vec::new();
    for plan in plans {
        brokers.push(start(plan).await);
    }
    for broker in &brokers {
        broker.joined().await;
    }
    brokers
}

/// One batch of `count` records whose values say what they are.
pub(super) fn batch(first: u64, count: u64, producer: Option<(u64, u32)>) -> (BatchHeader, Bytes) {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(ProducerId(id), 0, sequence);
    }
    for n in first..first + count {
        builder.push(1_000, None, Some(format!("record {n}").as_bytes()), &[]);
    }
    let bytes = builder.build().unwrap();
    (BatchHeader::parse(&bytes).unwrap(), bytes)
}

pub(super) async fn produce(
    replica: &Replica,
    batch: (BatchHeader, Bytes),
    acks: Acks,
) -> Result<Receipt, ApiError> {
    replica.produce(ProduceBatches { batches: vec![batch], acks, deadline: soon() }).await
}

/// Produces to whoever leads until it is acknowledged; only for batches of idempotent producers.
pub(super) async fn produce_somewhere(brokers: &[&Broker], batch: (BatchHeader, Bytes)) -> Receipt {
    let deadline = soon();
    loop {
        for replica in brokers.iter().filter_map(|broker| broker.replica()) {
            let batches = ProduceBatches {
                batches: vec![batch.clone()],
                acks: Acks::All,
                deadline: Instant::now() + Duration::from_secs(2),
            };
            match replica.produce(batches).await {
                Ok(receipt) => return receipt,
                Err(error) => assert!(Instant::now() < deadline, "never acknowledged: {error}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything below the high watermark.
pub(super) async fn read_all(replica: &Replica) -> Vec<OwnedRecord> {
    let mut offset = replica.log_start();
    let mut records: Vec<OwnedRecord> = Vec::new();
    while offset < replica.high_watermark() {
        let args =
            FetchArgs { offset, max_bytes: 1 << 20, min_bytes: 1, deadline: soon(), leader_only: false };
        let fetched = replica.fetch(args).await.unwrap();
        for batch in &fetched.batches {
            let decoded = decode_records(batch, 16 << 20).unwrap();
            records.extend(decoded.into_iter().filter(|record| record.offset >= offset));
        }
        offset = Offset(records.last().unwrap().offset.0 + 1);
    }
    records
}

/// The values that [`batch`] gives to these records.
pub(super) fn expected(records: std::ops::Range<u64>) -> Vec<String> {
    records.map(|n| format!("record {n}")).collect()
}

pub(super) fn values(records: &[OwnedRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()).collect()
}
