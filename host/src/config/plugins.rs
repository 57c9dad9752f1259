//! `[plugins."PATTERN"]`: the operator's half of every grant.

use super::calls;
use super::file::{Table, TableValue};
use super::origin::Problem;
use super::reader::absolute;
use super::{LimitSet, Origin};
use crate::registry::{CallsPolicy, Pins};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Capabilities that a rule may name.
const CAPABILITIES: [&str; 7] = ["http", "llm", "tools", "keyvalue", "memory", "config", "folders"];
/// Budgets that a rule may set.
const BUDGETS: [&str; 4] =
    ["llm_requests_per_day", "llm_tokens_per_day", "http_requests_per_day", "tool_calls_per_day"];

/// What an operator says about plugins whose name fits a pattern. Of several rules that fit, the more specific one
/// decides, key by key.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginRule {
    /// A name in which `*` stands for any characters, none included.
    pub pattern: String,
    /// Whether they are served; `None`: the rule does not say.
    pub enabled: Option<bool>,
    /// At most so many of its tasks at once on this host.
    pub concurrency: Option<u32>,
    /// Capability → what is allowed of it, as written.
    pub capabilities: BTreeMap<String, Value>,
    /// Limit (named as in `[limits.default]`) → value where `plugin.toml` is silent.
    pub limits: BTreeMap<String, u64>,
    /// Limit → the most that `plugin.toml` and tasks may ask for.
    pub max: BTreeMap<String, u64>,
    /// Folders and digests that these plugins may have.
    pub pins: Pins,
    /// Budget (`llm_tokens_per_day` and so on) → value.
    pub budgets: BTreeMap<String, u64>,
    /// What is recorded of calls, instead of `[calls]`.
    pub calls: CallsPolicy,
}

/// Whether this may be a plugin's name, or a pattern of such names.
pub(super) fn is_pattern(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '*')
}

/// Whether this may be a name that operators give.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

impl PluginRule {
    /// One that says nothing yet.
    pub fn of(pattern: &str) -> PluginRule {
        PluginRule {
            pattern: pattern.to_owned(),
            enabled: None,
            concurrency: None,
            capabilities: BTreeMap::new(),
            limits: BTreeMap::new(),
            max: BTreeMap::new(),
            pins: Pins::default(),
            budgets: BTreeMap::new(),
            calls: CallsPolicy::default(),
        }
    }

    /// Characters that a name must have: the more, the more specific. A name without `*` is the most specific of all.
    fn specificity(&self) -> (bool, usize) {
        (!self.pattern.contains('*'), self.pattern.len() - self.pattern.matches('*').count())
    }
}

/// Read every such table, the most specific first.
pub(super) fn rules(tables: &[&Table], max: &LimitSet, calls: &CallsPolicy) -> Result<Vec<PluginRule>, Problem> {
    let mut rules = tables.iter().map(|table| rule(table, max, calls)).collect::<Result<Vec<_>, _>>()?;
    rules.sort_by(|a, b| b.specificity().cmp(&a.specificity()).then_with(|| a.pattern.cmp(&b.pattern)));
    Ok(rules)
}

