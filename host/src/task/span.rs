//! Durations and moments as people type them.

use chrono::{DateTime, Utc};
use std::time::Duration;

/// What [`since`] takes, for error messages.
pub const SINCE: &str = "a time such as 2026-01-01T00:00:00Z or a duration such as 1h (s, m, h, d)";

/// `90s`, `30m`, `1h`, `7d`.
pub fn duration(text: &str) -> Option<Duration> {
    let seconds = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    // `+7` is a number to the parser, and no duration.
    let number: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// A time in RFC 3339, or so long before `now`.
pub fn since(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match duration(text) {
        Some(ago) => now.checked_sub_signed(chrono::TimeDelta::from_std(ago).ok()?),
        None => DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc)),
    }
    .filter(|at| (1..=9999).contains(&chrono::Datelike::year(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for bad in ["", "h", "1", "1w", "-1h", "+1h", "1.5h", "1 h", "99999999999999999999d", "9999999999999999d", "é"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn since_is_a_time_or_a_duration_before_now() {
        let now: DateTime<Utc> = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(since("1d", now), Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(since("2026-01-01T01:00:00+01:00", now), Some("2026-01-01T00:00:00Z".parse().unwrap()));
        for bad in ["yesterday", "2026-01-01", "99999999d"] {
            assert_eq!(since(bad, now), None, "{bad}");
        }
    }
}
