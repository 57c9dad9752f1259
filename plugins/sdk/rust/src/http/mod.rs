//! HTTP requests, by grant: `http = ["GET https://api.example.com"]`.
//!
//! The host makes them, within its limits: nothing else than what was granted is reached, no redirect is followed, no body is
//! unpacked, no proxy is asked, and no cookie is kept. Secrets that the operator has for a server are added by the host.
//!
//! ```no_run
//! # use agentry_sdk::{Failure, http};
//! # use std::time::Duration;
//! # #[derive(serde::Deserialize)]
//! # struct Release { tag: String }
//! fn newest() -> Result<Release, Failure> {
//!     let response = http::Request::get("https://api.example.com/releases/newest")
//!         .header("accept", "application/json")
//!         .timeout(Duration::from_secs(10))
//!         .send()?
//!         .error_for_status()?;
//!     Ok(response.json()?)
//! }
//! ```

mod error;
mod response;
mod target;
#[cfg(target_family = "wasm")]
mod wasi;

pub use error::Error;
pub use response::Response;

use serde::Serialize;
use std::time::Duration;

/// The longest body of a response, unless [`Request::max_body`] says otherwise: 4 MiB.
pub const MAX_BODY: usize = 4 << 20;

/// A request that is being put together. What is wrong with it is said by [`send`](Request::send).
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The method, as it is sent.
    pub method: String,
    /// `http` or `https`, with a host; no user and password. A fragment is not sent.
    pub url: String,
    /// In their order; a name may stand there more than once.
    pub headers: Vec<(String, String)>,
    /// `None`: a request without a body, which is another thing than an empty one.
    pub body: Option<Vec<u8>>,
    /// For the whole exchange, the response's body included. `None`: as long as the host allows.
    pub timeout: Option<Duration>,
    /// The longest body that is taken, in bytes.
    pub max_body: usize,
    /// A body that could not be written as JSON.
    unwritable: Option<String>,
}

impl Request {
    /// A request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Request {
        Request {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout: None,
            max_body: MAX_BODY,
            unwritable: None,
        }
    }

    /// `GET`.
    pub fn get(url: impl Into<String>) -> Request {
        Request::new("GET", url)
    }

    /// `POST`.
    pub fn post(url: impl Into<String>) -> Request {
        Request::new("POST", url)
    }

    /// `PUT`.
    pub fn put(url: impl Into<String>) -> Request {
        Request::new("PUT", url)
    }

    /// `DELETE`.
    pub fn delete(url: impl Into<String>) -> Request {
        Request::new("DELETE", url)
    }

    /// With one more header. Those of the connection (`host`, `connection`, `transfer-encoding` …) are the host's own and are
    /// refused; `content-length` is set for a body.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// With a body of JSON, and the header that says so.
    #[must_use]
    pub fn json(mut self, value: &impl Serialize) -> Request {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = Some(body),
            Err(error) => self.unwritable = Some(error.to_string()),
        }
        self.header("content-type", "application/json")
    }

    /// With a time for the whole exchange, the response's body included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = Some(timeout);
        self
    }

    /// With the longest body that is taken, in bytes. The host has a limit of its own.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Request {
        self.max_body = bytes;
        self
    }

    /// Sends it and waits for the whole response, whatever its status.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send(&self) -> Result<Response, Error> {
        if let Some(reason) = &self.unwritable {
            return Err(Error::Invalid(format!("the body cannot be written as JSON: {reason}")));
        }
        let target = target::Target::parse(&self.url).map_err(Error::Invalid)?;
        #[cfg(target_family = "wasm")]
        return wasi::send(self, &target);
        #[cfg(not(target_family = "wasm"))]
        {
            let _ = target;
            Err(Error::Outside)
        }
    }
}

/// Gets what is at a URL, whatever the status.
///
/// # Errors
/// See [`Error`].
pub fn get(url: &str) -> Result<Response, Error> {
    Request::get(url).send()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    #[test]
    fn outside_a_component_a_request_is_refused_and_says_so() {
        assert_eq!(get("https://example.com"), Err(Error::Outside));
        let failure = Failure::from(Error::Outside);
        assert!(matches!(failure, Failure::Permanent { message, .. } if message.contains("inside a component")));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said_when_it_is_sent() {
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = Request::post("https://example.com").json(&unwritable).send().unwrap_err();
        assert!(matches!(&error, Error::Invalid(reason) if reason.contains("cannot be written as JSON")), "{error:?}");
        let error = get("example.com").unwrap_err();
        assert!(matches!(&error, Error::Invalid(reason) if reason.contains("example.com")), "{error:?}");
    }

    #[test]
    fn json_comes_with_the_header_that_says_so() {
        let request = Request::post("https://example.com").json(&[1, 2]);
        assert_eq!(request.body.as_deref(), Some(&b"[1,2]"[..]));
        assert_eq!(request.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    }
}
