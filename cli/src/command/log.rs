//! `log dump`: what stands in the data directory of a stopped broker. Reads only, and only while it holds the lock that
//! a running broker would hold.
//!
//! The one place of this crate that opens a broker's files.

mod segment;
mod wal;

use std::path::Path;

use disk::{Disk, DiskError, DiskLock, OpenOptions, OsDisk};
use raft_store::{NodeIdentity, layout};
use serde_json::{Map, Value, json};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::record::BatchHeader;

use self::segment::{Scan, segment_base};
use crate::args::Log;
use crate::context::Context;
use crate::convert::{size_text, time_text};
use crate::exit::Failure;
use crate::output::{Column, Kind, Row, View};

const FILES: Kind = Kind {
    many: "files",
    columns: &[
        Column::text("KIND"),
        Column::text("FILE"),
        Column::number("SIZE"),
        Column::number("FROM"),
        Column::number("TO"),
        Column::number("BATCHES"),
        Column::number("RECORDS"),
        Column::text("NOTE"),
    ],
    fields: &[
        (
            "kind",
            "string",
            "identity, wal, frame, checkpoint, mark, metadata, segment, batch, state or quarantine",
        ),
        ("path", "string", "within the data directory"),
        ("bytes", "number", "length of the file or batch"),
        ("identity", "object", "identity: broker_id, cluster_id, incarnation, metadata_replica, format"),
        ("sequence", "number", "number in the name of a WAL file, checkpoint or state"),
        ("raft_group", "number", "segment, state, batch, mark, frame: the group it belongs to"),
        ("replica", "number", "segment, state, batch, mark: the replica it belongs to"),
        ("first_offset", "number", "segment, batch: its first offset; mark: of the active segment"),
        ("next_offset", "number", "segment, batch, mark: one past its last offset"),
        ("batches", "number", "segment: how many it holds"),
        ("records", "number", "segment, batch: how many it holds"),
        ("sealed", "boolean", "segment: it grows no more"),
        ("leader_epoch", "number", "batch: under which it was appended"),
        ("compression", "string", "batch: of its records"),
        ("producer_id", "number", "batch: of an idempotent producer, or -1"),
        ("max_timestamp", "string", "segment, batch: latest timestamp of its records"),
        ("position", "number", "batch, frame: byte in its file"),
        ("first_lsn", "number or null", "wal: of its first frame; null if its header is damaged"),
        ("next_lsn", "number", "wal: one past its last whole frame"),
        ("frames", "number", "wal: whole frames in it"),
        ("entries", "number", "wal: of these, Raft entries"),
        ("direct", "boolean", "wal: written by direct I/O"),
        (
            "lsn",
            "number or null",
            "frame: its number; checkpoint: up to where it holds, null if it is damaged",
        ),
        ("content", "string", "frame: what it says"),
        ("floor_file", "number", "checkpoint: oldest WAL file that it needs"),
        ("groups", "number", "checkpoint: groups in it"),
        ("applied_term", "number", "mark: term of the last entry in the replica's fsynced files"),
        ("applied_index", "number", "mark: index of it"),
        ("synced_bytes", "number", "mark: bytes of the active segment that are fsynced"),
        ("damage", "string", "segment: what is wrong, and at which byte; everything before it is whole"),
    ],
};

pub(crate) fn run(context: &Context, command: Log) -> Result<(), Failure> {
    if context.out.explain(&FILES)? {
        return Ok(());
    }
    let Log::Dump { directory, full, group } = command;
    let disk = OsDisk::new();
    let _lock = lock(&disk, &directory)?;
    let mut dump = Dump { disk: &disk, root: &directory, full, group, rows: Vec::new() };
    dump.identity()?;
    dump.wal()?;
    dump.checkpoints()?;
    dump.plain_files("metadata", &layout::metadata_dir(&directory), snapshot_number)?;
    dump.plain_files("quarantine", &layout::quarantine_dir(&directory), |_| Some(0))?;
    dump.groups()?;
    context.out.show(View::list(&FILES, dump.rows))
}

