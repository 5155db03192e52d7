//! Whose data directory this is: `meta.properties`.
//!
//! A text file of `key=value` lines, replaced as a whole (write, sync, rename, sync of the directory). Its last line is
//! a CRC-32C of all that stands before it: a flipped bit in a replica id would make this broker vote as somebody else.
//!
//! ```text
//! format=1
//! broker.id=2
//! incarnation=7f1c0b52-3c5e-4b0e-9d2f-111111111111
//! metadata.replica=9f00000000000001
//! cluster.id=7f1c0b52-3c5e-4b0e-9d2f-222222222222
//! crc32c=0123abcd
//! ```
//!
//! `cluster.id` is missing until the broker has joined a cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use disk::{Disk, DiskError, OpenOptions};
use uuid::Uuid;

use crate::layout;

/// Format of the data directory that this build writes.
pub const FORMAT: u16 = 1;

/// Longest `meta.properties` that is read, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// Who a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Number of the broker (`node.id`).
    pub broker_id: u32,
    /// The cluster, once the broker has joined one.
    pub cluster_id: Option<Uuid>,
    /// Made once with the directory: a broker that comes back without its disk has another one.
    pub incarnation: Uuid,
    /// Replica id of this directory in the metadata group: random, never 0.
    pub metadata_replica: u64,
    /// Format of the directory.
    pub format: u16,
}

/// Why the identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there and is not what this build wrote: the directory must not be used.
    #[error("meta.properties is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: &'static str,
    },
    /// The directory was written by a newer version.
    #[error("the data directory has format {found}, this version knows up to {FORMAT}")]
    Format {
        /// Its format.
        found: u16,
    },
    /// The disk failed.
    #[error("reading or writing meta.properties")]
    Disk(#[from] DiskError),
}

impl NodeIdentity {
    /// A fresh identity. `random` gives random numbers.
    #[must_use]
    pub fn create(broker_id: u32, mut random: impl FnMut() -> u64) -> Self {
        let high = u128::from(random());
        let incarnation = uuid::Builder::from_random_bytes((high << 64 | u128::from(random())).to_be_bytes());
        let metadata_replica = loop {
            let id = random();
            if id != 0 {
                break id;
            }
        };
        Self {
            broker_id,
            cluster_id: None,
            incarnation: incarnation.into_uuid(),
            metadata_replica,
            format: FORMAT,
        }
    }

    /// Reads the identity of a data directory; `None` if it has none yet.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(disk: &dyn Disk, root: &Path) -> Result<Option<Self>, IdentityError> {
        let path = layout::meta_properties(root);
        let file = match disk.open(&path, OpenOptions::default()) {
            Ok(file) => file,
            Err(DiskError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = file.len()?;
        if length > LENGTH_MAX {
            return Err(IdentityError::Damaged { reason: "it is too long" });
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut text, 0)?;
        Self::parse(&text).map(Some)
    }

    /// Writes the identity, durably, in place of the one that was there.
    ///
    /// # Errors
    /// [`IdentityError::Disk`].
    pub fn save(&self, disk: &dyn Disk, root: &Path) -> Result<(), IdentityError> {
        let path = layout::meta_properties(root);
        let temporary = path.with_extension("properties.tmp");
        let text = self.to_text();
        let file =
            disk.open(&temporary, OpenOptions { create: true, write: true, ..OpenOptions::default() })?;
        file.set_len(0)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync_data()?;
        drop(file);
        disk.rename(&temporary, &path)?;
        disk.sync_dir(root)?;
        Ok(())
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "format={}\nbroker.id={}\nincarnation={}\nmetadata.replica={:016x}\n",
            self.format, self.broker_id, self.incarnation, self.metadata_replica
        );
        if let Some(cluster_id) = self.cluster_id {
            let _ = writeln!(text, "cluster.id={cluster_id}");
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc32c={crc:08x}");
        text
    }

    fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        let damaged = |reason| IdentityError::Damaged { reason };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8"))?;
        let (body, crc) = text.split_once("crc32c=").ok_or(damaged("it has no checksum"))?;
        let crc = crc.strip_suffix('\n').ok_or(damaged("its checksum line ends early"))?;
        if crc.len() != 8 || u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(body.as_bytes())) {
            return Err(damaged("it fails its checksum"));
        }
        let keys: BTreeMap<&str, &str> = body.lines().filter_map(|line| line.split_once('=')).collect();
        let key = |name| keys.get(name).copied().ok_or(damaged("a key is missing"));
        let format = key("format")?.parse().map_err(|_| damaged("format is not a number"))?;
        if format > FORMAT {
            return Err(IdentityError::Format { found: format });
        }
        let uuid = |text: &str| Uuid::parse_str(text).map_err(|_| damaged("an id is not a UUID"));
        let metadata_replica = u64::from_str_radix(key("metadata.replica")?, 16)
            .map_err(|_| damaged("metadata.replica is not a number"))?;
        if metadata_replica == 0 {
            return Err(damaged("metadata.replica is 0"));
        }
        Ok(Self {
            broker_id: key("broker.id")?.parse().map_err(|_| damaged("broker.id is not a number"))?,
            cluster_id: keys.get("cluster.id").map(|text| uuid(text)).transpose()?,
            incarnation: uuid(key("incarnation")?)?,
            metadata_replica,
            format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> NodeIdentity {
        NodeIdentity {
            broker_id: 2,
            cluster_id: Some(Uuid::from_u128(0xabcd)),
            incarnation: Uuid::from_u128(0x1234),
            metadata_replica: 0x9f00_0000_0000_0001,
            format: FORMAT,
        }
    }

    #[test]
    fn golden_text() {
        assert_eq!(
            identity().to_text(),
            "format=1\nbroker.id=2\nincarnation=00000000-0000-0000-0000-000000001234\n\
             metadata.replica=9f00000000000001\ncluster.id=00000000-0000-0000-0000-00000000abcd\ncrc32c=661998a9\n"
        );
    }

    #[test]
    fn text_round_trips() {
        for cluster_id in [None, Some(Uuid::from_u128(7))] {
            let identity = NodeIdentity { cluster_id, ..identity() };
            assert_eq!(NodeIdentity::parse(identity.to_text().as_bytes()).unwrap(), identity);
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let text = NodeIdentity { format: FORMAT + 1, ..identity() }.to_text();
        assert!(matches!(NodeIdentity::parse(text.as_bytes()), Err(IdentityError::Format { found: 2 })));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = identity().to_text().into_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Upper and lower case of a hex digit of the checksum are the same number.
            let same = NodeIdentity::parse(&bad).is_ok_and(|parsed| parsed == identity());
            assert!(same || NodeIdentity::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_fresh_identity_has_no_cluster_and_a_replica() {
        let mut numbers = [1_u64, 2, 0, 5].into_iter();
        let identity = NodeIdentity::create(3, move || numbers.next().unwrap());
        assert_eq!(identity.metadata_replica, 5);
        assert_eq!(identity.cluster_id, None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = NodeIdentity::parse(&bytes);
        }
    }
}
