//! The shape of a load: how many tasks, and when each is meant to be sent.

use super::super::Failed;
use super::super::pace::Rate;
use super::clean::QUIET;
use super::numbers;
use std::str::FromStr;
use std::time::Duration;

/// The most tasks of one run: all of their times are held in memory.
const MOST: u64 = 5_000_000;

/// A duration such as 500ms, 30s, 2m or 1h.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => Duration::ZERO,
        };
        let number: Option<u32> = digits.parse().ok().filter(|n| (1..=1_000_000).contains(n));
        let duration = number.map(|number| unit * number).filter(|duration| !duration.is_zero());
        duration
            .map(Seconds)
            .ok_or_else(|| "expected a whole number from 1 to 1,000,000 and a unit: 500ms, 30s, 2m or 1h".to_owned())
    }
}

/// Which tasks are sent when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All at once, as fast as they are accepted.
    Flood {
        /// How many.
        tasks: u64,
    },
    /// At fixed intervals, whatever becomes of those before (an open loop).
    Rate {
        /// How many in all.
        tasks: u64,
        /// From one to the next.
        every: Duration,
    },
}

impl Shape {
    /// A rate for a time.
    pub fn rate(rate: Rate, duration: Duration) -> Result<Shape, Failed> {
        if rate.every() >= QUIET {
            let seconds = QUIET.as_secs();
            return Err(Failed::usage(format!(
                "--rate sends a task every {} s; send more often than every {seconds} s, after which --clean takes a run to be over",
                rate.every().as_secs_f64()
            )));
        }
        let tasks = duration.as_nanos() / rate.every().as_nanos().max(1);
        match u64::try_from(tasks) {
            Ok(0) => Err(Failed::usage("--rate and --for result in no task; use a longer --for or a higher --rate")),
            Ok(tasks) if tasks <= MOST => Ok(Shape::Rate { tasks, every: rate.every() }),
            _ => Err(Failed::usage(format!(
                "--rate and --for result in {tasks} tasks; at most {MOST} are allowed, so use a shorter --for or a lower --rate"
            ))),
        }
    }

    /// How many tasks in all.
    pub fn tasks(self) -> u64 {
        match self {
            Shape::Flood { tasks } | Shape::Rate { tasks, .. } => tasks,
        }
    }

    /// When the task of this number is meant to be sent, from the start; `None`: as soon as possible.
    pub fn intended(self, number: u64) -> Option<Duration> {
        match self {
            Shape::Flood { .. } => None,
            // Multiplied in nanoseconds, so that no error adds up.
            Shape::Rate { every, .. } => {
                let nanos = every.as_nanos() * u128::from(number);
                Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            }
        }
    }

    /// For a person.
    pub fn describe(self) -> String {
        match self {
            Shape::Flood { tasks } => format!("{} at once", numbers::tasks(tasks)),
            Shape::Rate { tasks, every } => {
                format!("{} at {}", numbers::tasks(tasks), numbers::rate(1.0 / every.as_secs_f64()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_takes_a_unit() {
        assert_eq!("500ms".parse(), Ok(Seconds(Duration::from_millis(500))));
        assert_eq!("2m".parse(), Ok(Seconds(Duration::from_secs(120))));
        for bad in ["", "30", "0s", "s", "-1s", "1d", "1.5s", "1000001s"] {
            let error = bad.parse::<Seconds>().unwrap_err();
            assert!(error.contains("30s") && error.contains("1,000,000"), "{bad}: {error}");
        }
    }

    #[test]
    fn intended_times_are_equidistant_and_do_not_drift() {
        let shape = Shape::rate("300/s".parse().unwrap(), Duration::from_secs(10)).unwrap();
        assert_eq!((shape.tasks(), shape.describe().as_str()), (3_000, "3000 tasks at 300/s"));
        let every = shape.intended(1).unwrap();
        assert_eq!(shape.intended(0), Some(Duration::ZERO));
        assert_eq!(shape.intended(2_999), Some(every * 2_999));
        assert_eq!(Shape::Flood { tasks: 5 }.intended(3), None);
    }

    #[test]
    fn a_slow_rate_is_not_shown_as_zero() {
        let shape = Shape::rate("15/m".parse().unwrap(), Duration::from_secs(60)).unwrap();
        assert_eq!(shape.describe(), "15 tasks at 0.25/s");
    }

    #[test]
    fn a_rate_that_yields_no_task_or_too_many_is_rejected() {
        let rate = |rate: &str, seconds| Shape::rate(rate.parse().unwrap(), Duration::from_secs(seconds));
        assert!(rate("1/s", 0).unwrap_err().message.contains("no task"));
        assert!(rate("12/m", 60).unwrap_err().message.contains("--clean takes a run to be over"));
        assert!(rate("1000000/s", 3_600).unwrap_err().message.contains("5000000"));
    }
}
