//! Points in time, as producers write them.
//!
//! RFC 3339, and what clients write in its place where it has one meaning only. A time without an offset from UTC, and a number,
//! have several: they are rejected.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};
use serde::{Deserializer, de};
use std::fmt;

/// A time for error messages.
pub const EXAMPLE: &str = "2030-01-01T00:00:00Z";

/// Reads a time. The error says what is wrong with it and what is expected, and does not repeat the text.
pub fn read(text: &str) -> Result<DateTime<Utc>, String> {
    parse(text.trim()).map_err(|why| format!("{why}; expected for example {EXAMPLE:?}"))
}

fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.') && unsigned.len() != 8 {
        return Err("a number may count seconds or milliseconds".into());
    }
    let mut scan = Scan(text);
    let date = scan.date()?;
    if scan.0.is_empty() {
        return Err("the time of day and the offset from UTC are missing".into());
    }
    if !scan.eat(&['T', 't']) && !scan.eat(&[' ']) {
        return Err("it is not a time of RFC 3339".into());
    }
    let (days, time) = scan.time()?;
    let offset = scan.offset()?;
    let local = date
        .checked_add_days(Days::new(days))
        .and_then(|date| date.and_time(chrono::NaiveTime::MIN).checked_add_signed(time));
    let utc = local.and_then(|local| local.checked_sub_signed(offset)).map(|utc| utc.and_utc());
    utc.filter(|at| (1..=9999).contains(&at.year())).ok_or_else(|| "its year is not between 1 and 9999".into())
}

/// The rest of a text.
struct Scan<'a>(&'a str);

impl Scan<'_> {
    fn eat(&mut self, any: &[char]) -> bool {
        let rest = self.0.strip_prefix(any);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Exactly so many digits.
    fn digits(&mut self, n: usize) -> Option<u32> {
        let digits = self.0.get(..n).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        self.0 = &self.0[n..];
        digits.parse().ok()
    }

    fn date(&mut self) -> Result<NaiveDate, String> {
        let mut read = || {
            let year = self.digits(4)?;
            let dashed = self.eat(&['-']);
            let month = self.digits(2)?;
            if self.eat(&['-']) != dashed {
                return None;
            }
            Some((year, month, self.digits(2)?))
        };
        let (year, month, day) = read().ok_or("it is not a time of RFC 3339")?;
        NaiveDate::from_ymd_opt(year as i32, month, day).ok_or_else(|| "there is no such date".into())
    }

    /// Days, and the time since midnight. Second 60 is the next minute's first.
    fn time(&mut self) -> Result<(u64, TimeDelta), String> {
        let mut read = || {
            let hour = self.digits(2)?;
            let separated = self.eat(&[':']);
            let minute = self.digits(2)?;
            let second = match separated {
                true if self.eat(&[':']) => Some(self.digits(2)?),
                false if self.0.starts_with(|c: char| c.is_ascii_digit()) => Some(self.digits(2)?),
                _ => None,
            };
            let mut nanos = 0;
            if self.eat(&['.', ',']) {
                // Behind minutes it would be a fraction of a minute (ISO 8601), which RFC 3339 does not have.
                second?;
                let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
                // What is beyond nanoseconds is cut.
                let digits = self.0.get(..length.min(9)).filter(|digits| !digits.is_empty())?;
                nanos = format!("{digits:0<9}").parse().ok()?;
                self.0 = &self.0[length..];
            }
            Some((hour, minute, second.unwrap_or(0), nanos))
        };
        let (hour, minute, second, nanos) = read().ok_or("its time of day is not HH:MM:SS")?;
        let midnight = (hour, minute, second, nanos) == (24, 0, 0, 0);
        if minute > 59 || second > 60 || (hour > 23 && !midnight) {
            return Err("there is no such time of day".into());
        }
        let seconds = TimeDelta::seconds(i64::from((hour % 24) * 3_600 + minute * 60 + second));
        Ok((u64::from(midnight), seconds + TimeDelta::nanoseconds(nanos)))
    }

    /// The offset from UTC, and nothing after it but the name of a zone.
    fn offset(&mut self) -> Result<TimeDelta, String> {
        self.0 = self.0.trim_start();
        if self.0.is_empty() {
            return Err("its offset from UTC is missing".into());
        }
        let sign = match self.0.chars().next() {
            Some('+') => 1,
            Some('-' | '\u{2212}') => -1,
            _ => return self.universal().map(|()| TimeDelta::zero()),
        };
        self.eat(&['+', '-', '\u{2212}']);
        let mut read = || {
            let hours = self.digits(2)?;
            let minutes = if self.eat(&[':']) || !self.0.is_empty() && self.0.starts_with(|c: char| c.is_ascii_digit())
            {
                self.digits(2)?
            } else {
                0
            };
            (hours < 24 && minutes < 60).then_some((hours, minutes))
        };
        let (hours, minutes) = read().ok_or("its offset from UTC is not +HH:MM or -HH:MM")?;
        // Java adds the zone's name in brackets, Go adds it where it is UTC.
        let rest = self.0.trim();
        let is_zone = rest.is_empty()
            || (rest.starts_with('[') && rest.ends_with(']'))
            || ((hours, minutes) == (0, 0) && is_universal(rest));
        if !is_zone {
            return Err("there is text after its offset from UTC".into());
        }
        Ok(TimeDelta::minutes(sign * i64::from(hours * 60 + minutes)))
    }

    fn universal(&mut self) -> Result<(), String> {
        let rest = self.0.trim();
        let name = rest.split('[').next().unwrap_or_default().trim();
        let suffixed = rest.len() == name.len() || rest.ends_with(']');
        match suffixed && is_universal(name) {
            true => Ok(()),
            false => Err("its zone is not an offset from UTC such as Z or +02:00".into()),
        }
    }
}

