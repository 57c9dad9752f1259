//! A plugin that nobody serves is never accepted in silence.

use chrono::{DateTime, TimeDelta, Utc};
use e2e::daemon::run;
use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Site, Task, eventually, plugin};
use serde_json::{Value, json};
use std::path::PathBuf;

e2e::in_both_modes! {
    over_http_an_unknown_plugin_is_refused_with_the_known_names_and_leaves_no_row
    a_task_for_a_broken_plugin_is_accepted_with_a_warning_and_fails_when_the_grace_is_over
    a_task_for_a_broken_plugin_runs_when_it_is_repaired_within_the_grace
}

async fn over_http_an_unknown_plugin_is_refused_with_the_known_names_and_leaves_no_row(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let unknown = Task::new("word-cuont", json!({}));
    let problem = daemon.http().post("/v1/tasks", &unknown.body()).await.expect(422);
    let text = problem.to_string();
    assert!(text.contains("word-count") && text.contains("outline"), "the known names: {text}");
    assert!(problem["code"].is_string(), "{problem}");
    let version = Task::new("word-count@99", json!({}));
    daemon.http().post("/v1/tasks", &version.body()).await.expect(422);
    let batch = json!({"tasks": [Task::new("word-count", json!({"text": "x"})).body(), unknown.body()]});
    daemon.http().post("/v1/tasks/batch", &batch).await.expect(422);
    daemon.http().get(&format!("/v1/tasks/{}", unknown.id)).await.expect(404);
    invariants::hold(&site, daemon, &[], Expected::default()).await;
}

#[tokio::test]
async fn over_amqp_an_unknown_plugin_is_parked_and_fails_when_the_grace_is_over() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.setup().set("plugins.unknown_grace_seconds", 2).start().await;
    let unknown = Task::new("word-cuont", json!({}));
    site.publish(std::slice::from_ref(&unknown)).await;
    let parked = eventually("it is parked", async || {
        let answer = daemon.http().get(&format!("/v1/tasks/{}", unknown.id)).await;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await;
    if parked["state"] == "pending" {
        assert_eq!(parked["waiting_for"]["code"], "no_plugin", "{parked}");
    }
    let ended = daemon.http().ended(unknown.id).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("unknown_plugin")), "{ended}");
    assert!(ended["failure"].to_string().contains("word-count"), "the known names: {ended}");
    let history = site.database().await.events().await.remove(&unknown.id).expect("a history");
    assert_eq!(history, [(1, "parked".to_owned()), (2, "failed".to_owned())]);
    let events = daemon.http().events(unknown.id).await;
    assert!(waited(&events) >= TimeDelta::seconds(2), "not before the grace is over: {events:?}");
    invariants::hold(&site, daemon, &[unknown.id], Expected::default()).await;
}

/// A daemon with a plugin that does not load, and a task for it.
async fn with_a_broken_plugin(site: &Site, grace_seconds: u64) -> (Daemon, Task, PathBuf) {
    let plugins = site.folder().join("plugins");
    plugin::install("outline", &plugins);
    let broken = plugin::install("word-count", &plugins);
    let component = broken.join(plugin::component(&broken));
    std::fs::write(&component, "not a component").expect("a broken file");
    let setup = site.setup().plugins([plugins]).set("plugins.unknown_grace_seconds", grace_seconds);
    (setup.start().await, Task::new("word-count", json!({"text": "is it there"})), component)
}

async fn a_task_for_a_broken_plugin_is_accepted_with_a_warning_and_fails_when_the_grace_is_over(mode: Mode) {
    let site = Site::new(mode).await;
    let (daemon, asked, component) = with_a_broken_plugin(&site, 2).await;
    let answer = daemon.http().post("/v1/tasks", &asked.body()).await.expect(201);
    let file = component.file_name().and_then(|name| name.to_str()).expect("a name");
    assert_eq!(answer["warnings"][0]["code"], "plugin_broken", "{answer}");
    assert!(answer["warnings"][0]["message"].as_str().is_some_and(|text| text.contains(file)), "the cause: {answer}");
    let words = ["submit", "word-count", "--input", "{}", "--wait", "--server", daemon.http().base()];
    let submitted = run(site.folder(), &words).await;
    submitted.expect(1, &["agentry: warning: the plugin word-count failed to load on this host", "plugin_broken"]);
    let ended = daemon.http().ended(asked.id).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("plugin_broken")), "{ended}");
    assert!(ended["failure"]["detail"]["cause"].as_str().is_some_and(|text| text.contains(file)), "{ended}");
    let events = daemon.http().events(asked.id).await;
    assert!(waited(&events) >= TimeDelta::seconds(2), "not before the grace is over: {events:?}");
}

async fn a_task_for_a_broken_plugin_runs_when_it_is_repaired_within_the_grace(mode: Mode) {
    let site = Site::new(mode).await;
    let (daemon, asked, component) = with_a_broken_plugin(&site, 600).await;
    daemon.http().post("/v1/tasks", &asked.body()).await.expect(201);
    eventually("it waits for its plugin", async || {
        let task = daemon.http().get(&format!("/v1/tasks/{}", asked.id)).await.json();
        if task["waiting_for"]["code"] == "plugin_broken" { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
    let whole = plugin::built("word-count");
    std::fs::copy(whole.join(plugin::component(&whole)), &component).expect("it is repaired");
    assert_eq!(daemon.http().ended(asked.id).await["state"], "completed");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

#[tokio::test]
async fn a_parked_task_runs_when_its_plugin_appears() {
    let site = Site::new(Mode::Services).await;
    let plugins = site.folder().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    let daemon = site.setup().plugins([plugins.clone()]).start().await;
    let early = Task::new("word-count", json!({"text": "too early"}));
    site.publish(std::slice::from_ref(&early)).await;
    eventually("it is parked", async || {
        let answer = daemon.http().get(&format!("/v1/tasks/{}", early.id)).await;
        let parked = answer.status == 200 && answer.json()["waiting_for"]["code"] == "no_plugin";
        if parked { Ok(()) } else { Err(answer.text) }
    })
    .await;
    e2e::plugin::install("word-count", &plugins);
    assert_eq!(daemon.http().ended(early.id).await["state"], "completed");
    invariants::hold(&site, daemon, &[early.id], Expected::default()).await;
}

/// The time between the first and the last event.
fn waited(events: &[Value]) -> TimeDelta {
    let at = |event: &Value| event["at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok()).expect("a time");
    at(&events[events.len() - 1]) - at(&events[0])
}
