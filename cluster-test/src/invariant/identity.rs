//! **Replica ids and deletions:** a replica id is used once, and a replica that votes is not deleted (I4, I11).

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug)]
pub(super) struct ReplicaIdentity;

impl Invariant for ReplicaIdentity {
    fn name(&self) -> &'static str {
        "replica-identity"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            // On a rotten disk a creation may look like a write that a power cut interrupted.
            ProbeEvent::Wal(WalEvent::Created { of }) if seen.sound => match logs.log(*of) {
                None => Ok(()),
                Some(log) => Err(format!("the id of {of} was used before, on broker {}", log.broker)),
            },
            ProbeEvent::Wal(WalEvent::Deleted { of }) if is_voter(logs, *of) => {
                Err(format!("{of} is deleted while it votes"))
            }
            _ => Ok(()),
        }
    }
}

/// True if the last committed membership of its group names the replica, which is well.
fn is_voter(logs: &Logs, of: GroupReplica) -> bool {
    let (Some(log), Some(group)) = (logs.log(of), logs.groups.get(&of.group)) else { return false };
    let committed =
        |(index, term): &(u64, u64)| group.committed.get(index).is_some_and(|entry| entry.term == *term);
    let last = group.members.iter().rev().find(|(at, _)| committed(at));
    let votes = last.is_some_and(|(_, voters)| voters.iter().any(|set| set.contains(&of.replica)));
    votes && !log.damaged
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    #[test]
    fn an_id_that_is_used_again_is_found() {
        let mut story = Story::of(ReplicaIdentity);
        let created = |replica| ProbeEvent::Wal(WalEvent::Created { of: Story::replica(replica) });
        story.holds(1, created(1));
        story.holds(2, created(2));
        story.wiped(1);
        story.breaks(1, created(1), "was used before, on broker 1");
    }

    #[test]
    fn the_deletion_of_a_voter_is_found() {
        let mut story = Story::of(ReplicaIdentity);
        let deleted = |replica| ProbeEvent::Wal(WalEvent::Deleted { of: Story::replica(replica) });
        story.holds(1, Story::members(1, (1, 1), &[1, 2]));
        story.holds(1, Story::committed(1, (1, 1)));
        story.holds(3, Story::appended(3, (1, 1), 1));
        story.holds(3, deleted(3));
        story.holds(2, Story::appended(2, (1, 1), 1));
        story.breaks(2, deleted(2), "is deleted while it votes");
    }
}
