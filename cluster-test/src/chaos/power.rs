//! Disks whose power can be cut: an ext4 image of its own for each broker, on a loop device.
//!
//! A cut is three steps on all disks concerned. The brokers are frozen, so that none can acknowledge anything any more:
//! an acknowledgement that overtakes the cut would be a false alarm. Then each filesystem is shut down without a flush of
//! its journal (`EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`): what was not synced is gone, and a sync that is still under way
//! fails. Then the brokers are killed and the images are mounted again, which replays what the journal has.
//!
//! Images stand in memory: cutting power on a real disk's image takes a minute, not half a second, and tests no more.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use super::tool;

/// Folder in memory that every Linux machine has.
const MEMORY: &str = "/dev/shm";
/// Folder of the harness's own inside its namespaces: it vanishes with them.
const SANDBOX: &str = "/run";
/// How the harness names what it mounts.
const MOUNTED_AS: &str = "altair-chaos";
/// Beginning and end of an image's name.
const NAME: (&str, &str) = ("altair-chaos-", ".img");
/// Time for the kernel to let go of a filesystem whose last process was killed.
const RELEASE: Duration = Duration::from_secs(20);
/// Time for the threads of a stopped process to stop, those in the middle of a sync apart.
const FREEZE: Duration = Duration::from_secs(5);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Shuts down the filesystems at the paths given: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. Python,
/// because a call of `ioctl` is unsafe in Rust, and this workspace forbids that.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fds = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]\n\
    for fd in fds: fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))\n";
/// Programs that it takes, and their packages.
const NEEDED: &[(&str, &str)] =
    &[("python3", "python3"), ("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("losetup", "mount")];

/// One broker's disk. Dropping it unmounts and removes it.
#[derive(Debug)]
pub struct ImageDisk {
    at: PathBuf,
    image: PathBuf,
    /// Held for as long as this process lives: an image whose lock is free belongs to nobody.
    #[expect(clippy::disallowed_types, reason = "a lock on a file is one of the operating system's")]
    _lock: std::fs::File,
}

/// Whether this machine can cut power, short of trying.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), String> {
    match NEEDED.iter().find(|(program, _)| !tool::installed(program)) {
        Some((program, package)) => Err(format!("{program} is not installed (package {package})")),
        None => Ok(()),
    }
}

impl ImageDisk {
    /// Makes a disk of `bytes` and mounts it at `at`, an empty folder.
    ///
    /// # Errors
    /// If this machine does not let the harness mount.
    pub fn make(at: &Path, bytes: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}{}", NAME.0, std::process::id(), NAME.1);
        let image = image_folder().join(name);
        let disk = Self { at: at.to_owned(), _lock: locked(&image, bytes)?, image };
        tool::run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&disk.image)], "")
            .context("making a filesystem for a disk whose power can be cut")?;
        disk.mount()?;
        // A broker looks at everything in its directory; this belongs to the filesystem.
        std::fs::remove_dir(at.join("lost+found")).context("clearing the new disk")?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }

    fn mount(&self) -> Result<()> {
        tool::run("mount", &["-o", "loop,noatime", &text(&self.image), &text(&self.at)], "")
            .context("mounting a disk whose power can be cut")?;
        Ok(())
    }

    /// Unmounts the disk once nobody uses it any more, and mounts it again.
    ///
    /// # Errors
    /// If somebody still uses it, or the filesystem does not come back.
    pub async fn come_back(&self) -> Result<()> {
        let until = Instant::now() + RELEASE;
        loop {
            match tool::run("umount", &[&text(&self.at)], "") {
                Ok(_) => return self.mount(),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_EVERY * 5).await,
            }
        }
    }
}

impl Drop for ImageDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold a file in it. The loop device goes with the last one.
        let _ = tool::run("umount", &["-l", &text(&self.at)], "");
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Cuts the power of all these disks at one moment. Nobody that writes to them may be able to tell anybody else about it
/// any more: see [`frozen`].
///
/// # Errors
/// If the kernel refuses.
pub fn shut_down(disks: &[&ImageDisk]) -> Result<()> {
    let paths: Vec<String> = disks.iter().map(|disk| text(&disk.at)).collect();
    let mut args = vec!["-c", SHUTDOWN];
    args.extend(paths.iter().map(String::as_str));
    tool::run("python3", &args, "").context("shutting the filesystems down")?;
    Ok(())
}

