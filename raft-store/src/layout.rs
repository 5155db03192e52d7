//! Where things stand in a data directory. Nothing here touches a disk.
//!
//! ```text
//! <root>/
//!   meta.properties                        who this directory belongs to
//!   LOCK                                   held by the running broker
//!   wal/<file_seq, 20 digits>.wal          the shared write-ahead log
//!   wal/recycle-<number, 6 digits>.wal     zeroed or used files that wait for their turn
//!   checkpoint/<id, 16 digits>.ckpt        the newest two are kept
//!   groups/<shard>/<group>-<replica>/      one directory a replica; shard = low byte of the group id, all in hex
//!   metadata/<index>.snap                  snapshots of the metadata group
//!   keyed/                                 rebuildable keyed state (sled)
//!   lost+quarantine/                       what recovery set aside; never deleted by the broker
//! ```

use std::path::{Path, PathBuf};

/// Directory of the WAL.
#[must_use]
pub fn wal_dir(root: &Path) -> PathBuf {
    root.join("wal")
}

/// The WAL file with this sequence number.
#[must_use]
pub fn wal_file(root: &Path, seq: u64) -> PathBuf {
    wal_dir(root).join(format!("{seq:020}.wal"))
}

/// A WAL file that waits to be used.
#[must_use]
pub fn recycle_file(root: &Path, number: u64) -> PathBuf {
    wal_dir(root).join(format!("recycle-{number:06}.wal"))
}

/// Sequence number in the name of a WAL file, `None` for any other name.
#[must_use]
pub fn parse_wal_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Number in the name of a waiting WAL file, `None` for any other name.
#[must_use]
pub fn parse_recycle_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("recycle-")?.strip_suffix(".wal")?;
    if digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Directory of the checkpoints.
#[must_use]
pub fn checkpoint_dir(root: &Path) -> PathBuf {
    root.join("checkpoint")
}

/// The checkpoint with this id.
#[must_use]
pub fn checkpoint_file(root: &Path, id: u64) -> PathBuf {
    checkpoint_dir(root).join(format!("{id:016}.ckpt"))
}

/// Id in the name of a checkpoint, `None` for any other name.
#[must_use]
pub fn parse_checkpoint_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".ckpt")?;
    if digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Directory that holds every group's directories, by shard.
#[must_use]
pub fn groups_dir(root: &Path) -> PathBuf {
    root.join("groups")
}

/// Directory of one replica.
#[must_use]
pub fn group_dir(root: &Path, group: u64, replica: u64) -> PathBuf {
    groups_dir(root).join(format!("{:02x}", group & 0xff)).join(format!("{group:016x}-{replica:016x}"))
}

/// Group and replica in the name of a replica's directory, `None` for any other name.
#[must_use]
pub fn parse_group_name(name: &str) -> Option<(u64, u64)> {
    let (group, replica) = name.split_once('-')?;
    let hex = |text: &str| {
        let plain =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if plain { u64::from_str_radix(text, 16).ok() } else { None }
    };
    Some((hex(group)?, hex(replica)?))
}

/// Directory of the metadata group's snapshots.
#[must_use]
pub fn metadata_dir(root: &Path) -> PathBuf {
    root.join("metadata")
}

/// Directory of the rebuildable keyed state.
#[must_use]
pub fn keyed_dir(root: &Path) -> PathBuf {
    root.join("keyed")
}

/// Directory for what recovery sets aside.
#[must_use]
pub fn quarantine_dir(root: &Path) -> PathBuf {
    root.join("lost+quarantine")
}

/// The file that says whose directory this is.
#[must_use]
pub fn meta_properties(root: &Path) -> PathBuf {
    root.join("meta.properties")
}

/// The file that the running broker holds locked.
#[must_use]
pub fn lock_file(root: &Path) -> PathBuf {
    root.join("LOCK")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_what_was_written() {
        let root = Path::new("/d");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(parse_wal_name(&name(wal_file(root, 17))), Some(17));
        assert_eq!(parse_recycle_name(&name(recycle_file(root, 3))), Some(3));
        assert_eq!(parse_checkpoint_name(&name(checkpoint_file(root, 42))), Some(42));
        assert_eq!(parse_group_name(&name(group_dir(root, 0x1234, 9))), Some((0x1234, 9)));
        assert_eq!(group_dir(root, 0x1234, 9), Path::new("/d/groups/34/0000000000001234-0000000000000009"));
    }

    #[test]
    fn other_names_are_nobody() {
        for name in
            ["", ".wal", "17.wal", "0000000000000000017x.wal", "recycle-.wal", "recycle-1.tmp", "x.ckpt", "é"]
        {
            assert_eq!(parse_wal_name(name), None, "{name}");
            assert_eq!(parse_recycle_name(name), None, "{name}");
            assert_eq!(parse_checkpoint_name(name), None, "{name}");
            assert_eq!(parse_group_name(name), None, "{name}");
        }
    }
}
