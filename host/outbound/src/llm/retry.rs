//! When to try again.

use super::types::ChatError;
use http::HeaderMap;
use std::time::{Duration, SystemTime};

/// The first back-off is at most this; each further one at most twice the one before.
const FIRST: Duration = Duration::from_millis(500);
/// The longest back-off that is not the provider's wish.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait that a provider may ask for; a longer one is cut to it.
const LONGEST_ASKED: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What kept a request from its answer.
#[derive(Debug)]
pub(super) struct Setback {
    pub error: ChatError,
    /// The same request may do better: no answer has begun.
    pub may_retry: bool,
    /// When to come again, if the provider says so.
    pub after: Option<Duration>,
}

impl Setback {
    /// One after which nothing is tried again.
    pub fn last(error: ChatError) -> Setback {
        Setback { error, may_retry: false, after: None }
    }

    /// One after which the same may be tried again.
    pub fn passing(error: ChatError) -> Setback {
        Setback { error, may_retry: true, after: None }
    }
}

/// How long to wait after the n-th setback, from 0: any time up to a ceiling that doubles ("full jitter"), so that those who
/// failed together do not come back together. Never before the provider wants to be asked again.
pub(super) fn pause(n: u32, after: Option<Duration>) -> Duration {
    let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(n)).min(LONGEST);
    let jitter = ceiling.mul_f64(rand::random::<f64>());
    // After the time that the provider names the jitter is on top of it, and small.
    after.map_or(jitter, |after| after.saturating_add(jitter.min(FIRST).min(after / 10)))
}

/// When the provider wants to be asked again: `retry-after-ms` (OpenAI), or `Retry-After` in seconds or as a date (RFC 9110,
/// section 10.2.3).
pub(super) fn after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str, unit: f64| seconds(text.parse::<f64>().ok()? * unit);
    if let Some(after) = text("retry-after-ms").and_then(|text| number(text, 0.001)) {
        return Some(after);
    }
    let text = text("retry-after")?;
    number(text, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST_ASKED))
    })
}

/// A provider's number of seconds, at most 30 days; `None`: it is negative or not finite.
pub(super) fn seconds(number: f64) -> Option<Duration> {
    if !number.is_finite() {
        return None;
    }
    Duration::try_from_secs_f64(number.min(LONGEST_ASKED.as_secs_f64())).ok()
}

/// Whether the provider says of itself that another try is of use (`x-should-retry`, OpenAI and Anthropic).
pub(super) fn said(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}
