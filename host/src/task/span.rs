//! Durations and moments as people type them.

use super::instant;
use chrono::{DateTime, Utc};
use std::time::Duration;

/// A duration for error messages.
const DURATION: &str = "a duration such as 1h (s, m, h, d)";

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

/// Seconds as a number or as a duration: `90`, `90s`, `2m`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let seconds = number.or_else(|| duration(text).map(|duration| duration.as_secs()));
    seconds.ok_or_else(|| format!("expected a number of seconds such as 90, or {DURATION}"))
}

/// A time, or so long before `now`. The error says what is wrong and what is expected.
pub fn since(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    match duration(text.trim()) {
        Some(ago) => chrono::TimeDelta::from_std(ago)
            .ok()
            .and_then(|ago| now.checked_sub_signed(ago))
            .filter(|at| (1..=9999).contains(&chrono::Datelike::year(at)))
            .ok_or_else(|| "it is before the year 1".into()),
        None => instant::read(text).map_err(|why| format!("{why}, or {DURATION}")),
    }
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
        for text in ["1d", "2026-01-01T01:00:00+01:00", "2026-01-01 00:00:00z"] {
            assert_eq!(since(text, now), Ok("2026-01-01T00:00:00Z".parse().unwrap()), "{text}");
        }
        for (bad, says) in [
            ("yesterday", "a duration such as 1h"),
            ("2026-01-01", "the offset from UTC are missing"),
            ("2026-01-01T00:00:00", "offset from UTC is missing"),
            ("99999999d", "before the year 1"),
        ] {
            let why = since(bad, now).unwrap_err();
            assert!(why.contains(says), "{bad}: {why}");
        }
    }

    #[test]
    fn seconds_are_a_number_or_a_duration() {
        for (text, expected) in [("90", 90), ("90s", 90), ("2m", 120), ("0", 0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "-1", "+1", "1.5", "1.5h", "1 m", "soon", "99999999999999999999"] {
            assert!(seconds(bad).unwrap_err().contains("such as 90"), "{bad}");
        }
    }
}
