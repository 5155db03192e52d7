//! The one retry policy: exponential backoff with jitter, inside a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::RetryConfig;
use crate::error::CallFailure;
use crate::random::Random;

/// Counts the attempts of one thing and says how long to wait before the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Attempts that failed so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Counts a failure. The wait doubles from `backoff_ms` to `backoff_max_ms`, is spread over its upper half so that
    /// many clients do not return in step, and is never shorter than the broker asked for.
    pub(crate) fn next(&mut self, config: &RetryConfig, random: &Random, retry_after_ms: u32) -> Duration {
        let doubled = u64::from(config.backoff_ms).saturating_mul(1 << self.attempts.min(20));
        let ceiling = doubled.min(u64::from(config.backoff_max_ms));
        self.attempts = self.attempts.saturating_add(1);
        let wait = ceiling - random.below(ceiling / 2 + 1);
        Duration::from_millis(wait.max(u64::from(retry_after_ms)))
    }
}

/// What may be repeated after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The call changes nothing: repeat it after any retriable failure.
    Always,
    /// The call changes something: repeat it only when it certainly had no effect.
    IfDefinite,
}

/// Runs `call` until it succeeds, fails for good, or the deadline passes.
pub(crate) async fn retry<T, F, Fut>(
    config: &RetryConfig,
    random: &Random,
    deadline: Instant,
    repeat: Repeat,
    mut call: F,
) -> Result<T, CallFailure>
where
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, CallFailure>>,
{
    let mut backoff = Backoff::default();
    loop {
        let failure = match call(backoff.attempts()).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let may_repeat = failure.definite || repeat == Repeat::Always;
        if !may_repeat || !failure.error.code.retriable() || backoff.attempts() >= config.retries {
            return Err(failure);
        }
        let wait = backoff.next(config, random, failure.error.retry_after_ms);
        if Instant::now() + wait >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_stays_between_half_and_all_of_its_ceiling(
            seed: u64, base in 1_u32..10_000, factor in 1_u32..1_000, tries in 0_u32..40, asked in 0_u32..5_000,
        ) {
            let config = RetryConfig { backoff_ms: base, backoff_max_ms: base.saturating_mul(factor), ..RetryConfig::default() };
            let random = Random::new(Some(seed));
            let mut backoff = Backoff { attempts: tries };
            let wait = backoff.next(&config, &random, asked).as_millis();
            let ceiling = u128::from(base).saturating_mul(1 << tries.min(20)).min(u128::from(config.backoff_max_ms));
            prop_assert!(wait <= ceiling.max(u128::from(asked)));
            prop_assert!(wait >= u128::from(asked));
            prop_assert!(wait >= ceiling / 2);
            prop_assert_eq!(backoff.attempts(), tries + 1);
        }
    }
}
