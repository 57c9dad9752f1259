//! The cost of a schema, computed before the engine sees it.
//!
//! For one value the engine visits each subschema once, references written out, with one exception: `unevaluatedProperties` and
//! `unevaluatedItems` visit the subschemas beside them again, to learn which members those evaluate (a marking). A marking visits
//! each subschema in place (`allOf`, a reference, ...) twice, once to check it and once to mark it; so nested ones multiply.

use jsonschema::Draft;
use regex_syntax::hir::{Hir, HirKind};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most subschemas, all references written out.
const MAX_SUBSCHEMAS: u64 = 10_000;
/// The deepest nesting, all references written out; the engine recurses as deep.
const MAX_DEPTH: usize = 100;
/// The most regular expressions.
const MAX_PATTERNS: usize = 100;
/// The states of a regular expression that only the engine can read: as many as fit its compiled size.
const MAX_STATES: u64 = super::MAX_PATTERN_BYTES as u64 / 16;
/// Comparisons of an array's item with others.
const UNIQUE_ITEMS: u64 = 16;
/// Passes of the engine over the names of an object for one expression of `patternProperties`.
const PATTERN_PASSES: u64 = 3;
/// Bytes of a text that cost as much as a value of their own.
const BYTES_PER_VALUE: u64 = 64;
/// Keywords that make a reference lead elsewhere than it seems.
pub(super) const REJECTED: [&str; 3] = ["$dynamicRef", "$recursiveRef", "$recursiveAnchor"];
/// Keywords whose subschemas are for the same value, and so are marked.
pub(super) const IN_PLACE: [&str; 10] =
    ["$ref", "allOf", "anyOf", "dependencies", "dependentSchemas", "else", "if", "not", "oneOf", "then"];

/// An upper bound of the engine's steps for one value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// Subschemas and values within them.
    parts: u64,
    /// States of regular expressions, each visited for each byte of a text.
    states: u64,
    /// Whether it has `anyOf` or `oneOf`.
    pub has_branches: bool,
}

impl Weight {
    /// Subschemas and values within them.
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// The most steps that a check of a value takes.
    pub fn steps(&self, value: &Value) -> u64 {
        let (values, bytes) = size(value);
        let parts = self.parts.saturating_mul(values.saturating_add(bytes / BYTES_PER_VALUE));
        parts.saturating_add(self.states.saturating_mul(bytes))
    }

    fn plus(self, other: Weight) -> Weight {
        Weight {
            parts: self.parts.saturating_add(other.parts),
            states: self.states.saturating_add(other.states),
            has_branches: self.has_branches || other.has_branches,
        }
    }
}

/// Values in a value, and bytes of its texts.
fn size(value: &Value) -> (u64, u64) {
    let sum = |(values, bytes): (u64, u64), (v, b): (u64, u64)| (values + v, bytes + b);
    match value {
        Value::String(text) => (1, text.len() as u64),
        Value::Array(items) => items.iter().map(size).fold((1, 0), sum),
        Value::Object(members) => {
            members.iter().map(|(name, member)| sum(size(member), (1, name.len() as u64))).fold((1, 0), sum)
        }
        _ => (1, 0),
    }
}

/// Rejects a schema that could cost without bound.
pub(super) fn weigh(schema: &Value, draft: Draft) -> Result<Weight, String> {
    let mut walk = Walk { root: schema, draft, known: BTreeMap::new(), patterns: 0, depth: 0 };
    Ok(walk.cost(schema, Place::Root)?.check)
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Schema,
    /// Subschemas for the same value, by the name of a property.
    Names,
}

/// The cost of one part of a schema.
#[derive(Clone, Copy, Default)]
struct Cost {
    check: Weight,
    marking: Weight,
    /// Levels below, this one included.
    height: usize,
}

