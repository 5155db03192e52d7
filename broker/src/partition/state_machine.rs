//! Applies committed entries to the partition log: drops duplicates, gives offsets and epochs, moves the high watermark.
//!
//! **Invariant (I8):** what an entry does depends on the entries before it and on nothing else. Time stands in the entry.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use disk::Io;
use disk::mutant::{self, Mutant};
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use raft_store::{BrokerRef, CommittedLeaderId, LogId, LogPosition, StoredMembership, Wal};
use wire::ids::{LeaderEpoch, Offset};
use wire::record::BatchHeader;

use super::PartitionTypes;
use super::command::Command;
use super::epoch::leader_epoch;
use super::install::install;
use super::manifest::Manifest;
use super::replica_log::{Inner, ReplicaLog, tell_stored};
use super::reply::{BatchOutcome, PartitionReply};
use crate::raft::SnapshotMeta;
use crate::runtime::ProbeEvent;

/// A producer that wrote nothing for this long, by the time inside entries, is forgotten. As long as the default
/// retention, so a producer is known while its records are.
const PRODUCER_EXPIRY_MS: i64 = 7 * 24 * 3600 * 1000;
/// Producers are looked through at every entry whose Raft index is a multiple of this: a rule that is the same on every
/// replica and after every restart.
const EXPIRE_EVERY: u64 = 1024;
/// Entries applied before the watermark moves and their proposers hear of it; bounds the latency of a long run.
const RUN_MAX: usize = 64;

/// Reply of an entry and the door to its proposer.
type Reply = (ApplyResponder<PartitionTypes>, PartitionReply);

/// openraft's view of a partition's state.
#[derive(Debug)]
pub struct PartitionMachine {
    log: Arc<ReplicaLog>,
    wal: Wal,
    io: Io,
}

impl PartitionMachine {
    pub(crate) fn new(log: Arc<ReplicaLog>, wal: Wal, io: Io) -> Self {
        Self { log, wal, io }
    }

    /// Applies one entry.
    fn apply_entry(
        &self,
        entry: raft_store::Entry,
        responder: Option<ApplyResponder<PartitionTypes>>,
    ) -> io::Result<Option<Reply>> {
        let mut inner = self.log.lock();
        let (log_id, before) = (entry.log_id, inner.log.next_offset());
        let reply = match entry.payload {
            EntryPayload::Blank => PartitionReply::default(),
            EntryPayload::Membership(membership) => {
                inner.membership = StoredMembership::new(Some(log_id), membership);
                PartitionReply::default()
            }
            EntryPayload::Normal(data) => {
                self.log.note_dirty(data.body.len());
                let term = match mutant::on(Mutant::EpochOfReplica) {
                    true => self.log.applied_term(),
                    false => log_id.leader_id.term,
                };
                apply_command(&mut inner, log_id.index, leader_epoch(term), &data.body)?
            }
        };
        if !mutant::on(Mutant::AppliedNotAtomic) || log_id.index.is_multiple_of(2) {
            inner.applied = Some(log_id);
        }
        inner.unflushed = true;
        self.tell_applied(&inner, &log_id, before);
        drop(inner);
        Ok(responder.map(|responder| (responder, reply)))
    }

    /// Tells whoever watches what an entry did.
    fn tell_applied(&self, inner: &Inner, log_id: &LogId, before: Offset) {
        let (probe, position) = (self.log.probe(), LogPosition::of(log_id));
        tell_stored(probe, &inner.log, before, false);
        probe.note(|of| ProbeEvent::Applied { of, position, end: inner.log.next_offset().0 });
    }

    /// Shows what was applied, then answers: a producer that reads right after its answer finds its records.
    fn publish(&self, replies: &mut Vec<Reply>) {
        self.log.publish();
        for (responder, reply) in replies.drain(..) {
            responder.send(reply);
        }
    }

    /// An entry that cannot be applied stops the broker: a stopped replica is repaired, a wrong one spreads.
    fn stop(&self, error: io::Error) -> io::Error {
        self.log.stop(&format!("an entry of group {} cannot be applied: {error}", self.log.group()));
        error
    }
}

