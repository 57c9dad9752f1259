//! What calls sent and were answered is recorded where the operator asks for it, as the guest saw it, and nowhere else.

use e2e::daemon::{Ended, command, run_command};
use e2e::outside::reach::{self, call, chat, get, grant, results};
use e2e::outside::{Play, Request, Server, llm};
use e2e::{Daemon, Mode, Site};
use serde_json::{Value, json};
use uuid::Uuid;

use super::run;

e2e::in_both_modes! {
    what_was_sent_and_answered_is_recorded_as_the_guest_saw_it_and_erased_with_its_task
    only_what_was_asked_for_is_recorded_and_one_plugin_can_be_watched_alone
}

/// What the host adds, which servers say back.
const CANARIES: [(&str, &str); 2] = [("WEB_TOKEN", "canary-body-web-5e0c17"), ("LAB_KEY", "canary-body-lab-93d4fa")];
/// What the guest says itself.
const SAID: &str = "an-umbrella-of-the-guest";
/// A KiB more than is kept of a body here.
const LONG: usize = 5 << 10;

fn page(request: &Request) -> Play {
    let echo = format!("{} heard {:?}", request.body, request.headers);
    match request.target.as_str() {
        "/long" => Play::text(200, "é".repeat(LONG / 2)),
        "/bytes" => Play::Reply(200, Vec::new(), vec![0xff, 0, 0xfe]),
        "/torn" => Play::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf a".to_vec()),
        _ => Play::text(200, echo),
    }
}

fn model(prompt: &str, request: &Request) -> Play {
    let heard = format!("{:?}", request.headers);
    match prompt {
        "refuse" => Play::json(400, &json!({"error": {"message": heard, "type": "invalid_request_error"}})),
        _ => llm::says(&heard),
    }
}

