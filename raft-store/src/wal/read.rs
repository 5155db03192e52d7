//! Reading entries: from memory, else from the files.

use std::sync::Arc;

use bytes::Bytes;

use super::error::WalError;
use super::frame::FRAME_HEADER;
use super::group::{Found, Group, Place, Slot};
use super::{Shared, files::WalFiles};
use crate::entry;
use crate::types::{Entry, LogPosition, Payload};

impl Shared {
    /// Entries of `start..end` that the log has, up to `max_bytes` but at least one if there is one.
    ///
    /// The range is fixed in one step under the group's lock; entries that are not in memory are read afterwards. If
    /// such an entry was purged meanwhile, it and its predecessors are left out, as if the call had come later.
    pub(crate) async fn read(
        self: &Arc<Self>,
        group: &Arc<Group>,
        start: u64,
        end: u64,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, WalError> {
        let found = group.lock().find(start, end, max_bytes);
        if found.iter().all(|found| matches!(found, Found::Memory { .. })) {
            return Ok(found.into_iter().filter_map(in_memory).collect());
        }
        let (shared, group) = (Arc::clone(self), Arc::clone(group));
        self.io.run(move || shared.read_found(&group, found)).await
    }

    fn read_found(&self, group: &Group, found: Vec<Found>) -> Result<Vec<Entry>, WalError> {
        let mut entries = Vec::with_capacity(found.len());
        for one in found {
            match one {
                Found::Memory { index, term, payload } => entries.push(entry_of(index, term, payload)),
                Found::Disk { index, slot, place } => match read_slot(&self.files, &slot, place) {
                    Some(payload) => entries.push(entry_of(index, slot.term, payload)),
                    None => match self.read_again(group, index, &slot) {
                        Some(Ok(payload)) => entries.push(entry_of(index, slot.term, payload)),
                        Some(Err(error)) => return Err(error),
                        None => entries.clear(),
                    },
                },
            }
        }
        Ok(entries)
    }

    /// An entry could not be read where it stood: it was purged (`None`), relocated, or it is damaged.
    fn read_again(&self, group: &Group, index: u64, old: &Slot) -> Option<Result<Payload, WalError>> {
        let slot = group.lock().slot(index).filter(|slot| slot.ticket == old.ticket).cloned()?;
        let place = slot.place?;
        let damaged = WalError::DamagedEntry { group: group.group, index, file: place.file };
        Some(read_slot(&self.files, &slot, place).ok_or(damaged))
    }
}

/// Reads one body and checks it; `None` if it is not there any more or damaged.
fn read_slot(files: &WalFiles, slot: &Slot, place: Place) -> Option<Payload> {
    let mut body = vec![0; usize::try_from(slot.body_len).ok()?];
    files.read(place.file, place.offset + FRAME_HEADER as u64, &mut body).ok()?;
    if crc32c::crc32c(&body) != slot.body_crc {
        return None;
    }
    entry::decode_payload(slot.kind, Bytes::from(body)).ok()
}

fn in_memory(found: Found) -> Option<Entry> {
    match found {
        Found::Memory { index, term, payload } => Some(entry_of(index, term, payload)),
        Found::Disk { .. } => None,
    }
}

fn entry_of(index: u64, term: u64, payload: Payload) -> Entry {
    Entry { log_id: LogPosition { term, index }.log_id(), payload }
}
