//! Wakes those who wait for a change of a consumer group, and only them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::ids::GroupId;

use super::core::Core;
use super::image::MetadataImage;
use super::machine::MetadataMachine;
use crate::group::Group;

/// One bell a group that somebody waits for.
#[derive(Default)]
pub(crate) struct Bells(Mutex<BTreeMap<GroupId, Bell>>);

struct Bell {
    waiting: usize,
    /// The group as it was when the bell was hung up or rung last.
    seen: Option<Arc<Group>>,
    ring: watch::Sender<()>,
}

/// Waits for changes of one group.
pub struct GroupChanges {
    core: Arc<Core>,
    group: GroupId,
    ring: watch::Receiver<()>,
}

impl GroupChanges {
    pub(crate) fn new(core: Arc<Core>, group: GroupId) -> Self {
        let ring = {
            let mut bells = core.bells.lock();
            // Under the lock: whoever publishes a later image rings afterwards.
            let seen = group_in(&core.image.borrow(), &group);
            let hang = || Bell { waiting: 0, seen, ring: watch::Sender::new(()) };
            let bell = bells.entry(group.clone()).or_insert_with(hang);
            bell.waiting += 1;
            bell.ring.subscribe()
        };
        Self { core, group, ring }
    }

    /// Waits until the group changed in more than its offsets since this was made or last returned. The image shows it
    /// then; it may also have changed back.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn changed(&mut self) {
        if self.ring.changed().await.is_err() {
            // Unreachable while this holds its place at the bell.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for GroupChanges {
    fn drop(&mut self) {
        let mut bells = self.core.bells.lock();
        if let Some(bell) = bells.get_mut(&self.group) {
            bell.waiting -= 1;
            if bell.waiting == 0 {
                bells.remove(&self.group);
            }
        }
    }
}

impl std::fmt::Debug for GroupChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupChanges({})", self.group)
    }
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Bell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, image: &MetadataImage) {
        for (id, bell) in self.lock().iter_mut() {
            let now = group_in(image, id);
            let same = match (&now, &bell.seen) {
                (Some(now), Some(seen)) => Arc::ptr_eq(now, seen),
                (None, None) => true,
                _ => false,
            };
            if !same {
                bell.seen = now;
                bell.ring.send_replace(());
            }
        }
    }
}

fn group_in(image: &MetadataImage, id: &GroupId) -> Option<Arc<Group>> {
    image.consumer_groups.get(id).map(|entry| entry.group.clone())
}

/// Rings until the token ends it.
pub(crate) async fn run(core: Arc<Core>, token: CancellationToken) {
    let mut images = MetadataMachine::watch_groups(&core.shared);
    loop {
        let image = images.borrow_and_update().clone();
        core.bells.ring(&image);
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}
