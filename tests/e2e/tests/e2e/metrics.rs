//! What is counted is what happened; what waits too long is said; and a real Prometheus reads it all.

use e2e::amqp::Outgoing;
use e2e::exposition::Exposition;
use e2e::forward::free_port;
use e2e::outside::llm;
use e2e::outside::reach::{self, chat};
use e2e::patience::holds;
use e2e::{Daemon, Mode, Site, Task, eventually, plugin, probe};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

e2e::in_both_modes! {
    sums_agree_with_what_was_submitted_and_the_text_is_valid
    tasks_that_wait_too_long_are_told_once_with_the_sentence_of_explain
}

async fn read(daemon: &Daemon) -> Exposition {
    let answer = daemon.http().get("/metrics").await;
    assert!(answer.status == 200 && answer.content_type.starts_with("application/openmetrics-text"), "{answer:?}");
    Exposition::parse(&answer.text)
}

/// Four tasks that complete, two that fail, one that is retried, one that is cancelled, and two chats; over services two dead letters.
async fn varied_load(site: &Site, daemon: &Daemon) {
    let mut tasks: Vec<Task> = (0..4).map(|n| probe::echo(json!(n))).collect();
    tasks.extend([probe::fail_permanent("no"), probe::invalid_input()]);
    tasks.push(probe::fail_until_attempt(2).option("max_attempts", 3));
    let asks = |team: &str| reach::reach([chat("hello")]).option("labels", json!({"team": team}));
    tasks.extend([asks("search"), asks("somebody-else")]);
    let cancelled = probe::sleep(600_000);
    tasks.push(cancelled.clone());
    site.submit(daemon, &tasks).await;
    if site.mode == Mode::Services {
        let bad = [Outgoing::json("{\"plugin\": "), Outgoing::json(r#"{"input": {}}"#)];
        site.amqp().publish(site.prefix(), "default", bad).await;
    }
    eventually("it runs", async || {
        let answer = daemon.http().get(&format!("/v1/tasks/{}", cancelled.id)).await;
        holds(answer.status == 200 && answer.json()["state"] == "running", || answer.text)
    })
    .await;
    let _ = daemon.http().post(&format!("/v1/tasks/{}/cancel", cancelled.id), &json!({})).await;
    site.at_rest(&e2e::task::ids(&tasks)).await;
}

fn with_guests(site: &Site, models: &e2e::outside::Server) -> e2e::Setup {
    let setup = reach::with_llm(reach::setup(site), models);
    plugin::install("probe", &site.folder().join("plugins"));
    setup
        .set("retry.base_seconds", 0.01)
        .set("metrics.currency", "EUR")
        .set("metrics.label", "team")
        .set("metrics.label_values", json!(["search"]))
        .set("llm.models.default.price_input", 3.0)
        .set("llm.models.default.price_output", 4.0)
}

async fn sums_agree_with_what_was_submitted_and_the_text_is_valid(mode: Mode) {
    let site = Site::new(mode).await;
    let models = llm::start(|_, _| llm::says("hello")).await;
    let daemon = with_guests(&site, &models).start().await;
    varied_load(&site, &daemon).await;
    let dead = if mode == Mode::Services { 2.0 } else { 0.0 };
    // An end is counted right after its commit, and its acknowledgement later.
    let read = eventually("everything is counted", async || {
        let read = read(&daemon).await;
        let counted = (read.sum("agentry_attempts_total", &[]), read.sum("agentry_dead_letters_total", &[]));
        let done = read.sum("agentry_acknowledgements_total", &[]);
        if counted == (11.0, dead) && done >= 10.0 + dead { Ok(read) } else { Err(format!("{counted:?} {done}")) }
    })
    .await;
    let sum = |name: &str, labels: &[(&str, &str)]| read.sum(name, labels);
    for (labels, number) in [
        (vec![("ended", "completed")], 7.0),
        (vec![("ended", "failed"), ("plugin", "probe")], 2.0),
        (vec![("ended", "failed"), ("kind", "invalid_input")], 1.0),
        (vec![("ended", "retrying")], 1.0),
        (vec![("ended", "cancelled")], 1.0),
        (vec![("plugin", "reach")], 2.0),
    ] {
        assert_eq!(sum("agentry_attempts_total", &labels), number, "{labels:?}");
    }
    // Each task came once, and the retried one twice.
    assert_eq!(sum("agentry_deliveries_total", &[("queue", "default"), ("source", "tasks")]), 11.0 + dead);
    assert_eq!(sum("agentry_run_seconds_count", &[]), 11.0);
    assert_eq!(sum("agentry_task_seconds_count", &[("queue", "default")]), 10.0, "all ended, the retried one once");
    assert_eq!(sum("agentry_queue_wait_seconds_count", &[("queue", "default")]), 10.0, "first attempts");
    let decided =
        sum("agentry_claims_total", &[("result", "run")]) + sum("agentry_records_total", &[("result", "recorded")]);
    assert_eq!(decided, 11.0);
    let recorded = sum("agentry_settlements_total", &[("result", "settled")])
        + sum("agentry_records_total", &[("result", "recorded")]);
    assert_eq!(recorded, 11.0);
    assert_eq!(sum("agentry_swept_total", &[("duty", "scheduler")]), 1.0, "the retried one was woken");
    // Ten and five tokens a chat, at 3 and 4 a million.
    assert_eq!(sum("agentry_capability_calls_total", &[("capability", "llm"), ("result", "ok")]), 2.0);
    assert_eq!(sum("agentry_capability_call_seconds_count", &[("capability", "llm")]), 2.0);
    let of = |kind| sum("agentry_llm_model_tokens_total", &[("plugin", "reach"), ("model", "default"), ("kind", kind)]);
    assert_eq!((of("input"), of("output"), sum("agentry_llm_tokens_total", &[])), (20.0, 10.0, 30.0));
    for group in ["search", "other"] {
        let cost = sum("agentry_llm_cost_total", &[("group", group), ("currency", "EUR")]);
        assert!((cost - 50e-6).abs() < 1e-12, "{group}: {cost}");
    }
    assert_eq!((sum("agentry_ready", &[]), sum("agentry_broker_up", &[]), sum("agentry_slots", &[])), (1.0, 1.0, 4.0));
    assert!(sum("agentry_lease_remaining_seconds", &[]) > 0.0 && sum("process_open_fds", &[]) > 3.0);
    assert!(sum("agentry_database_connections", &[("state", "open")]) >= 1.0);
    if mode == Mode::Services {
        for reason in ["not_json", "bad_message"] {
            assert_eq!(sum("agentry_dead_letters_total", &[("queue", "default"), ("reason", reason)]), 1.0, "{reason}");
        }
        let confirmed = sum("agentry_publications_total", &[("target", "dead"), ("result", "confirmed")]);
        assert_eq!(confirmed, 2.0);
        // The woken task went through the outbox.
        assert_eq!(sum("agentry_publications_total", &[("target", "tasks"), ("result", "confirmed")]), 1.0);
    }
    // A reader of the older form gets that.
    let plain = daemon.http().send("GET", "/metrics", &[("accept", "text/plain")], String::new()).await;
    assert!(plain.content_type.starts_with("text/plain; version=0.0.4"), "{}", plain.content_type);
    assert!(plain.text.contains("# TYPE agentry_attempts_total counter\n") && !plain.text.contains("# EOF"));
    daemon.stop().await;
}

/// Over services a plugin is missing, embedded one is broken: over HTTP a missing one is refused.
async fn tasks_that_wait_too_long_are_told_once_with_the_sentence_of_explain(mode: Mode) {
    let site = Site::new(mode).await;
    let plugins = site.folder().join("plugins");
    plugin::install("outline", &plugins);
    let installed = plugins.join("word-count");
    if mode == Mode::Embedded {
        plugin::install("word-count", &plugins);
        std::fs::write(installed.join(plugin::component(&installed)), "not a component").expect("a broken file");
    }
    let setup = site.setup().plugins([plugins.clone()]).set("plugins.unknown_grace_seconds", 3_600);
    let daemon = setup.set("log.warn_pending_after_seconds", 1).start().await;
    let tasks: Vec<Task> = (0..3).map(|_| Task::new("word-count", json!({"text": "is it there"}))).collect();
    // One for later, which does not wait.
    let later = Task::new("outline", json!({})).option("run_at", "2999-01-01T00:00:00Z");
    site.submit(&daemon, &tasks).await;
    site.submit(&daemon, std::slice::from_ref(&later)).await;
    let code = if mode == Mode::Embedded { "plugin_broken" } else { "no_plugin" };
    let told = "tasks wait longer than log.warn_pending_after_seconds";
    daemon.says(told).await;
    let labels = [("queue", "default"), ("code", code)];
    let sampled = |read: &Exposition| read.sum("agentry_sample_timestamp_seconds", &[]);
    let before = eventually("all three are overdue", async || {
        let read = read(&daemon).await;
        let overdue = read.sum("agentry_waiting_overdue_tasks", &labels);
        if overdue == 3.0 { Ok(sampled(&read)) } else { Err(overdue.to_string()) }
    })
    .await;
    // Some looks later nothing was said again.
    let after = eventually("it looks again", async || {
        let read = read(&daemon).await;
        if sampled(&read) > before + 2.5 { Ok(read) } else { Err(sampled(&read).to_string()) }
    })
    .await;
    assert_eq!(after.sum("agentry_waiting_warnings_total", &[]), 1.0);
    assert_eq!(after.sum("agentry_waiting_tasks", &labels), 3.0);
    assert_eq!(after.sum("agentry_waiting_tasks", &[]), 3.0, "what waits for its time does not count");
    assert!(after.sum("agentry_waiting_oldest_seconds", &labels) >= 2.0);
    let said = daemon.said();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(told)).collect();
    let explained = daemon.http().get(&format!("/v1/tasks/{}/explain", tasks[0].id)).await.expect(200);
    let sentence = explained["summary"].as_str().expect("a summary");
    assert!(lines.len() == 1 && lines[0].contains(sentence), "{sentence:?} in {lines:?}");
    assert!(tasks.iter().any(|task| lines[0].contains(&task.id.to_string())), "the oldest: {lines:?}");
    // The remedy helps, and that is seen.
    plugin::install("word-count", &plugins);
    site.at_rest(&e2e::task::ids(&tasks)).await;
    daemon.says("nothing waits for long any more").await;
    assert_eq!(read(&daemon).await.sum("agentry_waiting_overdue_tasks", &labels), 0.0);
    daemon.stop().await;
}

#[tokio::test]
async fn messages_of_a_queue_that_nothing_consumes_are_told() {
    let site = Site::new(Mode::Services).await;
    site.setup_named("former").set("broker.queues", json!(["default", "second"])).start().await.stop().await;
    let daemon = site.setup().set("log.warn_pending_after_seconds", 1).start().await;
    let lost = Task::new("word-count", json!({"text": "x"}));
    site.amqp().publish(site.prefix(), "second", [lost.message()]).await;
    daemon.says(r#"nothing consumes the queue "second", where 1 message waits"#).await;
    let read = read(&daemon).await;
    assert_eq!(read.sum("agentry_waiting_warnings_total", &[("queue", "second"), ("code", "no_consumer")]), 1.0);
    assert_eq!(read.sum("agentry_queue_messages", &[("queue", "second"), ("source", "tasks")]), 1.0);
    let consumers =
        |queue| read.samples.iter().find(|((name, of), _)| name == "agentry_queue_consumers" && of["queue"] == queue);
    assert_eq!(consumers("second").map(|(_, number)| *number), Some(0.0));
    assert!(consumers("default").is_some_and(|(_, number)| *number >= 1.0));
    daemon.stop().await;
}

/// A process that is ended with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/docs/monitoring")
}

fn promtool(arguments: &[&str], input: Option<&str>) {
    let mut command = Command::new("promtool");
    command
        .args(arguments)
        .current_dir(monitoring())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is installed");
    let stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut &stdin, input.unwrap_or_default().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {told}");
}

/// The dashboard's queries, with what Grafana would put in for its variables.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(monitoring().join("grafana.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let query = |target: &Value| {
        target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m").replace("$instance", ".*")
    };
    targets.map(query).collect()
}

