//! Parts of a server's schema that cannot be checked here are left out, so that the rest still can be.
//!
//! Each value that fits the schema fits what is left of it: a tool must not reject what its server takes. Where a part that was left
//! out made others apply (`not`, `if`, `oneOf`, a bound on `contains`, members that are not evaluated), those are left out or widened as
//! well.

use super::size::{parts, places};
use super::weight::{REJECTED, decoded};
use jsonschema::Draft;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A reference that is to be left out.
pub(super) const CUT: &str = "#agentry-cut";
/// The most parts that are looked at; a schema of more is too large to be checked.
const MAX_PARTS: usize = 20_000;
/// The most times that a schema is gone through: once more for each reference to what became wider.
const MAX_PASSES: usize = 64;
/// The most regular expressions that are tried; a schema of more is rejected by its weight.
const MAX_PATTERNS: usize = 100;
/// The most bytes of the pointers to all parts. A name counts once for each part below it.
const MAX_PLACES: usize = 4 << 20;
/// The most parts that are named.
const MAX_NOTES: usize = 20;
/// The most bytes of the place of a part that is named.
const MAX_NOTED: usize = 256;
/// Keywords whose value is a schema.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords that nothing is checked by.
const ANNOTATIONS: [&str; 6] = ["$comment", "default", "description", "example", "examples", "title"];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value has schemas by name.
const NAMED: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// A schema without what cannot be checked.
pub(super) struct Relaxed {
    pub schema: Value,
    /// The parts that are not checked, each with its place.
    pub unchecked: Vec<String>,
}

/// Leaves out what cannot be checked.
///
/// # Errors
/// It is too large to be looked at, or refers to another document.
pub(super) fn relax(schema: &Value, draft: Draft, compiles: impl Fn(&str) -> bool) -> Result<Relaxed, String> {
    if parts(schema) > MAX_PARTS {
        return Err(format!("is too large: more than {MAX_PARTS} parts"));
    }
    // Before anything that keeps a pointer for each part.
    if places(schema, 0) > MAX_PLACES {
        return Err(format!("is too large: its names are too long, more than {MAX_PLACES} bytes with each part's"));
    }
    let mut schema = schema.clone();
    let id = match &mut schema {
        Value::Object(members) => {
            members.remove("$schema");
            members.remove(draft.id_keyword())
        }
        _ => None,
    };
    let mut walk = Walk {
        draft,
        compiles,
        own: id.and_then(|id| id.as_str().map(|id| id.trim_end_matches('#').to_owned())),
        invalid: invalid(&schema, draft),
        patterns: BTreeMap::new(),
        wider: BTreeMap::new(),
        notes: BTreeSet::new(),
        outside: None,
    };
    for _ in 0..MAX_PASSES {
        let known = walk.wider.clone();
        let root = schema.clone();
        walk.schema(&mut schema, "", &root);
        if let Some(outside) = walk.outside.take() {
            return Err(format!(
                "has a reference {outside:?} to another document, and nothing is fetched; write it like \"#/$defs/NAME\""
            ));
        }
        if walk.wider == known {
            return Ok(Relaxed { schema, unchecked: walk.notes.into_iter().collect() });
        }
    }
    Ok(Relaxed {
        schema: json!({}),
        unchecked: vec!["all of it: its parts that cannot be checked are too many".to_owned()],
    })
}

/// The pointer of a member (RFC 6901, section 3).
fn under(place: &str, name: &str) -> String {
    format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The places that break the rules of the draft.
fn invalid(schema: &Value, draft: Draft) -> BTreeSet<String> {
    let meta = match draft {
        Draft::Draft4 => jsonschema::draft4::meta::validator(),
        Draft::Draft6 => jsonschema::draft6::meta::validator(),
        Draft::Draft7 => jsonschema::draft7::meta::validator(),
        Draft::Draft201909 => jsonschema::draft201909::meta::validator(),
        _ => jsonschema::draft202012::meta::validator(),
    };
    // One part may break several rules.
    let mut room = 4 * MAX_PLACES;
    let places = meta.iter_errors(schema).map(|error| error.instance_path().to_string());
    let places = places.take_while(|place| {
        room = room.saturating_sub(place.len() + 1);
        room > 0
    });
    places.collect()
}

/// Which values a part takes that it did not take before: of itself, or only below it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Wider {
    here: bool,
    below: bool,
}

