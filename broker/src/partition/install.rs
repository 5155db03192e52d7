//! Puts a pulled snapshot in the place of a replica's own segments.
//!
//! **Invariant (I7):** when this returns, the segments, the state file that names them and the checkpoint that names the
//! state file are on disk, in that order; only then may Raft drop the entries that the snapshot covers.

use std::io;
use std::sync::Arc;

use disk::Io;
use disk::mutant::{self, Mutant};
use partition_log::PartitionLog;
use raft_store::{GroupMark, LogPosition, Wal};

use super::manifest::Manifest;
use super::replica_log::{ReplicaLog, tell_stored};
use super::state_file;
use crate::runtime::ProbeEvent;

/// Installs segments that were pulled whole.
pub(crate) async fn install(
    log: &Arc<ReplicaLog>,
    wal: &Wal,
    io: &Io,
    manifest: Arc<Manifest>,
) -> io::Result<()> {
    let files = log.files();
    let _files = files.lock().await;
    let upto = manifest.position();
    log.probe().note(|of| ProbeEvent::Installing { of, upto });
    let (owned, installed) = (log.clone(), manifest.clone());
    let mark = io.run(move || install_files(&owned, &installed)).await?;
    if let Some(mark) = mark.filter(|_| !mutant::on(Mutant::InstallWithoutCheckpoint)) {
        wal.checkpoint(vec![mark]).await.map_err(io::Error::other)?;
    }
    tell_installed(log, upto);
    log.publish_installed(manifest);
    tracing::info!(raft_group = %log.group(), end = %log.high_watermark().get(), "snapshot installed");
    Ok(())
}

/// Tells whoever watches what stands in the files now.
fn tell_installed(log: &ReplicaLog, upto: Option<LogPosition>) {
    let (probe, inner) = (log.probe(), log.lock());
    probe.note(|of| ProbeEvent::Installed { of, upto, end: inner.log.next_offset().0 });
    tell_stored(probe, &inner.log, inner.log.log_start(), true);
}

fn install_files(log: &ReplicaLog, manifest: &Arc<Manifest>) -> io::Result<Option<GroupMark>> {
    let dir = log.identity().dir.clone();
    {
        let mut inner = log.lock();
        let config = inner.log.config().clone();
        let (installed, report) =
            PartitionLog::install(log.disk().clone(), &dir, config, manifest.state.clone())
                .map_err(io::Error::other)?;
        tracing::debug!(raft_group = %log.group(), ?report, "segments took their places");
        inner.log = installed;
        inner.applied = manifest.last;
        inner.membership = manifest.membership.clone();
        inner.unflushed = false;
    }
    state_file::write(log, manifest).map_err(io::Error::other)?;
    Ok(mark_of(log, manifest))
}

/// The mark that a checkpoint keeps of a replica whose state file and segments are on disk.
pub(crate) fn mark_of(log: &ReplicaLog, manifest: &Manifest) -> Option<GroupMark> {
    let applied = manifest.position()?;
    let cut = manifest.state.mark();
    let identity = log.identity();
    Some(GroupMark {
        group: identity.group.0,
        replica: identity.replica.0,
        applied,
        next_offset: manifest.state.next_offset.0,
        segment_base: cut.segment_base.0,
        synced_len: cut.synced_len,
        state_index: applied.index,
    })
}
