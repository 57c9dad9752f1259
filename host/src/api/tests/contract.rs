//! The OpenAPI document against the API. Every answer that a test of the API receives is checked here as well.

use super::site::Site;
use crate::api::{Tokens, document, openapi};
use crate::task::TaskId;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

const READER: &str = "0123456789abcdef";
const OPERATOR: &str = "fedcba9876543210";

fn read() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_str(document()).unwrap())
}

/// One operation of the document.
pub struct Operation {
    pub method: String,
    pub path: String,
    pub spec: &'static Value,
}

impl Operation {
    /// Names of the parameters in the query.
    fn queried(&self) -> BTreeSet<&str> {
        let parameters = self.spec["parameters"].as_array().unwrap().iter();
        parameters.filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap()).collect()
    }

    /// Whether a problem with this code is documented.
    fn may(&self, code: &str) -> bool {
        self.spec["responses"].as_object().unwrap().values().any(|response| {
            let codes = &response["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"];
            codes.as_array().is_some_and(|codes| codes.iter().any(|known| known == code))
        })
    }

    /// Its path, with this task and plugin.
    fn at(&self, task: &str) -> String {
        self.path.replace("{id}", task).replace("{name}", "word-count")
    }

    fn method(&self) -> Method {
        self.method.to_uppercase().parse().unwrap()
    }
}

/// Every operation of the document.
pub fn operations() -> Vec<Operation> {
    let items = read()["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &'static Value)| {
        let path = path.clone();
        let operations = item.as_object().unwrap().iter();
        operations
            .map(move |(method, spec)| Operation { method: method.clone(), path: path.clone(), spec })
            .collect::<Vec<_>>()
    };
    items.flat_map(of).collect()
}

/// The path of the document that a request was for.
fn template(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    let mut fitting: Vec<String> = operations()
        .into_iter()
        .map(|operation| operation.path)
        .filter(|path| {
            let known: Vec<&str> = path.split('/').collect();
            known.len() == parts.len()
                && known.iter().zip(&parts).all(|(known, part)| known == part || known.starts_with('{'))
        })
        .collect();
    fitting.sort_by_key(|path| path.contains('{'));
    fitting.into_iter().next()
}

/// A validator of the schema, in which objects of answers have no fields but those of the document.
fn validator(schema: &Value) -> Arc<jsonschema::Validator> {
    static MADE: OnceLock<Mutex<HashMap<String, Arc<jsonschema::Validator>>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap();
    made.entry(schema.to_string())
        .or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = read()["components"].clone();
            for component in whole["components"]["schemas"].as_object_mut().unwrap().values_mut() {
                if component["properties"].is_object() && component.get("additionalProperties").is_none() {
                    component["additionalProperties"] = json!(false);
                }
            }
            Arc::new(jsonschema::options().should_validate_formats(true).build(&whole).unwrap())
        })
        .clone()
}

/// Checks an answer against the document: its status, its media type and its body.
pub fn check(method: &str, path: &str, status: u16, media: &str, text: &str) {
    let what = format!("{method} {path}: {status} {media}");
    let Some(template) = template(path) else {
        assert!(matches!(status, 401 | 403 | 404 | 421), "{what}: not in the document");
        return;
    };
    let method = if method == "HEAD" { "get" } else { &method.to_lowercase() };
    let operation = &read()["paths"][&template][method];
    if !operation.is_object() {
        assert!(matches!(status, 401 | 403 | 405 | 421), "{what}: not in the document");
        return;
    }
    let content = &operation["responses"][status.to_string()]["content"];
    let spec = content.as_object().and_then(|content| content.iter().find(|(known, _)| media == *known));
    let (_, spec) = spec.unwrap_or_else(|| panic!("{what}: not in the document\n{text}"));
    if media.ends_with("json") {
        let value: Value = serde_json::from_str(text).unwrap();
        let errors: Vec<String> =
            validator(&spec["schema"]).iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{what}: {errors:?}\n{text}");
    }
}

#[test]
fn the_document_is_openapi_3_1_and_complete() {
    let document = read();
    assert_eq!(document["openapi"], "3.1.0");
    let all = operations();
    let names: BTreeSet<&str> = all.iter().map(|one| one.spec["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), all.len(), "an operation has a name of its own");
    for Operation { method, path, spec } in &all {
        assert!(spec["summary"].as_str().is_some_and(|text| text.len() > 5), "{method} {path} has no summary");
        assert!(spec["tags"][0].is_string(), "{method} {path} has no tag");
        for response in spec["responses"].as_object().unwrap().values() {
            assert!(response["description"].is_string(), "{method} {path}");
        }
    }
    // A schema to which nothing refers, or a reference to nothing, is a mistake of this document.
    let text = document.to_string();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name}");
    }
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    assert!(!text.contains("nobody"), "descriptions are documentation");
}

