//! **Replicas are identical:** the bytes at an offset are the same on every replica and in every life, and so is the end
//! of the log after an entry (I6, I8).

use std::collections::BTreeMap;

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug, Default)]
pub(super) struct ReplicasIdentical {
    groups: BTreeMap<u64, Partition>,
}

/// One partition as whoever told first has it.
#[derive(Debug, Default)]
struct Partition {
    /// End and digest of each batch, by its first offset.
    batches: BTreeMap<u64, (u64, u32)>,
    /// End of the log after each entry, by Raft index.
    ends: BTreeMap<u64, u64>,
}

impl Invariant for ReplicasIdentical {
    fn name(&self) -> &'static str {
        "replicas-identical"
    }

    fn see(&mut self, _: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            // What rots on one disk is found by whoever reads it; it says nothing about the others.
            ProbeEvent::Stored { read_back: true, .. } if !seen.sound => Ok(()),
            ProbeEvent::Stored { of, base, next, digest, .. } => {
                let batches = &mut self.groups.entry(of.group).or_default().batches;
                compare(batches, *of, *base..*next, *digest)
            }
            ProbeEvent::Applied { of, position, end }
            | ProbeEvent::Opened { of, applied: Some(position), end }
            | ProbeEvent::Installed { of, upto: Some(position), end } => {
                let ends = &mut self.groups.entry(of.group).or_default().ends;
                same_end(ends, *of, *position, *end)
            }
            _ => Ok(()),
        }
    }
}

fn compare(
    batches: &mut BTreeMap<u64, (u64, u32)>,
    of: GroupReplica,
    offsets: std::ops::Range<u64>,
    digest: u32,
) -> Result<(), String> {
    let (base, next) = (offsets.start, offsets.end);
    if let Some(known) = batches.get(&base) {
        if *known == (next, digest) {
            return Ok(());
        }
        return Err(format!("{of} has other bytes from offset {base} on than another replica or life"));
    }
    let before = batches.range(..base).next_back().filter(|(_, (end, _))| *end > base);
    let after = batches.range(base..).next().filter(|(start, _)| **start < next);
    if let Some((other, (end, _))) = before.or(after) {
        return Err(format!("{of} has a batch at {base}..{next}, another replica or life at {other}..{end}"));
    }
    batches.insert(base, (next, digest));
    Ok(())
}

fn same_end(
    ends: &mut BTreeMap<u64, u64>,
    of: GroupReplica,
    position: LogPosition,
    end: u64,
) -> Result<(), String> {
    let known = *ends.entry(position.index).or_insert(end);
    if known == end {
        return Ok(());
    }
    Err(format!("the log of {of} ends at {end} after entry {position}, elsewhere or before at {known}"))
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    fn stored(replica: u64, offsets: std::ops::Range<u64>, digest: u32) -> ProbeEvent {
        let (base, next) = (offsets.start, offsets.end);
        ProbeEvent::Stored { of: Story::replica(replica), base, next, digest, read_back: false }
    }

    #[test]
    fn other_bytes_on_another_replica_are_found() {
        let mut story = Story::of(ReplicasIdentical::default());
        story.holds(1, stored(1, 0..5, 7));
        story.holds(2, stored(2, 0..5, 7));
        story.breaks(3, stored(3, 0..5, 8), "other bytes from offset 0");
    }

    #[test]
    fn batches_that_overlap_are_found() {
        let mut story = Story::of(ReplicasIdentical::default());
        story.holds(1, stored(1, 5..9, 7));
        story.holds(1, stored(1, 0..5, 6));
        story.breaks(2, stored(2, 8..12, 7), "at 8..12, another replica or life at 5..9");
        story.breaks(2, stored(2, 4..5, 7), "another replica or life at 0..5");
    }

    #[test]
    fn another_end_after_one_entry_is_found() {
        let mut story = Story::of(ReplicasIdentical::default());
        story.holds(1, Story::applied(1, (1, 4), 9));
        story.holds(2, Story::applied(2, (1, 4), 9));
        let opened = |end| {
            let applied = Some(LogPosition { term: 1, index: 4 });
            ProbeEvent::Opened { of: Story::replica(1), applied, end }
        };
        story.holds(1, opened(9));
        story.breaks(1, opened(12), "ends at 12 after entry 1.4");
    }
}
