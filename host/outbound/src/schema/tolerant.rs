//! Schemas of tool servers: what cannot be checked of them here is not checked, and the rest is.

use super::relax::{self, Relaxed};
use super::unroll::Circles;
use super::{Schema, build, weigh};
use jsonschema::Draft;
use serde_json::{Value, json};

/// Depths to which a recursive schema is written out, the deepest that is light enough first.
const DEPTHS: [usize; 7] = [24, 16, 10, 6, 3, 1, 0];
/// The most parts of one that is written out: values of some thousand parts can be checked then.
const LIGHT: u64 = 2_000;
/// The most parts of all copies.
const MAX_COPIED: usize = 15_000;
/// The most bytes of the texts and names of all copies.
const MAX_COPIED_BYTES: usize = 4 << 20;

/// A schema as far as it can be checked.
pub(crate) struct Tolerant {
    /// `None`: nothing of it can.
    pub schema: Option<Schema>,
    /// Unchecked parts, in words.
    pub unchecked: Vec<String>,
}

/// Reads a schema of the draft that its `$schema` names, 2020-12 if it names none: what the Model Context Protocol says of tools.
///
/// # Errors
/// A check could cost without bound, or it refers to another document; reads on after "the schema".
pub(crate) fn tolerant(source: &Value) -> Result<Tolerant, String> {
    let nothing = |why: String| Ok(Tolerant { schema: None, unchecked: vec![why] });
    let draft = match Draft::default().detect(source) {
        Draft::Unknown => return nothing(format!("all of it: the dialect {} is not known here", source["$schema"])),
        draft => draft,
    };
    let compiles = |pattern: &str| {
        let alone = json!({ "pattern": pattern });
        alone.as_object().is_some_and(|alone| build(alone, draft).is_ok())
    };
    let Relaxed { schema, mut unchecked } = relax::relax(source, draft, compiles)?;
    let circles = Circles::find(&schema)?;
    let schema = match circles.exist() {
        false => schema,
        true => {
            let written = |depth: usize| written_out(&circles, depth, draft);
            let light = DEPTHS.into_iter().find_map(|depth| written(depth).ok());
            let (schema, depth) = match light {
                Some(found) => found,
                None => return Err("is too large: its recursion cannot be written out".into()),
            };
            unchecked.push(format!("what is deeper than {} levels of its recursion", depth + 1));
            schema
        }
    };
    let weight = weigh(&schema, draft)?;
    let Some(members) = schema.as_object() else { return nothing("all of it: it is no JSON object".into()) };
    match build(members, draft) {
        Ok(validator) => Ok(Tolerant {
            schema: Some(Schema { source: schema.into(), validator: validator.into(), weight }),
            unchecked,
        }),
        Err(error) => nothing(format!("all of it: it {error}")),
    }
}

