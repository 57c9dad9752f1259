//! What the verbs for many have in common: `--rate`, not faster than an operator said, and `--since`.

use super::Failed;
use crate::task::span;
use chrono::{SecondsFormat, Utc};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// `--since` as the API takes it: a moment, the same for every page.
pub fn moment(since: Option<&str>) -> Result<Option<String>, Failed> {
    let Some(text) = since else { return Ok(None) };
    let at = span::since(text, Utc::now()).map_err(|why| Failed::usage(format!("--since is {text:?}: {why}")))?;
    Ok(Some(at.to_rfc3339_opts(SecondsFormat::Micros, true)))
}

/// So many per second, minute or hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// From one to the next.
    every: Duration,
}

impl Rate {
    /// The time from one to the next.
    pub fn every(self) -> Duration {
        self.every
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let read = |text: &str| {
            let (number, unit) = text.split_once('/')?;
            let period = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            };
            let number: u32 = number.parse().ok().filter(|n| (1..=1_000_000).contains(n))?;
            Some(Rate { every: Duration::from_secs(period) / number })
        };
        read(text).ok_or_else(|| "expected a number from 1 to 1,000,000 per s, m or h, such as 50/s".to_owned())
    }
}

/// Keeps to a rate.
pub struct Pace {
    rate: Option<Rate>,
    next: Option<Instant>,
}

impl Pace {
    /// `None`: as fast as it goes.
    pub fn new(rate: Option<Rate>) -> Pace {
        Pace { rate, next: None }
    }

    /// Until the next may go; the first goes at once. What was late is not caught up on.
    pub async fn wait(&mut self) {
        let Some(Rate { every }) = self.rate else { return };
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        self.next = Some(Instant::now() + every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_per_unit() {
        assert_eq!("50/s".parse(), Ok(Rate { every: Duration::from_millis(20) }));
        assert_eq!("30/m".parse(), Ok(Rate { every: Duration::from_secs(2) }));
        for bad in ["1000001/s", "", "50", "0/s", "50/d", "-1/s", "fast", "1/s/s"] {
            let told = bad.parse::<Rate>().unwrap_err();
            assert!(told.contains("50/s") && told.contains("1,000,000"), "{bad}: {told}");
        }
    }

    #[tokio::test]
    async fn a_pace_is_kept_from_the_second_on() {
        let (mut pace, start) = (Pace::new("100/s".parse().ok()), Instant::now());
        for _ in 0..5 {
            pace.wait().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
    }
}