/// Takes the lock of the directory, so that no broker starts on it meanwhile, and refuses one that is in use.
fn lock(disk: &OsDisk, root: &Path) -> Result<Option<Box<dyn DiskLock>>, Failure> {
    let shown = root.display();
    if !disk.exists(&layout::meta_properties(root)) {
        let message = format!("{shown} is no data directory of a broker");
        return Err(Failure::Api(
            ApiError::new(ErrorCode::InvalidDataDirectory, message)
                .reason("there is no meta.properties in it")
                .hint("give the broker's storage.data_dir"),
        ));
    }
    // A directory that was copied may lack the file; it is not made here.
    let path = layout::lock_file(root);
    if !disk.exists(&path) {
        return Ok(None);
    }
    match disk.lock(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(DiskError::Locked { .. }) => Err(Failure::Api(
            ApiError::new(ErrorCode::DirectoryLocked, format!("a broker is running on {shown}"))
                .reason("its files change while they are read")
                .hint("stop the broker, or copy the directory and dump the copy"),
        )),
        Err(error) => Err(local(&error)),
    }
}

fn local(error: &DiskError) -> Failure {
    let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Failure::Api(ApiError::new(ErrorCode::LocalIo, error.to_string()).reason(reason))
}

fn snapshot_number(name: &str) -> Option<u64> {
    name.strip_suffix(".snap")?.parse().ok()
}

struct Dump<'a> {
    disk: &'a OsDisk,
    root: &'a Path,
    full: bool,
    group: Option<u64>,
    rows: Vec<Row>,
}

/// A replica's directory.
#[derive(Clone, Copy)]
struct Owner {
    group: u64,
    replica: u64,
}