/// Waits until a process that got SIGSTOP runs no more: each of its threads is stopped, or waits for the disk and will
/// stop before it returns to its program.
///
/// # Errors
/// If a thread still runs after a while.
pub async fn frozen(pid: u32) -> Result<()> {
    let until = Instant::now() + FREEZE;
    loop {
        let Some(running) = running_thread(pid) else { return Ok(()) };
        ensure!(Instant::now() < until, "thread {running} of process {pid} does not stop");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A thread of a process that neither is stopped nor waits for the disk.
fn running_thread(pid: u32) -> Option<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks.flatten().find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        // The name before the state stands in brackets and may hold anything.
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        (!matches!(state, 'T' | 't' | 'D' | 'Z' | 'X'))
            .then(|| task.file_name().to_string_lossy().into_owned())
    })
}

/// Removes images, with their mounts, that a harness left behind which was killed; returns their paths.
///
/// # Errors
/// If one cannot be removed.
pub fn clear_stale() -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let entries = std::fs::read_dir(MEMORY).with_context(|| format!("listing {MEMORY}"))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with(NAME.0) && name.ends_with(NAME.1);
        if ours && lock(&entry.path()).is_ok() {
            unmount_image(&entry.path())?;
            std::fs::remove_file(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

fn unmount_image(image: &Path) -> Result<()> {
    let devices = tool::run("losetup", &["-n", "-O", "NAME", "-j", &text(image)], "")?;
    for device in devices.split_whitespace() {
        // Whatever is mounted from it; one that is mounted nowhere goes by itself with the file.
        let _ = tool::run("umount", &["-l", "-A", device], "");
        let _ = tool::run("losetup", &["-d", device], "");
    }
    Ok(())
}

/// Where images go: a folder in memory that vanishes with the harness where there is one.
fn image_folder() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let private = format!("{MOUNTED_AS} {SANDBOX} ");
    let folder = if mounts.lines().any(|line| line.starts_with(&private)) { SANDBOX } else { MEMORY };
    PathBuf::from(folder)
}

/// A new file of `bytes` with this process's lock on it.
#[expect(clippy::disallowed_types, reason = "a lock on a file is one of the operating system's")]
fn locked(path: &Path, bytes: u64) -> Result<std::fs::File> {
    let making = || format!("making {}", path.display());
    let file = std::fs::File::create(path).with_context(making)?;
    file.try_lock().with_context(making)?;
    file.set_len(bytes).with_context(making)?;
    Ok(file)
}

/// Takes the lock of a file that nobody holds.
#[expect(clippy::disallowed_types, reason = "a lock on a file is one of the operating system's")]
fn lock(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::File::open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(error) => bail!("{} is in use: {error}", path.display()),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A disk, or `None` where this machine does not let tests mount.
    fn disk(at: &Path) -> Option<ImageDisk> {
        let made = check().map_err(anyhow::Error::msg).and_then(|()| ImageDisk::make(at, 64 << 20));
        match made {
            Ok(disk) => Some(disk),
            Err(error) => {
                eprintln!("skipped: {error:#}");
                None
            }
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_types, reason = "the test is about the filesystem itself")]
    async fn what_was_synced_survives_a_cut_and_what_was_not_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = disk(dir.path()) else { return };
        let write = |name: &str, sync: bool| {
            let mut file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            if sync {
                file.sync_all().unwrap();
                std::fs::File::open(dir.path()).unwrap().sync_all().unwrap();
            }
        };
        write("kept", true);
        write("lost", false);
        shut_down(&[&disk]).unwrap();
        assert!(
            std::fs::File::create(dir.path().join("late")).is_err(),
            "a disk without power takes nothing"
        );
        disk.come_back().await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("kept")).unwrap(), b"kept");
        assert!(!dir.path().join("lost").exists());
        // It works again.
        write("after", true);
    }

    #[test]
    fn images_of_a_harness_that_died_are_removed_and_those_of_a_live_one_stay() {
        let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let Some(disk) = disk(dir.path()) else { return };
        // As a killed harness leaves it: mounted, and nobody holds the lock.
        let stale = Path::new(MEMORY).join(format!("{}0-{}{}", NAME.0, std::process::id(), NAME.1));
        std::fs::copy(&disk.image, &stale).unwrap();
        tool::run("mount", &["-o", "loop", &text(&stale), &text(left.path())], "").unwrap();
        assert!(clear_stale().unwrap().contains(&stale));
        assert!(!stale.exists());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&text(left.path())), "{mounts}");
        assert!(disk.image.exists() && mounts.contains(&text(dir.path())));
    }

    #[tokio::test]
    async fn a_process_counts_as_frozen_once_it_got_its_stop() {
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        // It may wait for the disk at first, for the pages of its program.
        let begun = Instant::now();
        while running_thread(child.id()).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it never runs");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        frozen(child.id()).await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