impl Wider {
    const HERE: Wider = Wider { here: true, below: true };
    const BELOW: Wider = Wider { here: false, below: true };

    fn or(self, other: Wider) -> Wider {
        Wider { here: self.here || other.here, below: self.below || other.below }
    }

    fn is_any(self) -> bool {
        self.here || self.below
    }
}

struct Walk<F> {
    draft: Draft,
    compiles: F,
    /// The document's own id.
    own: Option<String>,
    invalid: BTreeSet<String>,
    /// Regular expressions that were tried.
    patterns: BTreeMap<String, bool>,
    /// By place.
    wider: BTreeMap<String, Wider>,
    notes: BTreeSet<String>,
    /// A reference to another document.
    outside: Option<String>,
}

impl<F: Fn(&str) -> bool> Walk<F> {
    fn note(&mut self, place: &str, why: &str) {
        if self.notes.len() == MAX_NOTES {
            return;
        }
        let shown = match place {
            "" => "/",
            place => &place[..place.floor_char_boundary(MAX_NOTED)],
        };
        let cut = if shown.len() < place.len() { "…" } else { "" };
        self.notes.insert(format!("{shown}{cut}: {why}"));
    }

    fn schema(&mut self, value: &mut Value, place: &str, root: &Value) -> Wider {
        let mut wider = self.wider.get(place).copied().unwrap_or_default();
        match value {
            Value::Bool(_) => {}
            Value::Object(members) => wider = wider.or(self.object(members, place, root)),
            other => {
                *other = true.into();
                self.note(place, "it is no schema");
                wider = Wider::HERE;
            }
        }
        if wider.is_any() {
            self.wider.insert(place.to_owned(), wider);
        }
        wider
    }

    fn object(&mut self, members: &mut Map<String, Value>, place: &str, root: &Value) -> Wider {
        if !place.is_empty() && members.get(self.draft.id_keyword()).is_some_and(Value::is_string) {
            members.clear();
            self.note(place, "it is a document of its own");
            return Wider::HERE;
        }
        if !place.is_empty()
            && members.contains_key("$schema")
            && self.draft.detect(&json!({"$schema": members["$schema"]})) != self.draft
        {
            members.clear();
            self.note(place, "it is of another draft");
            return Wider::HERE;
        }
        if !place.is_empty() {
            members.remove("$schema");
        }
        members.retain(|name, _| !ANNOTATIONS.contains(&name.as_str()));
        let mut wider = Wider::default();
        for name in members.keys().cloned().collect::<Vec<_>>() {
            let at = under(place, &name);
            let Some(value) = members.get_mut(&name) else { continue };
            if let Some(why) = self.unusable(&name, value, &at, root) {
                members.remove(&name);
                self.note(&at, why);
                wider = Wider::HERE;
                continue;
            }
            let found = self.keyword(&name, value, &at, root);
            wider = wider.or(self.widen(members, &name, found, &at));
        }
        if wider.here {
            members.remove("unevaluatedItems");
            members.remove("unevaluatedProperties");
        }
        wider
    }

