//! The metadata group's state machine as openraft drives it: decode, `apply`, publish the image, answer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use raft_store::{BrokerRef, CommittedLeaderId, Entry, LogId, LogPosition, Payload, StoredMembership};
use tokio::sync::watch;
use wire::ids::BrokerId;

use super::codec::decode_commands;
use super::command::{Command, Replies};
use super::image::MetadataImage;
use super::keyed::Keyed;
use super::snapshot::{MetadataSnapshot, SnapshotError, SnapshotFiles};
use super::stored::Applied;
use crate::group::{GROUPS_BYTES_MAX, GroupCommand};
use crate::raft::{GroupKind, RangePuller, SnapshotDoor, SnapshotMeta, Types};
use crate::runtime::{Fatal, ProbeEvent, ReplicaProbe};

/// The metadata group's kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetadataKind;

impl GroupKind for MetadataKind {
    type Reply = Replies;
}

/// openraft's types of the metadata group.
pub(crate) type MetadataTypes = Types<MetadataKind>;
type Snapshot = openraft::storage::Snapshot<CommittedLeaderId, u64, BrokerRef, MetadataSnapshot>;
type Responder = openraft::storage::ApplyResponder<MetadataTypes>;

/// Entries that are applied before their image is published and their proposers are answered.
const CHUNK: usize = 64;

/// Largest range of a snapshot that is sent at once.
const RANGE: usize = 1 << 20;

/// What the state machine shares with its snapshots' door and with readers.
pub(crate) struct Shared {
    files: SnapshotFiles,
    current: Mutex<Option<Current>>,
    image: watch::Sender<Arc<MetadataImage>>,
    /// The image of the last change of anything but consumer groups.
    topology: watch::Sender<Arc<MetadataImage>>,
    /// The image of the last change of consumer groups beside their offsets, or of what they read.
    groups: watch::Sender<Arc<MetadataImage>>,
    /// Term of the last entry whose effect the images show.
    applied_term: AtomicU64,
    fatal: Fatal,
}

/// Whom the next image concerns.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    topology: bool,
    groups: bool,
}

impl News {
    const ALL: Self = Self { topology: true, groups: true };

    fn note(&mut self, command: &Command) {
        match command {
            Command::Group { command: GroupCommand::Commit(_), .. } => {}
            Command::Group { .. } => self.groups = true,
            _ => *self = Self::ALL,
        }
    }
}

/// The newest snapshot.
#[derive(Clone)]
struct Current {
    meta: SnapshotMeta,
    snapshot: MetadataSnapshot,
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, current: Current) {
        let mut slot = self.current();
        if slot.as_ref().is_none_or(|old| old.meta.last_log_id < current.meta.last_log_id) {
            *slot = Some(current);
        }
    }

    /// Term of the last entry whose effect the images show: on a leader of this term they show everything that earlier
    /// leaders committed.
    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    /// The image of the last change of consumer groups beside their offsets.
    pub(crate) fn groups_image(&self) -> Arc<MetadataImage> {
        self.groups.borrow().clone()
    }

    /// Position of the newest snapshot.
    pub(crate) fn snapshot_position(&self) -> Option<LogPosition> {
        self.current().as_ref().and_then(|current| current.meta.last_log_id.as_ref().map(LogPosition::of))
    }

    /// The log up to this index is needed by neither of the kept snapshots.
    pub(crate) fn fallback_index(&self) -> Result<Option<u64>, SnapshotError> {
        self.files.fallback_index()
    }
}

/// The state machine.
pub(crate) struct MetadataMachine {
    applied: Applied,
    keyed: Keyed,
    shared: Arc<Shared>,
    news: News,
    probe: ReplicaProbe,
}

impl MetadataMachine {
    /// Restores the state: from the keyed store if it is whole and not older than the newest snapshot, else from that
    /// snapshot; the log brings the rest.
    ///
    /// # Errors
    /// [`SnapshotError`] if snapshots are there and none is whole.
    pub(crate) fn open(
        files: SnapshotFiles,
        mut keyed: Keyed,
        fatal: Fatal,
        probe: ReplicaProbe,
    ) -> Result<(Self, Arc<Shared>), SnapshotError> {
        let loaded = files.load()?;
        let from_keyed = keyed.load();
        let snapshot_at = loaded.as_ref().and_then(|loaded| loaded.applied.last);
        if let Some(upto) = snapshot_at {
            probe.note(|of| ProbeEvent::SnapshotFound { of, upto });
        }
        let current = loaded
            .as_ref()
            .map(|loaded| Current { meta: meta_of(&loaded.applied), snapshot: loaded.snapshot.clone() });
        let applied = match (from_keyed, loaded) {
            (Some(state), _) if state.last >= snapshot_at => state,
            (_, loaded) => {
                let mut applied = loaded.map(|loaded| loaded.applied).unwrap_or_default();
                keyed.rewrite(&mut applied);
                applied
            }
        };
        let first = Arc::new(applied.state.image().clone());
        let shared = Arc::new(Shared {
            files,
            current: Mutex::new(current),
            image: watch::Sender::new(first.clone()),
            topology: watch::Sender::new(first.clone()),
            groups: watch::Sender::new(first),
            applied_term: AtomicU64::new(applied.last.map_or(0, |last| last.term)),
            fatal,
        });
        Ok((Self { applied, keyed, shared: shared.clone(), news: News::default(), probe }, shared))
    }

