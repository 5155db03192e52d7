//! Snapshots are manifests: the leader offers one, the follower pulls what it lacks over the bulk link.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::storage::RaftStateMachine;
use wire::ids::{BrokerId, RaftGroupId};

use super::peers::Switchboard;
use super::transport::carrier::Road;
use super::transport::frame::{Frame, Kind};
use super::types::{GroupKind, SnapshotMeta, Types};

/// Largest range that may be pulled at once. Unit: bytes.
pub const RANGE_MAX: usize = 1 << 20;
/// A range that takes longer counts as lost; the transfer starts again and keeps what is there.
const RANGE_DEADLINE: Duration = Duration::from_secs(30);

/// How the snapshots of one group leave and enter its state machine's files.
pub trait SnapshotDoor<K: GroupKind, SM: RaftStateMachine<Types<K>>>: Send + Sync + 'static {
    /// What the follower needs to know in order to pull: a manifest. At most 15 MiB.
    fn offer(&self, data: &SM::SnapshotData) -> Bytes;

    /// On the follower: pulls what is missing, makes it durable, and returns what the state machine installs.
    fn receive(
        &self,
        from: BrokerId,
        meta: SnapshotMeta,
        offer: Bytes,
        pull: RangePuller,
    ) -> BoxFuture<'static, io::Result<SM::SnapshotData>>;

    /// On the leader: reads one range of an offered snapshot, at most [`RANGE_MAX`] bytes.
    fn read_range(&self, request: Bytes) -> BoxFuture<'static, io::Result<Bytes>>;
}

/// Pulls ranges of one offered snapshot from the broker that offered it; cheap to clone.
#[derive(Clone)]
pub struct RangePuller {
    pub(crate) board: Arc<Switchboard>,
    pub(crate) from: BrokerId,
    pub(crate) group: u64,
    /// The replica that made the offer; another one may hold other segments.
    pub(crate) replica: u64,
}

impl RangePuller {
    /// One range; the request's bytes are the door's own business.
    ///
    /// # Errors
    /// `TimedOut` or `NotConnected` if the leader did not answer, `Other` if it refused, `InvalidData` if it sent
    /// more than a range may hold.
    pub async fn pull(&self, request: Bytes) -> io::Result<Bytes> {
        let frame = Frame::to_replica(Kind::Range, self.group, self.replica, vec![request]);
        let link = self.board.link(self.from);
        let range = link.call(Road::Bulk, frame, RANGE_DEADLINE).await.map_err(io::Error::other)?;
        if range.len() > RANGE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a range of a snapshot is too long"));
        }
        Ok(range)
    }
}

impl std::fmt::Debug for RangePuller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RangePuller({} of {})", RaftGroupId(self.group), self.from)
    }
}
