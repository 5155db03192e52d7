//! How many bytes of WAL may be outstanding: written and not yet released, or about to be written.
//!
//! Proposers and peer links take a permit before they bring new bytes in, and hold it until the bytes stand in the WAL's
//! queue; from then on the WAL counts them itself, until the file that holds them is released. Votes and entries of
//! openraft take none: the reserve is theirs (a group that waited for room to vote would be stuck).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Bound on outstanding WAL bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Free bytes. Fair: waiters are served in order.
    free: Semaphore,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    /// Bytes that permits and the WAL may hold together.
    limit: usize,
    /// Bytes of WAL files that are not released.
    used: u64,
    /// Bytes taken that were not free: paid back before anyone gets more.
    debt: usize,
}

/// Bytes taken from a [`ByteBudget`]; dropping it gives them back.
#[derive(Debug)]
pub struct BudgetPermit {
    bytes: usize,
    inner: Arc<Inner>,
}

impl ByteBudget {
    pub(crate) fn new(limit: u64) -> Self {
        let limit = clamp(limit);
        let ledger = Ledger { limit, used: 0, debt: 0 };
        Self { inner: Arc::new(Inner { free: Semaphore::new(limit), ledger: Mutex::new(ledger) }) }
    }

    /// Waits until `bytes` may be brought in. More than the whole budget is cut down to it: it must not wait for ever.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub async fn acquire(&self, bytes: u64) -> BudgetPermit {
        let bytes = self.cut(bytes);
        // The semaphore is never closed, so an error cannot come; a permit of nothing would be the right answer to one.
        match self.inner.free.acquire_many(count(bytes)).await {
            Ok(permit) => permit.forget(),
            Err(_) => return BudgetPermit { bytes: 0, inner: Arc::clone(&self.inner) },
        }
        BudgetPermit { bytes, inner: Arc::clone(&self.inner) }
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_acquire(&self, bytes: u64) -> Option<BudgetPermit> {
        let bytes = self.cut(bytes);
        self.inner.free.try_acquire_many(count(bytes)).ok()?.forget();
        Some(BudgetPermit { bytes, inner: Arc::clone(&self.inner) })
    }

    /// Bytes that could be taken now.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.inner.free.available_permits() as u64
    }

    /// Bytes of WAL files that are not released.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.inner.lock().used
    }

    /// The WAL wrote `bytes`, whether there was room or not.
    pub(crate) fn wrote(&self, bytes: u64) {
        let mut ledger = self.inner.lock();
        ledger.used += bytes;
        self.inner.take(&mut ledger, clamp(bytes));
    }

    /// The WAL released `bytes`.
    pub(crate) fn released(&self, bytes: u64) {
        let mut ledger = self.inner.lock();
        ledger.used = ledger.used.saturating_sub(bytes);
        self.inner.give(&mut ledger, clamp(bytes));
    }

    /// Changes the bound: smaller when the disk has no room for more files.
    pub(crate) fn set_limit(&self, limit: u64) {
        let limit = clamp(limit);
        let mut ledger = self.inner.lock();
        let old = std::mem::replace(&mut ledger.limit, limit);
        if limit >= old {
            self.inner.give(&mut ledger, limit - old);
        } else {
            self.inner.take(&mut ledger, old - limit);
        }
    }

    fn cut(&self, bytes: u64) -> usize {
        // A bound of nothing must refuse and not wave everyone through.
        clamp(bytes).min(self.inner.lock().limit.max(1))
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, ledger: &mut Ledger, bytes: usize) {
        ledger.debt += bytes - self.free.forget_permits(bytes);
    }

    fn give(&self, ledger: &mut Ledger, bytes: usize) {
        let paid = bytes.min(ledger.debt);
        ledger.debt -= paid;
        self.free.add_permits(bytes - paid);
    }
}

impl BudgetPermit {
    /// Bytes of this permit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        let mut ledger = self.inner.lock();
        self.inner.give(&mut ledger, self.bytes);
    }
}

/// Bytes as a semaphore can count them: 1 TiB is more than any WAL.
fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes.min(1 << 40)).unwrap_or(usize::MAX >> 4)
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_dropped_permit_gives_its_bytes_back() {
        let budget = ByteBudget::new(100);
        let permit = budget.try_acquire(60).unwrap();
        assert!(budget.try_acquire(60).is_none());
        drop(permit);
        assert!(budget.try_acquire(60).is_some());
    }

    #[test]
    fn written_bytes_count_until_they_are_released() {
        let budget = ByteBudget::new(100);
        budget.wrote(70);
        assert_eq!((budget.available(), budget.outstanding()), (30, 70));
        budget.wrote(70);
        assert!(budget.try_acquire(1).is_none());
        budget.released(70);
        assert_eq!((budget.available(), budget.outstanding()), (30, 70));
    }

    #[test]
    fn a_waiter_gets_its_bytes_when_a_file_is_released() {
        let budget = ByteBudget::new(100);
        budget.wrote(100);
        let mut waiting = Box::pin(budget.acquire(10));
        assert!((&mut waiting).now_or_never().is_none());
        budget.released(100);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_smaller_limit_refuses_and_a_larger_one_allows_again() {
        let budget = ByteBudget::new(100);
        budget.wrote(40);
        budget.set_limit(40);
        assert!(budget.try_acquire(1).is_none());
        budget.set_limit(0);
        assert!(budget.try_acquire(1).is_none());
        budget.set_limit(100);
        assert_eq!(budget.available(), 60);
    }

    #[test]
    fn more_than_the_whole_budget_waits_for_all_of_it() {
        let budget = ByteBudget::new(100);
        assert_eq!(budget.try_acquire(1000).map(|permit| permit.bytes()), Some(100));
    }
}
