//! A disk in memory that loses, tears and refuses writes by a seed.
//!
//! The twin of [`crate::OsDisk`] for tests and for the simulator, and without its faults the disk of
//! `storage.mode: memory`. The same seed and the same calls give the same bytes.
//!
//! - Written bytes are durable after [`DiskFile::sync_data`], names after [`Disk::sync_dir`] of their directory.
//!   [`FaultyDisk::crash`] decides for each unsynced 512-byte sector whether it stays, goes or is torn, for each
//!   unsynced length and for each unsynced name whether it stays.
//! - After a failed sync the dirty bytes count as clean and are gone at the next crash, as on Linux: whoever repeats
//!   the sync and believes it loses data here.
//! - Handles and locks opened before a crash or a [`FaultyDisk::kill`] fail afterwards, so that nothing of a dead
//!   process can write into the life of the next.

mod content;
mod file;
mod names;
mod plan;
mod seed;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content::{Content, PAGE};
use file::{FaultyFile, FaultyLock};
use names::{Names, Node, is_root};
use plan::Plan;
pub use plan::{DiskStats, Op, OpKind, Verdict};
use seed::Seed;

use crate::{DirEntry, Disk, DiskError, DiskFile, DiskLock, OpenOptions, Result, Space};

/// Size of the simulated filesystem unless [`FaultyDisk::set_capacity`] says otherwise.
const CAPACITY: u64 = 1 << 40;

/// A simulated disk; clones share it.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    /// False for `quiet` disks: no old images, no pending names.
    track: bool,
}

#[derive(Debug)]
struct World {
    seed: Seed,
    names: Names,
    files: BTreeMap<u64, Arc<Mutex<Content>>>,
    next_file: u64,
    locks: BTreeSet<PathBuf>,
    /// Number of the present life; handles of an older one are dead.
    life: u64,
    plan: Plan,
    pages_used: u64,
}

impl FaultyDisk {
    /// A disk with simulated crashes. It has no faults until some are planned.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::build(seed, true)
    }

    /// A disk without crashes for `storage.mode: memory`: nothing is remembered beyond the present content.
    #[must_use]
    pub fn quiet() -> Self {
        Self::build(0, false)
    }

    fn build(seed: u64, track: bool) -> Self {
        let world = World {
            seed: Seed::new(seed),
            names: Names::new(track),
            files: BTreeMap::new(),
            next_file: 1,
            locks: BTreeSet::new(),
            life: 1,
            plan: Plan::new(CAPACITY),
            pages_used: 0,
        };
        Self { shared: Arc::new(Shared { world: Mutex::new(world), track }) }
    }

    /// Loss of power and return of it: what was not synced may be lost or torn, open handles die, planned faults and
    /// a power-off end. Capacity and hook stay.
    pub fn crash(&self) {
        let mut world = self.world();
        let mut seed = world.seed.clone();
        world.names.crash(&mut seed);
        for content in world.files.values() {
            lock(content).crash(&mut seed);
        }
        world.seed = seed;
        world.drop_unreachable();
        world.next_life();
    }

    /// Death of the process without loss of power: handles and locks die, the page cache lives on.
    pub fn kill(&self) {
        self.world().next_life();
    }

    /// From now on every operation fails, until [`FaultyDisk::crash`] or [`FaultyDisk::kill`].
    pub fn power_off(&self) {
        self.world().plan.off = true;
    }

    /// Power goes off just before the `nth` changing operation from now (1 is the next). See [`OpKind::changes`].
    pub fn power_off_at(&self, nth: u64) {
        self.world().plan.off_in = Some(nth);
    }

    /// The `nth` sync of a file or directory from now (1 is the next) fails with an input/output error.
    pub fn fail_sync(&self, nth: u64) {
        let mut world = self.world();
        world.plan.sync_fails_in = Some(nth);
        world.plan.sync_fails_below = None;
    }

    /// As [`FaultyDisk::fail_sync`], and only what lies below `directory` counts.
    pub fn fail_sync_below(&self, directory: &Path, nth: u64) {
        let mut world = self.world();
        world.plan.sync_fails_in = Some(nth);
        world.plan.sync_fails_below = Some(directory.to_path_buf());
    }

    /// The `nth` write from now (1 is the next) fails with an input/output error after a part of it was written.
    pub fn fail_write(&self, nth: u64) {
        self.world().plan.write_fails_in = Some(nth);
    }

    /// The `nth` read from now (1 is the next) fails with an input/output error.
    pub fn fail_read(&self, nth: u64) {
        self.world().plan.read_fails_in = Some(nth);
    }

    /// Sets the size of the filesystem; writes beyond it fail with [`DiskError::Full`].
    pub fn set_capacity(&self, bytes: u64) {
        self.world().plan.capacity = bytes;
    }

    /// Refuses direct I/O, as tmpfs does.
    pub fn set_direct_refused(&self, refused: bool) {
        self.world().plan.direct_refused = refused;
    }

    /// Makes [`DiskFile::read_nowait`] answer `None`, as if nothing were cached.
    pub fn set_cold(&self, cold: bool) {
        self.world().plan.cold = cold;
    }

    /// Latency of a sync. This disk never sleeps; the simulator's I/O seam reads it by [`FaultyDisk::slow`].
    pub fn set_slow(&self, latency: Duration) {
        self.world().plan.slow = latency;
    }

    /// What [`FaultyDisk::set_slow`] set.
    #[must_use]
    pub fn slow(&self) -> Duration {
        self.world().plan.slow
    }

    /// Calls `hook` before each operation; its verdict may fail it. The hook must not use this disk.
    pub fn set_hook(&self, hook: impl Fn(&Op<'_>) -> Verdict + Send + Sync + 'static) {
        self.world().plan.hook = Some(Arc::new(hook));
    }

    /// Removes the hook.
    pub fn clear_hook(&self) {
        self.world().plan.hook = None;
    }

    /// Flips bit `bit % 8` of the byte at `offset`, in the cache and on the device. False if there is no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let world = self.world();
        match world.names.get(path) {
            Some(Node::File(number)) => {
                world.files.get(&number).is_some_and(|content| lock(content).flip_bit(offset, bit))
            }
            _ => false,
        }
    }

    /// Counts of operations since the disk was made.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        self.world().plan.stats
    }

    /// Bytes of memory that hold file content.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.world().pages_used * PAGE as u64
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.shared.world)
    }

    /// Counts an operation of a living process and asks the plan whether it may happen.
    fn begin(&self, kind: OpKind, path: &Path, life: Option<u64>) -> Result<MutexGuard<'_, World>> {
        let mut world = self.world();
        if life.is_some_and(|life| life != world.life) {
            return Err(failed(kind, path, "the process that opened it is dead"));
        }
        world.plan.admit(kind, path)?;
        Ok(world)
    }
}

