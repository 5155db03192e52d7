//! The write-ahead log and the checkpoints of a data directory.

use disk::{Disk, DiskError};
use raft_store::inspect::{self, CheckpointView, FrameContent, FrameView, WalFileView};
use raft_store::{LogPosition, WalError, layout};
use serde_json::{Map, json};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::{Dump, Owner, local};
use crate::convert::size_text;
use crate::exit::Failure;

/// Counted in one WAL file.
#[derive(Default)]
struct Counted {
    frames: u64,
    entries: u64,
    next_lsn: u64,
}

impl Dump<'_> {
    pub(super) fn wal(&mut self) -> Result<(), Failure> {
        if !self.disk.exists(&layout::wal_dir(self.root)) {
            return Ok(());
        }
        for file in inspect::wal_files(self.disk, self.root).map_err(|error| failed(&error))? {
            self.wal_file(&file)?;
        }
        Ok(())
    }

    fn wal_file(&mut self, file: &WalFileView) -> Result<(), Failure> {
        let mut counted = Counted { next_lsn: file.first_lsn.unwrap_or(0), ..Counted::default() };
        let mut listed = Vec::new();
        let (full, group) = (self.full, self.group);
        let end = inspect::frames(self.disk, self.root, file.seq, |frame| {
            counted.frames += 1;
            counted.entries += u64::from(matches!(frame.content, FrameContent::Entry { .. }));
            counted.next_lsn = frame.lsn + 1;
            if full && group.is_none_or(|wanted| wanted == frame.group) {
                listed.push((frame.offset, frame.lsn, frame.group, frame.len, described(&frame)));
            }
            true
        })
        .map_err(|error| failed(&error))?;
        let path = layout::wal_file(self.root, file.seq);
        let fields = Map::from_iter([
            ("bytes".to_owned(), json!(file.len)),
            ("sequence".to_owned(), json!(file.seq)),
            ("first_lsn".to_owned(), json!(file.first_lsn)),
            ("next_lsn".to_owned(), json!(counted.next_lsn)),
            ("frames".to_owned(), json!(counted.frames)),
            ("entries".to_owned(), json!(counted.entries)),
            ("direct".to_owned(), json!(file.direct)),
        ]);
        let note = match file.first_lsn {
            None => "no frame: its header is damaged or was never written".to_owned(),
            Some(lsn) => format!(
                "{} frames from LSN {lsn}, {} of them entries, {} used{}",
                counted.frames,
                counted.entries,
                size_text(end),
                if file.direct { ", direct" } else { "" }
            ),
        };
        let dash = || "-".to_owned();
        self.push("wal", &path, [size_text(file.len), dash(), dash(), dash(), dash(), note], fields);
        for (position, lsn, group, bytes, content) in listed {
            let fields = Map::from_iter([
                ("position".to_owned(), json!(position)),
                ("bytes".to_owned(), json!(bytes)),
                ("lsn".to_owned(), json!(lsn)),
                ("raft_group".to_owned(), json!(group)),
                ("content".to_owned(), json!(content)),
            ]);
            let note = format!("LSN {lsn} at byte {position}, group {group}: {content}");
            self.push("frame", &path, [size_text(bytes), dash(), dash(), dash(), dash(), note], fields);
        }
        Ok(())
    }

    pub(super) fn checkpoints(&mut self) -> Result<(), Failure> {
        if !self.disk.exists(&layout::checkpoint_dir(self.root)) {
            return Ok(());
        }
        for checkpoint in inspect::checkpoints(self.disk, self.root).map_err(|error| failed(&error))? {
            self.checkpoint(&checkpoint);
        }
        Ok(())
    }

    fn checkpoint(&mut self, checkpoint: &CheckpointView) {
        let path = layout::checkpoint_file(self.root, checkpoint.id);
        let note = match checkpoint.lsn {
            None => "damaged".to_owned(),
            Some(lsn) => format!(
                "up to LSN {lsn}, {} groups, needs WAL files from {}",
                checkpoint.groups.len(),
                checkpoint.floor_file
            ),
        };
        let fields = Map::from_iter([
            ("sequence".to_owned(), json!(checkpoint.id)),
            ("lsn".to_owned(), json!(checkpoint.lsn)),
            ("floor_file".to_owned(), json!(checkpoint.floor_file)),
            ("groups".to_owned(), json!(checkpoint.groups.len())),
        ]);
        let dash = || "-".to_owned();
        self.push("checkpoint", &path, [dash(), dash(), dash(), dash(), dash(), note], fields);
        for (group, replica, mark) in &checkpoint.groups {
            let Some(mark) = mark.filter(|_| self.full && self.group.is_none_or(|wanted| wanted == *group))
            else {
                continue;
            };
            let mut fields = Owner { group: *group, replica: *replica }.fields();
            fields.extend([
                ("applied_term".to_owned(), json!(mark.applied.term)),
                ("applied_index".to_owned(), json!(mark.applied.index)),
                ("first_offset".to_owned(), json!(mark.segment_base)),
                ("next_offset".to_owned(), json!(mark.next_offset)),
                ("synced_bytes".to_owned(), json!(mark.synced_len)),
            ]);
            let note = format!(
                "group {group} replica {replica:x} applied {}, {} of its active segment synced",
                at(mark.applied),
                size_text(mark.synced_len)
            );
            let cells =
                [dash(), mark.segment_base.to_string(), mark.next_offset.to_string(), dash(), dash(), note];
            self.push("mark", &path, cells, fields);
        }
    }
}