impl Dump<'_> {
    fn push(&mut self, kind: &str, path: &Path, cells: [String; 6], mut fields: Map<String, Value>) {
        let path = path.strip_prefix(self.root).unwrap_or(path).display().to_string();
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("path".to_owned(), json!(path));
        let mut all = vec![kind.to_owned(), path.clone()];
        all.extend(cells);
        self.rows.push(Row { name: path, cells: all, json: Value::Object(fields) });
    }

    fn identity(&mut self) -> Result<(), Failure> {
        let identity = NodeIdentity::load(self.disk, self.root).map_err(|error| {
            Failure::Api(
                ApiError::new(ErrorCode::InvalidDataDirectory, error.to_string())
                    .reason(std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()),
            )
        })?;
        let Some(identity) = identity else { return Ok(()) };
        let cluster = identity.cluster_id.map(|id| id.to_string());
        let note = format!(
            "broker {} of cluster {}, incarnation {}, metadata replica {:016x}, format {}",
            identity.broker_id,
            cluster.as_deref().unwrap_or("(none yet)"),
            identity.incarnation,
            identity.metadata_replica,
            identity.format
        );
        let value = json!({
            "broker_id": identity.broker_id, "cluster_id": cluster, "incarnation": identity.incarnation.to_string(),
            "metadata_replica": identity.metadata_replica, "format": identity.format,
        });
        let dash = || "-".to_owned();
        let fields = Map::from_iter([("identity".to_owned(), value)]);
        let path = layout::meta_properties(self.root);
        self.push("identity", &path, [dash(), dash(), dash(), dash(), dash(), note], fields);
        Ok(())
    }

    /// Entries of a directory; none if it is not there.
    fn list(&self, dir: &Path) -> Result<Vec<disk::DirEntry>, Failure> {
        match self.disk.list(dir) {
            Ok(entries) => Ok(entries),
            Err(DiskError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(local(&error)),
        }
    }

    /// Files whose content belongs to the broker alone.
    fn plain_files(
        &mut self,
        kind: &str,
        dir: &Path,
        number: fn(&str) -> Option<u64>,
    ) -> Result<(), Failure> {
        for entry in self.list(dir)? {
            let found = number(&entry.name);
            let note = if found.is_some() { "" } else { "waits to be used, or a rest" };
            let mut fields = Map::from_iter([("bytes".to_owned(), json!(entry.len))]);
            if let Some(sequence) = found {
                fields.insert("sequence".to_owned(), json!(sequence));
            }
            let sequence = found.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let dash = || "-".to_owned();
            let cells = [size_text(entry.len), sequence, dash(), dash(), dash(), note.to_owned()];
            self.push(kind, &dir.join(&entry.name), cells, fields);
        }
        Ok(())
    }

    fn groups(&mut self) -> Result<(), Failure> {
        let root = layout::groups_dir(self.root);
        for shard in self.list(&root)? {
            let shard = root.join(shard.name);
            for entry in self.list(&shard)? {
                let Some((group, replica)) = layout::parse_group_name(&entry.name) else { continue };
                if self.group.is_none_or(|wanted| wanted == group) {
                    self.replica(Owner { group, replica }, &shard.join(entry.name))?;
                }
            }
        }
        Ok(())
    }

    fn replica(&mut self, owner: Owner, dir: &Path) -> Result<(), Failure> {
        let entries = self.list(dir)?;
        for entry in &entries {
            let path = dir.join(&entry.name);
            if let Some(base) = segment_base(&entry.name) {
                let sealed = entries.iter().any(|other| other.name == format!("{base:020}.sealed"));
                self.segment(owner, &path, base, sealed)?;
            } else if let Some(index) = entry.name.strip_prefix("state-").and_then(snapshot_number) {
                let mut fields = owner.fields();
                fields.insert("bytes".to_owned(), json!(entry.len));
                fields.insert("sequence".to_owned(), json!(index));
                let dash = || "-".to_owned();
                let note = format!("state of group {} after raft index {index}", owner.group);
                self.push(
                    "state",
                    &path,
                    [size_text(entry.len), dash(), dash(), dash(), dash(), note],
                    fields,
                );
            }
        }
        Ok(())
    }

    fn segment(&mut self, owner: Owner, path: &Path, base: u64, sealed: bool) -> Result<(), Failure> {
        let file = self.disk.open(path, OpenOptions::default()).map_err(|error| local(&error))?;
        let mut scan = Scan::new(file.as_ref(), base).map_err(|error| local(&error))?;
        let mut batches = Vec::new();
        while let Some((position, header)) = scan.next_batch().map_err(|error| local(&error))? {
            if self.full {
                batches.push((position, header));
            }
        }
        let mut fields = owner.fields();
        let next = scan.next.unwrap_or(base);
        fields.extend([
            ("bytes".to_owned(), json!(scan.length)),
            ("first_offset".to_owned(), json!(base)),
            ("next_offset".to_owned(), json!(next)),
            ("batches".to_owned(), json!(scan.batches)),
            ("records".to_owned(), json!(scan.records)),
            ("sealed".to_owned(), json!(sealed)),
        ]);
        let mut note = format!("group {} replica {:x}", owner.group, owner.replica);
        note.push_str(if sealed { ", sealed" } else { ", active" });
        if let Some(latest) = scan.latest {
            fields.insert("max_timestamp".to_owned(), json!(time_text(latest)));
            note.push_str(&format!(", latest {}", time_text(latest)));
        }
        if let Some(damage) = &scan.damage {
            fields.insert("damage".to_owned(), json!(damage));
            note.push_str(&format!(", {damage}"));
        }
        let cells = [
            size_text(scan.length),
            base.to_string(),
            next.to_string(),
            scan.batches.to_string(),
            scan.records.to_string(),
            note,
        ];
        self.push("segment", path, cells, fields);
        for (position, header) in batches {
            self.batch(owner, path, position, &header);
        }
        Ok(())
    }

    fn batch(&mut self, owner: Owner, path: &Path, position: u64, header: &BatchHeader) {
        let codec = header.compression().map_or_else(|_| "unknown".to_owned(), |codec| codec.to_string());
        let mut fields = owner.fields();
        fields.extend([
            ("position".to_owned(), json!(position)),
            ("bytes".to_owned(), json!(header.total_len())),
            ("first_offset".to_owned(), json!(header.base_offset)),
            ("next_offset".to_owned(), json!(header.next_offset().0)),
            ("records".to_owned(), json!(header.record_count)),
            ("leader_epoch".to_owned(), json!(header.leader_epoch)),
            ("compression".to_owned(), json!(codec)),
            ("producer_id".to_owned(), json!(header.producer_id)),
            ("max_timestamp".to_owned(), json!(time_text(header.max_timestamp))),
        ]);
        let cells = [
            size_text(header.total_len() as u64),
            header.base_offset.to_string(),
            header.next_offset().to_string(),
            "1".to_owned(),
            header.record_count.to_string(),
            format!(
                "at byte {position}, epoch {}, {codec}, producer {}, latest {}",
                header.leader_epoch,
                header.producer_id,
                time_text(header.max_timestamp)
            ),
        ];
        self.push("batch", path, cells, fields);
    }
}