struct Walk<'a> {
    root: &'a Value,
    draft: Draft,
    /// The cost of a reference's target; `None` while it is being computed.
    known: BTreeMap<&'a str, Option<Cost>>,
    patterns: usize,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn cost(&mut self, value: &'a Value, place: Place) -> Result<Cost, String> {
        self.depth += 1;
        self.check_depth(0)?;
        let mut sum = Cost { check: own(1, 0), marking: own(1, 0), height: 0 };
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    self.member(name, member, place, &mut sum)?;
                }
                for name in ["unevaluatedItems", "unevaluatedProperties"] {
                    if members.contains_key(name) {
                        sum.check = sum.check.plus(sum.marking);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    let cost = self.cost(item, Place::Schema)?;
                    sum.add(cost, cost.marking);
                }
            }
            _ => {}
        }
        if sum.check.parts > MAX_SUBSCHEMAS {
            return Err(format!("is too large: more than {MAX_SUBSCHEMAS} parts with all references written out"));
        }
        self.depth -= 1;
        sum.height += 1;
        Ok(sum)
    }

    /// Whether as many levels as are below this one are allowed here.
    fn check_depth(&self, height: usize) -> Result<(), String> {
        if self.depth + height > MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH} with all references written out"));
        }
        Ok(())
    }

    fn member(&mut self, name: &'a str, member: &'a Value, place: Place, sum: &mut Cost) -> Result<(), String> {
        if REJECTED.contains(&name) {
            return Err(format!("has {name:?}, which is not supported here; use \"$ref\""));
        }
        // Another base or draft would let a reference lead elsewhere than it seems.
        let moves = name == "$schema" || name == "$id" || name == self.draft.id_keyword();
        if moves && place != Place::Root && member.is_string() {
            return Err(format!("has {name:?} below its root, which is not supported here; leave it out"));
        }
        let patterns = match (name, member) {
            ("pattern", Value::String(pattern)) => self.patterns([pattern.as_str()])?,
            ("patternProperties", Value::Object(patterns)) => {
                self.patterns(patterns.keys().map(String::as_str))?.saturating_mul(PATTERN_PASSES)
            }
            _ => 0,
        };
        let mut here = own(if name == "uniqueItems" { UNIQUE_ITEMS } else { 0 }, patterns);
        here.has_branches = matches!(name, "anyOf" | "oneOf");
        sum.add(Cost { check: here, ..Cost::default() }, here);
        if let ("$ref", Value::String(reference)) = (name, member) {
            let target = self.reference(reference)?;
            sum.add(target, target.check.plus(target.marking));
        }
        let below = if matches!(name, "dependencies" | "dependentSchemas") { Place::Names } else { Place::Schema };
        let cost = self.cost(member, below)?;
        let is_marked = place == Place::Names || IN_PLACE.contains(&name);
        sum.add(cost, if is_marked { cost.check.plus(cost.marking) } else { cost.check });
        Ok(())
    }

    fn patterns<'p>(&mut self, patterns: impl IntoIterator<Item = &'p str>) -> Result<u64, String> {
        let mut sum = 0_u64;
        for pattern in patterns {
            self.patterns += 1;
            if self.patterns > MAX_PATTERNS {
                return Err(format!("has more than {MAX_PATTERNS} regular expressions"));
            }
            sum = sum.saturating_add(regex_syntax::parse(pattern).map_or(MAX_STATES, |hir| states(&hir)));
        }
        Ok(sum)
    }

    fn reference(&mut self, reference: &'a str) -> Result<Cost, String> {
        match self.known.get(reference) {
            Some(Some(cost)) => {
                self.check_depth(cost.height)?;
                return Ok(*cost);
            }
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
        let cost = self.cost(target, Place::Schema)?;
        self.known.insert(reference, Some(cost));
        Ok(cost)
    }
}

impl Cost {
    fn add(&mut self, part: Cost, marking: Weight) {
        self.check = self.check.plus(part.check);
        self.marking = self.marking.plus(marking);
        self.height = self.height.max(part.height);
    }
}

fn own(parts: u64, states: u64) -> Weight {
    Weight { parts, states, has_branches: false }
}

/// The states of a regular expression that a text can be in at once, at most.
fn states(hir: &Hir) -> u64 {
    let states = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        // A character of several bytes.
        HirKind::Class(_) => 4,
        HirKind::Repetition(repeated) => {
            let times = u64::from(repeated.max.unwrap_or(repeated.min.saturating_add(1)));
            states(&repeated.sub).saturating_mul(times)
        }
        HirKind::Capture(capture) => states(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(states).fold(1, u64::saturating_add),
    };
    states.min(MAX_STATES)
}

/// A pointer in a URI fragment is percent-encoded (RFC 6901, section 6).
pub(super) fn decoded(pointer: &str) -> String {
    // A form's encoding has one rule more, so the plus sign is kept from it.
    let pair = format!("p={}", pointer.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}
