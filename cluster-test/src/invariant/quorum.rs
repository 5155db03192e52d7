//! **Committed by a quorum:** an entry is told to be committed only when it is on the disks of a majority of voters (I1).

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition, WalEvent};

use super::logs::{GroupLog, Log, Logs, Voters};
use super::{Invariant, Sighting};

#[derive(Debug)]
pub(super) struct CommittedByQuorum;

impl Invariant for CommittedByQuorum {
    fn name(&self) -> &'static str {
        "committed-by-quorum"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        let ProbeEvent::Wal(WalEvent::Committed { of, upto }) = seen.event else { return Ok(()) };
        let (Some(log), Some(group)) = (logs.log(*of), logs.groups.get(&of.group)) else { return Ok(()) };
        let known = group.committed.last_key_value().is_some_and(|(index, _)| *index >= upto.index);
        // Memberships were told when they were appended; without one nothing can be said.
        let mut memberships = in_force(group, log, upto.index).peekable();
        if known || memberships.peek().is_none() {
            return Ok(());
        }
        if memberships.any(|voters| is_held(logs, of.group, voters, *upto)) {
            return Ok(());
        }
        let holders: Vec<u64> = holders(logs, of.group, *upto).collect();
        Err(format!("{of} is told that {upto} is committed, which only {holders:?} have on disk"))
    }
}

/// The memberships under which the leader may have counted: the last one up to the index, and those after it.
fn in_force<'a>(group: &'a GroupLog, log: &'a Log, index: u64) -> impl Iterator<Item = &'a Voters> {
    let there = |((index, term), voters): (&(u64, u64), &'a Voters)| {
        log.reads(LogPosition { term: *term, index: *index }).then_some(voters)
    };
    let before = group.members.range(..=(index, u64::MAX)).rev().find_map(there);
    let after = group.members.range((index, u64::MAX)..).filter_map(there);
    before.into_iter().chain(after)
}

fn is_held(logs: &Logs, group: u64, voters: &Voters, upto: LogPosition) -> bool {
    let holders: Vec<u64> = holders(logs, group, upto).collect();
    voters.iter().all(|set| set.iter().filter(|voter| holders.contains(voter)).count() > set.len() / 2)
}

fn holders(logs: &Logs, group: u64, upto: LogPosition) -> impl Iterator<Item = u64> {
    let all = GroupReplica { group, replica: 0 }..=GroupReplica { group, replica: u64::MAX };
    logs.logs.range(all).filter(move |(_, log)| log.holds(upto)).map(|(of, _)| of.replica)
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    #[test]
    fn a_commit_that_one_of_three_has_on_disk_is_found() {
        let mut story = Story::of(CommittedByQuorum);
        for replica in 1..=3 {
            let broker = u32::try_from(replica).unwrap();
            story.holds(broker, Story::members(replica, (1, 1), &[1, 2, 3]));
            story.holds(broker, Story::durable(replica, (1, 1), 1));
            story.holds(broker, Story::appended(replica, (1, 2), 7));
        }
        story.holds(1, Story::committed(1, (1, 1)));
        story.holds(1, Story::durable(1, (1, 2), 7));
        story.breaks(1, Story::committed(1, (1, 2)), "which only [1] have on disk");
    }

    #[test]
    fn a_commit_that_two_of_three_have_on_disk_is_fine() {
        let mut story = Story::of(CommittedByQuorum);
        for replica in 1..=2 {
            let broker = u32::try_from(replica).unwrap();
            story.holds(broker, Story::members(replica, (1, 1), &[1, 2, 3]));
            story.holds(broker, Story::durable(replica, (1, 1), 1));
        }
        story.holds(3, Story::members(3, (1, 1), &[1, 2, 3]));
        story.holds(3, Story::committed(3, (1, 1)));
    }
}
