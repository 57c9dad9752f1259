//! The OpenAPI document of the API (3.1). It is made of the descriptions of the handlers and of the types that they return, which utoipa
//! collects, and completed here with what holds for all of them: problems, tokens, and which fields are always there.

use super::params::Params;
use super::problem::Problem;
use super::routes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::OnceLock;

mod problems;

#[cfg(test)]
pub(super) use problems::CODES;

/// Schemas of requests. Their fields may be left out as the types say; unknown ones are errors.
const REQUESTS: [&str; 4] = ["NewTask", "NewBatch", "Options", "Redrive"];
/// Fields of answers that may be left out. All others are always there, with `null` for an absent value.
const OPTIONAL: [(&str, &str); 8] = [
    ("Task", "input"),
    ("Task", "output"),
    ("Task", "warnings"),
    ("Call", "request_body"),
    ("Call", "response_body"),
    ("Batch", "warnings"),
    ("Redriven", "detail"),
    // A caller without a token sees `ready` only.
    ("Readiness", "reasons"),
];

const ABOUT: &str = "Submit tasks to an Agentry daemon, read them, and steer them. `host/docs/http.md` of the project is the contract; \
    this document describes the same for programs. HEAD is accepted where GET is. An error is a problem document (RFC 9457): match on \
    `code`. Fields and codes may be added within a version of the API; ignore those that you do not know.";

/// The document as JSON. Needs no daemon.
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let collected = serde_json::to_value(routes().into_openapi()).unwrap_or_default();
        serde_json::to_string_pretty(&complete(collected)).unwrap_or_default()
    })
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "health", operation_id = "get_openapi",
    responses((status = 200, description = "An OpenAPI document, version 3.1", body = serde_json::Value)))]
pub(super) async fn show(params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json, document()).into_response())
}

/// Adds to what was collected what holds for every operation and every schema.
fn complete(mut document: Value) -> Value {
    document["info"] = json!({
        "title": "Agentry",
        "description": ABOUT,
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    });
    document["servers"] = json!([{"url": "/", "description": "The daemon that returned this document"}]);
    document["tags"] = json!([
        {"name": "tasks", "description": "Submit, read and steer tasks"},
        {"name": "dead letters", "description": "Messages that could not be used"},
        {"name": "hosts", "description": "Hosts, plugins and queues"},
        {"name": "bench", "description": "Runs of `agentry bench`"},
        {"name": "health", "description": "Health, counters and this document"},
    ]);
    let schemas = document["components"]["schemas"].as_object_mut().map(std::mem::take).unwrap_or_default();
    document["components"]["schemas"] = Value::Object(completed(schemas));
    document["components"]["schemas"]["Problem"] = problems::schema();
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "description": "A token of api.tokens_file, if that is set"},
    });
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation(method, path, operation);
        }
    }
    prune(&mut document);
    document
}

/// Adds parameters of the path, tokens and problems.
fn complete_operation(method: &str, path: &str, operation: &mut Value) {
    let named = match path {
        _ if path.contains("{id}") => json!({
            "name": "id", "in": "path", "required": true, "description": "The task's id",
            "schema": {"type": "string", "format": "uuid"},
        }),
        _ if path.contains("{name}") => json!({
            "name": "name", "in": "path", "required": true, "description": "The plugin's name",
            "schema": {"type": "string", "minLength": 1},
        }),
        _ => Value::Null,
    };
    if !operation["parameters"].is_array() {
        operation["parameters"] = json!([]);
    }
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["in"] != "path");
        if !named.is_null() {
            parameters.insert(0, named);
        }
        parameters.iter_mut().for_each(without_null);
        for parameter in parameters.iter_mut().filter(|one| one["in"] == "query" && one["required"] != true) {
            // An empty value counts as absent.
            parameter["allowEmptyValue"] = true.into();
        }
    }
    operation["security"] = match problems::is_open(path) {
        true => json!([]),
        false => json!([{"token": []}, {}]),
    };
    for (status, codes) in problems::of(method, path, operation["requestBody"].is_object()) {
        let known = &mut operation["responses"][status.to_string()];
        if !known.is_object() {
            *known = json!({"description": problems::describe(&codes), "content": {}});
        }
        known["content"]["application/problem+json"] = json!({"schema": {
            "allOf": [{"$ref": "#/components/schemas/Problem"}],
            "properties": {"status": {"const": status}, "code": {"enum": codes}},
        }});
    }
}

/// A parameter is text: it is left out, and never `null`.
fn without_null(parameter: &mut Value) {
    let schema = &mut parameter["schema"];
    if let Some(types) = schema["type"].as_array().cloned() {
        let mut types = types.into_iter().filter(|name| *name != "null");
        if let (Some(only), None) = (types.next(), types.next()) {
            schema["type"] = only;
        }
    }
    if let Some(other) =
        schema["oneOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null")).cloned()
    {
        *schema = other;
    }
}

/// Every schema as one object, with the fields that are always there.
fn completed(schemas: Map<String, Value>) -> Map<String, Value> {
    let flat = |name: &str| merged(&schemas[name], &schemas);
    let complete = |name: &String| {
        let mut schema = flat(name);
        if !REQUESTS.contains(&name.as_str())
            && let Some(properties) = schema["properties"].as_object()
        {
            let optional = |field: &str| OPTIONAL.contains(&(name.as_str(), field));
            let required: Vec<&String> = properties.keys().filter(|field| !optional(field)).collect();
            schema["required"] = json!(required);
        }
        (name.clone(), schema)
    };
    schemas.keys().map(complete).collect()
}

/// A schema without the parts that serde flattens: one object is what programs read, and what generators make good types of.
fn merged(schema: &Value, all: &Map<String, Value>) -> Value {
    let Some(parts) = schema["allOf"].as_array() else { return schema.clone() };
    let mut whole = json!({"type": "object", "properties": {}});
    for part in parts {
        let named = part["$ref"].as_str().and_then(|name| all.get(name.rsplit('/').next()?));
        let part = merged(named.unwrap_or(part), all);
        for (field, schema) in part["properties"].as_object().into_iter().flatten() {
            whole["properties"][field] = schema.clone();
        }
    }
    if let Some(description) = schema.get("description") {
        whole["description"] = description.clone();
    }
    whole
}

/// Removes schemas to which nothing refers any more.
fn prune(document: &mut Value) {
    fn refer(value: &Value, to: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                to.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| refer(member, to));
            }
            Value::Array(items) => items.iter().for_each(|item| refer(item, to)),
            _ => {}
        }
    }
    loop {
        let mut referred = BTreeSet::new();
        refer(document, &mut referred);
        let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
        let before = schemas.len();
        schemas.retain(|name, _| referred.contains(&format!("#/components/schemas/{name}")));
        if schemas.len() == before {
            return;
        }
    }
}
