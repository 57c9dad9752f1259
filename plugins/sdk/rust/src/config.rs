//! Settings of a plugin, by grant: `config = ["region"]` asks for the key; a default may stand under `[config]` in `plugin.toml`,
//! and the operator's value holds over it.
//!
//! ```no_run
//! # use agentry_sdk::{Failure, config};
//! fn region() -> Result<String, Failure> {
//!     Ok(config::get("region")?.unwrap_or_else(|| "eu".into()))
//! }
//! ```

use crate::Failure;
use std::collections::BTreeMap;

/// Why not. Not shown by `Display`, so that `?` knows what becomes of it; [`message`](Error::message) says it to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Whatever has the values does not answer. Retried, code `unavailable`.
    Unavailable(String),
    /// Called outside a component. Permanent, code `outside_component`.
    Outside,
}

impl Error {
    /// What happened, for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Error::Unavailable(message) => message,
            Error::Outside => "settings are inside a component only; a native test gives the plugin a stand-in",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Unavailable(message) => Failure::retry(message).with_code("unavailable"),
            Error::Outside => Failure::permanent(Error::Outside.message()).with_code("outside_component"),
        }
    }
}

/// The value of a key; `None`: it has none, or it was not granted.
///
/// # Errors
/// See [`Error`].
pub fn get(key: &str) -> Result<Option<String>, Error> {
    #[cfg(target_family = "wasm")]
    return inside::get(key);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = key;
        Err(Error::Outside)
    }
}

/// Every granted key that has a value.
///
/// # Errors
/// See [`Error`].
pub fn all() -> Result<BTreeMap<String, String>, Error> {
    #[cfg(target_family = "wasm")]
    return inside::all();
    #[cfg(not(target_family = "wasm"))]
    Err(Error::Outside)
}

#[cfg(target_family = "wasm")]
mod inside {
    use super::Error;
    use crate::glue::bindings::wasi::config::store as wit;
    use std::collections::BTreeMap;

    pub(super) fn get(key: &str) -> Result<Option<String>, Error> {
        wit::get(key).map_err(error)
    }

    pub(super) fn all() -> Result<BTreeMap<String, String>, Error> {
        wit::get_all().map(|pairs| pairs.into_iter().collect()).map_err(error)
    }

    fn error(error: wit::Error) -> Error {
        match error {
            wit::Error::Upstream(message) | wit::Error::Io(message) => Error::Unavailable(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_knows_what_becomes_of_it() {
        let failure = Failure::from(Error::Unavailable("why".into()));
        assert_eq!(failure, Failure::retry("why").with_code("unavailable"));
        assert!(
            matches!(Failure::from(Error::Outside), Failure::Permanent { code: Some(code), .. } if code == "outside_component")
        );
    }

    #[test]
    fn outside_a_component_there_are_no_settings() {
        assert_eq!(get("region"), Err(Error::Outside));
        assert_eq!(all(), Err(Error::Outside));
    }
}
