//! The reserve of a queue: deliveries in hand beyond those that can surely begin.
//!
//! With it a task that ends is followed at once by one that is here already. Where tasks take long it would hold deliveries that
//! another host could begin. So it goes as soon as a delivery of its queue waits for [`LONG`], and what it holds goes back. Each
//! return counts against the delivery limit of a quorum queue, so the reserve comes back only after there was room for a while,
//! and that while doubles.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A delivery that waits this long to begin could have begun on another host.
pub const LONG: Duration = Duration::from_secs(1);
/// Periods in a row with room for another guest after which the reserve comes back: at first, and at most.
const PAUSES: RangeInclusive<u32> = 20..=600;

/// Whether a queue has its reserve, judged period by period.
#[derive(Debug)]
pub struct Reserve {
    here: bool,
    /// Periods that it has been there, or that there has been room for it.
    periods: u32,
    /// Periods with room until it comes back.
    pause: u32,
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve { here: true, periods: 0, pause: *PAUSES.start() }
    }
}

impl Reserve {
    /// Looks at one period: whether a delivery waits for long, and whether a guest could begin. Returns whether the reserve is to
    /// be there.
    pub fn next(&mut self, waits: bool, room: bool) -> bool {
        let counts = self.here || (room && !waits);
        self.periods = if counts { self.periods.saturating_add(1) } else { 0 };
        if self.here && waits {
            (self.here, self.periods) = (false, 0);
        } else if self.here && self.periods >= self.pause {
            self.pause = *PAUSES.start();
        } else if !self.here && self.periods >= self.pause {
            (self.here, self.periods) = (true, 0);
            self.pause = (self.pause * 2).min(*PAUSES.end());
        }
        self.here
    }

    /// Whether the next period can be left out if nothing begins in it.
    pub fn is_quiet(&self) -> bool {
        self.here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_goes_when_a_delivery_waits_and_comes_back_after_room_for_a_while_that_doubles() {
        let mut reserve = Reserve::default();
        let mut pause = || {
            assert!(!reserve.next(true, false), "a delivery waits");
            (1..).find(|_| reserve.next(false, true)).unwrap()
        };
        assert_eq!([pause(), pause(), pause(), pause()], [20, 40, 80, 160]);
        let longest = (0..10).map(|_| pause()).last();
        assert_eq!(longest, Some(*PAUSES.end()));
    }

    #[test]
    fn a_reserve_that_stayed_comes_back_soon() {
        let mut reserve = Reserve::default();
        for _ in 0..5 {
            reserve.next(true, false);
            while !reserve.next(false, true) {}
        }
        (0..*PAUSES.end()).for_each(|_| assert!(reserve.next(false, false)));
        reserve.next(true, false);
        assert_eq!((1..).find(|_| reserve.next(false, true)), Some(*PAUSES.start()));
    }

    #[test]
    fn a_reserve_stays_away_while_a_delivery_waits_or_all_guests_run_on() {
        let mut reserve = Reserve::default();
        assert!((0..1_000).all(|_| !reserve.next(true, true)));
        assert!((0..1_000).all(|_| !reserve.next(false, false)));
        // A guest that ends is room for a moment.
        assert!((0..1_000).all(|n| !reserve.next(false, n % 10 == 0)));
    }
}