#[tokio::test]
async fn the_document_is_served_and_a_path_takes_the_documented_methods_alone() {
    let site = Site::new().await;
    assert_eq!(site.get("/v1/openapi.json").await, (200, read().clone()));
    let id = site.submit().await.to_string();
    let paths: BTreeSet<String> = operations().into_iter().map(|one| one.path).collect();
    for path in paths {
        let known: Vec<String> =
            operations().into_iter().filter(|one| one.path == path).map(|one| one.method.to_uppercase()).collect();
        let target = path.replace("{id}", &id).replace("{name}", "word-count");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if known.iter().any(|name| name == method) {
                continue;
            }
            let request = site.http.request(method.parse().unwrap(), format!("{}{target}", site.base));
            let answer = request.send().await.unwrap();
            let allowed = answer.headers().get("allow").map(|text| text.to_str().unwrap().to_owned());
            assert_eq!(answer.status(), 405, "{method} {path}");
            let allowed: BTreeSet<String> = allowed.unwrap().split(',').map(|name| name.trim().to_owned()).collect();
            let expected: BTreeSet<String> =
                known.iter().cloned().chain(known.contains(&"GET".into()).then(|| "HEAD".into())).collect();
            assert_eq!(allowed, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_documented_parameter_is_accepted_and_no_other() {
    let site = Site::new().await;
    let id = site.submit().await.to_string();
    for operation in operations() {
        let queried = operation.queried();
        if !operation.may("bad_query") {
            assert!(queried.is_empty(), "{}", operation.path);
            continue;
        }
        let path = format!("{}?no-such=1", operation.at(&id));
        let (status, problem) = site.ask(operation.method(), &path, &[], None).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_query")), "{path}");
        let (_, known) = problem["detail"].as_str().unwrap().split_once("known here: ").unwrap();
        let known: BTreeSet<&str> = known.split(", ").filter(|name| *name != "none").collect();
        assert_eq!(known, queried, "{} {path}", operation.method);
    }
}

#[tokio::test]
async fn documented_bounds_of_parameters_are_those_of_the_api() {
    let site = Site::new().await;
    let id = site.submit().await.to_string();
    let mut checked = 0;
    for operation in operations() {
        for parameter in operation.spec["parameters"].as_array().unwrap() {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let label = if operation.method == "delete" {
                format!("&label=agentry-bench={}", crate::api::new_run())
            } else {
                String::new()
            };
            let mut takes = async |value: i64, allowed: bool| {
                let path = format!("{}?{name}={value}{label}", operation.at(&id));
                let (status, answer) = site.ask(operation.method(), &path, &[], None).await;
                assert_eq!(status == 400, !allowed, "{path}: {answer}");
                checked += 1;
            };
            if let Some(least) = schema["minimum"].as_i64() {
                takes(least - 1, false).await;
                takes(least, true).await;
            }
            if let Some(most) = schema["maximum"].as_i64() {
                takes(most, true).await;
                takes(most + 1, false).await;
            }
        }
    }
    assert!(checked > 10, "{checked}");
}

#[tokio::test]
async fn every_route_asks_for_a_token_and_what_changes_something_for_the_scope_full() {
    let tokens = format!("dash read {READER}\nops full {OPERATOR}");
    let site = Site::with(Some(Tokens::of(&tokens))).await;
    let id = TaskId::now_v7().to_string();
    let mut guarded = 0;
    for operation in operations() {
        let (method, path) = (operation.method(), operation.at(&id));
        let open = operation.spec["security"] == json!([]);
        assert_eq!(open, ["/healthz", "/readyz"].contains(&path.as_str()), "{path}");
        if open {
            assert_eq!(site.ask(method, &path, &[], None).await.0, 200, "{path}");
            continue;
        }
        guarded += 1;
        for wrong in ["", "Bearer 0123456789abcdeX", &format!("Basic {OPERATOR}")] {
            let headers = [("authorization", wrong)];
            let headers = if wrong.is_empty() { &[] } else { &headers[..] };
            let (status, problem) = site.ask(method.clone(), &path, headers, None).await;
            assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")), "{method} {path} {wrong}");
        }
        if method != Method::GET {
            let reader = format!("Bearer {READER}");
            let (status, problem) = site.ask(method.clone(), &path, &[("authorization", &reader)], None).await;
            assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{method} {path}");
        }
    }
    assert!(guarded > 15, "{guarded}");
    // What is no route either tells nothing without a token.
    assert_eq!(site.get("/v1/no-such-path").await.0, 401);
    assert_eq!(site.ask(Method::PUT, "/v1/tasks", &[], None).await.0, 401);
}

#[tokio::test]
async fn a_head_is_bounded_and_the_limit_is_named() {
    let site = Site::new().await;
    let (status, problem) = site.get(&format!("/v1/tasks?queue={}", "q".repeat(8_200))).await;
    assert_eq!((status, &problem["code"]), (414, &json!("uri_too_long")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("allowed are 8192"), "{problem}");
    let names: Vec<String> = (0..70).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let (status, problem) = site.ask(Method::GET, "/v1/hosts", &many, None).await;
    assert_eq!((status, &problem["code"]), (431, &json!("headers_too_large")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("allowed are 64"), "{problem}");
    let long = "x".repeat(33_000);
    let (status, problem) = site.ask(Method::GET, "/v1/hosts", &[("x-long", &long)], None).await;
    assert_eq!((status, &problem["code"]), (431, &json!("headers_too_large")), "{problem}");
    let huge = "x".repeat(100_000);
    // The connection is closed with the rest of the head unread: the client may see that before the answer.
    if let Ok(answer) = site.http.get(format!("{}/v1/hosts", site.base)).header("x-huge", huge).send().await {
        assert_eq!(answer.status(), 431);
    }
    assert_eq!(site.get("/v1/hosts").await.0, 200);
}

#[test]
fn a_code_has_one_status() {
    let codes: BTreeSet<&str> = openapi::CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), openapi::CODES.len());
}