impl Owner {
    fn fields(self) -> Map<String, Value> {
        Map::from_iter([
            ("raft_group".to_owned(), json!(self.group)),
            ("replica".to_owned(), json!(self.replica)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use wire::ids::{LeaderEpoch, Offset};
    use wire::record::{Compression, RecordBatchBuilder, stamp};

    use super::*;

    fn batch(offset: u64, records: usize) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(Compression::None);
        for i in 0..records {
            builder.push(1_000 + i as i64, None, Some(b"value"), &[]);
        }
        let mut bytes = builder.build().unwrap().to_vec();
        stamp(&mut bytes, Offset(offset), LeaderEpoch(3));
        bytes
    }

    fn data_dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        NodeIdentity::create(2, || 7).save(&disk, dir.path()).unwrap();
        let replica = layout::group_dir(dir.path(), 17, 9);
        disk.create_dir_all(&replica).unwrap();
        (dir, replica)
    }

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
    }

    fn dump(root: &Path, full: bool, group: Option<u64>) -> Vec<Value> {
        let disk = OsDisk::new();
        let mut dump = Dump { disk: &disk, root, full, group, rows: Vec::new() };
        dump.identity().unwrap();
        dump.wal().unwrap();
        dump.checkpoints().unwrap();
        dump.groups().unwrap();
        dump.rows.into_iter().map(|row| row.json).collect()
    }

    #[test]
    fn whole_segments_are_counted_and_a_torn_end_is_told() {
        let (dir, replica) = data_dir();
        write(&replica.join(format!("{:020}.log", 5)), &[batch(5, 3), batch(8, 2)].concat());
        write(&replica.join(format!("{:020}.sealed", 5)), b"x");
        let mut torn = [batch(10, 1), batch(11, 4)].concat();
        torn.truncate(torn.len() - 3);
        write(&replica.join(format!("{:020}.log", 10)), &torn);
        write(&replica.join("state-40.snap"), b"x");
        let rows = dump(dir.path(), false, None);
        assert_eq!(rows[0]["identity"]["broker_id"], 2);
        assert_eq!(
            (&rows[1]["next_offset"], &rows[1]["records"], &rows[1]["sealed"]),
            (&json!(10), &json!(5), &json!(true))
        );
        assert!(rows[1].get("damage").is_none());
        assert_eq!((&rows[2]["next_offset"], &rows[2]["batches"]), (&json!(11), &json!(1)));
        assert!(rows[2]["damage"].as_str().unwrap().contains("cut short"));
        assert_eq!((&rows[3]["kind"], &rows[3]["sequence"]), (&json!("state"), &json!(40)));
        let keys = rows.iter().filter_map(Value::as_object).flat_map(Map::keys);
        assert!(keys.into_iter().all(|key| FILES.fields.iter().any(|(name, ..)| name == key)));
    }

    #[test]
    fn every_batch_is_listed_when_asked_and_other_groups_are_left_out() {
        let (dir, replica) = data_dir();
        write(&replica.join(format!("{:020}.log", 0)), &[batch(0, 3), batch(3, 2)].concat());
        let rows = dump(dir.path(), true, Some(17));
        assert_eq!(rows.iter().filter(|row| row["kind"] == "batch").count(), 2);
        assert_eq!(rows[3]["leader_epoch"], 3);
        assert_eq!(dump(dir.path(), true, Some(18)).len(), 1);
    }

    #[test]
    fn garbage_in_a_segment_is_damage_and_no_panic() {
        let (dir, replica) = data_dir();
        let mut flipped = batch(0, 3);
        flipped[70] ^= 1;
        let mut huge = batch(0, 1);
        huge[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        for (base, bytes) in
            [(0, flipped), (100, vec![0; 500]), (200, vec![0xff; 500]), (300, huge), (400, vec![1; 7])]
        {
            write(&replica.join(format!("{base:020}.log")), &bytes);
        }
        for row in dump(dir.path(), true, None).iter().skip(1) {
            assert!(row["damage"].is_string(), "{row}");
            assert_eq!(row["batches"], 0);
        }
    }

    #[test]
    fn a_directory_in_use_and_one_that_is_none_are_refused() {
        let (dir, _) = data_dir();
        let disk = OsDisk::new();
        let refused = |root: &Path| match lock(&disk, root) {
            Err(Failure::Api(error)) => error.code,
            _ => panic!("must be refused"),
        };
        let held = disk.lock(&layout::lock_file(dir.path())).unwrap();
        assert_eq!(refused(dir.path()), ErrorCode::DirectoryLocked);
        drop(held);
        assert!(lock(&disk, dir.path()).unwrap().is_some());
        assert_eq!(refused(&dir.path().join("none")), ErrorCode::InvalidDataDirectory);
    }
}