fn is_universal(name: &str) -> bool {
    ["Z", "UTC", "GMT", "Etc/UTC"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Deserializes an optional time of the field `name`, which errors name.
pub(super) fn optional<'de, D: Deserializer<'de>>(
    name: &'static str,
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    struct Time(&'static str);
    impl Time {
        fn not<T, E: de::Error>(&self, what: impl fmt::Display) -> Result<T, E> {
            Err(E::custom(format_args!("{} is {what}; expected a time as text, for example {EXAMPLE:?}", self.0)))
        }
    }
    impl<'de> de::Visitor<'de> for Time {
        type Value = Option<DateTime<Utc>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a time such as {EXAMPLE:?}")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            read(text).map(Some).map_err(|why| E::custom(format_args!("{} is {text:?}: {why}", self.0)))
        }
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
            self.not(value)
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            self.not(format_args!("{value}, which may count seconds or milliseconds"))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
            self.not(format_args!("{value}, which may count seconds or milliseconds"))
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
            self.not(format_args!("{value}, which may count seconds or milliseconds"))
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            self.not("an array")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            self.not("an object")
        }
    }
    deserializer.deserialize_any(Time(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_meaning_is_read() {
        let at = |text: &str| read(text).unwrap_or_else(|why| panic!("{text}: {why}")).to_rfc3339();
        for text in [
            "2030-01-01T00:00:00Z",
            "2030-01-01t00:00:00z",
            "2030-01-01 00:00:00Z",
            "2030-01-01T00:00:00+00:00",
            "2030-01-01T00:00:00-00:00",
            "2030-01-01T00:00:00+0000",
            "2030-01-01T00:00:00+00",
            "2030-01-01 00:00:00+00",
            "2030-01-01T02:00:00+02:00",
            "2029-12-31T22:30:00\u{2212}01:30",
            "2030-01-01T00:00:00.000000000000000Z",
            "2030-01-01T00:00:00,000Z",
            "2030-01-01T00:00Z",
            "20300101T000000Z",
            "2029-12-31T24:00:00Z",
            "2029-12-31T23:59:60Z",
            "2030-01-01 00:00:00 UTC",
            "2030-01-01 00:00:00 +0000",
            "2030-01-01 00:00:00 +0000 UTC",
            "2030-01-01T01:00:00+01:00[Europe/Paris]",
            "2030-01-01T00:00:00Z[UTC]",
            " 2030-01-01T00:00:00Z\n",
        ] {
            assert_eq!(at(text), "2030-01-01T00:00:00+00:00", "{text}");
        }
        assert_eq!(at("2030-01-01T00:00:00.5Z"), "2030-01-01T00:00:00.500+00:00");
        assert_eq!(at("2030-01-01T00:00:00.1234567899999Z"), "2030-01-01T00:00:00.123456789+00:00");
    }

    #[test]
    fn what_has_several_is_rejected_with_what_is_missing_and_an_example() {
        for (text, says) in [
            ("2030-01-01T00:00:00", "offset from UTC is missing"),
            ("2030-01-01 00:00:00.123", "offset from UTC is missing"),
            ("2030-01-01", "time of day and the offset"),
            ("2030-01-01T00:00:00 Europe/Paris", "is not an offset"),
            ("2030-01-01T00:00:00[Europe/Paris]", "is not an offset"),
            ("2030-01-01T00:00:00 CET", "is not an offset"),
            ("2030-01-01T00:00:00+2", "+HH:MM"),
            ("2030-01-01T00:00:00+25:00", "+HH:MM"),
            ("2030-01-01T00:00:00Z and more", "is not an offset"),
            ("2030-01-01T00:00:00+02:00 or so", "text after"),
            ("1893456000", "seconds or milliseconds"),
            ("1893456000.5", "seconds or milliseconds"),
            ("2030-02-30T00:00:00Z", "no such date"),
            ("2030-01-01T25:00:00Z", "no such time"),
            ("2030-01-01Tnoon", "HH:MM:SS"),
            ("2030-01-01T00:30.5Z", "HH:MM:SS"),
            ("01/02/2030 00:00", "not a time"),
            ("tomorrow", "not a time"),
            ("", "not a time"),
            ("é", "not a time"),
            ("2030-01-01é", "not a time"),
            ("0000-01-01T00:00:00Z", "between 1 and 9999"),
            ("0001-01-01T00:00:00+01:00", "between 1 and 9999"),
            ("+12030-01-01T00:00:00Z", "not a time"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(says) && why.contains(EXAMPLE), "{text}: {why}");
        }
    }
}