impl World {
    fn next_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.plan.reset();
    }

    /// Frees files that no name leads to. Called after a crash only: an open handle of this life may still use one.
    fn drop_unreachable(&mut self) {
        let reachable: BTreeSet<u64> = self.names.live_files().collect();
        self.files.retain(|number, _| reachable.contains(number));
        self.pages_used = self.files.values().map(|content| lock(content).pages()).sum();
    }

    /// Forgets the content of a removed file, unless a crash may bring its name back. Open handles keep theirs.
    fn release(&mut self, number: u64) {
        if self.names.may_return(number) {
            return;
        }
        if let Some(content) = self.files.remove(&number) {
            self.pages_used = self.pages_used.saturating_sub(lock(&content).pages());
        }
    }

    /// Forgets removed files that no crash can bring back any more.
    fn release_unnamed(&mut self) {
        let live: BTreeSet<u64> = self.names.live_files().collect();
        let gone: Vec<u64> = self.files.keys().copied().filter(|number| !live.contains(number)).collect();
        for number in gone {
            self.release(number);
        }
    }

    fn parent_must_exist(&self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.names.get(parent) {
            Some(Node::Directory) => Ok(()),
            _ => Err(DiskError::NotFound { path: parent.to_path_buf() }),
        }
    }

    fn create(&mut self, path: &Path) -> Result<u64> {
        self.parent_must_exist(path)?;
        let number = self.next_file;
        self.next_file += 1;
        self.files.insert(number, Arc::default());
        self.names.link(path, Node::File(number));
        Ok(number)
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn DiskFile>> {
        let mut world = self.begin(OpKind::Open, path, None)?;
        if options.direct && world.plan.direct_refused {
            return Err(DiskError::DirectRefused { path: path.to_path_buf() });
        }
        let number = match world.names.get(path) {
            Some(Node::Directory) => return Err(failed(OpKind::Open, path, "is a directory")),
            Some(Node::File(_)) if options.create_new => {
                return Err(DiskError::AlreadyExists { path: path.to_path_buf() });
            }
            Some(Node::File(number)) => number,
            None if options.create || options.create_new => {
                world.plan.admit(OpKind::Create, path)?;
                world.create(path)?
            }
            None => return Err(DiskError::NotFound { path: path.to_path_buf() }),
        };
        let Some(content) = world.files.get(&number).cloned() else {
            return Err(DiskError::NotFound { path: path.to_path_buf() });
        };
        let writable = options.write || options.create || options.create_new;
        let life = world.life;
        drop(world);
        let path = path.to_path_buf();
        Ok(Arc::new(FaultyFile { disk: self.clone(), content, path, life, writable, direct: options.direct }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut world = self.begin(OpKind::Create, path, None)?;
        let mut missing: Vec<&Path> = Vec::new();
        for ancestor in path.ancestors().filter(|ancestor| !is_root(ancestor)) {
            match world.names.get(ancestor) {
                Some(Node::Directory) => break,
                Some(Node::File(_)) => {
                    return Err(failed(OpKind::Create, ancestor, "is not a directory"));
                }
                None => missing.push(ancestor),
            }
        }
        for directory in missing.into_iter().rev() {
            world.names.link(directory, Node::Directory);
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut world = self.begin(OpKind::SyncDir, path, None)?;
        if world.names.get(path) != Some(Node::Directory) {
            return Err(DiskError::NotFound { path: path.to_path_buf() });
        }
        if world.plan.sync_fails(path) {
            return Err(failed(OpKind::SyncDir, path, "planned failure"));
        }
        world.names.sync(path);
        if self.shared.track {
            world.release_unnamed();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut world = self.begin(OpKind::Rename, from, None)?;
        world.parent_must_exist(to)?;
        let Some(node) = world.names.get(from) else {
            return Err(DiskError::NotFound { path: from.to_path_buf() });
        };
        let replaced = world.names.get(to);
        if replaced == Some(Node::Directory) {
            return Err(failed(OpKind::Rename, to, "is a directory"));
        }
        for (path, below) in world.names.files_below(from) {
            if let Ok(rest) = path.strip_prefix(from)
                && rest != Path::new("")
            {
                world.names.rename(&path, &to.join(rest), below);
            }
        }
        world.names.rename(from, to, node);
        if let Some(Node::File(number)) = replaced {
            world.release(number);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut world = self.begin(OpKind::Remove, path, None)?;
        match world.names.get(path) {
            Some(Node::File(number)) => {
                world.names.unlink(path);
                world.release(number);
                Ok(())
            }
            Some(Node::Directory) => Err(failed(OpKind::Remove, path, "is a directory")),
            None => Err(DiskError::NotFound { path: path.to_path_buf() }),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        let mut world = self.begin(OpKind::Remove, path, None)?;
        // Children before their directory, as the operating system must do it.
        for (name, node) in world.names.files_below(path).into_iter().rev() {
            world.names.unlink(&name);
            if let Node::File(number) = node {
                world.release(number);
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let world = self.begin(OpKind::Read, path, None)?;
        if world.names.get(path) != Some(Node::Directory) {
            return Err(DiskError::NotFound { path: path.to_path_buf() });
        }
        let mut entries: Vec<DirEntry> = world
            .names
            .children(path)
            .into_iter()
            .map(|(name, node)| match node {
                Node::Directory => DirEntry { name, is_dir: true, len: 0 },
                Node::File(number) => {
                    let len = world.files.get(&number).map_or(0, |content| lock(content).len());
                    DirEntry { name, is_dir: false, len }
                }
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let world = self.begin(OpKind::Read, path, None)?;
        let total = world.plan.capacity;
        Ok(Space { free: total.saturating_sub(world.pages_used * PAGE as u64), total })
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        let mut world = self.begin(OpKind::Open, path, None)?;
        if world.names.get(path).is_none() {
            world.create(path)?;
        }
        if !world.locks.insert(path.to_path_buf()) {
            return Err(DiskError::Locked { path: path.to_path_buf() });
        }
        let life = world.life;
        drop(world);
        Ok(Box::new(FaultyLock { disk: self.clone(), path: path.to_path_buf(), life }))
    }

    fn exists(&self, path: &Path) -> bool {
        self.world().names.get(path).is_some()
    }
}

/// A panic while a lock is held is a failed test already; the content is still the best there is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(kind: OpKind, path: &Path, why: &'static str) -> DiskError {
    DiskError::Io { operation: kind.name(), path: path.to_path_buf(), source: io::Error::other(why) }
}
