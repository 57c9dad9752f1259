//! Recursive schemas, written out to a depth that can be weighed.
//!
//! Each reference within a circle leads to a copy of its target, whose references lead to the next one; those of the last copy are cut
//! ([`CUT`]). A circle that does not go into the value, such as `{"$ref": "#"}` at the root, would have no end and is rejected.

use super::relax::CUT;
use super::size::{bytes, parts};
use super::weight::{IN_PLACE, decoded};
use jsonschema::Draft;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The most targets of references.
const MAX_TARGETS: usize = 200;
/// The longest reference, in bytes: each target is kept with all that it reaches.
const MAX_REFERENCE: usize = 1_024;

/// The references of a schema, and which of them lead back to where they are.
pub(super) struct Circles<'a> {
    schema: &'a Value,
    /// By target, in the form of the reference: the targets that it refers to.
    graph: BTreeMap<String, BTreeSet<String>>,
    /// The same, with all that those refer to.
    reach: BTreeMap<String, BTreeSet<String>>,
}

/// A reference.
struct Reference {
    target: String,
    /// It is for the same value as the schema that it is in.
    in_place: bool,
}

impl<'a> Circles<'a> {
    /// Looks for circles.
    ///
    /// # Errors
    /// One of them never goes into the value; or there are too many references.
    pub(super) fn find(schema: &'a Value) -> Result<Circles<'a>, String> {
        let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
        let mut in_place = BTreeMap::<String, BTreeSet<String>>::new();
        let mut open = vec!["#".to_owned()];
        while let Some(target) = open.pop() {
            if graph.contains_key(&target) {
                continue;
            }
            if graph.len() == MAX_TARGETS {
                return Err(format!("has more than {MAX_TARGETS} targets of references"));
            }
            let mut found = Vec::new();
            if let Some(part) = part(schema, &target) {
                references(part, true, false, &mut found);
            }
            if found.iter().any(|reference| reference.target.len() > MAX_REFERENCE) {
                return Err(format!("has a reference of more than {MAX_REFERENCE} bytes"));
            }
            open.extend(found.iter().map(|reference| reference.target.clone()));
            let of = |only: bool| {
                found.iter().filter(|found| !only || found.in_place).map(|found| found.target.clone()).collect()
            };
            in_place.insert(target.clone(), of(true));
            graph.insert(target, of(false));
        }
        if let Some((target, _)) = reach(&in_place).iter().find(|(target, reached)| reached.contains(*target)) {
            return Err(format!("has a reference {target:?} that leads in a circle, which is not supported here"));
        }
        let reach = reach(&graph);
        Ok(Circles { schema, graph, reach })
    }

    /// Whether there is any.
    pub(super) fn exist(&self) -> bool {
        self.graph.keys().any(|target| self.is_in_one(target))
    }

    /// How many parts one copy of all circles has, and how many bytes their texts and names have.
    pub(super) fn size(&self) -> (usize, usize) {
        let circles = self.graph.keys().filter(|target| self.is_in_one(target));
        circles
            .filter_map(|target| part(self.schema, target))
            .fold((0, 0), |(count, size), part| (count.saturating_add(parts(part)), size.saturating_add(bytes(part))))
    }

    /// The schema with circles written out to a depth.
    pub(super) fn unroll(&self, depth: usize, draft: Draft) -> Value {
        let numbers: BTreeMap<&str, usize> =
            self.graph.keys().filter(|target| self.is_in_one(target)).map(String::as_str).zip(0..).collect();
        let store =
            if matches!(draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7) { "definitions" } else { "$defs" };
        let name = |level: usize, number: usize| format!("agentry-{level}-{number}");
        let mut copies = Map::new();
        for (target, number) in &numbers {
            for level in 0..=depth {
                let mut copy = part(self.schema, target).cloned().unwrap_or_default();
                if let Value::Object(members) = &mut copy {
                    members.remove("$defs");
                    members.remove("definitions");
                }
                rewrite(&mut copy, &|reference: &str| {
                    let number = numbers.get(reference)?;
                    let is_own = self.reach[reference].contains(*target);
                    Some(match is_own {
                        true if level == depth => CUT.to_owned(),
                        true => format!("#/{store}/{}", name(level + 1, *number)),
                        false => format!("#/{store}/{}", name(0, *number)),
                    })
                });
                copies.insert(name(level, *number), copy);
            }
        }
        let mut root = self.schema.clone();
        self.drop_originals(&mut root, &numbers);
        rewrite(&mut root, &|reference: &str| Some(format!("#/{store}/{}", name(0, *numbers.get(reference)?))));
        match root.get_mut(store) {
            Some(Value::Object(stored)) => stored.extend(copies),
            _ => root[store] = copies.into(),
        }
        root
    }

    /// Definitions that copies stand for now. One that is also referred to in part stays.
    fn drop_originals(&self, root: &mut Value, numbers: &BTreeMap<&str, usize>) {
        for store in ["$defs", "definitions"] {
            let Some(Value::Object(stored)) = root.get_mut(store) else { continue };
            for (name, definition) in stored.iter_mut() {
                let place = format!("#/{store}/{name}");
                let below = format!("{place}/");
                if numbers.contains_key(place.as_str()) && !self.graph.keys().any(|target| target.starts_with(&below)) {
                    *definition = json!({});
                }
            }
        }
    }

    fn is_in_one(&self, target: &str) -> bool {
        self.reach.get(target).is_some_and(|reached| reached.contains(target))
    }
}

fn part<'a>(schema: &'a Value, target: &str) -> Option<&'a Value> {
    schema.pointer(&decoded(target.strip_prefix('#')?))
}

/// All references of a schema but those of its definitions, which apply where they are referred to.
fn references(value: &Value, in_place: bool, by_name: bool, found: &mut Vec<Reference>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("$ref", Value::String(target)) if !by_name => {
                        found.push(Reference { target: target.clone(), in_place });
                    }
                    ("$defs" | "definitions", _) if !by_name => {}
                    _ => {
                        let stays = by_name || IN_PLACE.contains(&name.as_str());
                        let names = !by_name && matches!(name.as_str(), "dependencies" | "dependentSchemas");
                        references(member, in_place && stays, names, found);
                    }
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, in_place, false, found)),
        _ => {}
    }
}

/// Targets that can be reached from each, in one step or more.
fn reach(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let of = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&String> = graph[from].iter().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next.clone()) {
                open.extend(graph.get(next).into_iter().flatten());
            }
        }
        reached
    };
    graph.keys().map(|from| (from.clone(), of(from))).collect()
}

/// Replaces references.
fn rewrite(value: &mut Value, by: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(reference) if name == "$ref" => {
                        if let Some(other) = by(reference) {
                            *reference = other;
                        }
                    }
                    other => rewrite(other, by),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, by)),
        _ => {}
    }
}
