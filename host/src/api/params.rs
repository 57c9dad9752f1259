//! What stands in a path and behind its question mark. Unknown and repeated parameters are errors: a filter that is
//! silently dropped answers another question.

use super::problem::Problem;
use crate::task::{TaskId, span};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The task named in the path.
pub(super) struct OfTask(pub TaskId);

impl<S: Send + Sync> FromRequestParts<S> for OfTask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Named(text) = Named::from_request_parts(parts, state).await?;
        text.parse()
            .map(OfTask)
            .map_err(|_| Problem::bad("bad_id", format!("{text:?} is not a task id, which is a UUID")))
    }
}

/// The name in the path.
pub(super) struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        path.map(|Path(text)| Named(text)).map_err(|e| Problem::bad("bad_path", e.body_text()))
    }
}

/// The parameters of a query, each at most once.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Params::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Params {
    fn parse(query: &str) -> Result<Params, Problem> {
        let mut params = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if params.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Problem::bad("bad_query", format!("the parameter {name} stands there twice")));
            }
        }
        Ok(Params(params))
    }

    /// Refuse every parameter but these. An empty value is as good as none.
    pub fn only(mut self, known: &[&str]) -> Result<Params, Problem> {
        if let Some(name) = self.0.keys().find(|name| !known.contains(&name.as_str())) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Problem::bad("bad_query", format!("unknown parameter {name:?}; known here: {known}")));
        }
        self.0.retain(|_, value| !value.is_empty());
        Ok(self)
    }

    /// The text of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that some function reads; `takes` says what it takes.
    pub fn read<T>(&self, name: &str, takes: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(Problem::bad("bad_query", format!("{name} is {text:?}; it takes {takes}"))),
        }
    }

    /// A list, separated by commas, each entry of which some function reads. Without the parameter, one entry that is `None`; an entry
    /// that is repeated counts once.
    pub fn list<T: PartialEq>(
        &self,
        name: &str,
        takes: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<Option<T>>, Problem> {
        let Some(text) = self.text(name) else { return Ok(vec![None]) };
        let mut entries = Vec::new();
        for part in text.split(',').map(str::trim) {
            let entry = read(part).filter(|_| !part.is_empty());
            let takes = || format!("{name} is {text:?}; it takes {takes}, or several of them, separated by commas");
            let entry = Some(entry.ok_or_else(|| Problem::bad("bad_query", takes()))?);
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// A parameter that some function reads; its error says what is wrong and what is expected.
    fn try_read<T>(&self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(text).map(Some).map_err(|why| Problem::bad("bad_query", format!("{name} is {text:?}: {why}")))
    }

    /// A time, or a duration before now.
    pub fn since(&self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let now = Utc::now();
        self.try_read(name, |text| span::since(&with_plus(text), now))
    }

    /// A number of seconds, or a duration, up to `most`.
    pub fn seconds(&self, name: &str, most: f64) -> Result<Option<f64>, Problem> {
        self.read(name, &format!("a number of seconds from 0 to {most}, or a duration such as 30s"), |text| {
            let seconds = text.parse().ok().or_else(|| span::duration(text).map(|time| time.as_secs_f64()));
            seconds.filter(|seconds| (0.0..=most).contains(seconds))
        })
    }

    /// A number within bounds.
    pub fn number<T>(&self, name: &str, allowed: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let takes = format!("a number from {} to {}", allowed.start(), allowed.end());
        self.read(name, &takes, |text| text.parse().ok().filter(|n| allowed.contains(n)))
    }
}

/// The `+` of an offset is a space in a query unless it is written as `%2B`; a space there has no other meaning.
fn with_plus(text: &str) -> Cow<'_, str> {
    let offset = |tail: &str| {
        tail.contains(':') && tail.bytes().filter(u8::is_ascii_digit).count() == 4 && tail.len() == 5
            || tail.len() == 4 && tail.bytes().all(|b| b.is_ascii_digit())
    };
    match text.rsplit_once(' ') {
        Some((time, tail)) if time.contains(':') && offset(tail) => Cow::Owned(format!("{time}+{tail}")),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_or_repeated_parameter_is_refused_by_name() {
        let text = |query: &str| format!("{:?}", Params::parse(query).and_then(|p| p.only(&["state", "limit"])));
        assert!(
            text("stat=x").contains("unknown parameter \\\"stat\\\"; known here: state, limit"),
            "{}",
            text("stat=x")
        );
        assert!(text("state=a&state=b").contains("the parameter state stands there twice"));
    }

    #[test]
    fn a_number_is_held_to_its_bounds_and_an_empty_value_is_none() {
        let params = Params::parse("limit=501&x=&y=7").unwrap().only(&["limit", "x", "y"]).unwrap();
        assert!(params.number("limit", 1..=500u32).is_err());
        assert_eq!(params.number("x", 1..=500u32).unwrap(), None);
        assert_eq!(params.number("y", 1..=500u32).unwrap(), Some(7));
    }

    #[test]
    fn a_time_is_read_with_its_plus_and_refused_with_what_is_missing() {
        let since = |query: &str| Params::parse(query).unwrap().since("since").map(|at| at.unwrap().to_rfc3339());
        for query in [
            "since=2030-01-01T00:00:00Z",
            "since=2030-01-01T02:00:00%2B02:00",
            "since=2030-01-01T02:00:00+02:00",
            "since=2030-01-01+02:00:00+0200",
            "since=2030-01-01+00:00:00z",
        ] {
            assert_eq!(since(query).unwrap(), "2030-01-01T00:00:00+00:00", "{query}");
        }
        for (query, says) in [
            ("since=2030-01-01T00:00:00", "its offset from UTC is missing; expected for example"),
            ("since=2030-01-01", "time of day and the offset"),
            ("since=1893456000", "seconds or milliseconds"),
            ("since=2030-01-01+02:00", "its offset from UTC is missing"),
        ] {
            let refused = format!("{:?}", since(query).unwrap_err());
            assert!(refused.contains(says) && refused.contains("since is"), "{query}: {refused}");
        }
        let seconds = |query: &str| Params::parse(query).unwrap().seconds("timeout", 300.0);
        assert_eq!(seconds("timeout=30").unwrap(), Some(30.0));
        assert_eq!(seconds("timeout=1m").unwrap(), Some(60.0));
        assert!(format!("{:?}", seconds("timeout=301").unwrap_err()).contains("from 0 to 300"));
        assert!(seconds("timeout=NaN").is_err() && seconds("timeout=-1").is_err());
    }

    #[test]
    fn values_are_decoded() {
        let params = Params::parse("label=team%3Dsearch+x").unwrap();
        assert_eq!(params.text("label"), Some("team=search x"));
    }
}
