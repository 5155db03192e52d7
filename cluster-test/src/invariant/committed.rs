//! **Committed is immutable:** two replicas never hold different entries to be committed at one index, and a committed
//! entry is never removed but by a purge.

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug)]
pub(super) struct CommittedImmutable;

impl Invariant for CommittedImmutable {
    fn name(&self) -> &'static str {
        "committed-immutable"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Wal(WalEvent::Committed { of, upto }) => agrees(logs, *of, *upto),
            ProbeEvent::Wal(WalEvent::Truncated { of, from }) => keeps(logs, *of, *from),
            _ => Ok(()),
        }
    }
}

fn agrees(logs: &Logs, of: GroupReplica, upto: LogPosition) -> Result<(), String> {
    let Some(log) = logs.log(of) else { return Ok(()) };
    if log.memory.get(&upto.index).is_some_and(|slot| slot.term != upto.term) {
        return Err(format!("{of} is told that {upto} is committed and holds another entry there"));
    }
    let Some(group) = logs.groups.get(&of.group) else { return Ok(()) };
    let new = log.committed.map_or(0, |known| known.index)..=upto.index;
    if new.is_empty() {
        return Ok(());
    }
    for (index, slot) in log.memory.range(new) {
        let Some(known) = group.committed.get(index).filter(|known| known.term != slot.term) else {
            continue;
        };
        return Err(format!(
            "{of} holds {}.{index} to be committed, another replica {}.{index}",
            slot.term, known.term
        ));
    }
    Ok(())
}

fn keeps(logs: &Logs, of: GroupReplica, from: u64) -> Result<(), String> {
    let (Some(log), Some(group)) = (logs.log(of), logs.groups.get(&of.group)) else { return Ok(()) };
    let removed = log
        .memory
        .range(from..)
        .find(|(index, slot)| group.committed.get(index).is_some_and(|known| known.term == slot.term));
    match removed {
        None => Ok(()),
        Some((index, slot)) => Err(format!("{of} removes the committed entry {}.{index}", slot.term)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    #[test]
    fn two_committed_entries_at_one_index_are_found() {
        let mut story = Story::of(CommittedImmutable);
        story.holds(1, Story::appended(1, (1, 1), 7));
        story.holds(1, Story::committed(1, (1, 1)));
        story.holds(2, Story::appended(2, (2, 1), 8));
        story.breaks(2, Story::committed(2, (2, 1)), "holds 2.1 to be committed, another replica 1.1");
    }

    #[test]
    fn removing_a_committed_entry_is_found() {
        let mut story = Story::of(CommittedImmutable);
        story.holds(1, Story::appended(1, (1, 1), 7));
        story.holds(1, Story::appended(1, (1, 2), 8));
        story.holds(1, Story::committed(1, (1, 1)));
        let cut = |from| ProbeEvent::Wal(WalEvent::Truncated { of: Story::replica(1), from });
        story.holds(1, cut(2));
        story.breaks(1, cut(1), "removes the committed entry 1.1");
    }

    #[test]
    fn a_commit_of_another_entry_than_the_one_there_is_found() {
        let mut story = Story::of(CommittedImmutable);
        story.holds(1, Story::appended(1, (1, 1), 7));
        story.breaks(1, Story::committed(1, (2, 1)), "holds another entry there");
    }
}
