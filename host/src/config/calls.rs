//! `[calls]`, and the same keys in `[plugins."PATTERN"]`: what is recorded of calls besides that there was one.

use super::Settings;
use super::file::Table;
use super::origin::Problem;
use super::reader::Reader;
use crate::registry::{BODIES, CallsPolicy};
use serde_json::json;
use std::ops::RangeInclusive;

/// The keys.
pub(super) const KEYS: [&str; 3] = ["bodies", "body_kib", "attempt_kib"];
/// What one body may take: more would not be read by a person.
const BODY_KIB: RangeInclusive<u64> = 1..=1_024;
/// What all of an attempt may take. They are in memory until the attempt is recorded.
const ATTEMPT_KIB: RangeInclusive<u64> = 1..=16_384;

/// `[calls]`; every key says something.
pub(super) fn read(read: &mut Reader) -> Result<CallsPolicy, Problem> {
    let bodies = read.list_or_none("calls.bodies")?;
    if let Some(name) = unknown(&bodies) {
        return Err(Problem::invalid("calls.bodies", &read.origin("calls.bodies"), unknown_name(name)));
    }
    let body_kib = read.number("calls.body_kib", BODY_KIB)?;
    let attempt_kib = read.number("calls.attempt_kib", ATTEMPT_KIB)?;
    if body_kib > attempt_kib {
        return Err(Problem::invalid(
            "calls.body_kib",
            &read.origin("calls.body_kib"),
            too_long(body_kib, attempt_kib),
        ));
    }
    Ok(CallsPolicy { bodies: Some(bodies), body_kib: Some(body_kib), attempt_kib: Some(attempt_kib) })
}

/// The keys `calls.*` of a rule; where it is silent `all` holds.
pub(super) fn of_rule(table: &Table, all: &CallsPolicy) -> Result<CallsPolicy, Problem> {
    let mut policy = CallsPolicy {
        bodies: None,
        body_kib: table.number("calls.body_kib", BODY_KIB)?,
        attempt_kib: table.number("calls.attempt_kib", ATTEMPT_KIB)?,
    };
    if let Some((value, origin)) = table.values.get("calls.bodies") {
        let names = value.0.as_array().map(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        let names: Option<Vec<String>> = names.flatten();
        let takes = || table.invalid("calls.bodies", origin, format_args!("it takes a list of {}", BODIES.join(", ")));
        let names = names.ok_or_else(takes)?;
        if let Some(name) = unknown(&names) {
            return Err(table.invalid("calls.bodies", origin, unknown_name(name)));
        }
        policy.bodies = Some(names);
    }
    let both = policy.or(all);
    if let (Some(body), Some(attempt)) = (both.body_kib, both.attempt_kib)
        && body > attempt
    {
        // One of them stands here, since those of all have been compared.
        let key = if policy.body_kib.is_some() { "calls.body_kib" } else { "calls.attempt_kib" };
        let origin = table.values.get(key).map_or(&table.origin, |(_, origin)| origin);
        return Err(table.invalid(key, origin, too_long(body, attempt)));
    }
    Ok(policy)
}

fn unknown(names: &[String]) -> Option<&str> {
    names.iter().map(String::as_str).find(|name| !BODIES.contains(name))
}

fn unknown_name(name: &str) -> String {
    format!("{name:?} is unknown; known are {}", BODIES.join(", "))
}

fn too_long(body: u64, attempt: u64) -> String {
    format!(
        "body_kib ({body}) is more than attempt_kib ({attempt}), so that no body could ever take as much; lower it, or raise that"
    )
}

impl Settings {
    /// Whose bodies are recorded, a line each; none, if nobody's are. What plugins send and receive is then in the database.
    pub fn recorded_bodies(&self) -> Vec<String> {
        let line = |whose: &str, calls: &CallsPolicy, key: &str| {
            let kib = |kib: Option<u64>| kib.unwrap_or_default();
            let what = match calls.bodies() {
                [] => "none".to_owned(),
                names => format!(
                    "{}, at most {} KiB of one and {} KiB of an attempt",
                    names.join(", "),
                    kib(calls.body_kib),
                    kib(calls.attempt_kib)
                ),
            };
            format!("{:<9} of calls of {whose}: {what} ({})", "bodies", self.origin(key))
        };
        let rules = self.plugins.rules.iter().filter(|rule| rule.calls.bodies.is_some()).map(|rule| {
            let key = format!("plugins.{}.calls.bodies", json!(rule.pattern));
            (format!("{:?}", rule.pattern), rule.calls.or(&self.calls), key)
        });
        let all = ("every plugin".to_owned(), self.calls.clone(), "calls.bodies".to_owned());
        let all = Some(all).filter(|(_, calls, _)| !calls.bodies().is_empty());
        rules.chain(all).map(|(whose, calls, key)| line(&whose, &calls, &key)).collect()
    }
}
