//! Values by key, kept from one task to the next, by grant: `keyvalue = ["cache"]`. Each plugin has buckets of its own; sizes and
//! counts are limited by the host.
//!
//! ```no_run
//! # use agentry_sdk::{Failure, keyvalue::Bucket};
//! fn visits(page: &str) -> Result<u64, Failure> {
//!     let cache = Bucket::open("cache")?;
//!     cache.set_json("last", &page)?;
//!     Ok(cache.increment("visits", 1)?)
//! }
//! ```

use crate::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(target_family = "wasm")]
use inside::Handle;
#[cfg(not(target_family = "wasm"))]
use outside::Handle;

/// Why not. Not shown by `Display`, so that `?` knows what becomes of it; [`message`](Error::message) says it to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The plugin has no grant for that bucket. Permanent, code `denied`.
    Denied(String),
    /// A value cannot be written as JSON, or what is there is not the JSON that was expected. Permanent, code `invalid_value`.
    Invalid(String),
    /// The database does not answer, a limit is reached, or the attempt is no longer the task's own: `wasi:keyvalue` does not
    /// tell them apart, the message does. Retried, code `unavailable`.
    Other(String),
    /// Called outside a component. Permanent, code `outside_component`.
    Outside,
}

impl Error {
    /// What happened, for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Error::Denied(message) | Error::Invalid(message) | Error::Other(message) => message,
            Error::Outside => "buckets are inside a component only; a native test gives the plugin a stand-in",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.message().to_owned();
        match error {
            Error::Denied(_) => Failure::permanent(message).with_code("denied"),
            Error::Invalid(_) => Failure::permanent(message).with_code("invalid_value"),
            Error::Other(_) => Failure::retry(message).with_code("unavailable"),
            Error::Outside => Failure::permanent(message).with_code("outside_component"),
        }
    }
}

/// An open bucket.
#[derive(Debug)]
pub struct Bucket {
    handle: Handle,
}

impl Bucket {
    /// Opens a bucket by its name in the grant.
    ///
    /// # Errors
    /// See [`Error`], as for every function here.
    pub fn open(name: &str) -> Result<Bucket, Error> {
        Ok(Bucket { handle: Handle::open(name)? })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.handle.get(key)
    }

    /// Sets a value, in place of what was there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.handle.set(key, value)
    }

    /// Deletes a key; one that is not there is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.handle.delete(key)
    }

    /// Whether there is a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.handle.exists(key)
    }

    /// All keys, in no order.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let (mut keys, mut next) = self.handle.keys(None)?;
        while let Some(cursor) = next {
            let (more, after) = self.handle.keys(Some(cursor))?;
            keys.extend(more);
            next = after;
        }
        Ok(keys)
    }

    /// Adds to a number, 0 if there is none, at once and whole, and answers the sum.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
        self.handle.increment(key, delta)
    }

    /// The values of keys, in the keys' order; `None` where there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.handle.get_many(keys)
    }

    /// Sets values.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<(), Error> {
        self.handle.set_many(pairs)
    }

    /// Deletes keys.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_many(&self, keys: &[&str]) -> Result<(), Error> {
        self.handle.delete_many(keys)
    }

    /// The value of a key as JSON of a type.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Invalid`] for a value that is not.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get(key)?.map(|value| parse(key, &value)).transpose()
    }

    /// Sets a value as JSON.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Invalid`] for what JSON cannot hold.
    pub fn set_json<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.set(key, &print(key, value)?)
    }
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value)
        .map_err(|error| Error::Invalid(format!("what is under {key:?} is not the JSON that was expected: {error}")))
}

fn print<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::Invalid(format!("the value for {key:?} cannot be written as JSON: {error}")))
}

#[cfg(target_family = "wasm")]
mod inside {
    use super::Error;
    use crate::glue::bindings::wasi::keyvalue::{atomics, batch, store};

    #[derive(Debug)]
    pub(super) struct Handle {
        name: String,
        bucket: store::Bucket,
    }

