//! The API over a real socket and a real database. Tasks are claimed and settled by hand where a worker would.

mod batches;
mod browsers;
mod contract;
mod operators;
mod pages;
mod shares;
mod site;
mod steering;
mod streams;

use super::*;
use crate::db::HostRecord;
use crate::metrics::MEDIA_TYPE;
use crate::task::settle::{Body, Call, Usage};
use crate::task::{Event, FailureKind};
use reqwest::Method;
use serde_json::{Value, json};
use site::{CONNECTIONS, PATIENCE, Site, record};
use std::time::Instant;

#[tokio::test]
async fn a_submitted_task_has_a_row_when_it_is_answered_and_the_relay_is_woken() {
    let site = Site::new().await;
    let body = json!({"plugin": "word-count", "input": {"b": 1, "a": 2}, "options": {"labels": {"team": "search"}}});
    let (status, task) = site.post("/v1/tasks", &body).await;
    assert_eq!(status, 201, "{task}");
    assert_eq!((&task["state"], &task["max_attempts"]), (&json!("pending"), &json!(5)), "{task}");
    tokio::time::timeout(PATIENCE, site.outbox.notified()).await.expect("the relay is woken");
    let id = task["id"].as_str().unwrap();
    assert_eq!(site.get(&format!("/v1/tasks/{id}")).await, (200, task.clone()));
    let (_, events) = site.get(&format!("/v1/tasks/{id}/events")).await;
    assert_eq!(events["events"][0]["event"], "pending", "{events}");
}

