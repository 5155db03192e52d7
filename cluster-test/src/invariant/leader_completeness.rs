//! **Leader completeness:** whoever is elected has every entry that was committed in an earlier term.

use broker::runtime::ProbeEvent;
use raft_store::{LogPosition, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug)]
pub(super) struct LeaderCompleteness;

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader-completeness"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        let ProbeEvent::Wal(WalEvent::Vote { of, vote }) = seen.event else { return Ok(()) };
        let elected = vote.committed && vote.leader_id.voted_for == of.replica;
        let (Some(log), Some(group)) = (logs.log(*of), logs.groups.get(&of.group)) else { return Ok(()) };
        if !elected {
            return Ok(());
        }
        let term = vote.leader_id.term;
        let missing = group.committed.iter().rev().find(|(index, entry)| {
            entry.in_term < term && !log.reads(LogPosition { term: entry.term, index: **index })
        });
        match missing {
            None => Ok(()),
            Some((index, entry)) => Err(format!(
                "{of} is elected in term {term} without entry {}.{index}, which was committed in term {}",
                entry.term, entry.in_term
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, vote};
    use super::*;

    fn elected(replica: u64, term: u64) -> ProbeEvent {
        let vote = vote(term, replica, true);
        ProbeEvent::Wal(WalEvent::Vote { of: Story::replica(replica), vote })
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_found() {
        let mut story = Story::of(LeaderCompleteness);
        story.holds(1, elected(1, 1));
        for replica in [1, 2] {
            story.holds(u32::try_from(replica).unwrap(), Story::appended(replica, (1, 1), 7));
        }
        story.holds(1, Story::committed(1, (1, 1)));
        story.holds(2, elected(2, 2));
        story.holds(3, ProbeEvent::Wal(WalEvent::Created { of: Story::replica(3) }));
        story.breaks(3, elected(3, 3), "without entry 1.1");
    }

    #[test]
    fn an_election_of_an_older_term_that_is_told_late_is_fine() {
        let mut story = Story::of(LeaderCompleteness);
        story.holds(1, elected(1, 5));
        story.holds(1, Story::appended(1, (5, 1), 7));
        story.holds(1, Story::committed(1, (5, 1)));
        story.holds(3, elected(3, 4));
    }
}
