//! Which problems an operation returns. The tests of the API compare every answer with this.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every code with its status, in the order of `host/docs/http.md`.
pub(in crate::api) const CODES: &[(&str, u16)] = &[
    ("unauthorized", 401),
    ("forbidden", 403),
    ("foreign_origin", 403),
    ("misdirected", 421),
    ("not_found", 404),
    ("method_not_allowed", 405),
    ("bad_path", 400),
    ("bad_query", 400),
    ("bad_id", 400),
    ("bad_request", 400),
    ("bad_body", 400),
    ("body_timeout", 408),
    ("too_large", 413),
    ("uri_too_long", 414),
    ("headers_too_large", 431),
    ("content_type", 415),
    ("content_encoding", 415),
    ("not_utf8", 400),
    ("not_json", 400),
    ("bad_message", 400),
    ("bad_plugin", 422),
    ("bad_input", 422),
    ("bad_options", 422),
    ("bad_batch", 422),
    ("bad_idempotency_key", 400),
    ("unknown_plugin", 422),
    ("plugin_disabled", 422),
    ("unknown_queue", 422),
    ("conflict", 409),
    ("already_ended", 409),
    ("not_ended", 409),
    ("retry_under_way", 409),
    ("already_retried", 409),
    ("no_input", 409),
    ("erased", 409),
    ("too_many_requests", 429),
    ("starting", 503),
    ("too_many_connections", 503),
    ("too_many_bodies", 503),
    ("too_many_streams", 503),
    ("db_unavailable", 503),
    ("internal", 500),
];

/// Problems of every request, before a handler sees it.
const ALWAYS: &[&str] = &["misdirected", "uri_too_long", "headers_too_large", "too_many_connections"];
/// Problems where a token is asked for.
const GUARDED: &[&str] = &["unauthorized", "too_many_requests", "starting", "internal"];
/// Problems of requests that change something.
const CHANGING: &[&str] = &["forbidden", "foreign_origin"];
/// Problems of bodies.
const BODY: &[&str] = &[
    "bad_body",
    "body_timeout",
    "too_large",
    "content_type",
    "content_encoding",
    "not_utf8",
    "not_json",
    "bad_message",
    "too_many_bodies",
];
/// Problems of a task that no host could run.
const ADMISSION: &[&str] =
    &["bad_plugin", "bad_input", "bad_options", "unknown_plugin", "plugin_disabled", "unknown_queue", "too_large"];

/// Whether a path needs no token.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// The codes that an operation may return, by status.
pub(super) fn of(method: &str, path: &str, has_body: bool) -> BTreeMap<u16, Vec<&'static str>> {
    let (open, changes) = (is_open(path), method != "get");
    let queried = !open && path != "/metrics";
    let stored = queried && !matches!(path, "/v1/openapi.json" | "/v1/plugins" | "/v1/plugins/{name}" | "/v1/queues");
    let of_task = path.contains("{id}");
    let explains = path.ends_with("/explain");
    let special: &[&str] = match (method, path) {
        ("post", "/v1/tasks") => &["bad_id", "bad_idempotency_key", "conflict"],
        ("post", "/v1/tasks/batch") => &["bad_id", "bad_idempotency_key", "conflict", "bad_batch"],
        ("post", "/v1/tasks/{id}/retry") => &[
            "bad_idempotency_key",
            "conflict",
            "not_ended",
            "retry_under_way",
            "already_retried",
            "no_input",
            "erased",
        ],
        ("post", "/v1/tasks/{id}/cancel") => &["already_ended"],
        ("delete", "/v1/tasks/{id}/data") => &["not_ended"],
        ("get", "/v1/tasks/{id}/events" | "/v1/tasks/{id}/logs") => &["too_many_streams"],
        ("post", "/v1/dead/redrive") => &["bad_request"],
        ("get", "/v1/plugins/{name}") => &["bad_path", "not_found"],
        ("post", "/v1/plugins/{name}/disable" | "/v1/plugins/{name}/enable") => {
            &["bad_path", "bad_request", "unknown_plugin"]
        }
        ("post", "/v1/queues/{name}/pause" | "/v1/queues/{name}/resume") => {
            &["bad_path", "bad_request", "unknown_queue"]
        }
        ("post", "/v1/hosts/{id}/drain" | "/v1/hosts/{id}/undrain") => &["bad_request"],
        _ => &[],
    };
    let admits = method == "post" && matches!(path, "/v1/tasks" | "/v1/tasks/batch" | "/v1/tasks/{id}/retry");
    let groups: [(bool, &[&str]); 10] = [
        (true, ALWAYS),
        (!open, GUARDED),
        (changes, CHANGING),
        (has_body, BODY),
        (admits, ADMISSION),
        (queried, &["bad_query"]),
        (stored && !explains, &["db_unavailable"]),
        (of_task, &["bad_path", "bad_id"]),
        (of_task && !explains, &["not_found"]),
        (true, special),
    ];
    let wanted: Vec<&str> =
        groups.iter().filter(|(applies, _)| *applies).flat_map(|(_, codes)| codes.iter().copied()).collect();
    let mut by_status = BTreeMap::<u16, Vec<&'static str>>::new();
    for (code, status) in CODES.iter().filter(|(code, _)| wanted.contains(code)) {
        by_status.entry(*status).or_default().push(*code);
    }
    by_status
}

/// The description of a response.
pub(super) fn describe(codes: &[&str]) -> String {
    format!("`{}`", codes.join("`, `"))
}

/// The schema of a problem.
pub(super) fn schema() -> Value {
    let codes: Vec<&str> = CODES.iter().map(|(code, _)| *code).collect();
    json!({
        "type": "object",
        "description": "An error (RFC 9457). Programs match on `code`; `detail` is for a person.",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": {"type": "string", "description": "The reason phrase of the status"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"type": "string", "enum": codes, "description": "A stable word"},
            "detail": {"type": "string", "description": "What failed, and the remedy"},
            "known": {"type": "array", "items": {"type": "string"}, "description": "What exists instead"},
            "index": {"type": "integer", "minimum": 0, "description": "The task of a batch that it is about"},
            "id": {"type": "string", "description": "The id that it is about"},
            "state": {"$ref": "#/components/schemas/TaskState"},
            "retry": {"type": "string", "format": "uuid", "description": "The retry that exists"},
            "letters": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Redriven"},
                "description": "What a redrive that stopped early did until then",
            },
            "limit_bytes": {"type": "integer", "minimum": 1, "description": "The limit that was exceeded"},
        },
    })
}
