//! The simulated directory tree: what is seen, and what would survive a loss of power.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::seed::Seed;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    /// Number of the file's content.
    File(u64),
}

/// A change of names that no directory sync has made durable yet.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename { from: PathBuf, to: PathBuf, node: Node },
}

impl Change {
    fn is_within(&self, directory: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Link(path, _) | Self::Unlink(path) => within(path),
            Self::Rename { from, to, .. } => within(from) || within(to),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// In the order in which they were made.
    pending: Vec<Change>,
    /// False where crashes are not simulated: then nothing is remembered.
    track: bool,
}

impl Names {
    pub(super) fn new(track: bool) -> Self {
        Self { track, ..Self::default() }
    }

    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if is_root(path) {
            return Some(Node::Directory);
        }
        self.live.get(path).copied()
    }

    /// Files below or at a path.
    pub(super) fn files_below(&self, path: &Path) -> Vec<(PathBuf, Node)> {
        self.live
            .range(path.to_path_buf()..)
            .take_while(|(name, _)| name.starts_with(path))
            .map(|(name, node)| (name.clone(), *node))
            .collect()
    }

    /// Names directly within a directory.
    pub(super) fn children(&self, directory: &Path) -> Vec<(String, Node)> {
        self.files_below(directory)
            .into_iter()
            .filter(|(path, _)| path.parent() == Some(directory))
            .filter_map(|(path, node)| Some((path.file_name()?.to_string_lossy().into_owned(), node)))
            .collect()
    }

    /// Numbers of all files that are seen.
    pub(super) fn live_files(&self) -> impl Iterator<Item = u64> {
        self.live.values().filter_map(|node| match node {
            Node::File(number) => Some(*number),
            Node::Directory => None,
        })
    }

    pub(super) fn link(&mut self, path: &Path, node: Node) {
        self.change(Change::Link(path.to_path_buf(), node));
    }

    pub(super) fn unlink(&mut self, path: &Path) {
        self.change(Change::Unlink(path.to_path_buf()));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, node: Node) {
        self.change(Change::Rename { from: from.to_path_buf(), to: to.to_path_buf(), node });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        if self.track {
            self.pending.push(change);
        }
    }

    /// Makes the changes within a directory durable.
    pub(super) fn sync(&mut self, directory: &Path) {
        let (done, rest) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change: &Change| change.is_within(directory));
        let done: Vec<Change> = done;
        for change in &done {
            change.apply(&mut self.durable);
        }
        self.pending = rest;
    }

    /// True if some durable or pending name may still lead to the file after a crash.
    pub(super) fn may_return(&self, number: u64) -> bool {
        let node = Node::File(number);
        self.durable.values().any(|&found| found == node)
            || self.pending.iter().any(|change| match change {
                Change::Link(_, found) | Change::Rename { node: found, .. } => *found == node,
                Change::Unlink(_) => false,
            })
    }

    /// Loss of power: pending changes stay or go. Half of the crashes keep a prefix, as a journal does; the other half
    /// keep any subset, as the standard allows. Names without their directory are gone.
    pub(super) fn crash(&mut self, seed: &mut Seed) {
        let pending = std::mem::take(&mut self.pending);
        let prefix = seed.below(2) == 0;
        let kept = usize::try_from(seed.below(pending.len() as u64 + 1)).unwrap_or(0);
        for (at, change) in pending.iter().enumerate() {
            let stays = if prefix { at < kept } else { seed.below(2) == 0 };
            if stays {
                change.apply(&mut self.durable);
            }
        }
        let all = std::mem::take(&mut self.durable);
        for (path, node) in &all {
            // Sorted by name: parents come before their children.
            let parent = path.parent().unwrap_or(Path::new(""));
            if is_root(parent) || self.durable.get(parent) == Some(&Node::Directory) {
                self.durable.insert(path.clone(), *node);
            }
        }
        self.live = self.durable.clone();
    }
}

/// The tree's own ends, which are always there.
pub(super) fn is_root(path: &Path) -> bool {
    path == Path::new("/") || path == Path::new("") || path == Path::new(".")
}
