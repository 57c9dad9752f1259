//! What was called, how long it took and what it cost is there to be read.

use e2e::outside::reach::{self, call, chat, get, grant, results};
use e2e::outside::{Play, Server, llm};
use e2e::{Mode, Site};
use serde_json::{Value, json};

use super::run;

e2e::in_both_modes! {
    calls_are_told_with_their_steps_tokens_and_times
}

async fn calls_are_told_with_their_steps_tokens_and_times(mode: Mode) {
    let site = Site::new(mode).await;
    let (web, models) =
        (Server::start(|_| Play::text(200, "a page")).await, llm::start(|_, _| llm::says("hello")).await);
    let setup = reach::with_llm(reach::setup(&site), &models);
    let daemon = grant(setup, "http", json!([format!("GET {}", web.url("/"))])).start().await;
    let task = reach::reach([
        get(web.url("/page?key=hidden")),
        chat("hello"),
        call("echo", json!({"text": "hello"})),
        json!({"set": {"key": "k", "value": "value"}}),
        json!({"remember": {"text": "hello"}}),
        chat("again"),
    ]);
    let id = task.id;
    let ended = run(&site, &daemon, task).await;
    assert!(results(&ended).iter().all(|result| result.get("ok").is_some()), "{ended}");

    let calls = daemon.http().calls(id).await;
    let word = |call: &Value, name: &str| call[name].as_str().unwrap_or_default().to_owned();
    let told: Vec<_> =
        calls.iter().map(|call| ["capability", "operation", "target", "result"].map(|name| word(call, name))).collect();
    let page = web.url("/page");
    let expected = [
        ["http", "GET", &page, "ok"],
        ["llm", "chat", "default", "ok"],
        ["tools", "call", "mock.echo", "ok"],
        ["keyvalue", "set", "cache", "ok"],
        ["memory", "remember", "notes", "ok"],
        ["llm", "chat", "default", "ok"],
    ];
    assert_eq!(told, expected.map(|row| row.map(str::to_owned)), "in their order, without a query");
    for (call, seq) in calls.iter().zip(1..) {
        assert_eq!((&call["seq"], &call["attempt"]), (&json!(seq), &json!(1)), "{call}");
        assert!(call["duration_us"].as_u64().is_some_and(|us| us > 0) && call["at"].is_string(), "{call}");
    }
    assert_eq!((&calls[0]["response_bytes"], &calls[0]["detail"]["status"]), (&json!(6), &json!(200)), "{}", calls[0]);
    let detail = &calls[1]["detail"];
    assert_eq!((&detail["provider"], &detail["model"]), (&json!("lab"), &json!("model-1-0101")), "{detail}");
    assert_eq!((&detail["input_tokens"], &detail["output_tokens"]), (&json!(10), &json!(5)), "{detail}");

    let attempt = &daemon.http().attempts(id).await[0];
    assert_eq!((&attempt["usage"]["calls"], &attempt["usage"]["llm_tokens"]), (&json!(6), &json!(30)), "{attempt}");
    let sum: u64 = calls.iter().filter_map(|call| call["duration_us"].as_u64()).sum();
    assert_eq!(attempt["called_us"], json!(sum), "{attempt}");

    let id = id.to_string();
    let shown = e2e::daemon::run(site.folder(), &["task", "show", &id, "--server", daemon.http().base()]).await;
    shown.expect(0, &[]);
    let line = shown.stdout.lines().find(|line| line.contains("calls of capabilities")).unwrap_or_default();
    assert!(
        line.trim().starts_with("6 calls of capabilities, 30 tokens, ") && line.ends_with(" in calls"),
        "{}",
        shown.stdout
    );
    let listed = e2e::daemon::run(site.folder(), &["task", "calls", &id, "--server", daemon.http().base()]).await;
    listed.expect(0, &[]);
    for row in expected {
        let found = listed.stdout.lines().any(|line| row.iter().all(|word| line.contains(word)));
        assert!(found, "{row:?} is not in\n{}", listed.stdout);
    }
    daemon.stop().await;
}
