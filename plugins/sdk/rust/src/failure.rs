//! Why an attempt returned no output, said on purpose.

use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What a plugin says instead of an output. When in doubt, [`Failure::retry`].
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// Not this time, perhaps later: a server that is down, a rate limit. Uses up one attempt.
    Retry {
        /// One sentence for a person; stored and shown, so no secrets.
        message: String,
        /// A stable word for programs: `[a-z0-9_.-]{1,64}`.
        code: Option<String>,
        /// JSON for programs: the place for a partial result.
        details: Option<String>,
        /// Not before this long from now.
        after: Option<Duration>,
    },
    /// Never, however often it is tried.
    Permanent {
        /// As in `Retry`.
        message: String,
        /// As in `Retry`.
        code: Option<String>,
        /// As in `Retry`.
        details: Option<String>,
    },
    /// The submitter has to change the input.
    InvalidInput {
        /// What was expected and what was found.
        message: String,
        /// Where: a JSON Pointer (RFC 6901); `None`: the whole input.
        pointer: Option<String>,
    },
    /// Nothing is wrong, it is too early. Uses up no attempt.
    Snooze {
        /// What it waits for.
        message: String,
        /// Run again after this long, at least a second.
        after: Duration,
    },
}

impl Failure {
    /// Not this time, perhaps later.
    pub fn retry(message: impl Into<String>) -> Failure {
        Failure::Retry { message: message.into(), code: None, details: None, after: None }
    }

    /// Never.
    pub fn permanent(message: impl Into<String>) -> Failure {
        Failure::Permanent { message: message.into(), code: None, details: None }
    }

    /// The input is not what this plugin takes.
    pub fn invalid_input(message: impl Into<String>) -> Failure {
        Failure::InvalidInput { message: message.into(), pointer: None }
    }

    /// Too early.
    pub fn snooze(message: impl Into<String>, after: Duration) -> Failure {
        Failure::Snooze { message: message.into(), after }
    }

    /// With a stable word for programs (`retry` and `permanent`).
    #[must_use]
    pub fn with_code(mut self, word: impl Into<String>) -> Failure {
        if let Failure::Retry { code, .. } | Failure::Permanent { code, .. } = &mut self {
            *code = Some(word.into());
        }
        self
    }

    /// With more for programs (`retry` and `permanent`). What cannot be written as JSON is left out.
    #[must_use]
    pub fn with_details(mut self, value: &impl Serialize) -> Failure {
        if let Failure::Retry { details, .. } | Failure::Permanent { details, .. } = &mut self {
            *details = serde_json::to_string(value).ok();
        }
        self
    }

    /// Not before this long from now (`retry`), typically a server's `Retry-After`.
    #[must_use]
    pub fn with_after(mut self, delay: Duration) -> Failure {
        if let Failure::Retry { after, .. } = &mut self {
            *after = Some(delay);
        }
        self
    }

    /// With where in the input (`invalid_input`): a JSON Pointer such as `/documents/3/url`.
    #[must_use]
    pub fn with_pointer(mut self, place: impl Into<String>) -> Failure {
        if let Failure::InvalidInput { pointer, .. } = &mut self {
            *pointer = Some(place.into());
        }
        self
    }
}

/// `?` on any error: it may work another time.
impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::retry(error.to_string())
    }
}
