//! How long to wait before a server is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Who was well for so long begins anew.
const WELL: Duration = Duration::from_secs(60);
/// Up to this share of the wait is added by chance, so that those who fell together do not rise together.
const JITTER: f64 = 0.25;

/// Waits that double from one failure to the next.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after another failure of a server that was well for `up`; `chance` is from 0 to 1.
    pub(super) fn after(&mut self, up: Duration, chance: f64) -> Duration {
        if up >= WELL {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_a_minute_and_begins_anew_after_a_minute_of_health() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..40).map(|_| backoff.after(Duration::from_secs(59), 0.0).as_secs()).collect();
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
        assert_eq!(backoff.after(WELL, 0.0), FIRST);
    }

    #[test]
    fn chance_adds_a_quarter_and_never_passes_the_longest() {
        assert_eq!(Backoff::default().after(Duration::ZERO, 1.0), Duration::from_millis(1_250));
        assert_eq!(Backoff { failures: 9 }.after(Duration::ZERO, 1.0), LONGEST);
    }
}