#[tokio::test]
async fn the_same_id_is_the_same_task_and_other_content_is_a_conflict() {
    let site = Site::new().await;
    let id = TaskId::now_v7();
    let body = json!({"id": id, "plugin": "word-count", "input": 1});
    assert_eq!(site.post("/v1/tasks", &body).await.0, 201);
    assert_eq!(site.post("/v1/tasks", &body).await.0, 200);
    let (status, problem) = site.post("/v1/tasks", &json!({"id": id, "plugin": "word-count", "input": 2})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    let key = [("idempotency-key", "k")];
    let of = |input: u8| Some(json!({"plugin": "word-count", "input": input}).to_string());
    let (first, again) = (
        site.ask(Method::POST, "/v1/tasks", &key, of(1)).await,
        site.ask(Method::POST, "/v1/tasks", &key, of(1)).await,
    );
    assert_eq!((first.0, again.0), (201, 200));
    assert_eq!(first.1["id"], again.1["id"]);
    assert_eq!(site.ask(Method::POST, "/v1/tasks", &key, of(2)).await.0, 409);
}

#[tokio::test]
async fn what_cannot_run_is_refused_and_leaves_no_row() {
    let site = Site::new().await;
    let good = json!({"plugin": "word-count", "input": 1});
    let cases = [
        (json!({"plugin": "word-cuont", "input": 1}), 422, "unknown_plugin"),
        (json!({"plugin": "word-count@2", "input": 1}), 422, "unknown_plugin"),
        (json!({"plugin": "word-count", "input": 1, "queue": "nowhere"}), 422, "unknown_queue"),
        (json!({"plugin": "Word", "input": 1}), 422, "bad_plugin"),
        (json!({"plugin": "word-count", "input": 1, "options": {"priority": 10}}), 422, "bad_options"),
        (json!({"plugin": "word-count", "input": 1, "options": {"timeout_seconds": 601}}), 422, "bad_options"),
        (json!({"plugin": "word-count", "input": 1, "options": [30]}), 400, "bad_message"),
        (json!({"plugin": "word-count", "input": 1, "prompt": "x"}), 400, "bad_message"),
        (json!({"plugin": "word-count"}), 400, "bad_message"),
        (json!({"id": "seven", "plugin": "word-count", "input": 1}), 400, "bad_id"),
        (json!({"plugin": "word-count", "input": "x".repeat(65 * 1_024)}), 413, "too_large"),
        (json!({"plugin": "word-count", "input": "x".repeat(129 * 1_024)}), 413, "too_large"),
    ];
    for (body, status, code) in cases {
        let (got, problem) = site.post("/v1/tasks", &body).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{problem}");
        let batch = json!({"tasks": [good, body]});
        let (got, problem) = site.post("/v1/tasks/batch", &batch).await;
        assert!((400..500).contains(&got), "{problem}");
    }
    let (_, unknown) = site.post("/v1/tasks", &json!({"plugin": "word-cuont", "input": 1})).await;
    assert_eq!(unknown["known"], json!(["word-count"]));
    assert_eq!(site.get("/v1/tasks").await.1, json!({"tasks": [], "next_cursor": null}));
}

#[tokio::test]
async fn a_plugin_that_only_another_live_host_serves_is_accepted() {
    let site = Site::new().await;
    let other =
        HostRecord { plugins: vec!["fetch@1.2.0".into()], queues: vec!["slow".into()], ..record(TaskId::now_v7()) };
    site.db.register_host(&other, Duration::from_secs(60)).await.unwrap();
    let (status, task) = site.post("/v1/tasks", &json!({"plugin": "fetch@1", "input": 1, "queue": "slow"})).await;
    assert_eq!((status, &task["queue"]), (201, &json!("slow")), "{task}");
    site.db.end_lease(other.id).await.unwrap();
    assert_eq!(site.post("/v1/tasks", &json!({"plugin": "fetch@1", "input": 1})).await.0, 422);
}

#[tokio::test]
async fn a_task_whose_plugin_is_broken_here_is_accepted_with_a_warning() {
    let site = Site::new().await;
    let body = json!({"plugin": "broken@1", "input": 1});
    let (status, task) = site.post("/v1/tasks", &body).await;
    assert_eq!((status, &task["warnings"][0]["code"]), (201, &json!("plugin_broken")), "{task}");
    let message = task["warnings"][0]["message"].as_str().unwrap();
    assert!(message.contains("no component") && message.contains("plugins.unknown_grace_seconds"), "{message}");
    let (_, read) = site.get(&format!("/v1/tasks/{}", task["id"].as_str().unwrap())).await;
    assert!(read.get("warnings").is_none(), "only the answer to the submission has it: {read}");
    let good = json!({"plugin": "word-count", "input": 1});
    assert!(site.post("/v1/tasks", &good).await.1.get("warnings").is_none());
    let (status, answer) = site.post("/v1/tasks/batch", &json!({"tasks": [body, good, body]})).await;
    assert_eq!((status, answer["warnings"].as_array().map(Vec::len)), (201, Some(1)), "{answer}");
    assert_eq!(answer["warnings"][0]["plugin"], task["plugin"], "{answer}");
    assert!(site.post("/v1/tasks/batch", &json!({"tasks": [good]})).await.1.get("warnings").is_none());
}

#[tokio::test]
async fn a_task_whose_plugin_is_broken_on_every_host_that_has_it_is_accepted_with_a_warning() {
    let site = Site::new().await;
    let mut other = record(TaskId::now_v7());
    other.broken_plugins = vec!["fetch: no component in /plugins/fetch".into()];
    site.db.register_host(&other, Duration::from_secs(60)).await.unwrap();
    let body = json!({"plugin": "fetch", "input": 1});
    let (status, task) = site.post("/v1/tasks", &body).await;
    assert_eq!((status, &task["warnings"][0]["code"]), (201, &json!("plugin_broken")), "{task}");
    let message = task["warnings"][0]["message"].as_str().unwrap();
    assert!(message.contains(&other.name) && message.contains("no component in /plugins/fetch"), "{message}");
    other.plugins.push("fetch@1.0.0".into());
    site.db.register_host(&other, Duration::from_secs(60)).await.unwrap();
    assert!(site.post("/v1/tasks", &body).await.1.get("warnings").is_none(), "it is served");
}

#[tokio::test]
async fn a_batch_is_taken_whole() {
    let site = Site::new().await;
    let task = |n: u8| json!({"plugin": "word-count", "input": n});
    let (status, answer) = site.post("/v1/tasks/batch", &json!({"tasks": [task(1), task(2), task(3)]})).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 3);
    let (_, page) = site.get("/v1/tasks?limit=2").await;
    assert_eq!(page["tasks"].as_array().unwrap().len(), 2);
    assert!(page["tasks"][0].get("input").is_none(), "{page}");
    let cursor = page["next_cursor"].as_str().unwrap();
    let (_, page) = site.get(&format!("/v1/tasks?limit=2&cursor={cursor}&fields=input")).await;
    assert_eq!((page["tasks"].as_array().unwrap().len(), &page["next_cursor"]), (1, &Value::Null));
    assert_eq!(page["tasks"][0]["input"], 1, "newest first: {page}");
    assert_eq!(site.post("/v1/tasks/batch", &json!({"tasks": []})).await.0, 422);
}