    /// Why a keyword cannot be used at all.
    fn unusable(&mut self, name: &str, value: &mut Value, at: &str, root: &Value) -> Option<&'static str> {
        let has_schemas = ONE.contains(&name) || LIST.contains(&name) || NAMED.contains(&name);
        let below = format!("{at}/");
        let is_invalid = self.invalid.contains(at)
            || !has_schemas
                && self.invalid.range(below.clone()..).next().is_some_and(|place| place.starts_with(&below));
        // What is no schema is found where it is one's place; a list may have been one in an older draft.
        let is_place = ONE.contains(&name) && !value.is_array();
        match (name, value) {
            _ if is_invalid && !is_place => Some("it breaks the rules of its draft"),
            ("pattern", Value::String(pattern)) if !self.compiles(pattern) => {
                Some("a regular expression that is not supported here")
            }
            ("$ref", Value::String(reference)) => {
                if let Some(own) = self.own.as_deref().filter(|own| !own.is_empty())
                    && let Some(rest) =
                        reference.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with('#'))
                {
                    *reference = if rest.is_empty() { "#".to_owned() } else { rest.to_owned() };
                }
                match reference.strip_prefix('#') {
                    None => {
                        self.outside.get_or_insert(reference.chars().take(200).collect());
                        None
                    }
                    Some(_) if reference == CUT => Some("recursion beyond this depth"),
                    Some(pointer) if root.pointer(&decoded(pointer)).is_none() => {
                        Some("a reference that leads nowhere")
                    }
                    Some(_) => None,
                }
            }
            _ if REJECTED.contains(&name) => Some("a keyword that is not supported here"),
            _ => None,
        }
    }

    /// Goes through the schemas of a keyword.
    fn keyword(&mut self, name: &str, value: &mut Value, at: &str, root: &Value) -> Wider {
        let mut wider = Wider::default();
        match value {
            Value::String(reference) if name == "$ref" => {
                let target = reference.strip_prefix('#').map(decoded).unwrap_or_default();
                return self.wider.get(&target).copied().unwrap_or_default();
            }
            Value::Array(items) if LIST.contains(&name) || name == "items" => {
                for (n, item) in items.iter_mut().enumerate() {
                    wider = wider.or(self.schema(item, &format!("{at}/{n}"), root));
                }
            }
            Value::Object(named) if NAMED.contains(&name) => {
                if name == "patternProperties" {
                    wider = self.pattern_names(named, at);
                }
                for (key, value) in named.iter_mut().filter(|(_, value)| !(name == "dependencies" && value.is_array()))
                {
                    let at = under(at, key);
                    let found = self.schema(value, &at, root);
                    let in_place = name == "dependencies" || name == "dependentSchemas";
                    wider = wider.or(if in_place { found } else { Wider { here: false, below: found.is_any() } });
                }
            }
            value if ONE.contains(&name) => wider = self.schema(value, at, root),
            _ => {}
        }
        wider
    }

    fn pattern_names(&mut self, named: &mut Map<String, Value>, at: &str) -> Wider {
        let odd: Vec<String> = named.keys().filter(|pattern| !self.patterns.contains_key(*pattern)).cloned().collect();
        for pattern in odd {
            self.compiles(&pattern);
        }
        let known = named.len();
        named.retain(|pattern, _| self.patterns.get(pattern).copied().unwrap_or(true));
        if named.len() == known {
            return Wider::default();
        }
        self.note(at, "a regular expression that is not supported here");
        Wider::HERE
    }

    /// Leaves out or widens what others of the same schema depend on.
    fn widen(&mut self, members: &mut Map<String, Value>, name: &str, found: Wider, at: &str) -> Wider {
        if !found.is_any() {
            return Wider::default();
        }
        let (here, below) = (Wider::HERE, Wider::BELOW);
        match name {
            // They apply where they are referred to.
            "$defs" | "definitions" => Wider::default(),
            "not" => {
                members.remove("not");
                self.note(at, "it has a part that is not checked");
                here
            }
            "if" => {
                for name in ["if", "then", "else"] {
                    members.remove(name);
                }
                self.note(at, "it has a part that is not checked");
                here
            }
            "oneOf" => {
                if let Some(branches) = members.remove("oneOf") {
                    let any = json!({"anyOf": branches});
                    match members.get_mut("allOf") {
                        Some(Value::Array(all)) => all.push(any),
                        _ => {
                            members.insert("allOf".into(), json!([any]));
                        }
                    }
                    self.note(at, "whether more than one fits");
                }
                here
            }
            "contains" => {
                members.remove("maxContains");
                here
            }
            // A member whose name fits a pattern that was left out must not count as an additional one.
            "patternProperties" if found.here => {
                members.remove("additionalProperties");
                here
            }
            "properties"
            | "patternProperties"
            | "items"
            | "prefixItems"
            | "additionalItems"
            | "additionalProperties"
            | "propertyNames"
            | "contentSchema"
            | "unevaluatedItems"
            | "unevaluatedProperties" => below,
            _ => found,
        }
    }

    fn compiles(&mut self, pattern: &str) -> bool {
        if let Some(known) = self.patterns.get(pattern) {
            return *known;
        }
        let compiles = self.patterns.len() >= MAX_PATTERNS || (self.compiles)(pattern);
        self.patterns.insert(pattern.to_owned(), compiles);
        compiles
    }
}
