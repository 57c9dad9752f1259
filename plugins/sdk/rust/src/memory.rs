//! What an agent remembers from one task to the next, by grant: `memory = ["notes"]`. Texts, found again by their words; each
//! plugin has memories of its own.
//!
//! ```no_run
//! # use agentry_sdk::{Failure, memory::Memory, serde_json::json};
//! fn note(text: &str) -> Result<Vec<String>, Failure> {
//!     let notes = Memory::open("notes");
//!     let known = notes.search(text, 3)?.into_iter().map(|entry| entry.text).collect();
//!     notes.remember(text, &json!({"from": "the user"}))?;
//!     Ok(known)
//! }
//! ```

use crate::Failure;
use serde::Serialize;

/// Something remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Names it, for [`Memory::forget`].
    pub id: String,
    /// What was remembered.
    pub text: String,
    /// A JSON object as text.
    pub metadata: String,
    /// How well it fits the query: more is better. Comparable within one answer only.
    pub score: f32,
    /// When it was remembered: RFC 3339, UTC.
    pub at: String,
}

/// Why not. Not shown by `Display`, so that `?` knows what becomes of it; [`message`](Error::message) says it to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The plugin has no grant for that memory. Permanent, code `denied`.
    Denied(String),
    /// Too long, too many, or metadata that is no JSON object. Permanent, code `invalid_request`.
    Invalid(String),
    /// The memory is full. Permanent, code `full`.
    Full(String),
    /// The database does not answer, or the attempt is no longer the task's own. Retried, code `unavailable`.
    Unavailable(String),
    /// Called outside a component. Permanent, code `outside_component`.
    Outside,
}

impl Error {
    /// What happened, for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Error::Denied(message) | Error::Invalid(message) | Error::Full(message) | Error::Unavailable(message) => {
                message
            }
            Error::Outside => "memories are inside a component only; a native test gives the plugin a stand-in",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.message().to_owned();
        match error {
            Error::Denied(_) => Failure::permanent(message).with_code("denied"),
            Error::Invalid(_) => Failure::permanent(message).with_code("invalid_request"),
            Error::Full(_) => Failure::permanent(message).with_code("full"),
            Error::Unavailable(_) => Failure::retry(message).with_code("unavailable"),
            Error::Outside => Failure::permanent(message).with_code("outside_component"),
        }
    }
}

/// One memory, by its name in the grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    name: String,
}

impl Memory {
    /// Names a memory. Whether it was granted is known when it is used.
    pub fn open(name: impl Into<String>) -> Memory {
        Memory { name: name.into() }
    }

    /// Remembers a text and answers its id. The same text with the same metadata is remembered once. `metadata` is what serde
    /// writes as a JSON object, such as `json!({})`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remember(&self, text: &str, metadata: &impl Serialize) -> Result<String, Error> {
        let metadata = serde_json::to_string(metadata)
            .map_err(|error| Error::Invalid(format!("the metadata cannot be written as JSON: {error}")))?;
        #[cfg(target_family = "wasm")]
        return inside::remember(&self.name, text, &metadata);
        #[cfg(not(target_family = "wasm"))]
        {
            let _ = (&self.name, text, metadata);
            Err(Error::Outside)
        }
    }

    /// The best matches, best first; at most 100. Any of the query's words will do, more are better.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn search(&self, query: &str, limit: u32) -> Result<Vec<Entry>, Error> {
        #[cfg(target_family = "wasm")]
        return inside::search(&self.name, query, limit);
        #[cfg(not(target_family = "wasm"))]
        {
            let _ = (&self.name, query, limit);
            Err(Error::Outside)
        }
    }

    /// Forgets an entry; one that is not there is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn forget(&self, id: &str) -> Result<(), Error> {
        #[cfg(target_family = "wasm")]
        return inside::forget(&self.name, id);
        #[cfg(not(target_family = "wasm"))]
        {
            let _ = (&self.name, id);
            Err(Error::Outside)
        }
    }
}

#[cfg(target_family = "wasm")]
mod inside {
    use super::{Entry, Error};
    use crate::glue::bindings::agentry::memory::memory as wit;

    pub(super) fn remember(memory: &str, text: &str, metadata: &str) -> Result<String, Error> {
        wit::remember(memory, text, metadata).map_err(error)
    }

    pub(super) fn search(memory: &str, query: &str, limit: u32) -> Result<Vec<Entry>, Error> {
        let entries = wit::search(memory, query, limit).map_err(error)?;
        let entry = |wit::Entry { id, text, metadata, score, at }| Entry { id, text, metadata, score, at };
        Ok(entries.into_iter().map(entry).collect())
    }

    pub(super) fn forget(memory: &str, id: &str) -> Result<(), Error> {
        wit::forget(memory, id).map_err(error)
    }

    fn error(error: wit::Error) -> Error {
        match error {
            wit::Error::Denied(message) => Error::Denied(message),
            wit::Error::Invalid(message) => Error::Invalid(message),
            wit::Error::Full(message) => Error::Full(message),
            wit::Error::Unavailable(message) => Error::Unavailable(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_knows_what_becomes_of_it() {
        let why = || "why".to_owned();
        for (error, failure) in [
            (Error::Denied(why()), Failure::permanent("why").with_code("denied")),
            (Error::Invalid(why()), Failure::permanent("why").with_code("invalid_request")),
            (Error::Full(why()), Failure::permanent("why").with_code("full")),
            (Error::Unavailable(why()), Failure::retry("why").with_code("unavailable")),
        ] {
            assert_eq!(Failure::from(error), failure);
        }
    }

    #[test]
    fn outside_a_component_nothing_is_remembered() {
        let notes = Memory::open("notes");
        assert_eq!(notes.remember("a", &serde_json::json!({})), Err(Error::Outside));
        assert_eq!(notes.search("a", 1), Err(Error::Outside));
        assert_eq!(notes.forget("1"), Err(Error::Outside));
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(notes.remember("a", &unwritable), Err(Error::Invalid(_))));
    }
}
