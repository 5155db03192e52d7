//! Which leader epoch wrote which offsets.

use wire::ids::{LeaderEpoch, Offset};

use crate::LogError;

/// One epoch and where it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// First offset written under it.
    pub start: Offset,
}

/// The epochs of a partition in order; neither epochs nor offsets go back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// From entries that must rise strictly in both fields.
    #[must_use]
    pub fn from_entries(entries: Vec<EpochStart>) -> Option<Self> {
        let rises = |pair: &[EpochStart]| match pair {
            [a, b] => a.epoch < b.epoch && a.start < b.start,
            _ => true,
        };
        entries.windows(2).all(rises).then_some(Self { entries })
    }

    /// The epochs, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The epoch of the last append.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch under which the record at `offset` was written, if it is still known.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        self.entries.get(after.checked_sub(1)?).map(|entry| entry.epoch)
    }

    /// The largest known epoch that is not above `epoch`, and the offset after its last record; `end` is the log end.
    /// A client compares it with its own position to find where its history parts (KIP-101).
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let found = self.entries.get(after.checked_sub(1)?)?;
        Some((found.epoch, self.entries.get(after).map_or(end, |next| next.start)))
    }

    /// Notes that `start` is written under `epoch`. True if the epoch is new.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> Result<bool, LogError> {
        match self.latest() {
            Some(current) if current == epoch => Ok(false),
            Some(current) if current > epoch => Err(LogError::StaleEpoch { epoch, current }),
            _ => {
                self.entries.push(EpochStart { epoch, start });
                Ok(true)
            }
        }
    }

    /// Forgets epochs that ended at or below the log start. The one in force there and the latest stay.
    pub(crate) fn trim(&mut self, log_start: Offset) {
        let covering = self.entries.partition_point(|entry| entry.start <= log_start).saturating_sub(1);
        self.entries.drain(..covering);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(u32, u64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for &(epoch, start) in entries {
            assert!(epochs.assign(LeaderEpoch(epoch), Offset(start)).unwrap());
        }
        epochs
    }

    #[test]
    fn an_offset_belongs_to_the_epoch_begun_at_or_before_it() {
        let epochs = epochs(&[(2, 10), (5, 20)]);
        let found: Vec<_> = [9, 10, 19, 20, 99].map(|at| epochs.epoch_at(Offset(at)).map(|e| e.0)).to_vec();
        assert_eq!(found, [None, Some(2), Some(2), Some(5), Some(5)]);
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs(&[(2, 10), (5, 20)]);
        let end = |epoch| epochs.end_of(LeaderEpoch(epoch), Offset(30)).map(|(e, o)| (e.0, o.0));
        assert_eq!(
            [end(1), end(2), end(4), end(5), end(9)],
            [None, Some((2, 20)), Some((2, 20)), Some((5, 30)), Some((5, 30))]
        );
    }

    #[test]
    fn epochs_never_go_back() {
        let mut epochs = epochs(&[(5, 20)]);
        assert!(!epochs.assign(LeaderEpoch(5), Offset(30)).unwrap());
        assert!(matches!(epochs.assign(LeaderEpoch(4), Offset(30)), Err(LogError::StaleEpoch { .. })));
        let back = [(3, 9), (3, 10)].map(|(e, s)| EpochStart { epoch: LeaderEpoch(e), start: Offset(s) });
        assert_eq!(LeaderEpochs::from_entries(back.to_vec()), None);
    }

    #[test]
    fn trimming_keeps_the_epoch_in_force_at_the_log_start() {
        let mut trimmed = epochs(&[(2, 10), (5, 20), (6, 30)]);
        trimmed.trim(Offset(25));
        assert_eq!(trimmed, epochs(&[(5, 20), (6, 30)]));
        trimmed.trim(Offset(99));
        assert_eq!(trimmed, epochs(&[(6, 30)]));
    }
}
