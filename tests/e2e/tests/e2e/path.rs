//! One task, end to end.

use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, probe, task};
use serde_json::json;

e2e::in_both_modes! {
    a_submitted_task_becomes_a_completed_row_with_the_right_output_and_a_gapless_history
    fifty_tasks_at_once_over_several_plugins_all_end_rightly
    a_task_that_runs_later_waits_for_its_time_and_says_so
    a_task_whose_time_comes_runs_then_and_not_before
    of_what_waits_in_the_database_the_most_urgent_runs_first
    what_waits_in_the_database_has_its_turn_while_others_keep_arriving
    input_and_output_are_stored_byte_for_byte
}

/// In `services` it is published by a plain AMQP client, with no code of ours.
async fn a_submitted_task_becomes_a_completed_row_with_the_right_output_and_a_gapless_history(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = Task::new("word-count", json!({"text": "one two two"}));
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;

    assert_eq!(ended["state"], "completed", "{ended}");
    assert_eq!(ended["output"]["words"], 3, "{ended}");
    assert_eq!(ended["failure"], json!(null));
    assert_eq!((&ended["attempt"], &ended["plugin"]), (&json!(1), &json!("word-count")));
    assert!(ended["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{ended}");

    let database = site.database().await;
    let row = database.tasks().await.remove(&asked.id).expect("a row");
    assert_eq!((row.plugin.as_str(), row.queue.as_str(), row.state.as_str()), ("word-count", "default", "completed"));
    let history = database.events().await.remove(&asked.id).expect("a history");
    let names: Vec<_> = history.iter().map(|(_, event)| event.as_str()).collect();
    let born =
        if mode == Mode::Services { &["running", "completed"][..] } else { &["pending", "running", "completed"] };
    assert_eq!(names, born, "first seen as a delivery it is born running; over HTTP it is pending first");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn fifty_tasks_at_once_over_several_plugins_all_end_rightly(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let tasks: Vec<_> = (0..50)
        .map(|n| match n % 5 {
            0 => Task::new("word-count", json!({"text": "a ".repeat(n)})),
            1 => Task::new("outline", json!({"markdown": format!("# Title {n}\n\ntext\n")})),
            2 => probe::echo(json!({"n": n})),
            3 => probe::fail_permanent("as asked"),
            _ => Task::new("panic", json!({})).option("max_attempts", 1),
        })
        .collect();
    site.submit(&daemon, &tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    for (n, asked) in tasks.iter().enumerate() {
        let ended = daemon.http().task(asked.id).await;
        match n % 5 {
            0 => assert_eq!(ended["output"]["words"], n, "{ended}"),
            1 => assert_eq!(ended["output"]["title"], format!("Title {n}"), "{ended}"),
            2 => assert_eq!(ended["output"], json!({"n": n}), "{ended}"),
            3 => assert_eq!(ended["failure"]["kind"], "plugin_error", "{ended}"),
            _ => assert_eq!(ended["failure"]["kind"], "trap", "{ended}"),
        }
        assert_eq!(ended["state"], if n % 5 < 3 { "completed" } else { "failed" }, "{ended}");
    }
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

async fn a_task_whose_time_comes_runs_then_and_not_before(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let at = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1_500);
    let later = probe::echo(json!(1)).option("run_at", at.to_rfc3339());
    site.submit(&daemon, std::slice::from_ref(&later)).await;
    let ended = daemon.http().ended(later.id).await;
    let started: chrono::DateTime<chrono::Utc> =
        ended["started_at"].as_str().unwrap_or_default().parse().expect("a time");
    assert_eq!(ended["state"], "completed", "{ended}");
    assert!(started >= at, "it was to run at {at}: {ended}");
    invariants::hold(&site, daemon, &[later.id], Expected::default()).await;
}

async fn of_what_waits_in_the_database_the_most_urgent_runs_first(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.setup().set("plugins.probe.concurrency", 1).start().await;
    let first = probe::sleep(1_500);
    site.submit(&daemon, std::slice::from_ref(&first)).await;
    let waiting: Vec<Task> = [1, 9, 5].map(|n| probe::echo(json!(n)).option("priority", n)).into();
    site.submit(&daemon, &waiting).await;
    let ids: Vec<_> = std::iter::once(first.id).chain(task::ids(&waiting)).collect();
    site.at_rest(&ids).await;
    let mut ended = Vec::new();
    for id in &ids {
        ended.push(daemon.http().task(*id).await);
    }
    ended.sort_by_key(|task| task["started_at"].as_str().unwrap_or_default().to_owned());
    let order: Vec<_> = ended.iter().map(|task| task["input"]["value"].clone()).collect();
    assert_eq!(order, [json!(null), json!(9), json!(5), json!(1)], "{ended:?}");
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

async fn what_waits_in_the_database_has_its_turn_while_others_keep_arriving(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.setup().set("worker.slots", 2).set("plugins.probe.concurrency", 1).start().await;
    // More than arrives before those below have all been parked and have run.
    let text = "word ".repeat(2_000);
    let others: Vec<Task> = (0..3_000).map(|_| Task::new("word-count", json!({"text": text}))).collect();
    let waiting: Vec<Task> = (0..40).map(|_| probe::sleep(20).option("priority", 9)).collect();
    let (before, after) = others.split_at(100);
    for tasks in [before, &waiting, after] {
        site.submit(&daemon, tasks).await;
    }
    for id in task::ids(&waiting) {
        assert_eq!(daemon.http().ended(id).await["state"], "completed");
    }
    let rows = site.database().await.tasks().await;
    let ended = task::ids(&others).iter().filter(|id| rows.get(*id).is_some_and(|r| r.state == "completed")).count();
    assert!(ended < others.len(), "those that waited came after all that arrived");
    let ids: Vec<_> = task::ids(&others).into_iter().chain(task::ids(&waiting)).collect();
    site.at_rest(&ids).await;
    invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}

async fn a_task_that_runs_later_waits_for_its_time_and_says_so(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let later = Task::new("word-count", json!({"text": "later"})).option("run_at", "2099-01-01T00:00:00Z");
    site.submit(&daemon, std::slice::from_ref(&later)).await;
    let waiting = eventually("it is scheduled", async || {
        let answer = daemon.http().get(&format!("/v1/tasks/{}", later.id)).await;
        if answer.status == 200 && answer.json()["state"] == "scheduled" { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(waiting["waiting_for"]["code"], "scheduled", "{waiting}");
    assert!(waiting["waiting_for"]["until"].as_str().is_some_and(|until| until.starts_with("2099-")), "{waiting}");
    assert_eq!(waiting["started_at"], json!(null), "{waiting}");
    if mode == Mode::Services {
        eventually("nothing waits unacknowledged: the database owns the wake-up", async || {
            let (ready, _) = site.amqp().count(&site.queue("default")).await?;
            if ready == 0 { Ok(()) } else { Err(format!("{ready} ready")) }
        })
        .await;
    }
    daemon.stop().await;
}

async fn input_and_output_are_stored_byte_for_byte(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    // Key order, spaces and number forms that jsonb and most parsers would change.
    let output = r#"{"z": 1.0,  "a": 1e2, "z2": "é", "n": 12345678901234567890}"#;
    let input = format!(r#"{{"text": {},   "do": "not_\u006ason"}}"#, json!(output));
    let id = uuid::Uuid::now_v7();
    let body = format!(r#"{{"id": "{id}", "plugin": "probe", "input": {input}}}"#);
    match mode {
        Mode::Services => site.amqp().publish(site.prefix(), "default", [e2e::amqp::Outgoing::json(body)]).await,
        Mode::Embedded => drop(daemon.http().post_text("/v1/tasks", body, &[]).await.expect(201)),
    }
    daemon.http().ended(id).await;
    let answer = daemon.http().get(&format!("/v1/tasks/{id}")).await;
    for text in [format!("\"input\":{input}"), format!("\"output\":{output}")] {
        assert!(answer.text.contains(&text), "{text} is not in {}", answer.text);
    }
    invariants::hold(&site, daemon, &[id], Expected::default()).await;
}

#[tokio::test]
async fn a_header_may_name_the_plugin_and_then_the_body_is_the_input() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let id = uuid::Uuid::now_v7();
    let message = e2e::amqp::Outgoing::json(r#"{"text": "just two"}"#)
        .header("agentry-plugin", "word-count")
        .header("agentry-options", r#"{"labels": {"team": "search"}}"#)
        .with(|properties| properties.with_message_id(id.to_string().into()));
    site.amqp().publish(site.prefix(), "default", [message]).await;
    let ended = daemon.http().ended(id).await;
    assert_eq!((&ended["state"], &ended["output"]["words"]), (&json!("completed"), &json!(2)), "{ended}");
    assert_eq!(ended["labels"], json!({"team": "search"}));
    invariants::hold(&site, daemon, &[id], Expected::default()).await;
}

#[tokio::test]
async fn messages_published_before_the_daemon_starts_are_drained() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare(site.prefix(), "default").await;
    let tasks: Vec<_> = (0..40).map(|n| probe::echo(json!(n))).collect();
    site.publish(&tasks).await;
    let daemon = site.start().await;
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected::default()).await;
}
