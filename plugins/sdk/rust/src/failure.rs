//! Why an attempt returned no output, said on purpose.

use crate::log;
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
    /// The host drops a word of another form than `[a-z0-9_.-]{1,64}`, and says so in the log.
    #[must_use]
    pub fn with_code(mut self, word: impl Into<String>) -> Failure {
        if let Failure::Retry { code, .. } | Failure::Permanent { code, .. } = &mut self {
            *code = Some(word.into());
        }
        self
    }

    /// With more for programs (`retry` and `permanent`), as JSON of at most 64 KiB. What cannot be written as JSON is left
    /// out, and the log says so: a failure must not fail.
    #[must_use]
    pub fn with_details(mut self, value: &impl Serialize) -> Failure {
        if let Failure::Retry { details, .. } | Failure::Permanent { details, .. } = &mut self {
            *details = serde_json::to_string(value)
                .inspect_err(|error| {
                    log::warn(format_args!("the failure's details cannot be written as JSON: {error}"))
                })
                .ok();
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

/// `?` on any error that can be shown: it may work another time. What never will is said with `map_err` and
/// [`Failure::permanent`]. This is why `Failure` itself does not implement `Display`, nor `Error`; nor do the errors of the
/// capabilities ([`http::Error`](crate::http::Error) and the like), which know themselves what becomes of them.
impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        // The alternate form, in which `anyhow` and its like print the causes as well.
        Failure::retry(format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn any_error_may_be_returned_with_a_question_mark_and_is_retried() {
        fn parsed(text: &str) -> Result<u32, Failure> {
            Ok(text.parse::<u32>()?)
        }
        fn refused() -> Result<u32, Failure> {
            Err("the server is busy")?
        }
        assert_eq!(parsed("17"), Ok(17));
        assert_eq!(parsed("x"), Err(Failure::retry("invalid digit found in string")));
        assert_eq!(refused(), Err(Failure::retry("the server is busy")));
    }

    #[test]
    fn a_failure_carries_what_its_kind_has_room_for_and_nothing_else() {
        let dressed = |failure: Failure| {
            failure.with_code("busy").with_details(&[1]).with_after(Duration::from_secs(2)).with_pointer("/a")
        };
        let (message, code, details) = ("no".to_owned(), Some("busy".to_owned()), Some("[1]".to_owned()));
        assert_eq!(
            dressed(Failure::retry("no")),
            Failure::Retry {
                message: message.clone(),
                code: code.clone(),
                details: details.clone(),
                after: Some(Duration::from_secs(2))
            }
        );
        assert_eq!(dressed(Failure::permanent("no")), Failure::Permanent { message: message.clone(), code, details });
        assert_eq!(
            dressed(Failure::invalid_input("no")),
            Failure::InvalidInput { message, pointer: Some("/a".to_owned()) }
        );
        let snooze = Failure::snooze("no", Duration::from_secs(1));
        assert_eq!(dressed(snooze.clone()), snooze);
    }

    #[test]
    fn details_that_json_cannot_hold_are_left_out() {
        let failure = Failure::retry("no").with_details(&BTreeMap::from([((1, 2), 3)]));
        assert_eq!(failure, Failure::retry("no"));
    }
}
