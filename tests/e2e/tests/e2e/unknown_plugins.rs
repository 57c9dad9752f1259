//! A plugin that nobody serves is never accepted in silence.

use chrono::{DateTime, TimeDelta, Utc};
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually};
use serde_json::{Value, json};

e2e::in_both_modes! { over_http_an_unknown_plugin_is_refused_with_the_known_names_and_leaves_no_row }

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