    fn apply_entry(&mut self, entry: Entry) -> io::Result<Replies> {
        let position = LogPosition::of(&entry.log_id);
        let index = position.index;
        self.applied.state.advance(index);
        self.applied.last = Some(position);
        self.probe.note(|of| ProbeEvent::Applied { of, position, end: 0 });
        let mut replies = Replies { index, results: Vec::new() };
        match entry.payload {
            Payload::Blank => self.news.topology = true,
            Payload::Normal(data) => {
                let commands = decode_commands(&data.body).map_err(|error| {
                    // Going on without it would make this replica differ from the others.
                    let reason = format!("entry {index} of the metadata log cannot be understood: {error}");
                    self.shared.fatal.stop(reason.clone());
                    io::Error::new(io::ErrorKind::InvalidData, reason)
                })?;
                replies.results.reserve(commands.len());
                for command in &commands {
                    self.news.note(command);
                    if let Command::Group { command: GroupCommand::Expire { member, .. }, .. } = command {
                        self.probe.note(|_| ProbeEvent::Expelled { member: *member, index });
                    }
                    replies.results.push(self.applied.state.apply(index, command));
                }
            }
            Payload::Membership(membership) => {
                self.news.topology = true;
                self.applied.set_membership(StoredMembership::new(Some(entry.log_id), membership));
            }
        }
        Ok(replies)
    }

    /// Makes what was applied visible, then answers: whoever has a reply finds its effect in the image.
    fn publish(&mut self, waiting: &mut Vec<(Responder, Replies)>) {
        let news = std::mem::take(&mut self.news);
        if news.topology {
            self.keyed.apply(&mut self.applied);
        } else {
            self.keyed.put_off(&mut self.applied);
        }
        let image = Arc::new(self.applied.state.image().clone());
        // The newest image is there before anyone is woken to look at it.
        self.shared.image.send_replace(image.clone());
        if news.topology {
            self.shared.topology.send_replace(image.clone());
        }
        if news.groups {
            self.shared.groups.send_replace(image);
        }
        self.shared.applied_term.store(self.applied.last.map_or(0, |last| last.term), Ordering::Release);
        for (responder, replies) in waiting.drain(..) {
            responder.send(replies);
        }
    }

    /// Readers of the image.
    pub(crate) fn watch(shared: &Shared) -> watch::Receiver<Arc<MetadataImage>> {
        shared.image.subscribe()
    }

    /// Readers of images that differ in more than consumer groups: commits do not wake them.
    pub(crate) fn watch_topology(shared: &Shared) -> watch::Receiver<Arc<MetadataImage>> {
        shared.topology.subscribe()
    }

    /// Readers of images that differ in consumer groups, but not only in offsets.
    pub(crate) fn watch_groups(shared: &Shared) -> watch::Receiver<Arc<MetadataImage>> {
        shared.groups.subscribe()
    }
}

impl Drop for MetadataMachine {
    fn drop(&mut self) {
        self.keyed.apply(&mut self.applied);
        self.keyed.close();
    }
}

impl std::fmt::Debug for MetadataMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MetadataMachine(applied {:?})", self.applied.last)
    }
}

fn meta_of(applied: &Applied) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: applied.last.map(LogPosition::log_id),
        last_membership: applied.membership.clone(),
    }
}

impl RaftStateMachine<MetadataTypes> for MetadataMachine {
    type SnapshotData = MetadataSnapshot;
    type SnapshotBuilder = MetadataSnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.last.map(LogPosition::log_id), self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<MetadataTypes>, io::Error>> + Unpin + OptionalSend,
    {
        let mut waiting = Vec::new();
        let mut unpublished = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let replies = self.apply_entry(entry)?;
            waiting.extend(responder.map(|responder| (responder, replies)));
            unpublished += 1;
            if unpublished == CHUNK {
                self.publish(&mut waiting);
                unpublished = 0;
            }
        }
        self.publish(&mut waiting);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        MetadataSnapshotBuilder { applied: self.applied.clone(), shared: self.shared.clone() }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: MetadataSnapshot,
    ) -> Result<(), io::Error> {
        let applied = Applied::decode_snapshot(&snapshot.bytes).map_err(io::Error::other)?;
        if applied.last.map(|last| last.index) != Some(snapshot.index) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is of another index"));
        }
        let upto = applied.last;
        self.probe.note(|of| ProbeEvent::Installing { of, upto });
        self.shared.files.save(snapshot.clone()).await.map_err(io::Error::other)?;
        self.shared.keep(Current { meta: meta_of(&applied), snapshot });
        self.applied = applied;
        self.keyed.rewrite(&mut self.applied);
        self.news = News::ALL;
        self.publish(&mut Vec::new());
        self.probe.note(|of| ProbeEvent::Installed { of, upto, end: 0 });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.shared.current().clone();
        Ok(current.map(|current| Snapshot { meta: current.meta, snapshot: current.snapshot }))
    }
}