    impl Handle {
        pub(super) fn open(name: &str) -> Result<Handle, Error> {
            let bucket = store::open(name).map_err(|error| explain(name, error))?;
            Ok(Handle { name: name.to_owned(), bucket })
        }

        pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
            self.said(self.bucket.get(key))
        }

        pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
            self.said(self.bucket.set(key, value))
        }

        pub(super) fn delete(&self, key: &str) -> Result<(), Error> {
            self.said(self.bucket.delete(key))
        }

        pub(super) fn exists(&self, key: &str) -> Result<bool, Error> {
            self.said(self.bucket.exists(key))
        }

        pub(super) fn keys(&self, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>), Error> {
            self.said(self.bucket.list_keys(cursor)).map(|response| (response.keys, response.cursor))
        }

        pub(super) fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
            self.said(atomics::increment(&self.bucket, key, delta))
        }

        pub(super) fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
            let found = self.said(batch::get_many(&self.bucket, &owned(keys)))?;
            Ok(found.into_iter().map(|pair| pair.map(|(_, value)| value)).collect())
        }

        pub(super) fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<(), Error> {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
            self.said(batch::set_many(&self.bucket, &pairs))
        }

        pub(super) fn delete_many(&self, keys: &[&str]) -> Result<(), Error> {
            self.said(batch::delete_many(&self.bucket, &owned(keys)))
        }

        fn said<T>(&self, result: Result<T, store::Error>) -> Result<T, Error> {
            result.map_err(|error| explain(&self.name, error))
        }
    }

    fn owned(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    fn explain(name: &str, error: store::Error) -> Error {
        match error {
            store::Error::NoSuchStore | store::Error::AccessDenied => Error::Denied(format!(
                "the bucket {name:?} is not granted; ask for it in plugin.toml under [capabilities]: keyvalue = [{name:?}]"
            )),
            store::Error::Other(message) => Error::Other(message),
        }
    }
}

/// There is no bucket, and so nothing that could be called.
#[cfg(not(target_family = "wasm"))]
mod outside {
    use super::Error;

    #[derive(Debug)]
    pub(super) enum Handle {}

    impl Handle {
        pub(super) fn open(_: &str) -> Result<Handle, Error> {
            Err(Error::Outside)
        }

        pub(super) fn get(&self, _: &str) -> Result<Option<Vec<u8>>, Error> {
            match *self {}
        }

        pub(super) fn set(&self, _: &str, _: &[u8]) -> Result<(), Error> {
            match *self {}
        }

        pub(super) fn delete(&self, _: &str) -> Result<(), Error> {
            match *self {}
        }

        pub(super) fn exists(&self, _: &str) -> Result<bool, Error> {
            match *self {}
        }

        pub(super) fn keys(&self, _: Option<u64>) -> Result<(Vec<String>, Option<u64>), Error> {
            match *self {}
        }

        pub(super) fn increment(&self, _: &str, _: u64) -> Result<u64, Error> {
            match *self {}
        }

        pub(super) fn get_many(&self, _: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
            match *self {}
        }

        pub(super) fn set_many(&self, _: &[(&str, &[u8])]) -> Result<(), Error> {
            match *self {}
        }

        pub(super) fn delete_many(&self, _: &[&str]) -> Result<(), Error> {
            match *self {}
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
            (Error::Invalid(why()), Failure::permanent("why").with_code("invalid_value")),
            (Error::Other(why()), Failure::retry("why").with_code("unavailable")),
        ] {
            assert_eq!(Failure::from(error), failure);
        }
    }

    #[test]
    fn a_value_that_is_not_the_json_that_was_expected_names_its_key() {
        assert_eq!(parse::<Vec<u32>>("k", b"[1]"), Ok(vec![1]));
        assert!(matches!(parse::<u32>("k", b"[1]"), Err(Error::Invalid(message)) if message.contains("\"k\"")));
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(print("k", &unwritable), Err(Error::Invalid(message)) if message.contains("\"k\"")));
    }

    #[test]
    fn outside_a_component_no_bucket_opens() {
        assert_eq!(Bucket::open("cache").unwrap_err(), Error::Outside);
    }
}
