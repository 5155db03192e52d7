//! Goal: brokers found a cluster, join it, come back to it, and change it through whichever broker is asked.
//! Method: brokers in one process, over real sockets and files, each with its own WAL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use disk::OsDisk;
use raft_store::{DirectMode, NodeIdentity, Wal, WalConfig, WalThread, drive_in_thread};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, ReplicaId, TopicId};

use super::command::{Command, CommandReply, CreateTopic};
use super::image::BrokerState;
use super::state::tests::create;
use super::{KeyedKind, Metadata, MetadataConfig, MetadataParts};
use crate::raft::{Groups, LocalIdentity, PeerConfig};
use crate::runtime::{Clock, Fatal, Net, Random, Seams, Tasks, TcpNet};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Broker {
    metadata: Metadata,
    addr: String,
    fatal: Fatal,
    tasks: Tasks,
    identity: watch::Receiver<Arc<LocalIdentity>>,
    wal: Option<WalThread>,
}

struct Plan {
    id: u32,
    seeds: Vec<String>,
    expect: u32,
    addr: String,
}

impl Plan {
    fn new(id: u32, seeds: &[String], expect: u32) -> Self {
        Self { id, seeds: seeds.to_vec(), expect, addr: "127.0.0.1:0".into() }
    }
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

async fn start(root: &Path, plan: Plan) -> Broker {
    let listener = TcpNet.listen(plan.addr.parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let fatal = Fatal::new();
    let tasks = Tasks::root(fatal.clone());
    let random = Random::from_os().unwrap();
    let seams = Seams {
        disk: Arc::new(OsDisk::new()),
        io: crate::runtime::disk_io(),
        net: Arc::new(TcpNet),
        clock: Clock::system(),
        random: random.clone(),
        tasks: tasks.clone(),
        fatal: fatal.clone(),
        wal: crate::runtime::WalDriver::Thread,
        keyed: crate::runtime::KeyedKind::Disk,
        probe: crate::runtime::Probe::default(),
    };
    let disk = seams.disk.clone();
    let node = match NodeIdentity::load(disk.as_ref(), root).unwrap() {
        Some(node) => node,
        None => {
            let node = NodeIdentity::create(plan.id, || random.u64());
            node.save(disk.as_ref(), root).unwrap();
            node
        }
    };
    let numbers = random.clone();
    let (wal, writer, _) =
        Wal::open(disk, seams.io.clone(), root, wal_config(), move || numbers.u64()).unwrap();
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
    let groups = Groups::start(&seams, wal.clone(), identity.clone(), listener, PeerConfig::default());
    let config = MetadataConfig {
        cluster_name: "altair".into(),
        seeds: plan.seeds,
        bootstrap_expect: plan.expect,
        metadata_voters: 3,
        delete_retention: Duration::from_secs(3600),
        keyed: KeyedKind::Disk,
        offset_retention: Duration::from_secs(3600),
    };
    let parts = MetadataParts { seams, wal, groups, config, root: root.to_path_buf(), node, identity: told };
    let metadata = Metadata::start(parts).await.unwrap();
    Broker { metadata, addr, fatal, tasks, identity, wal: Some(thread) }
}

impl Broker {
    async fn joined(&self) {
        tokio::select! {
            () = self.metadata.joined() => {}
            reason = self.fatal.stopped() => panic!("the broker stopped: {reason}"),
            () = tokio::time::sleep(PATIENCE) => panic!("broker {} did not join", self.metadata.me()),
        }
    }

    /// What SIGKILL does: tasks and sockets go at once; what is not on disk is not there.
    async fn kill(mut self) -> String {
        self.tasks.kill();
        // The listener's port is free when its task has gone.
        self.tasks.shutdown(Duration::from_secs(5)).await;
        drop(self.wal.take());
        self.addr
    }

    async fn create(
        &self,
        id: u128,
        name: &str,
        factor: u32,
    ) -> Result<CommandReply, wire::api_error::ApiError> {
        let topic = Command::CreateTopic(CreateTopic { ..create(id, name, 4, factor) });
        self.metadata.propose(topic, Duration::from_secs(10)).await
    }
}

fn roots(n: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let roots: Vec<PathBuf> = (1..=n).map(|n| dir.path().join(format!("b{n}"))).collect();
    for root in &roots {
        disk::Disk::create_dir_all(&OsDisk::new(), root).unwrap();
    }
    (dir, roots)
}

/// Ports that are free now, so that brokers know each other's addresses before they start.
async fn addresses(n: usize) -> Vec<String> {
    let mut held = Vec::new();
    for _ in 0..n {
        held.push(TcpNet.listen("127.0.0.1:0".parse().unwrap()).await.unwrap());
    }
    held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

async fn three(roots: &[PathBuf]) -> (Vec<Broker>, Vec<String>) {
    let seeds = addresses(3).await;
    let mut brokers = Vec::new();
    for (at, root) in roots.iter().take(3).enumerate() {
        let plan = Plan { addr: seeds[at].clone(), ..Plan::new(u32::try_from(at).unwrap() + 1, &seeds, 3) };
        brokers.push(start(root, plan).await);
    }
    for broker in &brokers {
        broker.joined().await;
    }
    (brokers, seeds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_broker_is_a_cluster_at_once_and_comes_back_to_it() {
    let (_dir, roots) = roots(1);
    let began = Instant::now();
    let broker = start(&roots[0], Plan::new(1, &[], 1)).await;
    broker.joined().await;
    println!("first start: {:?}", began.elapsed());
    let cluster = broker.metadata.image().cluster_id;
    assert_eq!(broker.identity.borrow().cluster_id, Some(cluster));
    broker.create(1, "orders", 1).await.unwrap();
    assert!(broker.metadata.image().topic("orders").is_some(), "the proposer reads its own write");
    let ids = broker.metadata.propose(Command::AllocateProducerIds { count: 10 }, PATIENCE).await.unwrap();
    broker.kill().await;

    let began = Instant::now();
    let broker = start(&roots[0], Plan::new(1, &[], 1)).await;
    broker.joined().await;
    println!("restart: {:?}", began.elapsed());
    let image = broker.metadata.image();
    assert_eq!(image.cluster_id, cluster);
    assert!(image.topic("orders").is_some());
    let more = broker.metadata.propose(Command::AllocateProducerIds { count: 10 }, PATIENCE).await.unwrap();
    assert_ne!(ids, more, "ids are given once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_found_one_cluster_and_serve_proposals_everywhere() {
    let (_dir, roots) = roots(3);
    let began = Instant::now();
    let (brokers, _) = three(&roots).await;
    println!("three joined: {:?}", began.elapsed());
    for broker in &brokers {
        until("all brokers are known", || broker.metadata.image().brokers.len() == 3).await;
        assert_eq!(broker.metadata.image().metadata_voters.len(), 3);
        assert_eq!(broker.metadata.image().cluster_id, brokers[0].metadata.image().cluster_id);
    }
    for (at, broker) in brokers.iter().enumerate() {
        let name = format!("t{at}");
        let reply = broker.create(at as u128 + 1, &name, 3).await.unwrap();
        assert!(matches!(reply, CommandReply::TopicCreated { .. }));
        assert!(broker.metadata.image().topic(&name).is_some(), "the proposer reads its own write");
        let taken = broker.create(100, &name, 3).await.unwrap_err();
        assert_eq!(taken.code, ErrorCode::TopicExists);
    }
    for broker in &brokers {
        until("every broker shows all topics", || broker.metadata.image().names.len() == 3).await;
    }
    // Many at once share entries.
    let version = brokers[1].metadata.image().version;
    let many =
        (0..200).map(|_| brokers[1].metadata.propose(Command::AllocateProducerIds { count: 1 }, PATIENCE));
    let replies = futures::future::join_all(many).await;
    let firsts: std::collections::BTreeSet<_> = replies
        .into_iter()
        .map(|reply| match reply.unwrap() {
            CommandReply::ProducerIds { first, .. } => first,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(firsts.len(), 200, "every id once");
    assert!(brokers[1].metadata.image().version - version < 100, "one entry carries many commands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fourth_broker_joins_through_any_seed_and_carries_replicas() {
    let (_dir, roots) = roots(4);
    let (brokers, seeds) = three(&roots).await;
    let follower = brokers.iter().position(|b| b.metadata.controller() != Some(b.metadata.me())).unwrap();
    let fourth = start(&roots[3], Plan::new(4, &seeds[follower..=follower], 3)).await;
    fourth.joined().await;
    let image = fourth.metadata.image();
    assert_eq!(image.cluster_id, brokers[0].metadata.image().cluster_id);
    assert_eq!(image.brokers.len(), 4);
    fourth.create(1, "wide", 4).await.unwrap();
    assert_eq!(fourth.metadata.image().local_replicas(BrokerId(4)).len(), 4);
    until("the fourth is a learner", || fourth.metadata.image().metadata_learners.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_come_back_after_a_kill_even_at_new_addresses() {
    let (_dir, roots) = roots(3);
    let (brokers, _) = three(&roots).await;
    brokers[2].create(1, "orders", 3).await.unwrap();
    let cluster = brokers[0].metadata.image().cluster_id;
    for broker in brokers {
        broker.kill().await;
    }
    let began = Instant::now();
    let (brokers, seeds) = three(&roots).await;
    println!("three back: {:?}", began.elapsed());
    for (broker, addr) in brokers.iter().zip(&seeds) {
        assert_eq!(broker.metadata.image().cluster_id, cluster);
        let me = broker.metadata.me();
        assert_eq!(&broker.metadata.image().broker(me).unwrap().peer, addr);
    }
    for broker in &brokers {
        until("everybody shows the topic", || broker.metadata.image().topic("orders").is_some()).await;
    }
    brokers[0].create(2, "more", 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leader_is_fenced_and_the_others_go_on() {
    let (_dir, roots) = roots(3);
    let (mut brokers, seeds) = three(&roots).await;
    until("there is a leader", || brokers[0].metadata.controller().is_some()).await;
    let leader = brokers[0].metadata.controller().unwrap();
    let at = brokers.iter().position(|b| b.metadata.me() == leader).unwrap();
    let began = Instant::now();
    let addr = brokers.remove(at).kill().await;
    brokers[0].create(1, "after", 1).await.unwrap();
    println!("writable again after: {:?}", began.elapsed());
    until("the dead broker is fenced", || {
        brokers[0].metadata.image().broker(leader).unwrap().state() == BrokerState::Fenced
    })
    .await;
    let plan = Plan { addr, ..Plan::new(leader.0, &seeds, 3) };
    let back = start(&roots[at], plan).await;
    back.joined().await;
    assert!(back.metadata.image().topic("after").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_of_another_cluster_refuses_to_start_and_says_so() {
    let (_dir, roots) = roots(2);
    let stranger = start(&roots[0], Plan::new(1, &[], 1)).await;
    stranger.joined().await;
    stranger.kill().await;
    let home = start(&roots[1], Plan::new(2, &[], 1)).await;
    home.joined().await;
    // The same directory, now with the seeds of another cluster and without its own log.
    let disk = OsDisk::new();
    let node = NodeIdentity::load(&disk, &roots[0]).unwrap().unwrap();
    disk::Disk::remove_dir_all(&disk, &roots[0]).unwrap();
    disk::Disk::create_dir_all(&disk, &roots[0]).unwrap();
    node.save(&disk, &roots[0]).unwrap();
    let lost = start(&roots[0], Plan::new(1, std::slice::from_ref(&home.addr), 2)).await;
    let reason = tokio::time::timeout(PATIENCE, lost.fatal.stopped()).await.unwrap();
    assert!(reason.contains("cluster"), "{reason}");
    assert!(home.fatal.reason().is_none());
    assert_eq!(home.metadata.image().brokers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_broker_with_a_used_id_is_refused_and_a_lost_disk_is_taken_back() {
    let (_dir, roots) = roots(4);
    let (mut brokers, seeds) = three(&roots).await;
    brokers[0].create(1, "orders", 3).await.unwrap();
    let twin = start(&roots[3], Plan::new(3, &seeds[..1], 3)).await;
    let reason = tokio::time::timeout(PATIENCE, twin.fatal.stopped()).await.unwrap();
    assert!(reason.contains("broker id 3") || reason.contains("node.id 3"), "{reason}");
    twin.kill().await;

    let addr = brokers.remove(2).kill().await;
    let disk = OsDisk::new();
    disk::Disk::remove_dir_all(&disk, &roots[2]).unwrap();
    disk::Disk::create_dir_all(&disk, &roots[2]).unwrap();
    let back = start(&roots[2], Plan { addr, ..Plan::new(3, &seeds, 3) }).await;
    back.joined().await;
    until("its replicas are replaced by fresh ones", || {
        let image = back.metadata.image();
        let topic = image.topic("orders").unwrap();
        topic.partitions.iter().all(|p| p.adding.is_some_and(|new| new.broker == BrokerId(3)))
    })
    .await;
    until("the fresh replica of the metadata group votes and the lost one is gone", || {
        let image = back.metadata.image();
        let replica = image.broker(BrokerId(3)).unwrap().metadata_replica;
        image.metadata_voters.len() == 3
            && image.metadata_voters.iter().any(|member| member.replica == replica)
            && image.metadata_learners.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_change_fails_by_its_deadline_and_never_hangs() {
    let (_dir, roots) = roots(3);
    let (mut brokers, _) = three(&roots).await;
    let survivor = brokers.remove(0);
    for broker in brokers {
        broker.kill().await;
    }
    let began = Instant::now();
    let topic = Command::CreateTopic(create(1, "t", 1, 1));
    let error = survivor.metadata.propose(topic, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error.code, ErrorCode::NoQuorum | ErrorCode::OutcomeUnknown), "{error}");
    assert!(began.elapsed() < Duration::from_secs(6));
    assert!(survivor.metadata.image().topic("t").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_taken_and_a_broker_comes_back_from_one() {
    let (_dir, roots) = roots(1);
    let broker = start(&roots[0], Plan::new(1, &[], 1)).await;
    broker.joined().await;
    for n in 0..1_100_u32 {
        if n % 100 == 0 {
            broker.create(u128::from(n) + 1, &format!("t{n}"), 1).await.unwrap();
        }
        broker.metadata.propose(Command::AllocateProducerIds { count: 1 }, PATIENCE).await.unwrap();
    }
    let dir = roots[0].join("metadata");
    until("a snapshot is on disk", || {
        disk::Disk::list(&OsDisk::new(), &dir).is_ok_and(|files| !files.is_empty())
    })
    .await;
    let before = broker.metadata.image();
    broker.kill().await;
    let broker = start(&roots[0], Plan::new(1, &[], 1)).await;
    broker.joined().await;
    let after = broker.metadata.image();
    let topics =
        |image: &super::image::MetadataImage| -> BTreeMap<String, TopicId> { (*image.names).clone() };
    assert_eq!(topics(&after), topics(&before));
    assert_eq!(after.next_replica, before.next_replica);
    let _: Uuid = after.cluster_id;
}
