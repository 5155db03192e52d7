//! What the integration tests share: a type configuration, a small state machine and a WAL with its driver.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests; each binary uses its own part"
)]

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use disk::{Disk, Io};
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::storage::{
    EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, RaftSnapshotBuilder, RaftTypeConfig};
use raft_store::{
    BrokerRef, CommittedLeaderId, Entry, EntryData, GroupLog, GroupSpec, LeaderId, LogId, LogPosition,
    Payload, Recovery, StoredMembership, Vote, Wal, WalConfig, WalError, WalThread, WalWriter,
    drive_in_thread,
};

/// The type configuration of the tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

impl RaftTypeConfig for Types {
    type D = EntryData;
    type R = u64;
    type NodeId = u64;
    type Node = BrokerRef;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub type Log = GroupLog<Types>;

/// A state machine that remembers what it was told.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    pub snapshot: Arc<Mutex<Option<SnapshotMeta<CommittedLeaderId, u64, BrokerRef>>>>,
}

type MachineSnapshot = Snapshot<CommittedLeaderId, u64, BrokerRef, ()>;

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<MachineSnapshot, io::Error> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let Payload::Membership(membership) = &entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            if let Some(responder) = responder {
                responder.send(entry.log_id.index);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<CommittedLeaderId, u64, BrokerRef>,
        (): (),
    ) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<MachineSnapshot>, io::Error> {
        Ok(self.snapshot.lock().unwrap().clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

/// A counter that looks random enough for salts.
pub fn salts(seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

pub fn small_config() -> WalConfig {
    WalConfig {
        file_bytes: 128 << 10,
        pool_files: 3,
        outstanding_max: 64 << 20,
        reserve: 1 << 20,
        ..WalConfig::default()
    }
}

pub fn open(
    disk: Arc<dyn Disk>,
    root: &Path,
    config: WalConfig,
    seed: u64,
) -> Result<(Wal, WalWriter, Recovery), WalError> {
    disk.create_dir_all(root)?;
    // The root's own name must survive too: that is the caller's part.
    disk.sync_dir(root.parent().unwrap())?;
    Wal::open(disk, Io::inline(), root, config, salts(seed))
}

pub fn open_with_thread(disk: Arc<dyn Disk>, root: &Path, config: WalConfig) -> (Wal, WalThread, Recovery) {
    let (wal, writer, recovery) = open(disk, root, config, 7).unwrap();
    (wal, drive_in_thread(writer).unwrap(), recovery)
}

pub fn spec(group: u64) -> GroupSpec {
    GroupSpec { group, replica: group + 100, topic: uuid::Uuid::from_u128(group.into()), partition: 0 }
}

pub fn entry(term: u64, index: u64, body: &[u8]) -> Entry {
    Entry {
        log_id: LogPosition { term, index }.log_id(),
        payload: Payload::Normal(EntryData::new(bytes::Bytes::copy_from_slice(body))),
    }
}

/// Appends and waits until the entries are durable.
pub async fn append(log: &mut Log, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, receiver) = Types::oneshot();
    let callback = IOFlushed::<Types>::signal(sender);
    log.append(entries, callback).await?;
    receiver.await.map_err(io::Error::other)?
}

pub async fn collect<S: Stream<Item = io::Result<Entry>>>(stream: S) -> Vec<Entry> {
    stream.map(Result::unwrap).collect().await
}
