//! Disks: slow, failing, full, damaged, empty.

use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::faulty::FaultyDisk;
use disk::{Disk, DiskError, OpenOptions};
use raft_store::layout;

use super::super::station::{Phase, Station};
use super::super::world::{Crash, World};
use super::{Answer, Nemesis, Undo};

type Struck = Result<Answer, String>;

/// Size of a disk that is not full.
const CAPACITY: u64 = 1 << 40;
/// Where brokers keep their data.
const ROOT: &str = "/data";
/// Bytes before the first frame of a file of the write-ahead log.
const WAL_HEAD: u64 = 4_096;

impl Nemesis {
    pub(super) fn slow_disk(&mut self, world: &World) -> Struck {
        let station = self.any(world)?;
        let latency = Duration::from_millis(self.random.range(5..400));
        station.disk.set_slow(latency);
        let detail = self.later(world, 500..8_000, Undo::FastDisk(station.id));
        Ok(Answer::installed(&station.name, format!("{latency:?} {detail}")))
    }

    /// An fsync fails, of any file or of the write-ahead log. After the latter the machine soon loses its power: then what
    /// the failed fsync left behind is gone, whatever a later one said.
    pub(super) fn fsync_error(&mut self, world: &World) -> Struck {
        let station = self.any(world)?;
        station.set_broken();
        if self.random.range(0..2) == 0 {
            let nth = self.random.range(1..60);
            station.disk.fail_sync(nth);
            return Ok(Answer::installed(&station.name, format!("the {nth}th from now")));
        }
        let nth = self.random.range(1..20);
        station.disk.fail_sync_below(&layout::wal_dir(Path::new(ROOT)), nth);
        let detail = self.later(world, 300..2_000, Undo::PowerCycle(station.id));
        Ok(Answer::installed(&station.name, format!("the {nth}th of the log from now, with power {detail}")))
    }

    pub(super) fn write_error(&mut self, world: &World) -> Struck {
        let station = self.any(world)?;
        let nth = self.random.range(1..60);
        station.set_broken();
        station.disk.fail_write(nth);
        Ok(Answer::installed(&station.name, format!("the {nth}th from now")))
    }

    pub(super) fn disk_full(&mut self, world: &World) -> Struck {
        let station = self.any(world)?;
        // Above nothing, so that the broker sometimes sees it coming and refuses writes instead.
        let room = self.random.range(0..4) * (4 << 20);
        station.set_full(true);
        station.disk.set_capacity(station.disk.bytes_used() + room);
        let detail = self.later(world, 500..6_000, Undo::FreeDisk(station.id));
        Ok(Answer::installed(&station.name, format!("{room} bytes free {detail}")))
    }

    pub(super) fn bit_rot(&mut self, world: &mut World) -> Struck {
        let station = world.station(self.plan.victim);
        self.take_down(world, &station)?;
        let files = files_below(&station, Path::new(ROOT));
        Ok(self.flip(world, &station, &files))
    }

    /// As [`Nemesis::bit_rot`], where it hurts most: in what was written to the write-ahead log lately.
    pub(super) fn wal_rot(&mut self, world: &mut World) -> Struck {
        let station = world.station(self.plan.victim);
        let newest = world.watch.wal_file(station.id).ok_or("nothing was written yet")?;
        self.take_down(world, &station)?;
        let path = layout::wal_file(Path::new(ROOT), newest);
        let Some(written) = written(&station, &path).filter(|written| *written > WAL_HEAD) else {
            self.later(world, 50..1_000, Undo::Start(station.id));
            return Ok(Answer::skipped("the newest file is gone"));
        };
        Ok(self.flip(world, &station, &[(path, written)]))
    }

    /// Flips some bits in files with these lengths of a broker that is down.
    fn flip(&mut self, world: &World, station: &Station, files: &[(PathBuf, u64)]) -> Answer {
        let mut struck = Vec::new();
        for _ in 0..self.random.range(1..4) {
            let at = usize::try_from(self.random.range(0..files.len() as u64)).unwrap_or(0);
            let Some((path, len)) = files.get(at) else { break };
            let offset = self.random.range(0..*len);
            let bit = u8::try_from(self.random.range(0..8)).unwrap_or(0);
            if station.disk.flip_bit(path, offset, bit) {
                struck.push(format!("{}:{offset}", path.display()));
            }
        }
        self.rotten = true;
        world.watch.rotted(station.id);
        self.later(world, 50..1_000, Undo::Start(station.id));
        Answer::installed(&station.name, struck.join(" "))
    }

    pub(super) fn wipe(&mut self, world: &mut World) -> Struck {
        let station = world.station(self.plan.victim);
        self.take_down(world, &station)?;
        empty(world, &station);
        self.later(world, 50..1_000, Undo::Start(station.id));
        Ok(Answer::installed(&station.name, ""))
    }

    /// Takes the victim down, if all others are well: what it holds may be needed for a quorum.
    fn take_down(&self, world: &mut World, victim: &Station) -> Result<(), String> {
        if world.stations.iter().any(|station| station.phase() != Phase::Running) {
            return Err("not all brokers run".to_owned());
        }
        world.crash(victim, Crash::Kill);
        Ok(())
    }
}

/// Ends every planned error of a disk.
pub(super) fn mend(station: &Station) {
    // There is no operation with such a number.
    station.disk.fail_sync(u64::MAX);
    station.disk.fail_write(u64::MAX);
    station.disk.power_off_at(u64::MAX);
    station.disk.set_slow(Duration::ZERO);
    free(station);
}

/// Gives a disk room.
pub(super) fn free(station: &Station) {
    station.disk.set_capacity(CAPACITY);
    station.set_full(false);
}

/// Removes everything from a disk.
pub(super) fn empty(world: &World, station: &Station) {
    // The disk is healthy and nobody uses it: none of this can fail.
    let _ = forget_names(&station.disk, Path::new(ROOT));
    let _ = station.disk.remove_dir_all(Path::new(ROOT));
    let _ = station.disk.sync_dir(Path::new("/"));
    world.watch.wiped(station.id);
}

/// Removes the files below a directory for good: what is empty after a wipe must be empty after a power cut too.
fn forget_names(disk: &FaultyDisk, dir: &Path) -> Result<(), DiskError> {
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir { forget_names(disk, &path)? } else { disk.remove(&path)? }
    }
    disk.sync_dir(dir)
}

/// Length of what was written to a file that was made of zeros.
fn written(station: &Station, path: &Path) -> Option<u64> {
    let file = station.disk.open(path, OpenOptions::default()).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let read = file.read_at(&mut bytes, 0).ok()?;
    let last = bytes.get(..read)?.iter().rposition(|byte| *byte != 0)?;
    u64::try_from(last + 1).ok()
}

/// Files that are not empty, with their lengths, sorted by name.
fn files_below(station: &Station, directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in station.disk.list(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if entry.is_dir {
            files.extend(files_below(station, &path));
        } else if entry.len > 0 {
            files.push((path, entry.len));
        }
    }
    files
}
