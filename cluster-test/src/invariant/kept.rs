//! **Durable is kept:** a restart finds every vote that was told or made durable and every durable entry, and nothing
//! that was removed before it; a replica on a sound disk never lacks anything (I2, I3, I4).

use std::collections::{BTreeMap, BTreeSet};

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition, RecoveredEntry, Vote, WalEvent};

use super::logs::{Log, Logs};
use super::{Invariant, Sighting};

/// On a disk whose bytes were destroyed, the end of the log looks like a write that the power cut interrupted. Only what
/// lies further back, in writes, must be missed.
const TAIL_WRITES: u64 = 6;

#[derive(Debug, Default)]
pub(super) struct DurableKept {
    /// Logs that recovery has told, by broker.
    recovered: BTreeMap<u32, BTreeSet<GroupReplica>>,
}

impl Invariant for DurableKept {
    fn name(&self) -> &'static str {
        "durable-kept"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Wal(event @ WalEvent::Recovered { of, .. }) => {
                self.recovered.entry(seen.broker).or_default().insert(*of);
                logs.log(*of).map_or(Ok(()), |log| recovered(logs, log, seen, event))
            }
            ProbeEvent::Wal(WalEvent::Opened) => {
                let found = self.recovered.remove(&seen.broker).unwrap_or_default();
                let gone = logs.on(seen.broker).find(|(of, _)| !found.contains(of));
                match gone.filter(|_| seen.sound) {
                    None => Ok(()),
                    Some((of, _)) => Err(format!("the log of {of} is not there after a restart")),
                }
            }
            ProbeEvent::Unfit { of, reason } if seen.sound => {
                Err(format!("{of} lacks durable data though its disk is sound: {reason}"))
            }
            _ => Ok(()),
        }
    }
}

fn recovered(logs: &Logs, log: &Log, seen: &Sighting<'_>, event: &WalEvent) -> Result<(), String> {
    let WalEvent::Recovered { of, vote, purged, committed, applied, damaged, entries } = event else {
        return Ok(());
    };
    if *damaged {
        return match seen.sound {
            true => Err(format!("the log of {of} counts as damaged though its disk is sound")),
            // It does not take part again.
            false => Ok(()),
        };
    }
    if log.damaged {
        return Ok(());
    }
    if seen.sound {
        vote_is_kept(log, *vote).map_err(|what| format!("{of} {what}"))?;
    }
    let writes = logs.brokers.get(&seen.broker).map_or(0, |broker| broker.writes);
    let old_enough = |write: u64| seen.sound || write + TAIL_WRITES <= writes;
    entries_are_kept(log, *purged, entries, seen.sound, old_enough).map_err(|what| format!("{of} {what}"))?;
    // A leader may know an entry to be committed that its own disk does not have yet; a restart forgets both.
    let had = log.disk.last_key_value().map(|(index, _)| *index).max(index(log.purged));
    let known = index(log.committed_durable).min(had);
    if seen.sound && index(*committed) < known {
        return Err(format!("{of} knew {known:?} to be committed, and after a restart {committed:?}"));
    }
    if seen.sound && index(*applied) < index(log.mark) && of.group != 0 {
        return Err(format!(
            "{of} had its files marked at {:?}, and after a restart at {applied:?}",
            log.mark
        ));
    }
    Ok(())
}

fn index(at: Option<LogPosition>) -> Option<u64> {
    at.map(|at| at.index)
}

fn vote_is_kept(log: &Log, found: Option<Vote>) -> Result<(), String> {
    let Some(promised) = log.promised.filter(|promised| promised.leader_id.term > 0) else { return Ok(()) };
    let kept = found.is_some_and(|found| {
        found.leader_id.term > promised.leader_id.term || found.leader_id == promised.leader_id
    });
    if kept { Ok(()) } else { Err(format!("had voted {promised}, and after a restart {found:?}")) }
}

