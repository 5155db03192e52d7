//! **Log matching:** two entries with one index and term are the same, and so are all before them.

use std::collections::BTreeMap;

use broker::runtime::ProbeEvent;
use raft_store::{LogPosition, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug, Default)]
pub(super) struct LogMatching {
    /// Digest and predecessor, by group and position.
    entries: BTreeMap<(u64, LogPosition), (u32, Option<LogPosition>)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log-matching"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        let ProbeEvent::Wal(WalEvent::Appended { of, position, digest, .. }) = seen.event else {
            return Ok(());
        };
        let before = logs.log(*of).and_then(|log| log.last());
        let (known, known_before) = *self.entries.entry((of.group, *position)).or_insert((*digest, before));
        if known != *digest {
            return Err(format!("{of} appends entry {position} with other bytes than another replica"));
        }
        match (before, known_before) {
            (Some(before), Some(known)) if before != known => {
                Err(format!("{of} appends entry {position} after {before}, another replica after {known}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    #[test]
    fn other_bytes_at_one_position_are_found() {
        let mut story = Story::of(LogMatching::default());
        story.holds(1, Story::appended(1, (2, 1), 7));
        story.holds(2, Story::appended(2, (2, 1), 7));
        story.breaks(3, Story::appended(3, (2, 1), 8), "with other bytes");
    }

    #[test]
    fn another_predecessor_is_found() {
        let mut story = Story::of(LogMatching::default());
        story.holds(1, Story::appended(1, (1, 1), 5));
        story.holds(1, Story::appended(1, (3, 2), 7));
        story.holds(2, Story::appended(2, (2, 1), 6));
        story.breaks(2, Story::appended(2, (3, 2), 7), "after 2.1, another replica after 1.1");
    }
}
