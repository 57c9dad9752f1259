//! What stands in a path and behind its question mark. Unknown and repeated parameters are errors: a filter that is
//! silently dropped answers another question.

use super::problem::Problem;
use crate::task::TaskId;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
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

    /// A number within bounds.
    pub fn number<T>(&self, name: &str, allowed: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let takes = format!("a number from {} to {}", allowed.start(), allowed.end());
        self.read(name, &takes, |text| text.parse().ok().filter(|n| allowed.contains(n)))
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
    fn values_are_decoded() {
        let params = Params::parse("label=team%3Dsearch+x").unwrap();
        assert_eq!(params.text("label"), Some("team=search x"));
    }
}
