//! The same task twice is run once; another under its id is a conflict.

use e2e::amqp::Outgoing;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, probe};
use serde_json::json;

#[tokio::test]
async fn the_same_message_three_times_is_one_run_and_one_row() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let asked = probe::sleep(50);
    site.publish(&[asked.clone(), asked.clone()]).await;
    daemon.http().ended(asked.id).await;
    site.publish(std::slice::from_ref(&asked)).await; // and once more when it has ended
    nothing_is_left(&site).await;
    assert_eq!(daemon.http().attempts(asked.id).await.len(), 1, "one run");
    assert_eq!(started(&daemon, &asked).await, 1, "by the guest's own count");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

#[tokio::test]
async fn another_message_under_the_same_id_is_dead_lettered_as_a_conflict() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let first = Task::new("word-count", json!({"text": "the first"}));
    let mut other = first.clone();
    other.input = json!({"text": "another text"});
    let mut other_options = first.clone();
    other_options.options = json!({"priority": 3});
    site.publish(std::slice::from_ref(&first)).await;
    let ended = daemon.http().ended(first.id).await;
    site.publish(&[other, other_options]).await;
    let database = site.database().await;
    let letters = eventually("both are dead letters", async || {
        let letters = database.dead_letters().await;
        if letters.len() >= 2 { Ok(letters) } else { Err(format!("{letters:?}")) }
    })
    .await;
    assert!(letters.iter().all(|letter| letter.reason.contains("conflict")), "{letters:?}");
    assert!(letters.iter().all(|letter| letter.detail.contains(&first.id.to_string())), "{letters:?}");
    assert_eq!(daemon.http().task(first.id).await, ended, "the first is untouched");
    invariants::hold(&site, daemon, &[first.id], Expected { dead_letters: 2, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_message_that_differs_only_in_the_layout_of_its_envelope_is_a_duplicate() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let id = uuid::Uuid::now_v7();
    let bodies = [
        format!(r#"{{"id": "{id}", "plugin": "word-count", "input": {{"text": "x"}}}}"#),
        format!(r#"{{ "input":{{"text": "x"}},"plugin":"word-count","options":{{}},"id":"{id}" }}"#),
    ];
    site.amqp().publish(site.prefix(), "default", bodies.map(Outgoing::json)).await;
    daemon.http().ended(id).await;
    nothing_is_left(&site).await;
    assert_eq!(daemon.http().attempts(id).await.len(), 1);
    invariants::hold(&site, daemon, &[id], Expected::default()).await;
}

e2e::in_both_modes! { over_http_the_same_id_is_answered_with_the_task_and_another_body_with_409 }

async fn over_http_the_same_id_is_answered_with_the_task_and_another_body_with_409(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = Task::new("word-count", json!({"text": "x"}));
    daemon.http().post("/v1/tasks", &asked.body()).await.expect(201);
    let ended = daemon.http().ended(asked.id).await;
    assert_eq!(daemon.http().post("/v1/tasks", &asked.body()).await.expect(200)["id"], ended["id"]);
    let mut other = asked.clone();
    other.input = json!({"text": "y"});
    daemon.http().post("/v1/tasks", &other.body()).await.expect(409);
    assert_eq!(daemon.http().attempts(asked.id).await.len(), 1);
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn nothing_is_left(site: &Site) {
    eventually("the queue is empty", async || {
        let (ready, _) = site.amqp().count(&site.queue("default")).await?;
        if ready == 0 { Ok(()) } else { Err(format!("{ready} ready")) }
    })
    .await;
}

/// How many times the guest said that it starts.
async fn started(daemon: &e2e::Daemon, task: &Task) -> usize {
    let logs = daemon.http().logs(task.id).await;
    logs.iter().filter(|line| line["message"].as_str().is_some_and(|line| line.starts_with("start"))).count()
}