async fn what_was_sent_and_answered_is_recorded_as_the_guest_saw_it_and_erased_with_its_task(mode: Mode) {
    let site = Site::new(mode).await;
    let (web, models) = (Server::start(page).await, llm::start(model).await);
    let setup = reach::with_llm(reach::setup(&site), &models)
        .set("calls.bodies", json!(["llm", "tools", "http"]))
        .set("calls.body_kib", 4)
        .set("llm.providers.lab.key", "${LAB_KEY}")
        .set("http.secrets.web.requests", format!("GET,POST {}", web.url("/")))
        .set("http.secrets.web.header", "Authorization")
        .set("http.secrets.web.value", "Bearer ${WEB_TOKEN}");
    let setup = grant(setup, "http", json!([format!("GET,POST {}", web.url("/"))]));
    let setup = CANARIES.iter().fold(setup, |setup, (name, value)| setup.variable(name, value));
    let daemon = setup.start().await;
    let told = "bodies    of calls of every plugin: llm, tools, http, at most 4 KiB of one and 1024 KiB of an attempt";
    assert!(daemon.said().contains(told), "{}", daemon.said());

    let post = json!({"http": {"method": "POST", "url": web.url("/echo"), "body": SAID}});
    let steps = [
        post,
        get(web.url("/long")),
        get(web.url("/bytes")),
        get(web.url("/torn")),
        chat(SAID),
        chat("refuse"),
        call("echo", json!({"text": SAID})),
        call("nothing", json!({})),
        json!({"set": {"key": "k", "value": SAID}}),
    ];
    let task = reach::reach(steps);
    let id = task.id;
    let results = results(&run(&site, &daemon, task).await);

    let calls = with_bodies(&daemon, id).await;
    let pair = |n: usize| (&calls[n]["request_body"], &calls[n]["response_body"]);
    let whole = |content: &str| json!({"encoding": "utf-8", "content": content, "bytes": content.len(), "cut": false});
    // A page that says back what it heard, and what the host put into it.
    let heard = results[0]["ok"]["body"].as_str().expect("a page");
    assert!(web.requests()[0].header("authorization").contains(CANARIES[0].1), "the server had it");
    assert!(heard.contains("authorization") && heard.contains("***"), "and said it: {heard}");
    assert_eq!(pair(0), (&whole(SAID), &whole(heard)));
    let long = &calls[1]["response_body"];
    assert_eq!((&long["encoding"], &long["bytes"], &long["cut"]), (&json!("utf-8"), &json!(LONG), &json!(true)));
    assert_eq!(long["content"], "é".repeat((4 << 10) / 2));
    let bytes = json!({"encoding": "base64", "content": "/wD+", "bytes": 3, "cut": false});
    assert_eq!(pair(2), (&Value::Null, &bytes), "a request without a body has none");
    assert_eq!((&calls[3]["result"], &calls[3]["response_body"]["content"]), (&json!("broken"), &json!("half a")));
    // Chats in the guest's own words.
    let asked = content(&calls[4]["request_body"]);
    assert_eq!(asked["messages"], json!([{"role": "user", "content": SAID}]), "{asked}");
    assert_eq!(asked["model"], "default", "not the provider's name for it: {asked}");
    let answered = content(&calls[4]["response_body"]);
    assert_eq!(answered["message"]["content"], results[4]["ok"]["text"], "{answered}");
    let refused = content(&calls[5]["response_body"]);
    assert_eq!(refused["error"]["code"], "invalid_request", "{refused}");
    assert_eq!(refused["error"]["message"], results[5]["error"]["message"], "{refused}");
    // Tools.
    assert_eq!(content(&calls[6]["request_body"]), json!({"text": SAID}));
    assert_eq!(content(&calls[6]["response_body"]), json!({"content": [{"text": SAID}], "failed": false}));
    assert_eq!(content(&calls[7]["response_body"])["error"]["code"], "unknown");
    assert_eq!(pair(8), (&Value::Null, &Value::Null), "a bucket's calls have no bodies");

    // A list is without them, and says that they are there.
    let list = daemon.http().calls(id).await;
    assert_eq!(
        (&list[0]["request_body_bytes"], list[0].get("request_body")),
        (&json!(SAID.len()), None),
        "{}",
        list[0]
    );
    assert_eq!(list[8]["request_body_bytes"], Value::Null, "{}", list[8]);

    let shown = task_command(&site, &daemon, &["calls", &id.to_string(), "--bodies"]).await;
    for part in [
        "  request (24 bytes)\n    an-umbrella",
        "5.0 KiB, cut)",
        "(3 bytes, base64)\n    /wD+\n",
        "        role: user\n",
    ] {
        assert!(shown.stdout.contains(part), "{part:?} is not in\n{}", shown.stdout);
    }
    let json = task_command(&site, &daemon, &["calls", &id.to_string(), "--bodies", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["calls"], Value::from(calls.clone()));

    let everything = async || everything(&site).await;
    let stored = everything().await;
    assert!(holds(&stored, "half a"), "it is looked where bodies are");
    for (name, value) in CANARIES {
        for (place, text) in [
            ("the database", &stored),
            ("the API", &Value::from(calls.clone()).to_string()),
            ("the command line", &shown.stdout),
        ] {
            assert!(!holds(text, value), "{name} is in {place}");
        }
    }

    task_command(&site, &daemon, &["erase", &id.to_string()]).await;
    let erased = with_bodies(&daemon, id).await;
    assert_eq!(erased.len(), calls.len());
    for call in &erased {
        assert_eq!(
            [&call["request_body"], &call["response_body"], &call["request_body_bytes"]],
            [&Value::Null; 3],
            "{call}"
        );
    }
    if mode == Mode::Services {
        // A file keeps what is deleted until its place is needed.
        let stored = everything().await;
        assert!(!holds(&stored, "half a") && !holds(&stored, "heard {"), "nothing is left");
    }
    daemon.stop().await;
}

async fn only_what_was_asked_for_is_recorded_and_one_plugin_can_be_watched_alone(mode: Mode) {
    let site = Site::new(mode).await;
    let (web, models) = (Server::start(page).await, llm::start(model).await);
    let steps = || [get(web.url("/page")), chat(SAID), call("echo", json!({"text": SAID}))];
    let setup = reach::with_llm(reach::setup(&site), &models);
    let setup = grant(setup, "http", json!([format!("GET {}", web.url("/"))]));
    for (setup, recorded) in [
        (setup.clone(), [false, false, false]),
        (setup.clone().set("plugins.reach.calls.bodies", json!(["tools"])), [false, false, true]),
        (
            setup.set("calls.bodies", json!(["http", "llm"])).set("plugins.reach.calls.bodies", json!(["llm"])),
            [false, true, false],
        ),
    ] {
        let daemon = setup.start().await;
        let task = reach::reach(steps());
        let id = task.id;
        run(&site, &daemon, task).await;
        let calls = with_bodies(&daemon, id).await;
        let told: Vec<bool> = calls.iter().map(|call| call["response_body"].is_object()).collect();
        assert_eq!(told, recorded, "{calls:?}");
        let shown = task_command(&site, &daemon, &["calls", &id.to_string(), "--bodies"]).await;
        assert_eq!(shown.stdout.contains("  response ("), recorded.contains(&true), "{}", shown.stdout);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_call_that_never_came_back_keeps_what_was_sent() {
    let site = Site::new(Mode::Services).await;
    let models = llm::start(|_, _| Play::Hang).await;
    let setup = reach::with_llm(reach::setup(&site), &models).set("calls.bodies", json!(["llm"]));
    let daemon = setup.start().await;
    let task = reach::reach([chat(SAID)]);
    let id = task.id;
    site.submit(&daemon, &[task]).await;
    models.asked(1).await;
    daemon.http().post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await.expect(202);
    daemon.http().ended(id).await;
    let call = &with_bodies(&daemon, id).await[0];
    assert_eq!((&call["result"], &call["response_body"]), (&json!("unfinished"), &Value::Null), "{call}");
    assert_eq!(content(&call["request_body"])["messages"][0]["content"], SAID, "{call}");
    daemon.stop().await;
}

async fn with_bodies(daemon: &Daemon, id: Uuid) -> Vec<Value> {
    let answer = daemon.http().get(&format!("/v1/tasks/{id}/calls?bodies=true")).await.expect(200);
    answer["calls"].as_array().expect("calls").clone()
}

/// A body that is JSON, read.
#[track_caller]
fn content(body: &Value) -> Value {
    let text = body["content"].as_str().unwrap_or_else(|| panic!("no body: {body}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn task_command(site: &Site, daemon: &Daemon, words: &[&str]) -> Ended {
    let mut command = command(site.folder());
    command.arg("task").args(words).args(["--server", daemon.http().base()]);
    let ended = run_command(&mut command).await;
    ended.expect(0, &[]);
    ended
}

/// All that is stored, as text.
async fn everything(site: &Site) -> String {
    match site.mode {
        Mode::Services => site.database().await.everything().await,
        Mode::Embedded => std::fs::read_dir(site.data("data"))
            .expect("the data folder")
            .flatten()
            .filter(|entry| entry.path().is_file())
            .map(|entry| String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()).into_owned())
            .collect(),
    }
}

/// As it is, or as bytes of Postgres in hexadecimal digits.
fn holds(text: &str, what: &str) -> bool {
    let digits: String = what.bytes().map(|byte| format!("{byte:02x}")).collect();
    text.contains(what) || text.contains(&digits)
}
