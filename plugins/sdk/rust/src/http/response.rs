//! What came back.

use super::Error;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status. Any status is a response; [`error_for_status`](Response::error_for_status) makes it an error.
    pub status: u16,
    /// In their order, the names in lower case. Bytes that are no UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// All of it, as it came: nothing is unpacked.
    pub body: Vec<u8>,
    /// What was asked for, for messages: the method and the URL without its query.
    pub request: String,
}

impl Response {
    /// The first header of a name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text. What is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as JSON of a type.
    ///
    /// # Errors
    /// [`Error::Protocol`] with what does not fit and where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(&self.body);
        serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| error.to_string())
            .and_then(|value| deserializer.end().map(|()| value).map_err(|error| error.to_string()))
            .map_err(|reason| Error::Protocol(format!("{} answered JSON that does not fit: {reason}", self.request)))
    }

    /// This response if its status is 2xx.
    ///
    /// # Errors
    /// [`Error::Status`] otherwise. A redirect is one: nobody follows it, so its body is never what was asked for.
    pub fn error_for_status(self) -> Result<Response, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let to = match self.header("location") {
            Some(location) if (300..400).contains(&self.status) => {
                format!(", to {}", location.chars().take(1_024).collect::<String>())
            }
            _ => String::new(),
        };
        Err(Error::Status {
            status: self.status,
            retry_after: self.retry_after(),
            message: format!("{} answered {}{to}", self.request, self.status),
        })
    }

    /// What `Retry-After` says, from now (RFC 9110, section 10.2.3): seconds or a date. What is neither is ignored.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header("retry-after")?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = httpdate::parse_http_date(value).ok()?;
        Some(at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
        Response {
            status,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: body.into(),
            request: "GET https://example.com/".into(),
        }
    }

    #[test]
    fn a_header_is_found_in_any_case() {
        let response = response(200, &[("content-type", "text/plain")], "");
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
        assert_eq!(response.header("content-length"), None);
    }

    #[test]
    fn a_body_is_text_or_json_of_a_type() {
        assert_eq!(response(200, &[], "ä").text(), "ä");
        assert_eq!(response(200, &[], "[1, 2]").json(), Ok(vec![1, 2]));
        for wrong in ["[1, \"x\"]", "[1] [2]", ""] {
            let error = response(200, &[], wrong).json::<Vec<u32>>().unwrap_err();
            assert!(matches!(&error, Error::Protocol(reason) if reason.contains("https://example.com/")), "{error:?}");
        }
    }

    #[test]
    fn only_2xx_is_no_error_of_status() {
        for status in [200, 204, 299] {
            assert!(response(status, &[], "").error_for_status().is_ok(), "{status}");
        }
        for status in [300, 304, 404, 500, 599] {
            let error = response(status, &[], "").error_for_status().unwrap_err();
            assert!(matches!(error, Error::Status { status: found, .. } if found == status));
        }
    }

    #[test]
    fn an_error_of_status_says_what_was_asked_and_where_it_went() {
        let error = response(301, &[("location", "/new")], "").error_for_status().unwrap_err();
        assert_eq!(error.message(), "GET https://example.com/ answered 301, to /new");
        let error = response(404, &[("location", "/new")], "").error_for_status().unwrap_err();
        assert_eq!(error.message(), "GET https://example.com/ answered 404");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |value: &str| response(503, &[("retry-after", value)], "").retry_after();
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO), "a time that has passed is now");
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3_600));
        let hour = after(&date).unwrap();
        assert!(hour > Duration::from_secs(3_500) && hour <= Duration::from_secs(3_600), "{hour:?}");
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
        assert_eq!(response(503, &[], "").retry_after(), None);
    }
}
