//! **Applied ≤ committed:** a replica applies what it was told to be committed and nothing else, each entry once and in
//! order.

use std::collections::BTreeMap;

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug, Default)]
pub(super) struct AppliedCommitted {
    /// Life and index of what each replica applied last.
    last: BTreeMap<GroupReplica, (u64, u64)>,
}

impl Invariant for AppliedCommitted {
    fn name(&self) -> &'static str {
        "applied-committed"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Applied { of, position, .. } => self.applies(logs, seen.life, *of, *position),
            ProbeEvent::Opened { of, applied: upto, .. } | ProbeEvent::Installed { of, upto, .. } => {
                match upto {
                    Some(upto) => self.last.insert(*of, (seen.life, upto.index)),
                    None => self.last.remove(of),
                };
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl AppliedCommitted {
    fn applies(
        &mut self,
        logs: &Logs,
        life: u64,
        of: GroupReplica,
        position: LogPosition,
    ) -> Result<(), String> {
        let before = self.last.insert(of, (life, position.index));
        if let Some((_, before)) = before.filter(|(known, _)| *known == life)
            && before + 1 != position.index
        {
            return Err(format!("{of} applies {position} after index {before}"));
        }
        let log = logs.log(of);
        let committed = log.and_then(|log| log.committed);
        if committed.is_none_or(|upto| upto.index < position.index) {
            return Err(format!("{of} applies {position} and knows {committed:?} to be committed"));
        }
        let other = log.and_then(|log| log.memory.get(&position.index));
        match other.filter(|slot| slot.term != position.term) {
            None => Ok(()),
            Some(slot) => {
                Err(format!("{of} applies {position}, its log holds {}.{}", slot.term, position.index))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    fn applied(position: (u64, u64)) -> ProbeEvent {
        Story::applied(1, position, 0)
    }

    fn story() -> Story {
        let mut story = Story::of(AppliedCommitted::default());
        for index in 1..=3 {
            story.holds(1, Story::appended(1, (1, index), 7));
        }
        story.holds(1, Story::committed(1, (1, 2)));
        story
    }

    #[test]
    fn applying_what_is_not_committed_is_found() {
        let mut story = story();
        story.holds(1, applied((1, 1)));
        story.holds(1, applied((1, 2)));
        story.breaks(1, applied((1, 3)), "applies 1.3 and knows");
    }

    #[test]
    fn applying_twice_or_with_a_gap_is_found() {
        let mut story = story();
        story.holds(1, applied((1, 1)));
        story.breaks(1, applied((1, 1)), "after index 1");
        let mut story = self::story();
        story.holds(1, ProbeEvent::Opened { of: Story::replica(1), applied: None, end: 0 });
        story.holds(1, applied((1, 2)));
    }

    #[test]
    fn applying_another_entry_than_the_one_in_the_log_is_found() {
        story().breaks(1, applied((2, 1)), "its log holds 1.1");
    }
}