/// Writes one state as a snapshot, while the state machine goes on.
pub(crate) struct MetadataSnapshotBuilder {
    applied: Applied,
    shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<MetadataTypes> for MetadataSnapshotBuilder {
    type SnapshotData = MetadataSnapshot;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let Some(last) = self.applied.last else {
            return Err(io::Error::other("nothing was applied yet"));
        };
        let meta = meta_of(&self.applied);
        let known = self.shared.current().clone().filter(|current| current.meta == meta);
        if let Some(current) = known {
            return Ok(Snapshot { meta, snapshot: current.snapshot });
        }
        // Tens of megabytes with many groups: not on a thread that serves requests.
        let applied = self.applied.clone();
        let bytes =
            self.shared.files.run(move || applied.encode_snapshot()).await.map_err(io::Error::other)?;
        let snapshot = MetadataSnapshot { index: last.index, bytes: bytes.into() };
        self.shared.files.save(snapshot.clone()).await.map_err(io::Error::other)?;
        self.shared.keep(Current { meta: meta.clone(), snapshot: snapshot.clone() });
        Ok(Snapshot { meta, snapshot })
    }
}

/// How metadata snapshots travel: the offer tells index, length and checksum, the bytes are pulled in ranges.
///
/// | bytes | offer | request of a range |
/// |---|---|---|
/// | 0..8 | index, u64 little endian | index |
/// | 8..16 | length, u64 | position, u64 |
/// | 16..20 | CRC-32C, u32 | length, u32, at most 1 MiB |
pub(crate) struct MetadataDoor(pub(crate) Arc<Shared>);

/// Longest snapshot that is pulled: the first envelope's bound, what consumer groups may take, and as much again for what
/// they grow by when topics do.
const SNAPSHOT_MAX: u64 = (16 << 20) + 2 * (GROUPS_BYTES_MAX as u64);

impl SnapshotDoor<MetadataKind, MetadataMachine> for MetadataDoor {
    fn offer(&self, data: &MetadataSnapshot) -> Bytes {
        let mut offer = BytesMut::with_capacity(20);
        offer.put_u64_le(data.index);
        offer.put_u64_le(data.bytes.len() as u64);
        offer.put_u32_le(crc32c::crc32c(&data.bytes));
        offer.freeze()
    }

    fn receive(
        &self,
        _from: BrokerId,
        _meta: SnapshotMeta,
        mut offer: Bytes,
        pull: RangePuller,
    ) -> BoxFuture<'static, io::Result<MetadataSnapshot>> {
        async move {
            if offer.len() != 20 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not an offer of a metadata snapshot",
                ));
            }
            let (index, length, crc) = (offer.get_u64_le(), offer.get_u64_le(), offer.get_u32_le());
            if length > SNAPSHOT_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the metadata snapshot is too long"));
            }
            let mut bytes = BytesMut::new();
            while (bytes.len() as u64) < length {
                let position = bytes.len() as u64;
                let wanted = u32::try_from((length - position).min(RANGE as u64)).unwrap_or(0);
                let mut request = BytesMut::with_capacity(20);
                request.put_u64_le(index);
                request.put_u64_le(position);
                request.put_u32_le(wanted);
                let range = pull.pull(request.freeze()).await?;
                if range.len() as u64 != u64::from(wanted) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a range has the wrong length"));
                }
                bytes.extend_from_slice(&range);
            }
            if crc32c::crc32c(&bytes) != crc {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the metadata snapshot is damaged"));
            }
            Ok(MetadataSnapshot { index, bytes: bytes.freeze() })
        }
        .boxed()
    }

    fn read_range(&self, mut request: Bytes) -> BoxFuture<'static, io::Result<Bytes>> {
        let current = self.0.current().clone();
        async move {
            let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
            if request.len() != 20 {
                return Err(invalid("not a request for a range"));
            }
            let (index, position, length) =
                (request.get_u64_le(), request.get_u64_le(), request.get_u32_le());
            let current = current.ok_or_else(|| invalid("there is no snapshot"))?;
            if current.meta.last_log_id.map(|id| id.index) != Some(index) {
                return Err(invalid("another snapshot has taken its place"));
            }
            let start = usize::try_from(position).map_err(|_| invalid("outside the snapshot"))?;
            let length = usize::try_from(length).ok().filter(|length| *length <= RANGE);
            let end = length.and_then(|length| start.checked_add(length));
            let end = end.filter(|end| *end <= current.snapshot.bytes.len());
            let end = end.ok_or_else(|| invalid("outside the snapshot"))?;
            Ok(current.snapshot.bytes.slice(start..end))
        }
        .boxed()
    }
}