fn failed(error: &WalError) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(disk) = cause.downcast_ref::<DiskError>() {
            return local(disk);
        }
        source = cause.source();
    }
    Failure::Api(ApiError::new(ErrorCode::LocalIo, error.to_string()))
}

/// A log position as people write it.
fn at(position: LogPosition) -> String {
    format!("{}.{}", position.term, position.index)
}

fn described(frame: &FrameView) -> String {
    match &frame.content {
        FrameContent::GroupStart { durable_lsn } => format!("write begins, durable up to LSN {durable_lsn}"),
        FrameContent::Entry { position, kind, body, relocated } => {
            let again = if *relocated { ", relocated" } else { "" };
            format!("entry {} {kind}, {}{again}", at(*position), size_text(body.len() as u64))
        }
        FrameContent::Vote(Some(vote)) => format!("vote {vote}"),
        FrameContent::Vote(None) => "vote that cannot be read".to_owned(),
        FrameContent::Truncate { from } => format!("log ends before index {from}"),
        FrameContent::Purge(position) => format!("log begins after {}", at(*position)),
        FrameContent::Committed(position) => format!("committed up to {}", at(*position)),
        FrameContent::GroupCreate { replica } => format!("group begins, replica {replica:x}"),
        FrameContent::GroupDelete => "group ends".to_owned(),
        FrameContent::Pad => "padding".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use disk::{Io, OsDisk};
    use raft_store::{GroupMark, GroupSpec, NodeIdentity, Wal, WalConfig, drive_in_thread};
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn frames_and_marks_of_a_real_log_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(OsDisk::new());
        NodeIdentity::create(2, || 7).save(disk.as_ref(), dir.path()).unwrap();
        let config = WalConfig {
            file_bytes: 128 << 10,
            pool_files: 3,
            outstanding_max: 64 << 20,
            reserve: 1 << 20,
            ..WalConfig::default()
        };
        let mut salt = 0;
        let random = move || {
            salt += 1;
            salt
        };
        let (wal, writer, _) = Wal::open(disk.clone(), Io::inline(), dir.path(), config, random).unwrap();
        let thread = drive_in_thread(writer).unwrap();
        for group in [5, 6] {
            let topic = uuid::Uuid::from_u128(1);
            wal.create_group(GroupSpec { group, replica: group + 100, topic, partition: 0 }).await.unwrap();
        }
        let mark = GroupMark {
            group: 5,
            replica: 105,
            applied: LogPosition { term: 2, index: 9 },
            next_offset: 40,
            segment_base: 30,
            synced_len: 4_096,
            state_index: 9,
        };
        wal.checkpoint(vec![mark]).await.unwrap();
        wal.close();
        thread.close();

        let dumped = |full, group| {
            let mut dump = Dump { disk: &OsDisk::new(), root: dir.path(), full, group, rows: Vec::new() };
            dump.wal().unwrap();
            dump.checkpoints().unwrap();
            dump.rows.into_iter().map(|row| row.json).collect::<Vec<Value>>()
        };
        let all = dumped(true, None);
        let of = |kind: &str| all.iter().filter(|row| row["kind"] == kind).collect::<Vec<_>>();
        assert!(of("frame").iter().any(|frame| frame["content"] == "group begins, replica 69"));
        let counted: u64 = of("wal").iter().filter_map(|file| file["frames"].as_u64()).sum();
        assert_eq!(counted, of("frame").len() as u64);
        let marks = of("mark");
        assert_eq!((&marks[0]["applied_index"], &marks[0]["next_offset"]), (&json!(9), &json!(40)));
        assert!(dumped(true, Some(6)).iter().all(|row| row["raft_group"] != 5));
        assert!(dumped(false, None).iter().all(|row| row["kind"] == "wal" || row["kind"] == "checkpoint"));
        let keys = all.iter().filter_map(Value::as_object).flat_map(Map::keys);
        assert!(keys.into_iter().all(|key| super::super::FILES.fields.iter().any(|(name, ..)| name == key)));
    }
}
