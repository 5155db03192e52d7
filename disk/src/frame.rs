//! Small files that are replaced as a whole: checkpoints, state files, identities.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic of the kind of file |
//! | 8 | 2 | version of the payload, little endian |
//! | 10 | 2 | header length = 24, little endian |
//! | 12 | 4 | CRC-32C of bytes 0..12 and 16.., little endian |
//! | 16 | 8 | payload length, little endian |
//! | 24 | … | payload, to the end of the file |
//!
//! A write goes to `<name>.tmp`, is synced, renamed over the old file, and the directory is synced: after a crash the
//! file is the old one or the new one, never a mixture.

use std::path::{Path, PathBuf};

use crate::{Disk, DiskError, OpenOptions};

/// Bytes before the payload.
pub const FRAME_HEADER_LEN: usize = 24;

const HEADER_LEN_FIELD: u16 = 24;

/// Why a framed file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The file is not there.
    #[error("{path} does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        what: &'static str,
    },
    /// The disk failed.
    #[error("using a framed file")]
    Disk(#[source] DiskError),
}

/// Builds the bytes of a framed file.
#[must_use]
pub fn encode(magic: [u8; 8], version: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEADER_LEN + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&HEADER_LEN_FIELD.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks the bytes of a framed file and returns version and payload.
///
/// # Errors
/// The name of the check that failed.
pub fn decode(bytes: &[u8], magic: [u8; 8]) -> Result<(u16, &[u8]), &'static str> {
    let (header, payload) = bytes.split_first_chunk::<FRAME_HEADER_LEN>().ok_or("shorter than its header")?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, h0, h1, c0, c1, c2, c3, length @ ..] = *header;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != magic {
        return Err("wrong magic");
    }
    if u16::from_le_bytes([h0, h1]) != HEADER_LEN_FIELD {
        return Err("wrong header length");
    }
    if u64::from_le_bytes(length) != payload.len() as u64 {
        return Err("length does not match");
    }
    if u32::from_le_bytes([c0, c1, c2, c3]) != checksum(bytes) {
        return Err("checksum does not match");
    }
    Ok((u16::from_le_bytes([v0, v1]), payload))
}

/// Replaces the file at `path`, durably and atomically.
///
/// # Errors
/// As the disk says; the old file, if any, is then still whole, but which of the two a crash leaves is unknown.
pub fn write_framed(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 8],
    version: u16,
    payload: &[u8],
) -> crate::Result<()> {
    let temporary = temporary_path(path);
    let file = disk.open(&temporary, OpenOptions { create: true, write: true, ..OpenOptions::default() })?;
    file.set_len(0)?;
    file.write_at(&encode(magic, version, payload), 0)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Reads and checks the file at `path`; returns version and payload.
///
/// # Errors
/// [`FrameError::Missing`], [`FrameError::Damaged`] or [`FrameError::Disk`].
pub fn read_framed(disk: &dyn Disk, path: &Path, magic: [u8; 8]) -> Result<(u16, Vec<u8>), FrameError> {
    let damaged = |what| FrameError::Damaged { path: path.to_path_buf(), what };
    let file = disk.open(path, OpenOptions::default()).map_err(|error| match error {
        DiskError::NotFound { path } => FrameError::Missing { path },
        other => FrameError::Disk(other),
    })?;
    let len = file.len().map_err(FrameError::Disk)?;
    let len = usize::try_from(len).map_err(|_| damaged("larger than memory"))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).map_err(FrameError::Disk)?;
    let (version, payload) = decode(&bytes, magic).map_err(damaged)?;
    Ok((version, payload.to_vec()))
}

/// The name under which a new version of `path` is written before it takes its place.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}

/// CRC-32C of everything but the checksum's own four bytes. `bytes` has a whole header.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAGIC: [u8; 8] = *b"ALTRTEST";

    #[test]
    fn golden_bytes() {
        let bytes = encode(MAGIC, 3, b"abc");
        assert_eq!(bytes, b"ALTRTEST\x03\x00\x18\x00\x45\xd9\x28\x2b\x03\0\0\0\0\0\0\0abc");
    }

    proptest! {
        #[test]
        fn any_single_bit_flip_is_seen(payload in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>()) {
            let mut bytes = encode(MAGIC, 1, &payload);
            prop_assert_eq!(decode(&bytes, MAGIC), Ok((1, payload.as_slice())));
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, MAGIC).is_err());
        }

        #[test]
        fn garbage_and_cut_files_are_refused(payload in prop::collection::vec(any::<u8>(), 0..64), cut in any::<prop::sample::Index>()) {
            prop_assert!(decode(&payload, MAGIC).is_err());
            let bytes = encode(MAGIC, 1, &payload);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())], MAGIC).is_err());
        }
    }
}
