//! The keyed state: a store that holds every entity under its own key, with the entry up to which it is applied.
//!
//! It only saves time at a restart. It is never the only copy of anything: on any doubt it is emptied and written again
//! from the snapshot and the log (I7 holds because value and applied index go in one batch).

use std::sync::{Mutex, PoisonError};

use raft_store::{KeyedState, LogPosition};

use super::codec::DecodeError;
use super::stored::Applied;

/// Changed values that may wait for their write.
const PUT_OFF_MAX: usize = 1024;

/// A keyed store that may fail without harm: it is left alone from then on, until the next start.
pub(crate) struct Keyed {
    /// The lock is never contended; it makes the machine shareable, as openraft asks.
    store: Mutex<Option<Box<dyn KeyedState>>>,
}

impl Keyed {
    pub(crate) fn new(store: Box<dyn KeyedState>) -> Self {
        Self { store: Mutex::new(Some(store)) }
    }

    /// No store at all.
    pub(crate) fn without() -> Self {
        Self { store: Mutex::new(None) }
    }

    /// The state as of the store, `None` if it holds none or none that can be trusted.
    pub(crate) fn load(&mut self) -> Option<Applied> {
        let loaded = self.store().as_mut()?.load();
        match loaded {
            Ok(None) => None,
            Ok(Some((applied, pairs))) => match Applied::from_pairs(applied, &pairs) {
                Ok(state) => Some(state),
                Err(error) => {
                    Self::doubt(&error);
                    None
                }
            },
            Err(error) => {
                tracing::warn!(error = %error, "keyed state cannot be read, it is built again from snapshot and log");
                None
            }
        }
    }

    fn store(&mut self) -> &mut Option<Box<dyn KeyedState>> {
        self.store.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(error: &DecodeError) {
        tracing::warn!(error = %error, "keyed state is not consistent, it is built again from snapshot and log");
    }

    /// Puts off writing what changed, as long as it is little: only a store that was closed is trusted again, and
    /// commits change the same few values a hundred times a second.
    pub(crate) fn put_off(&mut self, applied: &mut Applied) {
        if applied.state.dirty_count() >= PUT_OFF_MAX {
            self.apply(applied);
        }
    }

    /// Writes what changed since the last write, with the applied entry, in one batch.
    pub(crate) fn apply(&mut self, applied: &mut Applied) {
        let dirty = applied.state.take_dirty();
        let Some(last) = applied.last else { return };
        self.write(applied, &dirty, last);
    }

    /// Empties the store and writes everything.
    pub(crate) fn rewrite(&mut self, applied: &mut Applied) {
        let Some(store) = self.store().as_mut() else { return };
        if let Err(error) = store.reset() {
            self.give_up(&error);
            return;
        }
        applied.state.take_dirty();
        if let Some(last) = applied.last {
            let all = applied.state.entities();
            self.write(applied, &all, last);
        }
    }

    /// Marks the store as whole, so that the next start trusts it.
    pub(crate) fn close(&mut self) {
        if let Some(mut store) = self.store().take()
            && let Err(error) = store.close_clean()
        {
            tracing::warn!(error = %error, "keyed state was not closed, the next start builds it again");
        }
    }

    fn write(
        &mut self,
        applied: &Applied,
        entities: &std::collections::BTreeSet<super::state::Entity>,
        last: LogPosition,
    ) {
        let Some(store) = self.store().as_mut() else { return };
        let written = match applied.writes(entities) {
            Ok(writes) => store.apply(last, writes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &dyn std::fmt::Display) {
        tracing::error!(error = %error, "keyed state fails; it is built again at the next start");
        // Dropped without a clean close: the next start does not trust it.
        *self.store() = None;
    }
}