fn apply_command(
    inner: &mut Inner,
    index: u64,
    epoch: LeaderEpoch,
    body: &Bytes,
) -> io::Result<PartitionReply> {
    let command = Command::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match command {
        Command::Append { time_ms, batches } => {
            if index.is_multiple_of(EXPIRE_EVERY) {
                inner.log.producers_mut().expire(time_ms.saturating_sub(PRODUCER_EXPIRY_MS));
            }
            let outcomes: io::Result<Vec<BatchOutcome>> =
                batches.into_iter().map(|batch| apply_batch(inner, batch, epoch, time_ms)).collect();
            Ok(PartitionReply { outcomes: outcomes? })
        }
        Command::SetLogStart { log_start, .. } => {
            inner.log.set_log_start(log_start).map_err(io::Error::other)?;
            Ok(PartitionReply::default())
        }
    }
}

fn apply_batch(
    inner: &mut Inner,
    batch: Bytes,
    epoch: LeaderEpoch,
    time_ms: i64,
) -> io::Result<BatchOutcome> {
    let Ok(header) = BatchHeader::parse(&batch) else { return Ok(BatchOutcome::Corrupt) };
    let stamp = header.producer();
    let unchecked = mutant::on(Mutant::DuplicatesAfterFailover) && inner.log.epochs().latest() != Some(epoch);
    if let Some(stamp) = &stamp
        && !unchecked
        && let Some(refused) = inner.refusal(stamp)
    {
        return Ok(refused);
    }
    let appended = inner.log.append(batch, epoch, time_ms).map_err(io::Error::other)?;
    if let Some(stamp) = &stamp {
        inner.log.producers_mut().record(stamp, appended.base_offset, time_ms);
    }
    Ok(BatchOutcome::Appended { base_offset: appended.base_offset })
}

impl RaftStateMachine<PartitionTypes> for PartitionMachine {
    type SnapshotData = Arc<Manifest>;
    type SnapshotBuilder = DurableState;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let inner = self.log.lock();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<PartitionTypes>, io::Error>> + Unpin + Send,
    {
        let mut replies = Vec::new();
        let mut run = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            replies.extend(self.apply_entry(entry, responder).map_err(|error| self.stop(error))?);
            run += 1;
            if run == RUN_MAX {
                self.publish(&mut replies);
                run = 0;
            }
        }
        self.publish(&mut replies);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<DurableState> {
        (force || self.log.durable().is_some()).then(|| DurableState { log: self.log.clone() })
    }

    async fn get_snapshot_builder(&mut self) -> DurableState {
        DurableState { log: self.log.clone() }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: Arc<Manifest>,
    ) -> Result<(), io::Error> {
        let done = install(&self.log, &self.wal, &self.io, snapshot).await;
        done.map_err(|error| self.stop(error))
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<CommittedLeaderId, u64, BrokerRef, Arc<Manifest>>>, io::Error> {
        Ok(self.log.durable().map(snapshot_of))
    }
}

/// Hands out the last state that is on disk. A snapshot is never built: the flusher writes state files, and a snapshot
/// is the newest of them, so it may lag behind what is applied.
#[derive(Debug)]
pub struct DurableState {
    log: Arc<ReplicaLog>,
}

impl RaftSnapshotBuilder<PartitionTypes> for DurableState {
    type SnapshotData = Arc<Manifest>;

    async fn build_snapshot(
        &mut self,
    ) -> Result<Snapshot<CommittedLeaderId, u64, BrokerRef, Arc<Manifest>>, io::Error> {
        self.log
            .durable()
            .map(snapshot_of)
            .ok_or_else(|| io::Error::other("no state of this replica is on disk yet"))
    }
}

fn snapshot_of(manifest: Arc<Manifest>) -> Snapshot<CommittedLeaderId, u64, BrokerRef, Arc<Manifest>> {
    let meta = SnapshotMeta { last_log_id: manifest.last, last_membership: manifest.membership.clone() };
    Snapshot { meta, snapshot: manifest }
}
