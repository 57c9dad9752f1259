//! Tools of Model Context Protocol servers that the operator runs or knows, by grant: `tools = { search = ["web_search"] }`.
//!
//! ```no_run
//! # use agentry_sdk::{Failure, serde_json::json, tools};
//! fn first_hit(query: &str) -> Result<String, Failure> {
//!     let output = tools::call("search", "web_search", &json!({"query": query}))?;
//!     if output.failed {
//!         return Err(Failure::retry(format!("the search failed: {}", output.text())));
//!     }
//!     Ok(output.text())
//! }
//! ```

use crate::Failure;
use serde::Serialize;

/// A tool as its server describes it. The words are the server's: treat them like input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The operator's name for the server.
    pub server: String,
    /// The tool's name there.
    pub name: String,
    /// For a model.
    pub description: String,
    /// A JSON Schema of type `object`, as text.
    pub input_schema: String,
}

/// One piece of what a tool gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Anything else (an image, audio, a resource), as the JSON of the protocol's content block.
    Other(String),
}

/// What a tool gave. A tool that ran and says that it failed is one too: see `failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// In its order.
    pub content: Vec<Content>,
    /// `structuredContent` of the protocol, as JSON text.
    pub structured: Option<String>,
    /// The tool ran, and says that it failed.
    pub failed: bool,
}

impl Output {
    /// Its text, piece by piece; what is no text is left out.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|content| match content {
            Content::Text(text) => Some(text.as_str()),
            Content::Other(_) => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// Why there is no output. Not shown by `Display`, so that `?` knows what becomes of it; [`message`](Error::message) says it to a
/// person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The plugin has no grant for that tool. Permanent, code `denied`.
    Denied(String),
    /// There is no such tool, or no such server. Permanent, code `unknown_tool`.
    Unknown(String),
    /// The arguments do not fit the tool's schema. Permanent, code `invalid_arguments`.
    InvalidArguments(String),
    /// It took too long. Retried, code `timed_out`.
    TimedOut(String),
    /// The server is not there, died, or broke the protocol. Retried, code `unavailable`.
    Unavailable(String),
    /// The server answered with a protocol error. Retried, code `tool_failed`.
    Failed(String),
    /// The output is larger than the operator allows. Permanent, code `too_large`.
    TooLarge(String),
    /// A budget of calls is used up. Permanent, code `budget_exceeded`.
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
            | Error::Unknown(message)
            | Error::InvalidArguments(message)
            | Error::TimedOut(message)
            | Error::Unavailable(message)
            | Error::Failed(message)
            | Error::TooLarge(message)
            | Error::BudgetExceeded(message) => message,
            Error::Outside => "tools are called inside a component only; a native test gives the plugin a stand-in",
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Error::Denied(_) => "denied",
            Error::Unknown(_) => "unknown_tool",
            Error::InvalidArguments(_) => "invalid_arguments",
            Error::TimedOut(_) => "timed_out",
            Error::Unavailable(_) => "unavailable",
            Error::Failed(_) => "tool_failed",
            Error::TooLarge(_) => "too_large",
            Error::BudgetExceeded(_) => "budget_exceeded",
            Error::Outside => "outside_component",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = match error {
            Error::TimedOut(_) | Error::Unavailable(_) | Error::Failed(_) => Failure::retry(error.message()),
            _ => Failure::permanent(error.message()),
        };
        failure.with_code(error.code())
    }
}

/// The tools that were granted and exist, by server and name.
///
/// # Errors
/// See [`Error`].
pub fn list() -> Result<Vec<Tool>, Error> {
    #[cfg(target_family = "wasm")]
    return inside::list();
    #[cfg(not(target_family = "wasm"))]
    Err(Error::Outside)
}

/// Calls a tool. `arguments` is what serde writes as a JSON object.
///
/// # Errors
/// See [`Error`].
pub fn call(server: &str, name: &str, arguments: &impl Serialize) -> Result<Output, Error> {
    let arguments = serde_json::to_string(arguments)
        .map_err(|error| Error::InvalidArguments(format!("the arguments cannot be written as JSON: {error}")))?;
    #[cfg(target_family = "wasm")]
    return inside::call(server, name, &arguments);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = (server, name, arguments);
        Err(Error::Outside)
    }
}

#[cfg(target_family = "wasm")]
mod inside {
    use super::{Content, Error, Output, Tool};
    use crate::glue::bindings::agentry::tools::tools as wit;

    pub(super) fn list() -> Result<Vec<Tool>, Error> {
        let tools = wit::list_tools().map_err(error)?;
        let tool =
            |wit::Tool { server, name, description, input_schema }| Tool { server, name, description, input_schema };
        Ok(tools.into_iter().map(tool).collect())
    }

    pub(super) fn call(server: &str, name: &str, arguments: &str) -> Result<Output, Error> {
        let wit::Output { content, structured, failed } = wit::call(server, name, arguments).map_err(error)?;
        let content = content.into_iter().map(|content| match content {
            wit::Content::Text(text) => Content::Text(text),
            wit::Content::Other(block) => Content::Other(block),
        });
        Ok(Output { content: content.collect(), structured, failed })
    }

    fn error(error: wit::Error) -> Error {
        match error {
            wit::Error::Denied(message) => Error::Denied(message),
            wit::Error::Unknown(message) => Error::Unknown(message),
            wit::Error::InvalidArguments(message) => Error::InvalidArguments(message),
            wit::Error::TimedOut(message) => Error::TimedOut(message),
            wit::Error::Unavailable(message) => Error::Unavailable(message),
            wit::Error::Failed(message) => Error::Failed(message),
            wit::Error::TooLarge(message) => Error::TooLarge(message),
            wit::Error::BudgetExceeded(message) => Error::BudgetExceeded(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_output_is_its_texts() {
        let content = vec![Content::Text("a".into()), Content::Other("{}".into()), Content::Text("b".into())];
        assert_eq!(Output { content, ..Output::default() }.text(), "a\nb");
    }

    #[test]
    fn every_error_knows_what_becomes_of_it() {
        let why = || "why".to_owned();
        let retry = |code: &str| Failure::retry("why").with_code(code);
        let permanent = |code: &str| Failure::permanent("why").with_code(code);
        for (error, failure) in [
            (Error::Denied(why()), permanent("denied")),
            (Error::Unknown(why()), permanent("unknown_tool")),
            (Error::InvalidArguments(why()), permanent("invalid_arguments")),
            (Error::TimedOut(why()), retry("timed_out")),
            (Error::Unavailable(why()), retry("unavailable")),
            (Error::Failed(why()), retry("tool_failed")),
            (Error::TooLarge(why()), permanent("too_large")),
            (Error::BudgetExceeded(why()), permanent("budget_exceeded")),
        ] {
            assert_eq!(Failure::from(error), failure);
        }
    }

    #[test]
    fn outside_a_component_there_are_no_tools() {
        assert_eq!(list(), Err(Error::Outside));
        assert_eq!(call("search", "web_search", &["x"]), Err(Error::Outside));
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(call("search", "web_search", &unwritable), Err(Error::InvalidArguments(_))));
    }
}
