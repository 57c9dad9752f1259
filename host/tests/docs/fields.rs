//! Objects of answers: each stands in `http.md` as the list of its fields.

use crate::page::Page;
use agentry::db::{AttemptRow, AuditRow, Brake, BrakeKind, CallRow, DeadRow, EventRow, HostRecord, HostRow, LogRow};
use agentry::registry::{PluginInfo, PluginState, VersionInfo};
use agentry::task::Event;
use agentry::task::settle::Usage;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeSet;

fn named(value: impl serde::Serialize) -> BTreeSet<String> {
    serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
}

/// The field lists of the page: `{one, two}` in backticks, across lines.
fn lists(page: &Page) -> Vec<BTreeSet<String>> {
    let spans = page.text.split('`').filter_map(|span| span.strip_prefix('{')?.strip_suffix('}'));
    spans.map(|span| span.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()).collect()
}

#[test]
fn every_object_of_an_answer_is_in_http_md_with_its_fields() {
    let lists = lists(&Page::of_docs("http.md"));
    let at = DateTime::<Utc>::UNIX_EPOCH;
    let id = uuid::Uuid::nil();
    let text = String::new;
    let event = EventRow {
        seq: 1,
        at,
        event: Event::Running,
        attempt: None,
        fence: None,
        host: None,
        digest: None,
        detail: Value::Null,
    };
    let line =
        LogRow { seq: 1, at, attempt: 1, stream: text(), level: text(), logger: text(), message: text(), cut: false };
    let attempt = AttemptRow {
        attempt: 1,
        fence: 1,
        host: id,
        build: None,
        version: None,
        digest: None,
        started_at: at,
        finished_at: at,
        ended: text(),
        failure: None,
        usage: None,
        called_us: None,
    };
    let call = CallRow {
        fence: 1,
        seq: 1,
        at,
        attempt: 1,
        capability: text(),
        operation: text(),
        target: text(),
        duration_us: 0,
        request_bytes: 0,
        response_bytes: 0,
        result: text(),
        detail: Value::Null,
        request_body_bytes: None,
        response_body_bytes: None,
        request_body: None,
        response_body: None,
    };
    let letter = DeadRow {
        id: 1,
        at,
        reason: text(),
        detail: text(),
        queue: text(),
        task_id: None,
        plugin: None,
        body: text(),
        body_bytes: 0,
        properties: Value::Null,
        redriven_at: None,
        redriven_as: None,
        erased_at: None,
    };
    let change = AuditRow { id: 1, at, actor: text(), action: text(), target: text(), count: None, reason: None };
    let brake = Brake { kind: BrakeKind::Queue, target: text(), by: text(), reason: None, since: at };
    let record = HostRecord {
        id,
        name: text(),
        build: text(),
        settings_digest: text(),
        queues: vec![],
        plugins: vec![],
        broken_plugins: vec![],
        slots: 1,
        busy: 0,
        brakes: None,
    };
    let host = HostRow { record, started_at: at, renewed_at: at, lease_until: at, alive: true };
    let version = VersionInfo {
        version: None,
        state: PluginState::Ready,
        cause: None,
        digest: None,
        description: text(),
        queue: None,
        max_attempts: None,
        imports: vec![],
        grants: Default::default(),
        recorded_bodies: vec![],
        limits: Default::default(),
        path: text(),
        loaded_at: None,
    };
    let plugin =
        PluginInfo { name: text(), state: PluginState::Ready, cause: None, concurrency: None, versions: vec![] };
    let objects = [
        ("event", named(event)),
        ("log line", named(line)),
        ("attempt", named(attempt)),
        ("usage", named(Usage::default())),
        ("call", named(call)),
        ("dead letter", named(letter)),
        ("change", named(change)),
        ("brake", named(brake)),
        ("host", named(host)),
        ("version", named(version)),
        ("plugin", named(plugin)),
    ];
    for (what, fields) in objects {
        assert!(lists.contains(&fields), "host/docs/http.md has no list of the fields of a {what}: {fields:?}");
    }
}
