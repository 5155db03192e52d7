//! One broker, put together: the only file that knows every part.
//!
//! Start: directory lock → identity → WAL with recovery → listeners → Raft groups and peers → metadata → partitions →
//! api → gRPC and HTTP. Stop is the reverse, with one deadline over all; before it the leaderships are handed over.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk::{DiskError, DiskLock};
use prometheus_client::registry::Registry;
use raft_store::{
    IdentityError, NodeIdentity, Recovery, Wal, WalConfig, WalError, WalThread, WalWriter, layout,
};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::ids::{BrokerId, ReplicaId};

use crate::api::{Api, ApiMetrics, ApiParts};
use crate::config::{BrokerConfig, StorageMode, advertised};
use crate::grpc::{GrpcError, GrpcServer};
use crate::http::HttpServer;
use crate::metadata::{KeyedKind, Metadata, MetadataConfig, MetadataError, MetadataParts};
use crate::partition::{Partitions, PartitionsArgs};
use crate::raft::{Groups, LocalIdentity, PeerConfig};
use crate::runtime::{Listener, Probe, Seams, Tasks, WalDriver};

/// Share of the shutdown's time in which leaderships are handed over.
const HAND_OVER_SHARE: u32 = 4;
/// The longest that handing over may take.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);
/// What the metadata leadership gets of it in any case.
const METADATA_HAND_OVER_AT_LEAST: Duration = Duration::from_millis(500);
/// The longest that clients' calls in progress are waited for.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// WAL files are memory with `storage.mode: memory`: fewer and smaller.
const MEMORY_WAL_FILE_BYTES: u64 = 32 << 20;
const MEMORY_WAL_POOL_FILES: usize = 1;
/// Bytes of the WAL that only votes and internal entries may use.
const WAL_RESERVE_BYTES: u64 = 64 << 20;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another broker runs in the directory.
    #[error("another broker runs in {}: each needs a storage.data_dir of its own", .0.display())]
    Locked(PathBuf),
    /// The directory belongs to another broker.
    #[error("{} belongs to broker {found}, but node.id is {configured}: one of the two is wrong", .path.display())]
    OtherBroker {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// `node.id`.
        configured: u32,
    },
    /// The directory cannot be used.
    #[error("the data directory cannot be used")]
    Disk(#[from] DiskError),
    /// The directory's identity cannot be read.
    #[error("the data directory's identity cannot be used")]
    Identity(#[from] IdentityError),
    /// The write-ahead log cannot be opened.
    #[error("the write-ahead log cannot be opened")]
    Wal(#[from] WalError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// Config key of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refuses something else.
    #[error("the operating system refuses to {what}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The metadata group cannot be opened.
    #[error("the metadata group cannot be started")]
    Metadata(#[from] MetadataError),
    /// The gRPC server cannot be built.
    #[error("the gRPC server cannot be started")]
    Grpc(#[from] GrpcError),
}

/// Where a broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Clients and tools.
    pub grpc: SocketAddr,
    /// Health, metrics, REST.
    pub http: SocketAddr,
    /// Other brokers.
    pub peer: SocketAddr,
}

/// A running broker.
pub struct Node {
    api: Api,
    addresses: Addresses,
    seams: Seams,
    grpc: GrpcServer,
    http: HttpServer,
    partitions: Partitions,
    metadata: Metadata,
    groups: Groups,
    /// `None` where a task drives the log.
    wal: Option<WalThread>,
    /// Held to the very end.
    lock: Box<dyn DiskLock>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({:?})", self.addresses)
    }
}

/// The three listeners, bound.
struct Doors {
    grpc: Box<dyn Listener>,
    http: Box<dyn Listener>,
    peer: Box<dyn Listener>,
    addresses: Addresses,
}

/// What stands on the disk, opened.
struct Storage {
    lock: Box<dyn DiskLock>,
    identity: NodeIdentity,
    wal: Wal,
    /// None where a task drives the log.
    thread: Option<WalThread>,
    recovery: Recovery,
}

impl Node {
    /// Starts a broker; it listens when this returns, and joins its cluster in the background.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: BrokerConfig, seams: Seams) -> Result<Self, StartError> {
        let tasks = seams.tasks.clone();
        let started = Self::build(config, seams).await;
        if started.is_err() {
            tasks.kill();
        }
        started
    }

    async fn build(config: BrokerConfig, seams: Seams) -> Result<Self, StartError> {
        let began = Instant::now();
        let config = Arc::new(config);
        let storage = open_storage(&config, &seams).await?;
        let doors = open_doors(&config, &seams).await?;
        let Storage { lock, identity, wal, thread, recovery } = storage;
        let addresses = doors.addresses;
        let local = watch::Sender::new(Arc::new(introduce(&config, &identity, addresses)));
        let beats = PeerConfig {
            beat: Duration::from_millis(config.peer.beat_ms),
            dead: Duration::from_millis(config.peer.dead_ms),
        };
        let groups = Groups::start(&seams, wal.clone(), local.subscribe(), doors.peer, beats);
        let metadata = Metadata::start(MetadataParts {
            seams: seams.clone(),
            wal: wal.clone(),
            groups: groups.clone(),
            config: metadata_config(&config, seams.keyed),
            root: config.storage.data_dir.clone(),
            identity: local,
            node: identity,
        })
        .await?;
        let partitions = Partitions::start(PartitionsArgs {
            seams: seams.clone(),
            wal: wal.clone(),
            recovered: recovery.groups,
            groups: groups.clone(),
            metadata: metadata.clone(),
            config: config.clone(),
            root: config.storage.data_dir.clone(),
        });
        let mut registry = Registry::default();
        let metrics = ApiMetrics::new(&mut registry);
        ApiMetrics::register_wal(&wal.metrics(), &mut registry);
        let api = Api::new(ApiParts {
            seams: seams.clone(),
            config: config.clone(),
            metadata: metadata.clone(),
            partitions: partitions.clone(),
            groups: groups.clone(),
            wal,
            registry: Arc::new(registry),
            metrics,
        });
        let grpc = GrpcServer::start(doors.grpc, api.clone(), &config.limits, seams.tasks.child("grpc"))?;
        let http = HttpServer::start(doors.http, api.clone(), seams.tasks.child("http"))
            .map_err(|source| StartError::System { what: "tell the HTTP address", source })?;
        tracing::info!(
            broker = config.node.id,
            grpc = %addresses.grpc,
            http = %addresses.http,
            peer = %addresses.peer,
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the broker has started"
        );
        Ok(Self { api, addresses, seams, grpc, http, partitions, metadata, groups, wal: thread, lock })
    }

    /// Where this broker listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The core, for what runs in the same process.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Waits until the broker can serve clients.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) {
        let mut images = self.metadata.watch_topology();
        loop {
            self.partitions.ready().await;
            images.mark_unchanged();
            if self.api.readiness().is_ok() {
                return;
            }
            if images.changed().await.is_err() {
                // The metadata group has ended: there is nothing to wait for.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops the broker: hands leaderships over, lets calls in progress end, flushes, and closes. True if everything
    /// ended within the deadline.
    ///
    /// # Cancel safety
    /// A shutdown that is dropped midway leaves a broker that must be ended with its process; no acknowledged record
    /// is lost by it.
    pub async fn shutdown(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        self.api.begin_shutdown();
        self.hand_over(HAND_OVER_WITHIN.min(within / HAND_OVER_SHARE)).await;
        let drain = DRAIN_WITHIN.min(left() / 2);
        tokio::join!(self.grpc.shutdown(drain), self.http.shutdown(drain));
        let mut clean = true;
        if let Err(error) = self.partitions.shutdown(left() / 2).await {
            tracing::warn!(%error, "the partitions were not closed cleanly");
            clean = false;
        }
        self.groups.shutdown(left() / 2).await;
        if self.seams.wal == WalDriver::Task {
            // A thread is closed and joined below; a task ends once nothing more can come.
            self.groups.wal().close();
        }
        clean &= self.seams.tasks.shutdown(left()).await;
        let (thread, lock) = (self.wal, self.lock);
        let closed = self.seams.io.run(move || {
            if let Some(thread) = thread {
                thread.close();
            }
            // The next broker may have the directory once nothing is written to it any more.
            drop(lock);
        });
        clean & tokio::time::timeout(left().max(Duration::from_secs(1)), closed).await.is_ok()
    }

    /// Ends every task at once, as a crash does. For tests and simulations.
    pub fn kill(self) {
        self.seams.tasks.kill();
    }

    /// Gives the leaderships of this broker to others, so that nobody waits for an election.
    async fn hand_over(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let kept = self.partitions.hand_over(deadline).await;
        if kept > 0 && self.metadata.image().brokers.len() > 1 {
            tracing::warn!(kept, "leaderships could not be handed over");
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(METADATA_HAND_OVER_AT_LEAST);
        self.metadata.hand_over(left).await;
    }
}

async fn open_storage(config: &BrokerConfig, seams: &Seams) -> Result<Storage, StartError> {
    let (disk, random, broker) = (seams.disk.clone(), seams.random.clone(), config.node.id);
    let (tasks, driver) = (seams.tasks.clone(), seams.wal);
    let (root, wal_config, io_of_wal) =
        (config.storage.data_dir.clone(), wal_config(config, &seams.probe), seams.io.clone());
    seams
        .io
        .run(move || {
            disk::create_dir_durably(disk.as_ref(), &root, 1)?;
            let lock = match disk.lock(&layout::lock_file(&root)) {
                Err(DiskError::Locked { .. }) => return Err(StartError::Locked(root)),
                other => other?,
            };
            let identity = match NodeIdentity::load(disk.as_ref(), &root)? {
                Some(found) if found.broker_id != broker => {
                    return Err(StartError::OtherBroker {
                        path: root,
                        found: found.broker_id,
                        configured: broker,
                    });
                }
                Some(found) => found,
                None => {
                    let fresh = NodeIdentity::create(broker, || random.u64());
                    fresh.save(disk.as_ref(), &root)?;
                    fresh
                }
            };
            let (wal, writer, recovery) =
                Wal::open(disk, io_of_wal, &root, wal_config, move || random.u64())?;
            report_recovery(&recovery);
            let driver = drive(&tasks, driver, writer)?;
            Ok(Storage { lock, identity, wal, thread: driver, recovery })
        })
        .await
}

/// Lets the writer of the WAL work, in a thread or in a task.
fn drive(tasks: &Tasks, driver: WalDriver, writer: WalWriter) -> Result<Option<WalThread>, StartError> {
    match driver {
        WalDriver::Thread => raft_store::drive_in_thread(writer)
            .map(Some)
            .map_err(|source| StartError::System { what: "start the thread of the write-ahead log", source }),
        WalDriver::Task => {
            tasks.spawn("wal", 0, raft_store::drive_in_task(writer));
            Ok(None)
        }
    }
}

fn report_recovery(recovery: &Recovery) {
    let report = &recovery.report;
    tracing::info!(
        groups = recovery.groups.len(),
        files = report.files,
        frames = report.frames,
        bytes = report.bytes,
        torn_tail = report.torn_tail,
        mended_frames = report.mended_frames,
        "the write-ahead log is recovered"
    );
    if !report.lost.is_empty() || report.damaged_checkpoints > 0 {
        tracing::error!(
            lost = ?report.lost,
            damaged_groups = ?report.damaged_groups,
            damaged_checkpoints = report.damaged_checkpoints,
            "durable parts of the write-ahead log are damaged: their replicas are rebuilt from the other brokers"
        );
    }
}

fn wal_config(config: &BrokerConfig, probe: &Probe) -> WalConfig {
    let storage = &config.storage;
    let (file_bytes, pool_files) = match storage.mode {
        StorageMode::Disk => {
            (storage.wal_file_bytes, usize::try_from(storage.wal_pool_files).unwrap_or(usize::MAX))
        }
        StorageMode::Memory => (MEMORY_WAL_FILE_BYTES, MEMORY_WAL_POOL_FILES),
    };
    WalConfig {
        file_bytes,
        pool_files,
        outstanding_max: storage.wal_outstanding_max,
        reserve: WAL_RESERVE_BYTES.min(storage.wal_outstanding_max / 2),
        fsync: storage.fsync,
        observer: probe.of_wal(),
        ..WalConfig::default()
    }
}

fn metadata_config(config: &BrokerConfig, keyed: KeyedKind) -> MetadataConfig {
    MetadataConfig {
        cluster_name: config.cluster.name.clone(),
        seeds: config.cluster.seeds.clone(),
        bootstrap_expect: config.cluster.expected(),
        metadata_voters: config.cluster.metadata_voters,
        delete_retention: Duration::from_millis(config.topics.delete_retention_ms),
        keyed: match config.storage.mode {
            StorageMode::Disk => keyed,
            StorageMode::Memory => KeyedKind::Memory,
        },
        offset_retention: Duration::from_millis(config.groups.offset_retention_ms),
    }
}

async fn open_doors(config: &BrokerConfig, seams: &Seams) -> Result<Doors, StartError> {
    let listen = |key: &'static str, address: SocketAddr| async move {
        let refused = |source| StartError::Listen { key, address, source };
        let listener = seams.net.listen(address).await.map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        Ok::<_, StartError>((listener, bound))
    };
    let (grpc, grpc_at) = listen("grpc.addr", config.grpc.addr).await?;
    let (http, http_at) = listen("http.addr", config.http.addr).await?;
    let (peer, peer_at) = listen("peer.addr", config.peer.addr).await?;
    let addresses = Addresses { grpc: grpc_at, http: http_at, peer: peer_at };
    Ok(Doors { grpc, http, peer, addresses })
}

/// What this broker says of itself to the others.
fn introduce(config: &BrokerConfig, identity: &NodeIdentity, addresses: Addresses) -> LocalIdentity {
    LocalIdentity {
        broker_id: BrokerId(identity.broker_id),
        incarnation: identity.incarnation,
        cluster_id: identity.cluster_id,
        metadata_replica: ReplicaId(identity.metadata_replica),
        grpc: advertised(&config.grpc.advertise, addresses.grpc),
        http: advertised(&config.http.advertise, addresses.http),
        peer: advertised(&config.peer.advertise, addresses.peer),
        rack: config.node.rack.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
