//! JSON Schemas of strangers: the one that a guest wants an answer to fit, and those of a tool server's tools. A schema can be made
//! so that checking against it never ends or takes all of the stack, so what is accepted has a bounded cost, and nothing is
//! fetched.

use agentry_defence::Defence;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most subschemas, all references written out. The check's cost is at most this times the answer's length.
const MAX_SUBSCHEMAS: usize = 10_000;
/// The deepest nesting, all references written out; whoever walks it walks with a stack.
const MAX_DEPTH: usize = 100;
/// The most regular expressions.
const MAX_PATTERNS: usize = 100;
/// The most that one regular expression may take when it is compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// The most faults that are told.
const TOLD_FAULTS: usize = 3;
/// Where a reference means what this module takes it for only if these are not there.
const REFUSED: [&str; 3] = ["$dynamicRef", "$recursiveRef", "$recursiveAnchor"];

/// A schema that can be checked against. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Schema {
    /// As it was written.
    pub source: Arc<Value>,
    validator: Arc<Validator>,
}

/// Reads a schema (JSON Schema, draft 2020-12).
///
/// # Errors
/// What is wrong with it; reads on after "the schema".
pub(crate) fn compile(text: &str) -> Result<Schema, String> {
    let source: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    read(source, Some(Draft::Draft202012))
}

/// The same of the draft that its `$schema` names, 2020-12 if it names none: what the Model Context Protocol says of tools.
///
/// # Errors
/// As [`compile`].
pub(crate) fn of_its_draft(source: Value) -> Result<Schema, String> {
    read(source, None)
}

fn read(source: Value, draft: Option<Draft>) -> Result<Schema, String> {
    if !source.is_object() {
        return Err("is no JSON object".into());
    }
    if Defence::SchemaSize.stands() {
        weigh(&source)?;
    }
    let options = jsonschema::options();
    let options = match draft {
        Some(draft) => options.with_draft(draft),
        None => options,
    };
    let options = match Defence::SchemaPatterns.stands() {
        // Time linear in the text, unlike an expression that looks back.
        true => options.with_pattern_options(
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES),
        ),
        false => options,
    };
    let validator = options.offline().build(&source).map_err(|error| format!("is no JSON Schema: {error}"))?;
    Ok(Schema { source: source.into(), validator: validator.into() })
}

impl Schema {
    /// Whether a value fits.
    ///
    /// # Errors
    /// Where and why it does not.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let told = |error: jsonschema::ValidationError<'_>| {
            let path = error.instance_path().to_string();
            // The value may be long, and the guest is told the place: a masked error says which rule it broke.
            format!("at {:?}: {}", if path.is_empty() { "/" } else { &path }, error.masked())
        };
        let faults: Vec<String> = self.validator.iter_errors(value).take(TOLD_FAULTS).map(told).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

impl Schema {
    /// Whether every object in it names all of its members, as required ones, and allows no others. Providers that hold an
    /// answer to a schema while they write it take no other objects.
    pub fn is_closed(&self) -> bool {
        is_closed(&self.source)
    }
}

fn is_closed(value: &Value) -> bool {
    let closed_here = match &value["properties"] {
        Value::Object(properties) => {
            let required = value["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            value["additionalProperties"] == false
                && properties.keys().all(|name| required.iter().any(|r| r.as_str() == Some(name)))
        }
        _ => value["type"] != "object" || value["additionalProperties"] == false,
    };
    let mut below: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Object(members) => Box::new(members.values()),
        Value::Array(items) => Box::new(items.iter()),
        _ => Box::new(std::iter::empty()),
    };
    closed_here && below.all(is_closed)
}

/// Refuses what could cost without bound.
fn weigh(schema: &Value) -> Result<(), String> {
    let mut walk = Walk { root: schema, known: BTreeMap::new(), patterns: 0, depth: 0 };
    walk.weight(schema, true)?;
    Ok(())
}

struct Walk<'a> {
    root: &'a Value,
    /// The weight of what references lead to; `None` while it is being weighed.
    known: BTreeMap<&'a str, Option<usize>>,
    patterns: usize,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn weight(&mut self, value: &'a Value, is_root: bool) -> Result<usize, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH} with all references written out"));
        }
        self.depth += 1;
        let mut sum = 1_usize;
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    sum = sum.saturating_add(self.member(name, member, is_root)?);
                }
            }
            Value::Array(items) => {
                for item in items {
                    sum = sum.saturating_add(self.weight(item, false)?);
                }
            }
            _ => {}
        }
        if sum > MAX_SUBSCHEMAS {
            return Err(format!("is too large: more than {MAX_SUBSCHEMAS} parts with all references written out"));
        }
        self.depth -= 1;
        Ok(sum)
    }

    fn member(&mut self, name: &str, member: &'a Value, is_root: bool) -> Result<usize, String> {
        if REFUSED.contains(&name) {
            return Err(format!("has {name:?}, which is not supported here; use \"$ref\""));
        }
        // Another base would let a reference lead elsewhere than it seems.
        if name == "$id" && !is_root && member.is_string() {
            return Err("has an \"$id\" below its root, which is not supported here".into());
        }
        self.patterns += match (name, member) {
            ("pattern", Value::String(_)) => 1,
            ("patternProperties", Value::Object(patterns)) => patterns.len(),
            _ => 0,
        };
        if self.patterns > MAX_PATTERNS {
            return Err(format!("has more than {MAX_PATTERNS} regular expressions"));
        }
        let referred = match (name, member) {
            ("$ref", Value::String(reference)) => self.reference(reference)?,
            _ => 0,
        };
        Ok(referred.saturating_add(self.weight(member, false)?))
    }

    fn reference(&mut self, reference: &'a str) -> Result<usize, String> {
        match self.known.get(reference) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => {
                return Err(format!(
                    "has a reference {reference:?} that leads in a circle, which is not supported here"
                ));
            }
            None => {}
        }
        self.known.insert(reference, None);
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(&decoded(pointer)));
        let Some(target) = target else {
            return Err(format!(
                "has a reference {reference:?} that leads nowhere in it; write it like \"#/$defs/NAME\""
            ));
        };
        let weight = self.weight(target, false)?;
        self.known.insert(reference, Some(weight));
        Ok(weight)
    }
}

/// A pointer in a URI fragment is percent-encoded (RFC 6901, section 6).
fn decoded(pointer: &str) -> String {
    // A form's encoding has one rule more, so the plus sign is kept from it.
    let pair = format!("p={}", pointer.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}