fn entries_are_kept(
    log: &Log,
    purged: Option<LogPosition>,
    entries: &[RecoveredEntry],
    sound: bool,
    old_enough: impl Fn(u64) -> bool,
) -> Result<(), String> {
    // What is behind a checkpoint is found again if the checkpoint rotted and an older file still has it.
    let found_again = |entry: &RecoveredEntry| !sound && Some(entry.position) <= log.purged;
    if let Some(alien) = entries.iter().find(|entry| !log.may_find(entry) && !found_again(entry)) {
        return Err(format!("has {} again, which it had removed or never had", alien.position));
    }
    let found: BTreeMap<u64, u64> =
        entries.iter().map(|entry| (entry.position.index, entry.position.term)).collect();
    let first = purged.map_or(0, |purged| purged.index + 1);
    let lost = log.disk.range(first..).find(|(index, durable)| {
        let kept = found.get(index) == Some(&durable.slot.term);
        !kept && !log.in_doubt(**index) && old_enough(durable.write)
    });
    match lost {
        None => Ok(()),
        Some((index, durable)) => Err(format!("lost the durable entry {}.{index}", durable.slot.term)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{Story, recovered, vote};
    use super::*;

    fn story() -> Story {
        let mut story = Story::of(DurableKept::default());
        story.holds(1, ProbeEvent::Wal(WalEvent::Created { of: Story::replica(1) }));
        for index in 1..=2 {
            story.holds(1, Story::appended(1, (1, index), 7));
            story.holds(1, Story::durable(1, (1, index), 7));
        }
        story
    }

    #[test]
    fn a_lost_entry_is_found_and_one_that_was_never_durable_may_go() {
        let mut story = story();
        story.holds(1, Story::appended(1, (1, 3), 7));
        story.restart();
        story.holds(1, recovered(1, None, &[(1, 1, 7), (1, 2, 7)]));
        story.restart();
        story.breaks(1, recovered(1, None, &[(1, 1, 7)]), "lost the durable entry 1.2");
    }

    #[test]
    fn a_truncated_entry_that_comes_back_is_found() {
        let mut story = story();
        story.holds(1, ProbeEvent::Wal(WalEvent::Truncated { of: Story::replica(1), from: 1 }));
        story.holds(1, Story::appended(1, (2, 1), 8));
        story.holds(1, Story::durable(1, (2, 1), 8));
        story.restart();
        story.breaks(1, recovered(1, None, &[(2, 1, 8), (1, 2, 7)]), "has 1.2 again");
    }

    #[test]
    fn a_forgotten_vote_is_found() {
        let mut story = story();
        story.holds(1, ProbeEvent::Voted { of: Story::replica(1), vote: vote(4, 3, false) });
        story.restart();
        let entries = [(1, 1, 7), (1, 2, 7)];
        story.breaks(1, recovered(1, Some(vote(4, 2, false)), &entries), "had voted");
    }

    #[test]
    fn a_forgotten_commit_is_found_and_one_ahead_of_the_disk_is_not() {
        let committed = |index| WalEvent::CommittedDurable {
            of: Story::replica(1),
            upto: LogPosition { term: 1, index },
        };
        let entries = [(1, 1, 7), (1, 2, 7)];
        let mut story = story();
        story.holds(1, ProbeEvent::Wal(committed(2)));
        story.restart();
        story.breaks(1, recovered(1, None, &entries), "knew Some(2) to be committed");
        let mut story = Story::of(DurableKept::default());
        story.holds(1, Story::appended(1, (1, 1), 7));
        story.holds(1, ProbeEvent::Wal(committed(1)));
        story.restart();
        story.holds(1, recovered(1, None, &[]));
    }

    #[test]
    fn a_log_that_is_gone_is_found_and_an_emptied_disk_is_not() {
        let mut story = story();
        story.restart();
        story.breaks(1, ProbeEvent::Wal(WalEvent::Opened), "is not there after a restart");
        story.wiped(1);
        story.holds(1, ProbeEvent::Wal(WalEvent::Opened));
    }

    #[test]
    fn on_a_rotten_disk_only_what_lies_far_back_must_be_missed() {
        let mut story = story();
        story.rot();
        story.restart();
        story.holds(1, recovered(1, None, &[(1, 1, 7)]));
        let mut story = self::story();
        for index in 3..20 {
            story.holds(1, Story::appended(1, (1, index), 7));
            story.holds(1, Story::durable(1, (1, index), 7));
        }
        story.rot();
        story.restart();
        story.breaks(1, recovered(1, None, &[(1, 1, 7)]), "lost the durable entry 1.2");
    }

    #[test]
    fn what_was_purged_is_found_again_on_a_rotten_disk_only() {
        let all = || recovered(1, None, &[(1, 1, 7), (1, 2, 7)]);
        let restarted_behind_a_checkpoint = || {
            let mut found = recovered(1, None, &[(1, 2, 7)]);
            if let ProbeEvent::Wal(WalEvent::Recovered { purged, .. }) = &mut found {
                *purged = Some(LogPosition { term: 1, index: 1 });
            }
            let mut story = story();
            story.restart();
            story.holds(1, found);
            story
        };
        let mut story = restarted_behind_a_checkpoint();
        story.restart();
        story.breaks(1, all(), "has 1.1 again");
        let mut story = restarted_behind_a_checkpoint();
        story.rot();
        story.restart();
        story.holds(1, all());
    }

    #[test]
    fn an_unfit_replica_on_a_sound_disk_is_found() {
        let unfit = || ProbeEvent::Unfit { of: Story::replica(1), reason: "a segment is short".to_owned() };
        story().breaks(1, unfit(), "though its disk is sound");
        let mut story = story();
        story.rot();
        story.holds(1, unfit());
    }
}
