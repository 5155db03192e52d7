//! **In sync is near:** a leader counts a replica as in sync only while it is within the allowed lag.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition, WalEvent};

use super::logs::{Log, Logs};
use super::{Invariant, Sighting};

/// `replica.lag_max_ms` of simulated brokers.
pub const LAG_MAX: Duration = Duration::from_millis(2_000);
/// Between two looks of a leader at its followers, and for what it hears to arrive, with much to spare.
const SLACK: Duration = Duration::from_millis(2_000);

#[derive(Debug, Default)]
pub(super) struct InSyncNear {
    /// Since when a replica leads in a term.
    since: BTreeMap<GroupReplica, (u64, Duration)>,
    /// When a replica was deleted: its leader does not hear of it at once.
    deleted: BTreeMap<GroupReplica, Duration>,
}

impl Invariant for InSyncNear {
    fn name(&self) -> &'static str {
        "in-sync-near"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        if let ProbeEvent::Wal(WalEvent::Deleted { of }) = seen.event {
            self.deleted.insert(*of, seen.at);
        }
        let ProbeEvent::InSync { of, term, replicas } = seen.event else { return Ok(()) };
        let since = self.since.entry(*of).or_insert((*term, seen.at));
        if since.0 != *term {
            *since = (*term, seen.at);
        }
        // A new leader takes the word of the one before it for a while.
        let patience = LAG_MAX + SLACK;
        let Some(leader) = logs.log(*of).filter(|_| seen.at >= since.1 + patience) else { return Ok(()) };
        let Some(old) = entry_before(leader, seen.at - patience) else { return Ok(()) };
        for replica in replicas.iter().filter(|replica| **replica != of.replica) {
            let other = GroupReplica { group: of.group, replica: *replica };
            let just_gone = self.deleted.get(&other).is_some_and(|at| seen.at < *at + patience);
            if !just_gone && !logs.log(other).is_some_and(|log| log.holds(old)) {
                return Err(format!("{of} counts replica {replica} as in sync, which lacks {old} for long"));
            }
        }
        Ok(())
    }
}

/// The newest entry that was there at some time and still is.
fn entry_before(leader: &Log, at: Duration) -> Option<LogPosition> {
    let (index, slot) = leader.memory.iter().rev().find(|(_, slot)| slot.at <= at)?;
    Some(LogPosition { term: slot.term, index: *index })
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, recovered};
    use super::*;

    #[test]
    fn a_replica_that_lags_for_long_is_found() {
        let mut story = Story::of(InSyncNear::default());
        let told = || ProbeEvent::InSync { of: Story::replica(1), term: 1, replicas: [1, 2].into() };
        story.holds(1, told());
        story.holds(1, Story::appended(1, (1, 1), 7));
        story.wait(Duration::from_secs(3));
        story.holds(1, told());
        story.wait(Duration::from_secs(2));
        story.breaks(1, told(), "lacks 1.1 for long");
        story.holds(2, Story::appended(2, (1, 1), 7));
        story.holds(2, Story::durable(2, (1, 1), 7));
        story.holds(1, told());
    }

    #[test]
    fn what_its_own_files_hold_counts_though_its_log_is_empty_after_a_restart() {
        let mut story = Story::of(InSyncNear::default());
        let told = || ProbeEvent::InSync { of: Story::replica(1), term: 1, replicas: [1, 2].into() };
        story.holds(1, told());
        story.holds(1, Story::appended(1, (1, 1), 7));
        let mut found = recovered(2, None, &[]);
        if let ProbeEvent::Wal(WalEvent::Recovered { applied, .. }) = &mut found {
            *applied = Some(LogPosition { term: 1, index: 1 });
        }
        story.holds(2, found);
        story.wait(Duration::from_secs(5));
        story.holds(1, told());
    }

    #[test]
    fn a_deleted_replica_may_be_counted_for_a_moment_and_not_for_long() {
        let mut story = Story::of(InSyncNear::default());
        let told = || ProbeEvent::InSync { of: Story::replica(1), term: 1, replicas: [1, 2].into() };
        story.holds(1, told());
        story.holds(1, Story::appended(1, (1, 1), 7));
        story.holds(2, Story::appended(2, (1, 1), 7));
        story.holds(2, Story::durable(2, (1, 1), 7));
        story.wait(Duration::from_secs(5));
        story.holds(2, ProbeEvent::Wal(WalEvent::Deleted { of: Story::replica(2) }));
        story.holds(1, told());
        story.wait(Duration::from_secs(4));
        story.breaks(1, told(), "lacks 1.1 for long");
    }
}
