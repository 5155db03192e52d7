//! Full disks and flipped bits.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use broker::runtime::Random;
use disk::Disk as _;

use crate::chaos::tool;

/// File that takes the room away.
const BALLAST: &str = "ballast";
/// Pieces by which it grows. Unit: bytes.
const PIECE_MAX: u64 = 256 << 20;
const PIECE_MIN: u64 = 64 << 10;
/// Tries to hit a byte that means something: a log's unused part is zero, and nobody reads it.
const AIMS: u32 = 64;

/// Fills the filesystem of `data` up to about so many free bytes; the file that did it.
///
/// # Errors
/// If the disk cannot be filled; then it is as it was.
pub(super) fn fill(data: &Path, left_free: u64) -> Result<PathBuf> {
    let ballast = data.join(BALLAST);
    let filled = grow(&ballast, data, left_free);
    if filled.is_err() {
        // It may not even have been made.
        let _ = std::fs::remove_file(&ballast);
    }
    filled.map(|()| ballast)
}

/// Grows a file in ever smaller pieces: filesystems need some of their free room for their own books, and nobody says how much.
fn grow(ballast: &Path, data: &Path, left_free: u64) -> Result<()> {
    let (file, mut size, mut piece) = (ballast.to_string_lossy(), 0, PIECE_MAX);
    while piece >= PIECE_MIN {
        let room = disk::OsDisk::new().space(data)?.free.saturating_sub(left_free);
        let args = ["-o", &size.to_string(), "-l", &piece.to_string(), &file];
        if room >= piece && tool::run("fallocate", &args, "").is_ok() {
            size += piece;
        } else {
            piece /= 2;
        }
    }
    ensure!(size > 0, "there is no room to take away");
    Ok(())
}

/// Which files may be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Any.
    All,
    /// Those that a broker at work reads and writes through the page cache, where a change of one bit is no more than that.
    /// Its log goes round the cache: there the rest of the page could come to stand over what was written meanwhile.
    Cached,
}

/// Folder of the log, relative to the data directory.
const LOG: &str = "wal";

/// One bit of a broker's files that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flip {
    /// Relative to the data directory.
    file: PathBuf,
    offset: u64,
    bit: u8,
}

impl std::fmt::Display for Flip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}.{}", self.file.display(), self.offset, self.bit)
    }
}

/// Flips a bit in each of up to `count` files of a broker, drawn so that every kind of file has the same chance.
///
/// # Errors
/// If there are no files, or one cannot be changed.
pub(super) fn flip_bits(data: &Path, which: Files, count: u64, random: &Random) -> Result<Vec<Flip>> {
    let mut kinds: BTreeMap<String, Vec<(PathBuf, u64)>> = BTreeMap::new();
    for (path, len) in files_below(data)? {
        if which == Files::Cached && path.starts_with(data.join(LOG)) {
            continue;
        }
        kinds.entry(kind_of(data, &path)).or_default().push((path, len));
    }
    ensure!(!kinds.is_empty(), "{} holds no files", data.display());
    let kinds: Vec<Vec<(PathBuf, u64)>> = kinds.into_values().collect();
    let mut flips = Vec::new();
    for _ in 0..count {
        let files = &kinds[index(random, kinds.len())];
        let (path, len) = &files[index(random, files.len())];
        let (offset, bit) =
            flip(path, *len, random).with_context(|| format!("changing {}", path.display()))?;
        let file = path.strip_prefix(data).unwrap_or(path).to_owned();
        flips.push(Flip { file, offset, bit });
    }
    Ok(flips)
}

fn index(random: &Random, len: usize) -> usize {
    usize::try_from(random.range(0..len as u64)).unwrap_or(0)
}

/// Flips a random bit of a file, of a byte that is not zero if there is one to be found.
#[expect(clippy::disallowed_types, reason = "damage is done behind the back of every seam")]
fn flip(path: &Path, len: u64, random: &Random) -> Result<(u64, u8)> {
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    let mut offset = 0;
    for _ in 0..AIMS {
        offset = random.range(0..len);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut byte)?;
        if byte != [0] {
            break;
        }
    }
    let bit = u8::try_from(random.range(0..8)).unwrap_or(0);
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&[byte[0] ^ 1 << bit])?;
    file.sync_all()?;
    Ok((offset, bit))
}

