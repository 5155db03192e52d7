//! **Election safety:** one leader a term, one vote a term, and nobody leads in a term that began in an earlier life
//! (I2, I9).

use std::collections::BTreeMap;

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug, Default)]
pub(super) struct ElectionSafety {
    /// By group and term.
    leaders: BTreeMap<(u64, u64), u64>,
    /// Whom each replica gave its vote, by term.
    votes: BTreeMap<(GroupReplica, u64), u64>,
    /// The life in which a replica led, by term.
    lives: BTreeMap<(GroupReplica, u64), u64>,
}

impl ElectionSafety {
    fn leads(&mut self, group: u64, term: u64, leader: u64) -> Result<(), String> {
        let first = *self.leaders.entry((group, term)).or_insert(leader);
        if first == leader {
            return Ok(());
        }
        Err(format!("replicas {first} and {leader} of group {group} both lead in term {term}"))
    }
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election-safety"
    }

    fn see(&mut self, _: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            // Term 0 is the initial membership, which nobody was elected to write.
            ProbeEvent::Wal(WalEvent::Vote { of, vote }) if vote.committed && vote.leader_id.term > 0 => {
                self.leads(of.group, vote.leader_id.term, vote.leader_id.voted_for)
            }
            ProbeEvent::Leads { of, term } if *term > 0 => {
                let life = *self.lives.entry((*of, *term)).or_insert(seen.life);
                if life != seen.life {
                    return Err(format!("{of} leads in term {term} as it did before its restart"));
                }
                self.leads(of.group, *term, of.replica)
            }
            ProbeEvent::Voted { of, vote } => {
                let (term, candidate) = (vote.leader_id.term, vote.leader_id.voted_for);
                let first = *self.votes.entry((*of, term)).or_insert(candidate);
                if first == candidate {
                    return Ok(());
                }
                Err(format!("{of} gave its vote of term {term} to {first} and to {candidate}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, vote};
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut story = Story::of(ElectionSafety::default());
        story.holds(1, ProbeEvent::Leads { of: Story::replica(1), term: 2 });
        story.holds(2, ProbeEvent::Leads { of: Story::replica(2), term: 3 });
        story.breaks(2, ProbeEvent::Leads { of: Story::replica(2), term: 2 }, "both lead in term 2");
    }

    #[test]
    fn a_follower_that_follows_another_leader_of_the_term_is_found() {
        let mut story = Story::of(ElectionSafety::default());
        let follows = |leader| WalEvent::Vote { of: Story::replica(3), vote: vote(2, leader, true) };
        story.holds(1, ProbeEvent::Leads { of: Story::replica(1), term: 2 });
        story.holds(3, ProbeEvent::Wal(follows(1)));
        story.breaks(3, ProbeEvent::Wal(follows(2)), "both lead in term 2");
    }

    #[test]
    fn a_second_vote_in_one_term_is_found() {
        let mut story = Story::of(ElectionSafety::default());
        let voted = |to| ProbeEvent::Voted { of: Story::replica(3), vote: vote(2, to, false) };
        story.holds(3, voted(1));
        story.holds(3, voted(1));
        story.breaks(3, voted(2), "gave its vote of term 2 to 1 and to 2");
    }

    #[test]
    fn leading_on_after_a_restart_is_found() {
        let mut story = Story::of(ElectionSafety::default());
        let leads = |term| ProbeEvent::Leads { of: Story::replica(1), term };
        story.holds(1, leads(2));
        story.restart();
        story.holds(1, leads(3));
        story.breaks(1, leads(2), "as it did before its restart");
    }
}
