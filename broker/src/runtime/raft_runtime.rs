//! openraft's runtime is ours: tasks have an owner, randomness has a seed, time is tokio's.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::OptionalSend;
use openraft::impls::TokioRuntime;
use rand::TryRng;
use tokio::task::JoinHandle;

use super::Tasks;
use super::tasks::panic_message;

/// The runtime that every Raft group runs on. Channels are tokio's; tasks belong to the [`Tasks`] scope in which the
/// group was opened; random numbers come from this thread's seeded stream.
#[derive(Debug)]
pub struct RaftRuntime(TokioRuntime);

/// A point of tokio's monotonic time, which a paused runtime drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TickInstant(tokio::time::Instant);

impl Add<Duration> for TickInstant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0 + rhs)
    }
}

impl AddAssign<Duration> for TickInstant {
    fn add_assign(&mut self, rhs: Duration) {
        self.0 += rhs;
    }
}

impl Sub<Duration> for TickInstant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0 - rhs)
    }
}

impl SubAssign<Duration> for TickInstant {
    fn sub_assign(&mut self, rhs: Duration) {
        self.0 -= rhs;
    }
}

impl Sub for TickInstant {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        self.0.saturating_duration_since(rhs.0)
    }
}

impl openraft::Instant for TickInstant {
    fn now() -> Self {
        Self(tokio::time::Instant::now())
    }
}

/// Why a task of a Raft group gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RaftTaskError {
    /// The group's scope was killed.
    #[error("the task was aborted")]
    Aborted,
    /// The task panicked; the broker is stopping.
    #[error("the task panicked: {0}")]
    Panicked(String),
}

/// Handle of a task that openraft spawned.
pub struct RaftTask<T>(JoinHandle<Result<T, String>>);

impl<T> Future for RaftTask<T> {
    type Output = Result<T, RaftTaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|joined| match joined {
            Ok(result) => result.map_err(RaftTaskError::Panicked),
            Err(error) => Err(error.try_into_panic().map_or(RaftTaskError::Aborted, |panic| {
                RaftTaskError::Panicked(panic_message(panic.as_ref()))
            })),
        })
    }
}

impl<T> fmt::Debug for RaftTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RaftTask")
    }
}

thread_local! {
    static RAFT_STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Fixes the random numbers that openraft draws on this thread (election timeouts, jitter); a simulation calls it
/// before it starts a broker.
pub fn set_raft_seed(seed: u64) {
    RAFT_STATE.with(|state| state.set(Some(seed)));
}

/// This thread's stream for openraft.
#[derive(Debug, Clone, Copy)]
pub struct RaftRng(());

impl RaftRng {
    /// SplitMix64 (Steele, Lea, Flood 2014): enough for election timeouts, and its state is one word.
    fn next(self) -> u64 {
        RAFT_STATE.with(|cell| {
            let state = cell.get().unwrap_or_else(entropy).wrapping_add(0x9E37_79B9_7F4A_7C15);
            cell.set(Some(state));
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        })
    }
}

/// First state of a thread that nobody seeded. Raft's safety does not rest on it.
fn entropy() -> u64 {
    let mut system = rand::rngs::SysRng;
    system.try_next_u64().unwrap_or(0x5EED)
}

impl TryRng for RaftRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let high = self.next() >> 32;
        Ok(u32::try_from(high).unwrap_or(u32::MAX))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            let len = chunk.len();
            chunk.copy_from_slice(&word[..len]);
        }
        Ok(())
    }
}

impl AsyncRuntime for RaftRuntime {
    type JoinError = RaftTaskError;
    type JoinHandle<T: OptionalSend + 'static> = RaftTask<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TickInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = RaftRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        RaftTask(match Tasks::current() {
            Some(owner) => owner.spawn_owned("raft", future),
            // Outside any scope: openraft's own test suites.
            None => TokioRuntime::spawn(async move { Ok(future.await) }),
        })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline.0, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        matches!(join_error, RaftTaskError::Panicked(_))
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        RaftRng(())
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::{AsyncRuntime, RaftRuntime, set_raft_seed};

    #[test]
    fn one_seed_gives_openraft_one_stream() {
        let draw = || -> [u64; 3] { std::array::from_fn(|_| RaftRuntime::thread_rng().next_u64()) };
        set_raft_seed(5);
        let first = draw();
        set_raft_seed(5);
        assert_eq!(first, draw());
    }

    #[test]
    fn openraft_s_runtime_suite_passes() {
        openraft::testing::runtime::Suite::<RaftRuntime>::test_all();
    }
}
