//! Why a model gave no answer.

use super::Usage;
use crate::Failure;
use std::time::Duration;

/// Why there is no answer. What may be tried again inside the task's time has been tried again by the host. Not shown by
/// `Display`, so that `?` knows what becomes of it; [`message`](Error::message) says it to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The plugin has no grant for that model. Permanent, code `denied`.
    Denied(String),
    /// The request is wrong, as the host or the provider says. Permanent, code `invalid_request`.
    InvalidRequest(String),
    /// The conversation is longer than the model takes. Permanent, code `too_long`.
    TooLong(String),
    /// The provider asks for less. Retried, code `rate_limited`.
    RateLimited {
        /// For a person.
        message: String,
        /// Not before this long from now.
        after: Option<Duration>,
    },
    /// The provider cannot be reached, or failed, or refuses the operator's key. Retried, code `unavailable`.
    Unavailable(String),
    /// It took too long; says at which stage. Retried, code `timed_out`.
    TimedOut(String),
    /// The answer was cut by length. Permanent, code `truncated`.
    Truncated {
        /// What there is of it.
        text: String,
        /// What it cost.
        usage: Usage,
    },
    /// The provider or the model refused, for safety or policy. Permanent, code `blocked`.
    Blocked(String),
    /// What came back is no answer, or not of the form that was asked for. Permanent, code `unparsable`.
    Unparsable(String),
    /// A budget of requests or tokens is used up. Permanent, code `budget_exceeded`.
    BudgetExceeded(String),
    /// Called outside a component. Permanent, code `outside_component`.
    Outside,
}

impl Error {
    /// What happened, for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Error::Denied(message)
            | Error::InvalidRequest(message)
            | Error::TooLong(message)
            | Error::RateLimited { message, .. }
            | Error::Unavailable(message)
            | Error::TimedOut(message)
            | Error::Blocked(message)
            | Error::Unparsable(message)
            | Error::BudgetExceeded(message) => message,
            Error::Truncated { .. } => "the model's answer was cut by length",
            Error::Outside => "models answer inside a component only; a native test gives the plugin a stand-in",
        }
    }

    /// The failure's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Error::Denied(_) => "denied",
            Error::InvalidRequest(_) => "invalid_request",
            Error::TooLong(_) => "too_long",
            Error::RateLimited { .. } => "rate_limited",
            Error::Unavailable(_) => "unavailable",
            Error::TimedOut(_) => "timed_out",
            Error::Truncated { .. } => "truncated",
            Error::Blocked(_) => "blocked",
            Error::Unparsable(_) => "unparsable",
            Error::BudgetExceeded(_) => "budget_exceeded",
            Error::Outside => "outside_component",
        }
    }

    /// Whether the same request may do better later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::RateLimited { .. } | Error::Unavailable(_) | Error::TimedOut(_))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.message();
        let failure = if error.is_temporary() { Failure::retry(message) } else { Failure::permanent(message) };
        let failure = failure.with_code(error.code());
        match error {
            Error::RateLimited { after: Some(after), .. } => failure.with_after(after),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_knows_what_becomes_of_it() {
        let why = || "why".to_owned();
        for (error, retried, code) in [
            (Error::Denied(why()), false, "denied"),
            (Error::InvalidRequest(why()), false, "invalid_request"),
            (Error::TooLong(why()), false, "too_long"),
            (Error::RateLimited { message: why(), after: None }, true, "rate_limited"),
            (Error::Unavailable(why()), true, "unavailable"),
            (Error::TimedOut(why()), true, "timed_out"),
            (Error::Truncated { text: "Once".into(), usage: Usage::default() }, false, "truncated"),
            (Error::Blocked(why()), false, "blocked"),
            (Error::Unparsable(why()), false, "unparsable"),
            (Error::BudgetExceeded(why()), false, "budget_exceeded"),
            (Error::Outside, false, "outside_component"),
        ] {
            let message = error.message().to_owned();
            let expected = if retried { Failure::retry(message) } else { Failure::permanent(message) };
            assert_eq!(Failure::from(error), expected.with_code(code));
        }
    }

    #[test]
    fn a_retry_waits_as_long_as_the_provider_asks() {
        let after = Duration::from_millis(1_500);
        let failure = Failure::from(Error::RateLimited { message: "slow down".into(), after: Some(after) });
        assert_eq!(failure, Failure::retry("slow down").with_code("rate_limited").with_after(after));
    }
}