#[tokio::test]
async fn who_waits_is_answered_with_the_end_as_soon_as_it_is_there() {
    let site = Site::new().await;
    let id = site.submit().await;
    let path = format!("/v1/tasks/{id}/wait?timeout=20");
    let end = async {
        let claimed = site.claim(id).await;
        site.complete(id, claimed.fence).await;
    };
    let ((status, task), ()) = tokio::join!(site.get(&path), end);
    assert_eq!((status, &task["state"]), (200, &json!("completed")), "{task}");
    assert_eq!(site.get(&path).await.1, task, "at once, and the same");
    let text = site.http.get(format!("{}/v1/tasks/{id}", site.base)).send().await.unwrap().text().await.unwrap();
    assert!(text.contains(r#""output":{"words":  3}"#), "byte for byte: {text}");
}

#[tokio::test]
async fn who_waits_in_vain_is_answered_with_what_is() {
    let site = Site::new().await;
    let id = site.submit().await;
    let began = Instant::now();
    let (status, task) = site.get(&format!("/v1/tasks/{id}/wait?timeout=0.2")).await;
    assert_eq!((status, &task["state"]), (200, &json!("pending")));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(site.get(&format!("/v1/tasks/{}/wait", TaskId::now_v7())).await.0, 404);
}

#[tokio::test]
async fn a_followed_history_ends_with_the_terminal_event_and_resumes_where_it_was() {
    let site = Site::new().await;
    let id = site.submit().await;
    let follow = async |after: &str| {
        let request =
            site.http.get(format!("{}/v1/tasks/{id}/events", site.base)).header("accept", "text/event-stream");
        let answer = request.header("last-event-id", after).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.text().await.unwrap() // until the stream ends
    };
    let end = async {
        let claimed = site.claim(id).await;
        site.complete(id, claimed.fence).await;
    };
    let (whole, ()) = tokio::join!(follow("0"), end);
    let names: Vec<&str> = whole.lines().filter_map(|l| l.strip_prefix("event: ")).collect();
    let ids: Vec<&str> = whole.lines().filter_map(|l| l.strip_prefix("id: ")).collect();
    assert_eq!((names, ids), (vec!["pending", "running", "completed"], vec!["1", "2", "3"]), "{whole}");
    let rest = follow("2").await;
    assert!(rest.contains("id: 3") && !rest.contains("id: 2"), "{rest}");
}

fn bare_call(seq: u32) -> Call {
    Call {
        seq,
        at: "2030-01-01T00:00:00Z".parse().unwrap(),
        capability: "http".into(),
        operation: "GET".into(),
        target: format!("https://example.com/{seq}"),
        duration_us: 1_000,
        request_bytes: 1,
        response_bytes: 2,
        result: "ok".into(),
        detail: json!({"status": 200}),
        request_body: None,
        response_body: None,
    }
}

#[tokio::test]
async fn calls_are_read_page_by_page_and_counted_with_their_attempt() {
    let site = Site::new().await;
    let id = site.submit().await;
    let claimed = site.claim(id).await;
    let usage = Usage { calls: 5, llm_tokens: 70, ..Usage::default() };
    site.complete_with(id, claimed.fence, usage, (1..=3).map(bare_call).collect()).await;
    let (status, page) = site.get(&format!("/v1/tasks/{id}/calls?limit=2")).await;
    assert_eq!((status, &page["next_after"]), (200, &json!("1.2")), "{page}");
    let first = json!({
        "fence": 1, "seq": 1, "at": "2030-01-01T00:00:00Z", "attempt": 1, "capability": "http", "operation": "GET",
        "target": "https://example.com/1", "duration_us": 1_000, "request_bytes": 1, "response_bytes": 2, "result": "ok",
        "detail": {"status": 200}, "request_body_bytes": null, "response_body_bytes": null,
    });
    assert_eq!(page["calls"][0], first);
    let (_, rest) = site.get(&format!("/v1/tasks/{id}/calls?after=1.2")).await;
    assert_eq!((rest["calls"].as_array().unwrap().len(), &rest["next_after"]), (1, &Value::Null), "{rest}");
    let (_, attempts) = site.get(&format!("/v1/tasks/{id}/attempts")).await;
    let attempt = &attempts["attempts"][0];
    let counts = [&attempt["usage"]["calls"], &attempt["usage"]["llm_tokens"], &attempt["called_us"]];
    assert_eq!(counts, [&json!(5), &json!(70), &json!(3_000)], "{attempt}");
    for (query, status, part) in [
        ("?after=2", 400, "it takes the next_after of another page"),
        ("?limit=1001", 400, "it takes a number from 1 to 1000"),
        ("?bodies=yes", 400, "it takes true or false"),
        ("?seq=1", 400, "known here: after, limit, bodies"),
    ] {
        let (got, problem) = site.get(&format!("/v1/tasks/{id}/calls{query}")).await;
        assert!(got == status && problem["detail"].as_str().unwrap().contains(part), "{query}: {problem}");
    }
    assert_eq!(site.get(&format!("/v1/tasks/{}/calls", TaskId::now_v7())).await.0, 404);
}

#[tokio::test]
async fn bodies_of_calls_are_read_by_whoever_asks_for_them_in_shorter_pages() {
    let site = Site::new().await;
    let id = site.submit().await;
    let claimed = site.claim(id).await;
    let body = |bytes: &[u8]| Some(Body { bytes: bytes.to_vec(), size: 5 });
    let call = |seq: u32| Call {
        request_body: body(b"hello"),
        response_body: if seq == 1 { body(b"\xff") } else { None },
        ..bare_call(seq)
    };
    site.complete_with(id, claimed.fence, Usage::default(), (1..=60).map(call).collect()).await;
    let (_, plain) = site.get(&format!("/v1/tasks/{id}/calls")).await;
    assert_eq!(plain["calls"].as_array().unwrap().len(), 60);
    let first = &plain["calls"][0];
    assert_eq!((&first["request_body_bytes"], first.get("request_body")), (&json!(5), None), "{first}");
    let (_, page) = site.get(&format!("/v1/tasks/{id}/calls?bodies=true&limit=1000")).await;
    assert_eq!((page["calls"].as_array().unwrap().len(), &page["next_after"]), (50, &json!("1.50")));
    let first = &page["calls"][0];
    let request = json!({"encoding": "utf-8", "content": "hello", "bytes": 5, "cut": false});
    let response = json!({"encoding": "base64", "content": "/w==", "bytes": 5, "cut": true});
    assert_eq!((&first["request_body"], &first["response_body"]), (&request, &response), "{first}");
    assert_eq!(page["calls"][1]["response_body"], Value::Null);
    assert!(page["calls"][1].get("response_body").is_some(), "that nothing is kept is said");
    let (_, rest) = site.get(&format!("/v1/tasks/{id}/calls?bodies=true&after=1.50")).await;
    assert_eq!((rest["calls"].as_array().unwrap().len(), &rest["next_after"]), (10, &Value::Null));
}

#[tokio::test]
async fn a_waiting_task_is_called_off_and_a_running_one_is_told() {
    let site = Site::new().await;
    let (waiting, running) = (site.submit().await, site.submit().await);
    let (status, task) = site.post(&format!("/v1/tasks/{waiting}/cancel"), &json!({})).await;
    assert_eq!((status, &task["state"]), (202, &json!("cancelled")));
    let (status, problem) = site.post(&format!("/v1/tasks/{waiting}/cancel"), &json!({})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_ended")));
    site.claim(running).await;
    assert_eq!(site.post(&format!("/v1/tasks/{running}/cancel"), &json!({})).await.0, 202);
    assert_eq!(*site.stopped.lock().unwrap(), [running]);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_a_problem() {
    let site = Site::new().await;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/v1/task", 404, "not_found"),
        (Method::PUT, "/v1/tasks", 405, "method_not_allowed"),
        (Method::DELETE, "/v1/tasks", 400, "bad_query"),
        (Method::GET, "/v1/tasks/seven", 400, "bad_id"),
        (Method::GET, "/v1/tasks/0195d0a0-0000-7000-8000-000000000000", 404, "not_found"),
        (Method::GET, "/v1/tasks/0195d0a0-0000-7000-8000-000000000000/events", 404, "not_found"),
        (Method::GET, "/v1/tasks?stat=failed", 400, "bad_query"),
        (Method::GET, "/v1/plugins/no", 404, "not_found"),
        (Method::POST, "/v1/tasks", 415, "content_type"),
    ] {
        let (got, problem) = site.ask(method, path, &[], None).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{path}: {problem}");
    }
    let (got, problem) = site.ask(Method::GET, "/v1/tasks", &[("host", "evil.example")], None).await;
    assert_eq!((got, &problem["code"]), (421, &json!("misdirected")));
}

#[tokio::test]
async fn hosts_queues_and_dead_letters_are_listed() {
    let site = Site::new().await;
    let (_, hosts) = site.get("/v1/hosts").await;
    assert_eq!(
        (&hosts["hosts"][0]["name"], &hosts["hosts"][0]["alive"]),
        (&json!("agentry/test/host/1"), &json!(true))
    );
    let (_, queues) = site.get("/v1/queues").await;
    let queue = &queues["queues"][0];
    assert_eq!((&queue["ready"], &queue["consumers"], &queue["dead"]), (&json!(7), &json!(2), &Value::Null), "{queue}");
    assert!(queue["error"].as_str().unwrap().contains("gone"), "{queue}");
    assert_eq!(site.get("/v1/dead").await.1, json!({"dead": [], "next_cursor": null}));
    assert_eq!(site.get("/v1/plugins").await.1, json!({"plugins": []}));
}

#[tokio::test]
async fn readiness_is_told_and_its_reasons_only_to_those_who_may_know() {
    let tokens = Tokens::of("dash read 0123456789abcdef\nops full fedcba9876543210");
    let site = Site::with(Some(tokens)).await;
    let reasons = vec![Reason { code: "broker".into(), message: "away".into() }];
    site.readiness.send_replace(Readiness { ready: false, reasons });
    assert_eq!(site.get("/healthz").await, (200, json!({"status": "ok"})));
    assert_eq!(site.get("/readyz").await, (503, json!({"ready": false})));
    let reader = [("authorization", "Bearer 0123456789abcdef")];
    let (_, told) = site.ask(Method::GET, "/readyz", &reader, None).await;
    assert_eq!(told["reasons"][0]["code"], "broker");
    assert_eq!(site.get("/v1/tasks").await.0, 401);
    assert_eq!(site.ask(Method::GET, "/v1/tasks", &reader, None).await.0, 200);
    let body = json!({"plugin": "word-count", "input": 1}).to_string();
    assert_eq!(site.ask(Method::POST, "/v1/tasks", &reader, Some(body.clone())).await.0, 403);
    let operator = [("authorization", "Bearer fedcba9876543210")];
    assert_eq!(site.ask(Method::POST, "/v1/tasks", &operator, Some(body)).await.0, 201);
}

#[tokio::test]
async fn what_was_counted_is_told_as_prometheus_reads_it_to_those_who_may_read() {
    let tokens = Tokens::of("dash read 0123456789abcdef");
    let site = Site::with(Some(tokens)).await;
    let usage = Usage { cpu_us: 1_500_000, ..Usage::default() };
    site.metrics.attempt("word-count", Event::Failed, Some(FailureKind::Timeout), &usage, &[]);
    assert_eq!(site.get("/metrics").await.0, 401);
    let request = site.http.get(format!("{}/metrics", site.base)).bearer_auth("0123456789abcdef");
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].as_bytes()), (200, MEDIA_TYPE.as_bytes()));
    let text = answer.text().await.unwrap();
    for line in [
        "# TYPE agentry_attempts counter",
        "agentry_attempts_total{plugin=\"word-count\",ended=\"failed\",kind=\"timeout\"} 1",
        "agentry_cpu_seconds_total{plugin=\"word-count\"} 1.5",
        "agentry_memory_budget_bytes 1073741824",
        "agentry_slots 4",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_shutdown_answers_those_who_wait_and_ends() {
    let site = Site::new().await;
    let id = site.submit().await;
    let path = format!("/v1/tasks/{id}/wait?timeout=60");
    let shutdown = async {
        let began = Instant::now();
        while site.waiters.tasks() == 0 {
            assert!(began.elapsed() < PATIENCE, "nobody waits");
            tokio::task::yield_now().await;
        }
        site.shutdown.cancel();
    };
    let ((status, task), ()) = tokio::join!(site.get(&path), shutdown);
    assert_eq!((status, &task["state"]), (200, &json!("pending")));
    tokio::time::timeout(PATIENCE, site.served).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let site = Site::new().await;
    let address: std::net::SocketAddr = site.base.strip_prefix("http://").unwrap().parse().unwrap();
    let error = Listener::bind(address, CONNECTIONS, None).await.map(drop).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("api.listen"), "{error}");
}
