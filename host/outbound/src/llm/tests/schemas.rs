//! Schemas of guests, who may mean harm.

use crate::schema::{compile, of_its_draft};
use serde_json::{Value, json};
use std::time::Instant;

fn refused(schema: &Value, why: &str) {
    match compile(&schema.to_string()) {
        Err(error) => assert!(error.contains(why), "{error}"),
        Ok(_) => panic!("{why}: was to be refused"),
    }
}

#[test]
fn references_within_a_schema_are_followed() {
    let schema = json!({"$ref": "#/$defs/a%2Db", "$defs": {"a-b": {"type": "array", "items": {"$ref": "#/$defs/n"}},
        "n": {"type": "integer"}}});
    let schema = compile(&schema.to_string()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(schema.check(&json!([1, 2])), Ok(()));
    assert!(schema.check(&json!([1, "2"])).unwrap_err().contains("\"/1\""));
}

#[test]
fn the_draft_is_2020_12() {
    let schema = compile(r#"{"prefixItems": [{"type": "integer"}], "items": false}"#).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(schema.check(&json!([1])), Ok(()));
    assert!(schema.check(&json!([1, 2])).is_err());
}

#[test]
fn what_is_no_schema_is_refused() {
    refused(&json!([]), "no JSON object");
    refused(&json!({"type": "integr"}), "no JSON Schema");
    refused(&json!({"pattern": "("}), "no JSON Schema");
}

#[test]
fn nothing_outside_is_fetched() {
    for reference in ["http://127.0.0.1:1/x", "file:///etc/passwd", "other.json", "#anchor", "#/$defs/nowhere"] {
        refused(&json!({"$ref": reference}), "leads nowhere in it");
    }
    // One draft is what all are read as, whatever they say.
    assert!(compile(r#"{"$schema": "http://127.0.0.1:1/meta", "type": "integer"}"#).is_ok());
    refused(&json!({"properties": {"a": {"$id": "http://x/", "$ref": "#"}}}), "\"$id\"");
    refused(&json!({"$dynamicRef": "#x"}), "\"$dynamicRef\"");
}

#[test]
fn a_circle_is_refused() {
    refused(&json!({"$ref": "#"}), "in a circle");
    refused(&json!({"allOf": [{"$ref": "#"}]}), "in a circle");
    let pair = json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}});
    refused(&pair, "in a circle");
    refused(&json!({"properties": {"child": {"$ref": "#"}}}), "in a circle");
}

#[test]
fn a_schema_that_doubles_with_every_step_is_refused() {
    let mut definitions = serde_json::Map::new();
    for n in 0..20 {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        definitions.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
    }
    definitions.insert("d20".into(), json!({"type": "integer"}));
    let began = Instant::now();
    refused(&json!({"$ref": "#/$defs/d0", "$defs": definitions}), "too large");
    assert!(began.elapsed().as_secs() < 10);
}

#[test]
fn a_chain_of_references_is_as_long_as_the_stack_allows() {
    let chain = |length: usize| {
        let mut definitions = serde_json::Map::new();
        for n in 0..length {
            definitions.insert(format!("d{n}"), json!({"not": {"$ref": format!("#/$defs/d{}", n + 1)}}));
        }
        definitions.insert(format!("d{length}"), json!({"type": "integer"}));
        json!({"$ref": "#/$defs/d0", "$defs": definitions})
    };
    refused(&chain(3000), "nested deeper");
    // The longest that is taken can be compiled and checked on a thread's usual stack.
    let longest = (1..100).rev().find_map(|length| compile(&chain(length).to_string()).ok());
    let longest = longest.unwrap_or_else(|| panic!("no chain is taken"));
    assert!(longest.check(&json!(1)).is_ok() != longest.check(&json!("1")).is_ok());
}

#[test]
fn regular_expressions_are_linear_and_few() {
    refused(&json!({"pattern": "(?=x)"}), "no JSON Schema");
    refused(&json!({"pattern": "(((a{1,100}){1,100}){1,100})"}), "no JSON Schema");
    let many: serde_json::Map<_, _> = (0..101).map(|n| (format!("p{n}"), json!({"pattern": "x"}))).collect();
    refused(&json!({"properties": many}), "more than 100 regular expressions");
    let schema = compile(r#"{"pattern": "^(a+)+$"}"#).unwrap_or_else(|error| panic!("{error}"));
    let began = Instant::now();
    assert!(schema.check(&json!(format!("{}!", "a".repeat(50_000)))).is_err());
    assert!(began.elapsed().as_secs() < 10);
}

#[test]
fn objects_are_closed_if_all_of_them_are() {
    let is_closed = |schema: Value| compile(&schema.to_string()).unwrap_or_else(|error| panic!("{error}")).is_closed();
    let closed = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    assert!(is_closed(closed.clone()));
    assert!(is_closed(json!({"type": "array", "items": closed})));
    let mut open = closed.clone();
    open["required"] = json!([]);
    assert!(!is_closed(open.clone()));
    assert!(!is_closed(json!({"type": "array", "items": open})));
    assert!(!is_closed(json!({"type": "object"})));
}

/// Definitions `d0` to `d{length}`, each made of a reference to the next one.
fn definitions(length: usize, of_next: impl Fn(Value) -> Value) -> Value {
    let reference = |n: usize| json!({"$ref": format!("#/definitions/d{n}")});
    let link = |n: usize| (format!("d{n}"), of_next(reference(n + 1)));
    let last = (format!("d{length}"), json!({"type": "integer"}));
    (0..length).map(link).chain([last]).collect::<serde_json::Map<_, _>>().into()
}

/// A schema within `levels` others.
fn nested(levels: usize, within: impl Fn(Value) -> Value, inner: Value) -> Value {
    (0..levels).fold(inner, |inner, _| within(inner))
}

#[test]
fn resource_of_another_draft_below_the_root_is_rejected() {
    let inner = json!({"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://example.com/inner",
        "definitions": definitions(60, |next| json!({"allOf": [next, next]})), "allOf": [{"$ref": "#/definitions/d0"}]});
    let seen = definitions(60, |_| json!(true));
    let schema = json!({"definitions": seen, "allOf": [inner]});
    refused(&schema, "\"$schema\" below its root");
    assert!(of_its_draft(schema).err().unwrap().contains("\"$schema\" below its root"));
    let draft = "http://json-schema.org/draft-04/schema#";
    let inner = json!({"id": "http://example.com/inner", "$ref": "#/definitions/d0"});
    let schema = json!({"$schema": draft, "definitions": {"d0": {}}, "allOf": [inner]});
    assert!(of_its_draft(schema).err().unwrap().contains("\"id\" below its root"));
    // A property may have these names, and in later drafts "id" is a word like any other.
    let named = json!({"properties": {"$schema": {"type": "string"}, "id": {"type": "string"}}});
    assert!(of_its_draft(named).is_ok() && compile(r#"{"properties": {"a": {"id": "b"}}}"#).is_ok());
}

#[test]
fn reference_resolves_within_the_document_whatever_id_it_has() {
    // The meta-schema of draft 4 has "schemaArray", and the document has not.
    for (id, reference) in [("$id", "#/definitions/schemaArray"), ("id", "#/definitions/positiveInteger")] {
        let uri = "http://json-schema.org/draft-04/schema#";
        refused(&json!({id: uri, "$ref": reference}), "leads nowhere in it");
        let own = json!({id: uri, "$schema": uri, "definitions": {"schemaArray": {"type": "string"}},
            "properties": {"a": {"$ref": "#/definitions/schemaArray"}}});
        let own = of_its_draft(own).unwrap_or_else(|error| panic!("{error}"));
        assert!(own.check(&json!({"a": "b"})).is_ok() && own.check(&json!({"a": [{}]})).is_err());
    }
}

#[test]
fn depth_counts_what_references_lead_to() {
    let all_of = |inner| json!({"allOf": [inner]});
    let schema = json!({"definitions": definitions(20, |next| nested(45, all_of, next)), "$ref": "#/definitions/d0"});
    refused(&schema, "nested deeper");
    // Read from its end, each link is short.
    let reference = |n: usize| json!({"$ref": format!("#/definitions/d{n:02}")});
    let link = |n: usize| (format!("d{n:02}"), nested(40, all_of, reference(n - 1)));
    let mut links: serde_json::Map<_, _> = (1..10).map(link).collect();
    links.insert("d00".into(), json!({}));
    let schema = json!({"allOf": (0..10).map(reference).collect::<Vec<_>>(), "definitions": links});
    refused(&schema, "nested deeper");
}

#[test]
fn unevaluated_keywords_within_each_other_are_rejected() {
    for (keyword, value) in [("unevaluatedProperties", json!({"a": 1})), ("unevaluatedItems", json!([1]))] {
        let within = |inner| json!({"allOf": [inner], keyword: false});
        refused(&nested(30, within, json!({"properties": {"a": {}}, "prefixItems": [{}]})), "too large");
        let flat = json!({"allOf": [{"properties": {"a": {}}, "prefixItems": [{}]}], keyword: false});
        let flat = compile(&flat.to_string()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(flat.check(&value), Ok(()));
        assert!(flat.check(&json!({"b": 1})).is_err() || flat.check(&json!([1, 2])).is_err());
    }
}

#[test]
fn one_fault_is_reported() {
    let schema = json!({"items": {"allOf": vec![json!({"type": "string"}); 3000]}});
    let schema = compile(&schema.to_string()).unwrap_or_else(|error| panic!("{error}"));
    let fault = schema.check(&json!([1, 2, 3])).unwrap_err();
    assert!(fault.contains("\"/0\"") && !fault.contains(';'), "{fault}");
}

#[test]
fn check_that_takes_too_many_steps_is_rejected() {
    let schema = json!({"items": {"allOf": vec![json!({"type": "integer"}); 3000]}});
    let schema = compile(&schema.to_string()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(schema.check(&json!(vec![1; 1000])), Ok(()));
    assert!(schema.check(&json!(vec![1; 100_000])).unwrap_err().contains("steps"));
    // A regular expression of many states against a long text.
    let schema = compile(r#"{"pattern": "[ab]*a[ab]{1000}c"}"#).unwrap_or_else(|error| panic!("{error}"));
    assert!(schema.check(&json!("ab".repeat(500))).is_err_and(|error| !error.contains("steps")));
    assert!(schema.check(&json!("ab".repeat(500_000))).unwrap_err().contains("steps"));
}
