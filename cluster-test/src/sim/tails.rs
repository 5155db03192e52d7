//! The ends of all logs, for the moments that no single event shows.

use std::collections::BTreeMap;

use broker::runtime::ProbeEvent;
use raft_store::{GroupReplica, LogPosition, WalEvent};

use super::moment::Moment;

/// The end of one log.
#[derive(Debug, Default)]
struct Tail {
    /// Index of the last entry.
    last: u64,
    cut: Option<Cut>,
}

/// Entries were removed, and no other is durable in their place.
#[derive(Debug)]
struct Cut {
    /// Last index removed.
    last: u64,
    /// The first entry after it, once it is appended.
    next: Option<LogPosition>,
}

/// The ends of all logs. Cheap: a few numbers a replica.
#[derive(Debug, Default)]
pub(super) struct Tails(BTreeMap<GroupReplica, Tail>);

impl Tails {
    /// Takes an event in; the moment that it is together with those before it, if it is one.
    pub(super) fn moment(&mut self, event: &ProbeEvent) -> Option<Moment> {
        let ProbeEvent::Wal(event) = event else { return None };
        match event {
            WalEvent::Recovered { of, entries, .. } => {
                let last = entries.iter().map(|entry| entry.position.index).max().unwrap_or(0);
                self.0.insert(*of, Tail { last, cut: None });
                None
            }
            WalEvent::Appended { of, position, .. } => {
                let tail = self.0.entry(*of).or_default();
                tail.last = position.index;
                if let Some(cut) = tail.cut.as_mut() {
                    cut.next.get_or_insert(*position);
                }
                None
            }
            WalEvent::Truncated { of, from } => {
                let tail = self.0.entry(*of).or_default();
                // One removal after the other: what the first removed is on the disk still.
                let last = tail.cut.as_ref().map_or(tail.last, |cut| cut.last.max(tail.last));
                *tail = Tail { last: from.saturating_sub(1), cut: Some(Cut { last, next: None }) };
                None
            }
            WalEvent::EntryDurable { of, position, .. } => {
                let tail = self.0.get_mut(of)?;
                let cut = tail.cut.take_if(|cut| cut.next == Some(*position))?;
                Some(if tail.last < cut.last { Moment::Shortened } else { Moment::Overwritten })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: GroupReplica = GroupReplica { group: 1, replica: 1 };

    fn appended(tails: &mut Tails, term: u64, index: u64) {
        let position = LogPosition { term, index };
        let event = WalEvent::Appended { of: OF, position, digest: 0, voters: None };
        assert_eq!(tails.moment(&ProbeEvent::Wal(event)), None);
    }

    fn durable(tails: &mut Tails, term: u64, index: u64) -> Option<Moment> {
        let position = LogPosition { term, index };
        let event = WalEvent::EntryDurable { of: OF, position, digest: 0, file: 1, relocated: false };
        tails.moment(&ProbeEvent::Wal(event))
    }

    #[test]
    fn a_log_that_is_shorter_than_it_was_is_told_from_one_that_was_overwritten() {
        for (entries, moment) in [(1, Moment::Shortened), (2, Moment::Overwritten)] {
            let mut tails = Tails::default();
            (1..=4).for_each(|index| appended(&mut tails, 1, index));
            assert_eq!(tails.moment(&ProbeEvent::Wal(WalEvent::Truncated { of: OF, from: 3 })), None);
            (3..3 + entries).for_each(|index| appended(&mut tails, 2, index));
            // A removed entry that is written late is none of them.
            assert_eq!(durable(&mut tails, 1, 3), None);
            assert_eq!(durable(&mut tails, 2, 3), Some(moment));
            assert_eq!(durable(&mut tails, 2, 4), None);
        }
    }
}