/// The schema to a depth, if it is light enough.
fn written_out(circles: &Circles<'_>, depth: usize, draft: Draft) -> Result<(Value, usize), String> {
    let heavy = || "is too large".to_owned();
    let (parts, bytes) = circles.size();
    if parts.saturating_mul(depth + 1) > MAX_COPIED || bytes.saturating_mul(depth + 1) > MAX_COPIED_BYTES {
        return Err(heavy());
    }
    let written = relax::relax(&circles.unroll(depth, draft), draft, |_| true)?.schema;
    let weight = weigh(&written, draft)?;
    if weight.parts() > LIGHT && depth > 0 {
        return Err(heavy());
    }
    Ok((written, depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(schema: &Value, value: &Value) -> bool {
        let read = tolerant(schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        read.schema.is_none_or(|schema| schema.check(value).is_ok())
    }

    fn unchecked(schema: &Value) -> String {
        tolerant(schema).unwrap_or_else(|error| panic!("{schema}: {error}")).unchecked.join("; ")
    }

    #[test]
    fn expression_that_is_not_supported_is_left_out_and_the_rest_checked() {
        let schema = json!({"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
            "a": {"type": "string", "pattern": "^(?!\\.)x"}, "b": {"type": "string", "pattern": "(a)\\1", "maxLength": 3}}});
        assert!(fits(&schema, &json!({"a": "anything", "b": "aa"})));
        for breaks in [json!({}), json!({"a": 7}), json!({"a": "", "b": "aaaa"}), json!({"a": "", "c": 1})] {
            assert!(!fits(&schema, &breaks), "{breaks}");
        }
        assert!(unchecked(&schema).contains("/properties/a/pattern: "));
        assert_eq!(unchecked(&json!({"type": "object", "properties": {"a": {"pattern": "^[a-z]+$"}}})), "");
    }

    #[test]
    fn what_depends_on_a_part_that_is_left_out_rejects_nothing() {
        let odd = json!({"pattern": "(?=x)"});
        for schema in [
            json!({"not": odd}),
            json!({"not": {"$ref": "#/$defs/odd"}, "$defs": {"odd": odd}}),
            json!({"if": odd, "then": false}),
            json!({"oneOf": [odd, {"type": "string"}]}),
            json!({"properties": {"a": {"oneOf": [{"$ref": "#/$defs/odd"}, {"type": "string"}]}}, "$defs": {"odd": odd}}),
            json!({"patternProperties": {"(?=x)": {"type": "integer"}}, "additionalProperties": false}),
            json!({"allOf": [{"patternProperties": {"(?=x)": true}}], "unevaluatedProperties": false}),
            json!({"contains": odd, "maxContains": 1}),
        ] {
            for value in [json!("s"), json!({"a": "s"}), json!({"x": "s"}), json!(["s", "t"])] {
                assert!(fits(&schema, &value), "{schema} {value}");
            }
        }
    }

    #[test]
    fn keyword_that_breaks_its_draft_is_left_out() {
        for (schema, odd) in [
            (
                json!({"type": "object", "properties": {"a": {"type": "str"}, "n": {"type": "integer"}}}),
                "/properties/a/type",
            ),
            (
                json!({"properties": {"a": {"type": "string", "required": true}, "n": {"type": "integer"}}}),
                "/properties/a/required",
            ),
            (json!({"properties": {"a": 7, "n": {"type": "integer"}}}), "/properties/a"),
            (
                json!({"properties": {"a": {"items": [{"type": "integer"}]}, "n": {"type": "integer"}}}),
                "/properties/a/items",
            ),
            (
                json!({"properties": {"n": {"type": "integer", "minimum": "0", "exclusiveMinimum": true}}}),
                "/properties/n/minimum",
            ),
            (json!({"properties": {"n": {"type": "integer"}}, "required": "a"}), "/required"),
            (json!({"properties": {"n": {"type": "integer"}, "a": {"$ref": "#/$defs/none"}}}), "/properties/a/$ref"),
            (
                json!({"properties": {"n": {"type": "integer"}, "a": {"$dynamicRef": "#a"}}}),
                "/properties/a/$dynamicRef",
            ),
        ] {
            assert!(fits(&schema, &json!({"a": "x", "n": 1})), "{schema}");
            assert!(!fits(&schema, &json!({"n": "x"})), "{schema}");
            assert!(unchecked(&schema).contains(odd), "{schema}: {}", unchecked(&schema));
        }
    }

    #[test]
    fn recursion_is_checked_as_deep_as_a_value_usually_is() {
        let node = json!({"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
            "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}});
        let schemas = [
            json!({"$ref": "#/$defs/node", "$defs": {"node": node}}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}}}),
        ];
        for schema in schemas {
            let mut good = json!({"name": "leaf"});
            let mut bad = json!({"name": 7});
            for _ in 0..5 {
                good = json!({"name": "n", "children": [good]});
                bad = json!({"name": "n", "children": [bad]});
            }
            assert!(fits(&schema, &good) && !fits(&schema, &bad), "{schema}");
            for _ in 0..40 {
                good = json!({"name": "n", "children": [good]});
            }
            assert!(fits(&schema, &good), "{schema}");
            assert!(unchecked(&schema).contains("recursion"));
        }
    }

    #[test]
    fn recursion_in_branches_rejects_nothing_below_its_depth() {
        let schema = json!({"$defs": {"json": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/json"}},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/json"}}]}}, "$ref": "#/$defs/json"});
        let mut value = json!("leaf");
        for _ in 0..60 {
            value = json!([{"a": value}]);
        }
        assert!(fits(&schema, &value));
        assert!(!fits(&schema, &json!([7])));
    }

    #[test]
    fn circle_that_never_ends_and_other_documents_are_rejected() {
        for (schema, words) in [
            (json!({"$ref": "#"}), "circle"),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}),
                "circle",
            ),
            (json!({"properties": {"a": {"$ref": "#/properties/a"}}}), "circle"),
            (json!({"properties": {"a": {"$ref": "https://example.com/a.json"}}}), "another document"),
            (json!({"properties": {"a": {"$ref": "file:///etc/passwd"}}}), "another document"),
        ] {
            let error = tolerant(&schema).err().unwrap_or_else(|| panic!("{schema} is taken"));
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn recursion_that_branches_stays_within_bounds() {
        // Each level doubles what the engine does for one value.
        let twice = json!({"properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}});
        let schema = json!({"$ref": "#/$defs/a", "$defs": {"a": twice}});
        let mut value = json!({"x": 1});
        for _ in 0..60 {
            value = json!({"x": value});
        }
        assert!(fits(&schema, &value));
        let many: serde_json::Map<_, _> =
            (0..30).map(|n| (format!("p{n}"), json!({"$ref": format!("#/$defs/d{}", n % 10)}))).collect();
        let defs: serde_json::Map<_, _> = (0..10).map(|n| (format!("d{n}"), json!({"properties": many}))).collect();
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(fits(&schema, &json!({"p1": {"p2": {}}})));
    }

    #[test]
    fn long_name_above_many_parts_is_rejected_before_it_is_copied() {
        let many: serde_json::Map<_, _> = (0..18_000).map(|n| (format!("a{n}"), json!(7))).collect();
        let schema = json!({"properties": {"x".repeat(500_000): {"properties": many}}});
        let error = tolerant(&schema).err().unwrap();
        assert!(error.contains("its names are too long"), "{error}");
        // As many parts, with names as they are.
        let many: serde_json::Map<_, _> = (0..4_000).map(|n| (format!("a{n}"), json!({"type": "string"}))).collect();
        assert!(!fits(
            &json!({"properties": {"part_of_usual_length": {"properties": many}}}),
            &json!({"part_of_usual_length": {"a7": 7}})
        ));
        // A part that is named is named in short.
        let named = unchecked(&json!({"properties": {"x".repeat(100_000): {"pattern": "(?=x)"}}}));
        assert!(named.contains("not supported here") && named.len() < 1_000, "{}", named.len());
        let error =
            tolerant(&json!({"$ref": format!("#/$defs/{}", "x".repeat(2_000)), "$defs": {"x".repeat(2_000): {}}}))
                .err();
        assert!(error.is_some_and(|error| error.contains("a reference of more than")));
    }

    #[test]
    fn copies_of_long_texts_are_bounded() {
        let node = json!({"enum": ["x".repeat(600_000)], "properties": {"of": {"$ref": "#/$defs/node"}}});
        let schema = json!({"$ref": "#/$defs/node", "$defs": {"node": node}});
        assert!(unchecked(&schema).contains("deeper than 4 levels"), "{}", unchecked(&schema));
    }

    #[test]
    fn dialects_are_known_by_any_spelling_and_others_are_not_checked() {
        for uri in [
            "http://json-schema.org/draft-07/schema",
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2019-09/schema",
            "https://json-schema.org/draft/2020-12/schema#",
            "http://json-schema.org/draft-04/schema#",
            "http://json-schema.org/draft-06/schema#",
        ] {
            let schema = json!({"$schema": uri, "type": "object", "properties": {"a": {"$ref": "#/definitions/a"}},
                "definitions": {"a": {"type": "string", "x-unknown": [7]}}});
            assert!(fits(&schema, &json!({"a": "b"})) && !fits(&schema, &json!({"a": 7})), "{uri}");
            assert_eq!(unchecked(&schema), "", "{uri}");
        }
        let odd = json!({"$schema": "https://example.com/dialect", "type": "integer"});
        assert!(fits(&odd, &json!("anything")));
        assert!(unchecked(&odd).contains("https://example.com/dialect"));
        let own = json!({"$id": "https://example.com/a.json", "$ref": "https://example.com/a.json#/$defs/b", "$defs": {"b": {"type": "integer"}}});
        assert!(fits(&own, &json!(1)) && !fits(&own, &json!("1")));
    }
}
