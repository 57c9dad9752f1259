//! How the time between the request to end and the exit is divided.

use std::time::Duration;

/// Least time in all: what is interrupted has to be recorded.
const LEAST: Duration = Duration::from_secs(3);
/// The most that is kept for what comes after the guests.
const KEPT: Duration = Duration::from_secs(5);

/// Times from the first signal on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Running guests are interrupted.
    pub guests: Duration,
    /// What is not recorded and acknowledged by then is given up: it is in the spool, or delivered again.
    pub records: Duration,
    /// The process ends.
    pub whole: Duration,
}

impl Grace {
    /// Divides `shutdown.grace_seconds`: half of it, at most [`KEPT`], is for recording and closing.
    pub fn of(grace: Duration) -> Grace {
        let whole = grace.max(LEAST);
        let kept = (whole / 2).min(KEPT);
        Grace { guests: whole - kept, records: whole - kept * 2 / 5, whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_the_whole_time_and_guests_end_before_it() {
        for (grace, guests, records, whole) in [
            (25, 20_000, 23_000, 25_000),
            (600, 595_000, 598_000, 600_000),
            (1, 1_500, 2_400, 3_000),
            (0, 1_500, 2_400, 3_000),
        ] {
            let [guests, records, whole] = [guests, records, whole].map(Duration::from_millis);
            assert_eq!(Grace::of(Duration::from_secs(grace)), Grace { guests, records, whole });
        }
    }
}
