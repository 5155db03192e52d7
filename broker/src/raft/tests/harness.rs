//! Brokers in one process, over real sockets, each with its own WAL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_store::{BrokerRef, EntryData};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::toy::{Toy, ToyMachine};
use super::wal::TestWal;
use crate::raft::{Group, Groups, LocalIdentity, OpenGroup, PeerAddress, PeerConfig, Profile};
use crate::runtime::{Clock, Fatal, Net, Random, Seams, Tasks, TcpNet};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const CLUSTER: Uuid = Uuid::from_u128(0xC1);

/// Waits until a condition holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) struct Broker {
    pub(super) id: u32,
    pub(super) addr: String,
    pub(super) fatal: Fatal,
    pub(super) groups: Groups,
    pub(super) wal: TestWal,
    pub(super) tasks: Tasks,
    pub(super) identity: watch::Sender<Arc<LocalIdentity>>,
    pub(super) machines: BTreeMap<u64, (Group<Toy, ToyMachine>, ToyMachine)>,
}

pub(super) fn identity(id: u32, peer: &str) -> LocalIdentity {
    LocalIdentity {
        broker_id: BrokerId(id),
        incarnation: Uuid::from_u128(u128::from(id)),
        cluster_id: Some(CLUSTER),
        metadata_replica: ReplicaId(u64::from(id)),
        grpc: String::new(),
        http: String::new(),
        peer: peer.to_owned(),
        rack: String::new(),
        version: "0".into(),
    }
}

impl Broker {
    pub(super) async fn start(id: u32) -> Self {
        Self::start_at(id, "127.0.0.1:0", TestWal::new()).await
    }

    pub(super) async fn start_at(id: u32, addr: &str, wal: TestWal) -> Self {
        Self::start_on(Arc::new(TcpNet), id, addr, wal).await
    }

    pub(super) async fn start_on(net: Arc<dyn Net>, id: u32, addr: &str, wal: TestWal) -> Self {
        let listener = TcpNet.listen(addr.parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let fatal = Fatal::new();
        let tasks = Tasks::root(fatal.clone());
        let seams = Seams {
            disk: Arc::new(disk::faulty::FaultyDisk::quiet()),
            io: crate::runtime::disk_io(),
            net,
            clock: Clock::system(),
            random: Random::from_os().unwrap(),
            tasks: tasks.clone(),
            fatal: fatal.clone(),
            wal: crate::runtime::WalDriver::Thread,
            keyed: crate::runtime::KeyedKind::Disk,
            probe: crate::runtime::Probe::default(),
        };
        let (told, identity) = watch::channel(Arc::new(identity(id, &addr)));
        let groups = Groups::start(&seams, wal.wal.clone(), identity, listener, PeerConfig::default());
        Self { id, addr, fatal, groups, wal, tasks, identity: told, machines: BTreeMap::new() }
    }

    pub(super) async fn open(&mut self, group: u64, replica: u64, profile: Profile) {
        let machine = ToyMachine::default();
        let spec = OpenGroup {
            group: RaftGroupId(group),
            replica: ReplicaId(replica),
            profile,
            topic: Uuid::nil(),
            partition: 0,
        };
        let raft = self.groups.open(spec, machine.clone(), Arc::new(machine.clone())).await.unwrap();
        self.machines.insert(group, (raft, machine));
    }

    pub(super) fn raft(&self, group: u64) -> &Group<Toy, ToyMachine> {
        &self.machines[&group].0
    }

    pub(super) fn values(&self, group: u64) -> Vec<Bytes> {
        self.machines[&group].1.values()
    }

    pub(super) fn leads(&self, group: u64) -> bool {
        self.groups.status(RaftGroupId(group)).is_some_and(|status| status.is_leader())
    }

    /// What SIGKILL does: every task and socket goes at once.
    pub(super) fn kill(&self) {
        self.tasks.kill();
    }

    /// Starts again where it was, on what its disk has.
    pub(super) async fn restart(self) -> Self {
        let Self { id, addr, wal, machines, groups, tasks, .. } = self;
        tasks.shutdown(Duration::from_secs(5)).await;
        drop((machines, groups));
        Self::start_at(id, &addr, wal.reopen()).await
    }

    pub(super) async fn write(&self, group: u64, value: impl Into<Bytes>) -> Result<u64, String> {
        let entry = EntryData::new(value.into());
        let written = self.raft(group).client_write(entry).await.map_err(|error| error.to_string())?;
        Ok(written.data)
    }
}

/// Replica of a broker in a group of the harness.
pub(super) fn replica(group: u64, broker: u32) -> u64 {
    group * 10 + u64::from(broker)
}

pub(super) fn members(group: u64, brokers: impl IntoIterator<Item = u32>) -> BTreeMap<u64, BrokerRef> {
    brokers.into_iter().map(|broker| (replica(group, broker), BrokerRef { broker })).collect()
}

pub(super) fn introduce(brokers: &[&Broker]) {
    let directory: BTreeMap<BrokerId, PeerAddress> = brokers
        .iter()
        .map(|broker| {
            let incarnation = Uuid::from_u128(u128::from(broker.id));
            (BrokerId(broker.id), PeerAddress { addr: broker.addr.clone(), incarnation })
        })
        .collect();
    brokers.iter().for_each(|broker| broker.groups.peers().set_directory(directory.clone()));
}

/// Three brokers that know each other.
pub(super) async fn three() -> Vec<Broker> {
    let brokers = vec![Broker::start(1).await, Broker::start(2).await, Broker::start(3).await];
    introduce(&brokers.iter().collect::<Vec<_>>());
    brokers
}

/// Opens a group on all brokers and has the first of them initialise it.
pub(super) async fn form(brokers: &mut [Broker], group: u64, profile: Profile) {
    for broker in brokers.iter_mut() {
        broker.open(group, replica(group, broker.id), profile).await;
    }
    let all = members(group, brokers.iter().map(|broker| broker.id));
    brokers[0].raft(group).initialize(all).await.unwrap();
}

/// The broker that leads a group.
pub(super) async fn leader(brokers: &[Broker], group: u64) -> &Broker {
    until(&format!("group {group} has a leader"), || brokers.iter().any(|broker| broker.leads(group))).await;
    brokers.iter().find(|broker| broker.leads(group)).unwrap()
}

/// Writes until it succeeds, warming the leader, wherever it is.
pub(super) async fn write_somewhere(brokers: &[&Broker], group: u64, value: &str) -> Duration {
    let begun = Instant::now();
    loop {
        for broker in brokers.iter().filter(|broker| broker.leads(group)) {
            let warm = broker.groups.ensure_warm(RaftGroupId(group), Profile::Partition).await;
            if warm.is_ok() && broker.write(group, value.to_owned()).await.is_ok() {
                return begun.elapsed();
            }
        }
        assert!(begun.elapsed() < PATIENCE, "no write was accepted in group {group}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
