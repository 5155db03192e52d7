//! The `.sealed` file: what a segment is, written once when it grows no more.

use disk::{Disk, DiskError, OpenOptions};
use std::path::Path;
use wire::ids::Offset;

use crate::state::SegmentInfo;

const MAGIC: [u8; 8] = *b"ALTRSEG1";

/// Bytes of the file.
pub(crate) const FOOTER_LEN: usize = 64;

/// Encodes the file of a sealed segment, little endian:
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | magic `ALTRSEG1`, version included |
/// | 8 | 8 | bytes of the log file |
/// | 16 | 8 | first offset |
/// | 24 | 8 | offset after the last record |
/// | 32 | 8 | largest timestamp |
/// | 40 | 4 | CRC-32C of the log file |
/// | 44 | 4 | entries of each index |
/// | 48 | 4 | CRC-32C of the offset index |
/// | 52 | 4 | CRC-32C of the time index |
/// | 56 | 4 | reserved, 0 |
/// | 60 | 4 | CRC-32C of bytes 0..60 |
pub(crate) fn encode(info: &SegmentInfo) -> [u8; FOOTER_LEN] {
    let mut bytes = [0; FOOTER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&info.len.to_le_bytes());
    bytes[16..24].copy_from_slice(&info.base.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&info.next.0.to_le_bytes());
    bytes[32..40].copy_from_slice(&info.max_timestamp.to_le_bytes());
    bytes[40..44].copy_from_slice(&info.crc.to_le_bytes());
    bytes[44..48].copy_from_slice(&info.index_entries.to_le_bytes());
    bytes[48..52].copy_from_slice(&info.index_crc.to_le_bytes());
    bytes[52..56].copy_from_slice(&info.time_index_crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Decodes and checks; `None` if it is damaged.
pub(crate) fn decode(bytes: &[u8; FOOTER_LEN]) -> Option<SegmentInfo> {
    if bytes[..8] != MAGIC || narrow(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
        return None;
    }
    Some(SegmentInfo {
        len: wide(bytes, 8),
        base: Offset(wide(bytes, 16)),
        next: Offset(wide(bytes, 24)),
        max_timestamp: wide(bytes, 32).cast_signed(),
        crc: narrow(bytes, 40),
        index_entries: narrow(bytes, 44),
        index_crc: narrow(bytes, 48),
        time_index_crc: narrow(bytes, 52),
    })
}

/// Writes and syncs the file; its name is durable after a sync of the directory.
pub(crate) fn write(disk: &dyn Disk, path: &Path, info: &SegmentInfo) -> Result<(), DiskError> {
    let file = disk.open(path, OpenOptions { create: true, write: true, ..OpenOptions::default() })?;
    file.set_len(0)?;
    file.write_at(&encode(info), 0)?;
    file.sync_data()
}

/// Reads the file; `None` if it is missing or damaged.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<SegmentInfo>, DiskError> {
    let file = match disk.open(path, OpenOptions::default()) {
        Err(DiskError::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    let mut bytes = [0; FOOTER_LEN];
    if file.read_at(&mut bytes, 0)? != FOOTER_LEN || file.len()? != FOOTER_LEN as u64 {
        return Ok(None);
    }
    Ok(decode(&bytes))
}

fn wide(bytes: &[u8; FOOTER_LEN], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn narrow(bytes: &[u8; FOOTER_LEN], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> SegmentInfo {
        SegmentInfo {
            base: Offset(0x0102),
            next: Offset(0x0304),
            len: 0x0506,
            max_timestamp: -2,
            crc: 0x0708,
            index_entries: 9,
            index_crc: 10,
            time_index_crc: 11,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(&example());
        #[rustfmt::skip]
        let wanted = [
            &b"ALTRSEG1"[..],
            &[6, 5, 0, 0, 0, 0, 0, 0], &[2, 1, 0, 0, 0, 0, 0, 0], &[4, 3, 0, 0, 0, 0, 0, 0],
            &[254, 255, 255, 255, 255, 255, 255, 255],
            &[8, 7, 0, 0], &[9, 0, 0, 0], &[10, 0, 0, 0], &[11, 0, 0, 0], &[0; 4],
        ].concat();
        assert_eq!(bytes[..60], wanted);
        assert_eq!(decode(&bytes), Some(example()));
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        for bit in 0..FOOTER_LEN * 8 {
            let mut bytes = encode(&example());
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "bit {bit}");
        }
    }
}