/// Where a file stands and what its name ends with, without the numbers in it: what makes two files of a kind.
fn kind_of(data: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(data).unwrap_or(path);
    let text = relative.to_string_lossy();
    let mut kind: String =
        text.chars().map(|letter| if letter.is_ascii_hexdigit() { '0' } else { letter }).collect();
    while kind.contains("00") {
        kind = kind.replace("00", "0");
    }
    kind
}

/// Files that are not empty, with their lengths, by name.
fn files_below(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        // A broker at work removes files too.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if about.is_file() && about.len() > 0 && entry.file_name() != BALLAST {
            files.push((entry.path(), about.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Removes everything in a folder, not the folder: it may be where a disk is mounted.
///
/// # Errors
/// If something cannot be removed.
pub(super) fn empty(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_filled_up_to_what_is_to_be_left() {
        let data = tempfile::tempdir().unwrap();
        let before = disk::OsDisk::new().space(data.path()).unwrap().free;
        let ballast = fill(data.path(), before.saturating_sub(40 << 20)).unwrap();
        let size = std::fs::metadata(&ballast).unwrap().len();
        // Others use this disk too; what they do meanwhile is far less.
        assert!((1..=40 << 20).contains(&size), "{size}");
        assert!(fill(&data.path().join("nowhere"), 0).is_err());
    }

    #[test]
    fn exactly_one_bit_of_a_file_flips_and_where_is_told() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("wal")).unwrap();
        let before = vec![0x55_u8; 4_096];
        std::fs::write(data.path().join("wal/1.wal"), &before).unwrap();
        std::fs::write(data.path().join("empty"), "").unwrap();
        let flips = flip_bits(data.path(), Files::All, 1, &Random::from_seed(3)).unwrap();
        let after = std::fs::read(data.path().join("wal/1.wal")).unwrap();
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!((before[changed[0]] ^ after[changed[0]]).count_ones(), 1);
        assert!(flips[0].to_string().starts_with(&format!("wal/1.wal@{}.", changed[0])), "{}", flips[0]);
    }

    #[test]
    fn the_log_of_a_broker_at_work_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        for folder in ["wal", "groups"] {
            std::fs::create_dir(data.path().join(folder)).unwrap();
            std::fs::write(data.path().join(folder).join("1"), "bytes").unwrap();
        }
        let flips = flip_bits(data.path(), Files::Cached, 20, &Random::from_seed(5)).unwrap();
        assert!(flips.iter().all(|flip| flip.file.starts_with("groups")), "{flips:?}");
    }

    #[test]
    fn bytes_that_mean_something_are_hit_first() {
        let data = tempfile::tempdir().unwrap();
        let mut bytes = vec![0_u8; 64];
        bytes[..32].fill(0xff);
        std::fs::write(data.path().join("log"), &bytes).unwrap();
        let flips = flip_bits(data.path(), Files::All, 20, &Random::from_seed(5)).unwrap();
        assert!(flips.iter().all(|flip| flip.offset < 32), "{flips:?}");
    }

    #[test]
    fn files_that_differ_in_numbers_only_are_of_one_kind() {
        let data = Path::new("/d");
        let kind = |path: &str| kind_of(data, &data.join(path));
        assert_eq!(kind("groups/1f/17-3/0000.log"), kind("groups/a/2-1/0042.log"));
        assert_ne!(kind("groups/1/0.log"), kind("groups/1/0.index"));
        assert_ne!(kind("wal/1"), kind("meta/1"));
    }

    #[test]
    fn an_emptied_folder_stays() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("a/b")).unwrap();
        std::fs::write(data.path().join("a/b/c"), "x").unwrap();
        std::fs::write(data.path().join("d"), "x").unwrap();
        empty(data.path()).unwrap();
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
    }
}
