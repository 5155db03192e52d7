//! A state machine that keeps what it was told, and moves its snapshots in small ranges.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use raft_store::{BrokerRef, CommittedLeaderId, LogId, StoredMembership};
use wire::ids::BrokerId;

use crate::raft::{GroupKind, RangePuller, SnapshotDoor, SnapshotMeta, Types};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Toy;

impl GroupKind for Toy {
    type Reply = u64;
}

#[derive(Debug, Clone, Default)]
pub(super) struct ToyData {
    pub(super) applied: Option<LogId>,
    membership: StoredMembership,
    pub(super) values: Vec<Bytes>,
}

/// Clones share the state, as a door and a state machine of one replica do.
#[derive(Debug, Clone, Default)]
pub(super) struct ToyMachine {
    pub(super) data: Arc<Mutex<ToyData>>,
    snapshot: Arc<Mutex<Option<ToyData>>>,
    /// Ranges that were read from this replica.
    pub(super) served: Arc<std::sync::atomic::AtomicUsize>,
}

impl ToyMachine {
    pub(super) fn values(&self) -> Vec<Bytes> {
        self.data.lock().unwrap().values.clone()
    }
}

type ToySnapshot = Snapshot<CommittedLeaderId, u64, BrokerRef, ToyData>;

fn wrap(data: ToyData) -> ToySnapshot {
    let meta = SnapshotMeta { last_log_id: data.applied, last_membership: data.membership.clone() };
    Snapshot { meta, snapshot: data }
}

impl RaftSnapshotBuilder<Types<Toy>> for ToyMachine {
    type SnapshotData = ToyData;

    async fn build_snapshot(&mut self) -> Result<ToySnapshot, io::Error> {
        let data = self.data.lock().unwrap().clone();
        *self.snapshot.lock().unwrap() = Some(data.clone());
        Ok(wrap(data))
    }
}

impl RaftStateMachine<Types<Toy>> for ToyMachine {
    type SnapshotData = ToyData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let data = self.data.lock().unwrap();
        Ok((data.applied, data.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<Toy>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            {
                let mut data = self.data.lock().unwrap();
                data.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(normal) => data.values.push(normal.body),
                    EntryPayload::Membership(members) => {
                        data.membership = StoredMembership::new(Some(entry.log_id), members);
                    }
                }
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

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: ToyData) -> Result<(), io::Error> {
        assert_eq!(meta.last_log_id, snapshot.applied);
        *self.data.lock().unwrap() = snapshot.clone();
        *self.snapshot.lock().unwrap() = Some(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<ToySnapshot>, io::Error> {
        Ok(self.snapshot.lock().unwrap().clone().map(wrap))
    }
}

/// Values of one range.
const PER_RANGE: u64 = 64;

impl SnapshotDoor<Toy, ToyMachine> for ToyMachine {
    fn offer(&self, data: &ToyData) -> Bytes {
        Bytes::copy_from_slice(&u64::try_from(data.values.len()).unwrap().to_le_bytes())
    }

    fn receive(
        &self,
        _from: BrokerId,
        meta: SnapshotMeta,
        mut offer: Bytes,
        pull: RangePuller,
    ) -> BoxFuture<'static, io::Result<ToyData>> {
        async move {
            let count = offer.get_u64_le();
            let mut values = Vec::new();
            while u64::try_from(values.len()).unwrap() < count {
                let from = u64::try_from(values.len()).unwrap();
                let mut range = pull.pull(Bytes::copy_from_slice(&from.to_le_bytes())).await?;
                while range.has_remaining() && u64::try_from(values.len()).unwrap() < count {
                    let len = usize::from(range.get_u16_le());
                    values.push(range.split_to(len));
                }
            }
            Ok(ToyData { applied: meta.last_log_id, membership: meta.last_membership, values })
        }
        .boxed()
    }

    fn read_range(&self, mut request: Bytes) -> BoxFuture<'static, io::Result<Bytes>> {
        let from = usize::try_from(request.get_u64_le()).unwrap();
        let mut range = BytesMut::new();
        for value in self.values().iter().skip(from).take(usize::try_from(PER_RANGE).unwrap()) {
            range.put_u16_le(u16::try_from(value.len()).unwrap());
            range.put_slice(value);
        }
        self.served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { Ok(range.freeze()) }.boxed()
    }
}