#[tokio::test]
async fn a_real_prometheus_reads_the_endpoint_the_rules_and_the_dashboard() {
    promtool(&["check", "rules", "rules.yaml"], None);
    promtool(&["check", "config", "prometheus.yaml"], None);
    promtool(&["test", "rules", "rules_test.yaml"], None);
    let site = Site::new(Mode::Services).await;
    let models = llm::start(|_, _| llm::says("hello")).await;
    let setup = with_guests(&site, &models).set("log.warn_pending_after_seconds", 1);
    let daemon = setup.set("plugins.unknown_grace_seconds", 3_600).start().await;
    varied_load(&site, &daemon).await;
    let waits = Task::new("nowhere", json!({}));
    site.publish(std::slice::from_ref(&waits)).await;

    let plain = daemon.http().send("GET", "/metrics", &[("accept", "text/plain")], String::new()).await;
    promtool(&["check", "metrics"], Some(&plain.text));
    let port = free_port();
    let config = std::fs::read_to_string(monitoring().join("prometheus.yaml")).expect("the configuration");
    let rules = monitoring().join("rules.yaml").canonicalize().expect("the rules");
    let host = daemon.http().base().trim_start_matches("http://").to_owned();
    let config =
        config.replace("15s", "1s").replace("rules.yaml", &rules.to_string_lossy()).replace("127.0.0.1:7070", &host);
    let file = site.folder().join("prometheus.yaml");
    std::fs::write(&file, config).expect("written");
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", site.folder().join("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Ending(command.spawn().expect("prometheus is installed"));
    let prometheus = e2e::Http::new(&format!("http://127.0.0.1:{port}"));

    eventually("it scrapes the host", async || {
        let answer = prometheus.try_get("/api/v1/targets").await.map_err(|error| error.to_string())?;
        let target = answer.json()["data"]["activeTargets"][0].clone();
        holds(target["health"] == "up", || target.to_string())
    })
    .await;
    let ask = async |query: &str| {
        let url = reqwest::Url::parse_with_params("http://x/api/v1/query", [("query", query)]).expect("a URL");
        let answer = prometheus.get(&format!("{}?{}", url.path(), url.query().unwrap_or_default())).await.expect(200);
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("a vector").clone()
    };
    let queries = queries();
    assert!(queries.len() > 40);
    for query in queries {
        // A host that is ready has no reason not to be.
        if query.contains("agentry_readiness_reason") {
            ask(&query).await;
            continue;
        }
        // A rate needs two scrapes.
        eventually(&query, async || holds(!ask(&query).await.is_empty(), || "no series".into())).await;
    }
    assert_eq!(ask("sum(agentry_attempts_total)").await[0]["value"][1], "11");
    let alerts = prometheus.get("/api/v1/rules").await.expect(200);
    let alerts = alerts["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(alerts.len() > 15 && alerts.iter().all(|rule| rule["health"] == "ok"), "{alerts:?}");
    // What waits is seen by the rule that is to see it.
    eventually("the alert", async || {
        let answer = prometheus.get("/api/v1/alerts").await.expect(200);
        let alerts = answer["data"]["alerts"].as_array().expect("alerts").clone();
        holds(alerts.iter().any(|alert| alert["labels"]["alertname"] == "AgentryTasksOverdue"), || answer.to_string())
    })
    .await;
    daemon.stop().await;
}
