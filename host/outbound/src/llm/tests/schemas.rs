//! Schemas of guests, who may mean harm.

use crate::schema::compile;
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
