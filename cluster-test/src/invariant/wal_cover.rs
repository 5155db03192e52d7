//! **The write-ahead log is covered:** an entry is purged only behind a durable mark, and a file goes only when nothing in
//! it is needed by either of the two kept checkpoints (I7).

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition, WalEvent};

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug)]
pub(super) struct WalCovered;

impl Invariant for WalCovered {
    fn name(&self) -> &'static str {
        "wal-covered"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Wal(WalEvent::Purged { of, upto }) => purged(logs, *of, *upto),
            ProbeEvent::Wal(WalEvent::FileReleased { file }) => released(logs, seen.broker, *file),
            _ => Ok(()),
        }
    }
}

fn purged(logs: &Logs, of: GroupReplica, upto: LogPosition) -> Result<(), String> {
    let mark = logs.log(of).and_then(|log| log.mark);
    if mark.is_some_and(|mark| mark.index >= upto.index) {
        return Ok(());
    }
    Err(format!("{of} purges its log up to {upto}, its files are durable up to {mark:?}"))
}

fn released(logs: &Logs, broker: u32, file: u64) -> Result<(), String> {
    let kept = logs.brokers.get(&broker).map(|broker| &broker.kept);
    let oldest = kept.filter(|kept| kept.len() == 2).and_then(|kept| kept.front());
    for (of, log) in logs.on(broker).filter(|(_, log)| !log.damaged) {
        let gone = oldest.and_then(|purged| *purged.get(of)?).map_or(0, |purged| purged.index + 1);
        let needed = log.disk.range(gone..).find(|(index, at)| at.file == file && !log.in_doubt(**index));
        if let Some((index, at)) = needed {
            return Err(format!(
                "file {file} of the write-ahead log goes with entry {}.{index} of {of}, which a kept checkpoint needs",
                at.slot.term
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    fn story() -> Story {
        let mut story = Story::of(WalCovered);
        for index in 1..=3 {
            story.holds(1, Story::appended(1, (1, index), 7));
            story.holds(1, Story::durable(1, (1, index), 7));
        }
        story
    }

    fn purged(index: u64) -> ProbeEvent {
        let upto = LogPosition { term: 1, index };
        ProbeEvent::Wal(WalEvent::Purged { of: Story::replica(1), upto })
    }

    fn released() -> ProbeEvent {
        ProbeEvent::Wal(WalEvent::FileReleased { file: Story::FILE })
    }

    #[test]
    fn a_purge_beyond_the_mark_is_found() {
        let mut story = story();
        story.holds(1, Story::checkpoint(&[(1, (1, 2), None)]));
        story.holds(1, purged(2));
        story.breaks(1, purged(3), "durable up to Some(LogPosition { term: 1, index: 2 })");
    }

    #[test]
    fn a_snapshot_found_at_the_start_covers_a_purge() {
        let mut story = story();
        let upto = LogPosition { term: 1, index: 3 };
        story.breaks(1, purged(3), "durable up to None");
        story.holds(1, ProbeEvent::SnapshotFound { of: Story::replica(1), upto });
        story.holds(1, purged(3));
    }

    #[test]
    fn a_file_that_the_older_checkpoint_needs_is_found() {
        let mut story = story();
        story.holds(1, Story::checkpoint(&[(1, (1, 3), None)]));
        story.holds(1, purged(3));
        story.holds(1, Story::checkpoint(&[(1, (1, 3), Some((1, 3)))]));
        story.breaks(1, released(), "goes with entry 1.1");
        story.holds(1, Story::checkpoint(&[(1, (1, 3), Some((1, 3)))]));
        story.holds(1, released());
    }
}