fn rule(table: &Table, max: &LimitSet, calls: &CallsPolicy) -> Result<PluginRule, Problem> {
    if !is_pattern(&table.name) {
        return Err(Problem(format!(
            "{}: {} is no plugin name or pattern; it takes lower-case letters, digits, - and *",
            table.origin,
            table.title()
        )));
    }
    table.only(&["enabled", "concurrency", "dir", "digest", "capabilities.*", "limits.*", "budgets.*", "calls.*"])?;
    let mut rule = PluginRule {
        concurrency: table.number("concurrency", 1..=100_000)?.and_then(|n| u32::try_from(n).ok()),
        calls: calls::of_rule(table, calls)?,
        pins: Pins { dir: folders(table)?, digest: digests(table)? },
        ..PluginRule::of(&table.name)
    };
    for (key, (value, origin)) in &table.values {
        if key == "enabled" {
            let enabled = value.0.as_bool();
            rule.enabled = Some(enabled.ok_or_else(|| table.invalid(key, origin, "it takes true or false"))?);
        } else if let Some(name) = key.strip_prefix("capabilities.") {
            if !CAPABILITIES.contains(&name) {
                return Err(unknown(table, key, origin, &CAPABILITIES));
            }
            rule.capabilities.insert(name.to_owned(), value.0.clone());
        } else if let Some(name) = key.strip_prefix("budgets.") {
            if !BUDGETS.contains(&name) {
                return Err(unknown(table, key, origin, &BUDGETS));
            }
            rule.budgets.extend(table.number(key, 1..=1_000_000_000_000)?.map(|n| (name.to_owned(), n)));
        } else if let Some(name) = key.strip_prefix("calls.") {
            if !calls::KEYS.contains(&name) {
                return Err(unknown(table, key, origin, &calls::KEYS));
            }
        } else if key == "limits.max" {
            let Some(own) = value.0.as_object() else {
                return Err(table.invalid(key, origin, "it takes limits by name, such as limits.max.memory_mib = 256"));
            };
            for (name, value) in own {
                let number = limit(table, &format!("limits.max.{name}"), name, (value, origin), max)?;
                rule.max.insert(name.clone(), number);
            }
        } else if let Some(name) = key.strip_prefix("limits.") {
            rule.limits.insert(name.to_owned(), limit(table, key, name, (&value.0, origin), max)?);
        }
    }
    for (name, value) in &rule.limits {
        if let Some(most) = rule.max.get(name).filter(|most| *value > **most) {
            let key = format!("limits.{name}");
            let origin = table.values.get(&key).map_or(&table.origin, |(_, origin)| origin);
            let what = format_args!("{value} is more than limits.max.{name} there ({most}); lower it, or raise that");
            return Err(table.invalid(&key, origin, what));
        }
    }
    Ok(rule)
}

/// The value of a limit, at most its ceiling for all plugins.
fn limit(
    table: &Table,
    key: &str,
    name: &str,
    (value, origin): (&Value, &Origin),
    max: &LimitSet,
) -> Result<u64, Problem> {
    let ceilings = max.numbers();
    let Some((_, ceiling)) = ceilings.iter().find(|(limit, _)| *limit == name) else {
        let known: Vec<&str> = ceilings.iter().map(|(limit, _)| *limit).collect();
        return Err(unknown(table, key, origin, &known));
    };
    value.as_u64().filter(|number| (1..=*ceiling).contains(number)).ok_or_else(|| {
        let takes = format!("it takes a whole number from 1 to {ceiling} (limits.max.{name})");
        table.invalid(key, origin, format_args!("{value} is not allowed; {takes}"))
    })
}

/// Folders of a pin, absolute. One that is missing yet may be mounted later; until then its plugins are refused with the reason.
fn folders(table: &Table) -> Result<Option<Vec<PathBuf>>, Problem> {
    let Some((texts, origin)) = texts(table, "dir")? else { return Ok(None) };
    let base = origin.file().and_then(|file| file.parent()).unwrap_or(Path::new("/"));
    Ok(Some(texts.iter().map(|text| absolute(base, text)).collect()))
}

fn digests(table: &Table) -> Result<Option<Vec<String>>, Problem> {
    let Some((texts, origin)) = texts(table, "digest")? else { return Ok(None) };
    let is_digest = |text: &String| {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match texts.iter().find(|text| !is_digest(text)) {
        None => Ok(Some(texts)),
        Some(text) => Err(table.invalid(
            "digest",
            origin,
            format_args!("{text:?} is not a digest; it takes sha256: and 64 hexadecimal digits in lower case"),
        )),
    }
}

/// One text or several.
fn texts<'a>(table: &'a Table, key: &str) -> Result<Option<(Vec<String>, &'a Origin)>, Problem> {
    let Some((TableValue(value), origin)) = table.values.get(key) else { return Ok(None) };
    let text = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let texts: Option<Vec<String>> = match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(text).collect(),
        other => text(other).map(|text| vec![text]),
    };
    let texts = texts.ok_or_else(|| table.invalid(key, origin, "it takes text in quotes, or a list of such"))?;
    Ok(Some((texts, origin)))
}

fn unknown(table: &Table, key: &str, origin: &Origin, known: &[&str]) -> Problem {
    table.invalid(key, origin, format_args!("it is unknown; known are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str) -> PluginRule {
        PluginRule::of(pattern)
    }

    #[test]
    fn a_name_is_more_specific_than_any_pattern() {
        let mut patterns = [rule("*"), rule("fetch-much-longer-*"), rule("fetch"), rule("fetch-*")];
        patterns.sort_by_key(|r| std::cmp::Reverse(r.specificity()));
        assert_eq!(patterns.map(|r| r.pattern), ["fetch", "fetch-much-longer-*", "fetch-*", "*"]);
    }
}
