//! When a failed attempt is followed by another, and after how long.

use super::{Failure, FailureKind};
use std::time::Duration;

/// Attempts in all where neither the message nor the plugin says.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
/// Hosts that a task may lose before it runs in the isolation lane, in a child process of its own.
pub const SUSPECT_AFTER: u32 = 2;
/// Children that a task may kill, while their parent lives, before it is `failed(host_lost)`: one more than a machine that was
/// short of memory explains. Its own budget: attempts are for what the plugin did.
pub const MAX_CHILD_LOSSES: u32 = 2;

/// Whether a task that has lost so many hosts runs in the isolation lane.
pub fn is_suspect(host_losses: u32) -> bool {
    host_losses >= SUSPECT_AFTER
}

/// Exponential back-off with full jitter: a random time between nothing and `base * factor^(n-1)`, at most `max`.
/// (AWS Architecture Blog, "Exponential Backoff And Jitter": full jitter needs the fewest calls under contention.)
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// The longest first delay.
    pub base: Duration,
    /// Growth per burnt attempt.
    pub factor: f64,
    /// The longest delay ever, also of a guest's `after-ms` and of a snooze.
    pub max: Duration,
    /// Which kinds are retried; `None`: [`retried_by_default`].
    pub on: Option<Vec<FailureKind>>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            base: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(3600),
            on: None,
        }
    }
}

impl RetryPolicy {
    /// Whether a kind is retried, attempts permitting.
    pub fn retries(&self, kind: FailureKind) -> bool {
        match &self.on {
            Some(kinds) => kinds.contains(&kind),
            None => retried_by_default(kind),
        }
    }

    /// How long to wait after `burnt` attempts (from 1). `jitter` is uniform in 0..1; `at_least` is what the guest asked.
    pub fn delay(&self, burnt: u32, jitter: f64, at_least: Option<Duration>) -> Duration {
        let steps = f64::from(burnt.saturating_sub(1).min(64));
        let ceiling = (self.base.as_secs_f64() * self.factor.max(1.0).powf(steps)).min(self.max.as_secs_f64());
        let drawn = Duration::from_secs_f64((ceiling * jitter.clamp(0.0, 1.0)).max(0.0));
        drawn.max(at_least.unwrap_or_default()).min(self.max)
    }
}

/// Kinds that are retried unless a policy says otherwise, as in `host/docs/failures.md`. `plugin_error` is decided by the
/// guest (`retry` or `permanent`), so the worker marks the permanent one itself.
pub fn retried_by_default(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::PluginError | FailureKind::Trap | FailureKind::Timeout | FailureKind::Internal)
}

/// What follows a failure: `Some(delay)`, or `None` when this was the end.
pub fn after_failure(
    failure: &Failure,
    policy: &RetryPolicy,
    burnt: u32,
    max_attempts: u32,
    jitter: f64,
    at_least: Option<Duration>,
) -> Option<Duration> {
    (failure.retryable && burnt < max_attempts).then(|| policy.delay(burnt, jitter, at_least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_and_stops_at_the_longest_delay() {
        let policy = RetryPolicy { max: Duration::from_secs(5), ..RetryPolicy::default() };
        let ceilings: Vec<_> = (1..=5).map(|n| policy.delay(n, 1.0, None).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 5, 5]);
        assert_eq!(policy.delay(u32::MAX, 1.0, None), Duration::from_secs(5));
    }

    #[test]
    fn the_jitter_is_full() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(3, 0.0, None), Duration::ZERO);
        assert_eq!(policy.delay(3, 0.5, None), Duration::from_secs(2));
    }

    #[test]
    fn a_guest_may_ask_for_longer_but_not_beyond_the_policy() {
        let policy = RetryPolicy { max: Duration::from_secs(10), ..RetryPolicy::default() };
        assert_eq!(policy.delay(1, 0.0, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(policy.delay(1, 0.0, Some(Duration::from_secs(70))), Duration::from_secs(10));
    }

    #[test]
    fn the_last_attempt_is_followed_by_none() {
        let failure = Failure { retryable: true, ..Failure::fatal(FailureKind::Trap, "x") };
        let policy = RetryPolicy::default();
        assert!(after_failure(&failure, &policy, 2, 3, 0.5, None).is_some());
        assert!(after_failure(&failure, &policy, 3, 3, 0.5, None).is_none());
        let fatal = Failure::fatal(FailureKind::CpuLimit, "x");
        assert!(after_failure(&fatal, &policy, 1, 3, 0.5, None).is_none());
    }

    #[test]
    fn a_policy_may_name_its_kinds() {
        let policy = RetryPolicy { on: Some(vec![FailureKind::CpuLimit]), ..RetryPolicy::default() };
        assert!(policy.retries(FailureKind::CpuLimit) && !policy.retries(FailureKind::Trap));
    }
}
