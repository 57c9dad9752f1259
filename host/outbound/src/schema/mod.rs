//! JSON Schemas of strangers: the one that a guest wants an answer to fit, and those of a tool server's tools. A schema can be made
//! so that checking against it never ends or takes all of the stack, so what is accepted has a bounded cost, and nothing is
//! fetched.
//!
//! The bound is a product that is known before the engine begins: the subschemas that the engine visits for one value (`weight`)
//! times the values. It runs on a thread of its own (`apart`), never on a guest's stack or within a guest's poll.

mod apart;
mod relax;
mod size;
mod tolerant;
mod unroll;
mod weight;

pub(crate) use apart::apart;
pub(crate) use tolerant::{Tolerant, tolerant};

use agentry_defence::Defence;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};
use std::sync::Arc;
use weight::Weight;

/// The most that one regular expression may take when it is compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// The most steps of one check. A step takes some nanoseconds, so this is about a second.
const MAX_STEPS: u64 = 50_000_000;
/// The most steps of a check whose fault is located where a schema has branches: the engine then collects every fault of every
/// branch, at about 300 bytes each.
const MAX_LOCATED_STEPS: u64 = 200_000;

/// A schema that can be checked against. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Schema {
    /// As it was written.
    pub source: Arc<Value>,
    validator: Arc<Validator>,
    weight: Weight,
}

/// Reads a schema (JSON Schema, draft 2020-12).
///
/// # Errors
/// What is wrong with it; reads on after "the schema".
pub(crate) fn compile(text: &str) -> Result<Schema, String> {
    let source: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    read(source, Some(Draft::Draft202012))
}

/// The same of the draft that its `$schema` names, 2020-12 if it names none.
///
/// # Errors
/// As [`compile`].
#[cfg(test)]
pub(crate) fn of_its_draft(source: Value) -> Result<Schema, String> {
    read(source, None)
}

fn read(source: Value, draft: Option<Draft>) -> Result<Schema, String> {
    let Value::Object(members) = &source else {
        return Err("is no JSON object".into());
    };
    let draft = match draft.unwrap_or_else(|| Draft::default().detect(&source)) {
        Draft::Unknown => {
            return Err(format!(
                "has the unknown \"$schema\" {}; use \"https://json-schema.org/draft/2020-12/schema\", or an older draft's",
                members["$schema"]
            ));
        }
        draft => draft,
    };
    let weight = weigh(&source, draft)?;
    let validator = build(members, draft)?;
    Ok(Schema { source: source.into(), validator: validator.into(), weight })
}

fn weigh(source: &Value, draft: Draft) -> Result<Weight, String> {
    match Defence::SchemaSize.stands() {
        true => weight::weigh(source, draft),
        false => Ok(Weight::default()),
    }
}

fn build(members: &Map<String, Value>, draft: Draft) -> Result<Validator, String> {
    let options = jsonschema::options()
        .with_draft(draft)
        // Formats are annotations since 2019-09. Before, they were assertions, some of them of unbounded cost.
        .should_validate_formats(false);
    let options = match Defence::SchemaPatterns.stands() {
        // Time linear in the text, unlike an expression that looks back.
        true => options.with_pattern_options(
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES),
        ),
        false => options,
    };
    // Without a name and a draft of its own, a reference to "#/..." leads into this document alone.
    let mut anonymous = members.clone();
    anonymous.retain(|name, _| name != "$schema" && name != draft.id_keyword());
    let built = options.offline().build(&Value::Object(anonymous));
    built.map_err(|error| format!("is no JSON Schema: {}", error.masked()))
}

impl Schema {
    /// Whether a value fits.
    ///
    /// # Errors
    /// Where and why it does not.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let steps = self.weight.steps(value);
        if steps > MAX_STEPS && Defence::SchemaSize.stands() {
            return Err(format!(
                "the check would take {steps} steps, and at most {MAX_STEPS} are allowed; make the value smaller, or the schema simpler"
            ));
        }
        // Allocates nothing, unlike a fault.
        if self.validator.is_valid(value) {
            return Ok(());
        }
        if steps > MAX_LOCATED_STEPS && self.weight.has_branches {
            return Err("a branch of the schema does not fit; the value is too large to locate the fault".into());
        }
        // The first fault alone: there may be as many as steps.
        self.validator.validate(value).map_err(|error| {
            let path = error.instance_path().to_string();
            // The value may be long, and the guest is told the place: a masked error says which rule it broke.
            format!("at {:?}: {}", if path.is_empty() { "/" } else { &path }, error.masked())
        })
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
