//! What the operator keeps secret reaches the servers that it is for, and nobody else in any form.

use std::path::Path;

use e2e::daemon::{command, run_command};
use e2e::outside::reach::{self, call, chat, get, grant, must, ok, results};
use e2e::outside::{Play, Request, Server, llm, mcp};
use e2e::{Daemon, Mode, Site};
use serde_json::{Value, json};

use super::run;

e2e::in_both_modes! {
    a_secret_reaches_its_server_and_is_seen_nowhere_else
}

/// A variable of the daemon's environment and its value, for each place that takes a secret.
const CANARIES: [(&str, &str); 5] = [
    ("LAB_KEY", "canary-lab-key-51f3c9"),
    ("LAB_HEADER", "canary-lab-header-7d02ae"),
    ("WEB_TOKEN", "canary-web-token-9b6e14"),
    ("TOOL_KEY", "canary-tool-key-c48a70"),
    ("CONFIG_SECRET", "canary-config-2e95bd"),
];

fn canary(name: &str) -> &'static str {
    CANARIES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).unwrap()
}

/// A model's server that repeats what it was sent in everything it says.
fn echo(prompt: &str, request: &Request) -> Play {
    let heard = format!("{:?}", request.headers);
    match prompt {
        "answer" => llm::says(&heard),
        "refuse" => Play::json(400, &json!({"error": {"message": heard, "type": "invalid_request_error"}})),
        "forbid" => Play::json(401, &json!({"error": {"message": heard, "type": "authentication_error"}})),
        "break" => Play::text(500, heard),
        _ => Play::text(200, format!("<html>{heard}")),
    }
}

async fn a_secret_reaches_its_server_and_is_seen_nowhere_else(mode: Mode) {
    let site = Site::new(mode).await;
    let (web, models) = (Server::start(|_| Play::text(200, "welcome")).await, llm::start(echo).await);
    let setup = reach::with_llm(reach::setup(&site), &models)
        .set("llm.providers.lab.key", "${LAB_KEY}")
        .set("llm.providers.lab.headers.x-team", "${LAB_HEADER}")
        .set("http.secrets.web.requests", format!("GET {}", web.url("/")))
        .set("http.secrets.web.header", "Authorization")
        .set("http.secrets.web.value", "Bearer ${WEB_TOKEN}")
        .set("tools.mock.env.TOOL_KEY", "${TOOL_KEY}")
        .set("config.region", "north")
        .set("config.secret", "${CONFIG_SECRET}");
    let setup = grant(setup, "http", json!([format!("GET {}", web.url("/"))]));
    let setup = CANARIES.iter().fold(setup, |setup, (name, value)| setup.variable(name, value));
    let daemon = setup.start().await;

    let said = ["answer", "refuse", "forbid", "break", "page"].map(chat);
    let others = [
        get(web.url("/a")),
        get(web.url("/closed?token=x")),
        call("environment", json!({})),
        json!({"config": "secret"}),
        json!({"config": "region"}),
        json!({"tell": {}}),
    ];
    let told = reach::reach([&said[..], &others].concat());
    let failing = ["refuse", "forbid", "break", "page"]
        .map(|prompt| reach::reach([must(chat(prompt))]).option("max_attempts", 1));
    let id = told.id;
    let ended = run(&site, &daemon, told).await;
    let results = results(&ended);

    // They were there: each server had its own.
    let heard = models.requests();
    assert!(heard.iter().all(|r| r.header("authorization") == format!("Bearer {}", canary("LAB_KEY"))), "{heard:?}");
    assert!(heard.iter().all(|r| r.header("x-team") == canary("LAB_HEADER")), "{heard:?}");
    let heard = web.requests();
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|r| r.header("authorization") == format!("Bearer {}", canary("WEB_TOKEN"))), "{heard:?}");
    let environment = ok(&results[7])["text"].as_str().unwrap();
    assert!(environment.contains("\"TOOL_KEY\": \"***\""), "the tool's server had it: {environment}");
    assert_eq!((ok(&results[8]), ok(&results[9])), (&Value::Null, &json!("north")));
    let repeated = ok(&results[0])["text"].as_str().unwrap();
    assert!(repeated.contains("Bearer ***"), "the model's server repeated its headers: {repeated}");

    let mut ids = vec![id];
    for task in failing {
        ids.push(task.id);
        let ended = run(&site, &daemon, task).await;
        assert_eq!(ended["state"], "failed", "{ended}");
    }
    let mut places: Vec<(String, String)> = vec![("the daemon's log".into(), daemon.said())];
    for id in &ids {
        for part in ["", "/events", "/logs", "/attempts", "/calls", "/explain"] {
            let path = format!("/v1/tasks/{id}{part}");
            places.push((path.clone(), daemon.http().get(&path).await.text));
        }
    }
    for path in
        ["/metrics", "/readyz", "/v1/plugins", "/v1/plugins/reach", "/v1/tasks", "/v1/queues", "/v1/hosts", "/v1/dead"]
    {
        let answer = daemon.http().get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        places.push((path.into(), answer.text));
    }
    let settings = site.folder().join("data.toml");
    let shown =
        run_command(command(site.folder()).args(["config", "show", "--config"]).arg(&settings).envs(CANARIES)).await;
    shown.expect(0, &[]);
    assert!(shown.stdout.contains("lab"), "{shown:?}");
    places.push(("config show".into(), shown.stdout + &shown.stderr));
    for words in
        [&["plugin", "inspect", "reach"][..], &["task", "show", &id.to_string()], &["task", "calls", &id.to_string()]]
    {
        let shown = run_command(command(site.folder()).args(words).args(["--server", daemon.http().base()])).await;
        shown.expect(0, &[]);
        places.push((words.join(" "), shown.stdout + &shown.stderr));
    }
    places.extend(arguments(&daemon));
    places.push(("the database".into(), site.database().await.everything().await));
    let said = daemon.said();
    daemon.stop().await;
    places.push(("the daemon's log at its end".into(), said));
    files(&site.data("data"), &mut places);
    // It is looked where things are: what is no secret is there.
    let holds = |place: &str, what: &str| places.iter().any(|(name, text)| name.contains(place) && text.contains(what));
    let database = if mode == Mode::Services { "the database" } else { ".sqlite" };
    for place in [database, &format!("/v1/tasks/{id}"), "/logs"] {
        assert!(holds(place, "north"), "{place} does not hold the task's output");
    }
    assert!(holds("the daemon's log", "plugins loaded") && holds("the arguments of process", "mcp_server.py"));
    for (place, text) in &places {
        for (name, value) in CANARIES {
            // Bytes in a column are shown in hexadecimal digits.
            let digits: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
            let part = value.rsplit('-').next().unwrap();
            let found = text.find(part).or_else(|| text.find(&digits));
            let around = |at: usize| text.chars().skip(at.saturating_sub(200)).take(400).collect::<String>();
            assert!(found.is_none(), "{name} is in {place}: {:?}", found.map(around));
        }
    }
}

/// The arguments of the daemon and of all its children, which everybody on the machine may read.
fn arguments(daemon: &Daemon) -> Vec<(String, String)> {
    let family = mcp::family(daemon.pid());
    assert!(family.len() > 1, "the tool server is a child");
    let of = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    family.iter().map(|pid| (format!("the arguments of process {pid}"), of(pid))).collect()
}

/// Every file below a folder, as text.
fn files(folder: &Path, places: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, places);
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            places.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}
