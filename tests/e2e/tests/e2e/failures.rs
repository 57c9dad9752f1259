//! An expected failure ends `failed` with its kind, never `completed`; and success is a typed value, never a wording.

use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, probe, task};
use serde_json::json;

e2e::in_both_modes! {
    every_expected_failure_ends_failed_with_its_kind
    a_guest_that_takes_too_much_ends_failed_with_used_and_allowed
    a_good_answer_with_the_word_error_completes
    a_task_that_fails_at_first_is_retried_until_it_completes_and_its_attempts_are_counted
    a_task_that_always_fails_ends_after_its_last_attempt
    a_deadline_that_has_passed_ends_the_task_without_a_run
    a_snoozed_task_runs_again_and_no_attempt_is_burnt
    a_cancelled_task_ends_cancelled_whether_it_waits_or_runs
}

async fn every_expected_failure_ends_failed_with_its_kind(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let cases = [
        (probe::fail_permanent("no such document"), "plugin_error", 1),
        (probe::invalid_input(), "invalid_input", 1),
        (probe::answer_with("{nonsense"), "invalid_output", 1),
        (probe::big_output(300), "output_too_large", 1),
        (probe::exit(0).option("max_attempts", 2), "trap", 2),
        (probe::exit(3).option("max_attempts", 1), "trap", 1),
        (Task::new("panic", json!({})).option("max_attempts", 2), "trap", 2),
        (probe::sleep(600_000).option("timeout_seconds", 1).option("max_attempts", 1), "timeout", 1),
    ];
    let tasks: Vec<_> = cases.iter().map(|(task, ..)| task.clone()).collect();
    site.submit(&daemon, &tasks).await;
    for (asked, kind, attempts) in &cases {
        let ended = daemon.http().ended(asked.id).await;
        assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!(kind)), "{ended}");
        assert_eq!(ended["attempt"], *attempts, "{ended}");
        assert_eq!(ended["output"], json!(null), "{ended}");
        assert!(ended["failure"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{ended}");
    }
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected::default()).await;
}

async fn a_guest_that_takes_too_much_ends_failed_with_used_and_allowed(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let spin = Task::new("spin-forever", json!({}));
    let eat = Task::new("eat-memory", json!({}));
    let honest = Task::new("word-count", json!({"text": "between them"}));
    let tasks = [spin, eat, honest];
    site.submit(&daemon, &tasks).await;
    for (asked, kind) in [(&tasks[0], "cpu_limit"), (&tasks[1], "memory_limit")] {
        let ended = daemon.http().ended(asked.id).await;
        assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!(kind)), "{ended}");
        let detail = &ended["failure"]["detail"];
        assert!(detail["used"].is_number() && detail["allowed"].is_number(), "{ended}");
        assert_eq!(ended["attempt"], 1, "not retried: {ended}");
    }
    assert_eq!(daemon.http().ended(tasks[2].id).await["state"], "completed");
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected::default()).await;
}

async fn a_good_answer_with_the_word_error_completes(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let answers = [json!({"error": "none", "status": "failed"}), json!("error: FAILED"), json!(null)];
    let tasks = answers.clone().map(probe::echo);
    site.submit(&daemon, &tasks).await;
    for (asked, answer) in tasks.iter().zip(&answers) {
        let ended = daemon.http().ended(asked.id).await;
        assert_eq!((&ended["state"], &ended["output"]), (&json!("completed"), answer), "{ended}");
    }
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected::default()).await;
}

async fn a_task_that_fails_at_first_is_retried_until_it_completes_and_its_attempts_are_counted(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = probe::fail_until_attempt(3).option("max_attempts", 5);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("completed"), &json!(3)), "{ended}");
    assert_eq!(ended["failure"], json!(null), "{ended}");
    let attempts = daemon.http().attempts(asked.id).await;
    let ends: Vec<_> = attempts.iter().map(|attempt| attempt["ended"].as_str().unwrap_or_default()).collect();
    assert_eq!(ends, ["retrying", "retrying", "completed"]);
    let events = daemon.http().events(asked.id).await;
    let retried = events.iter().filter(|event| event["event"] == "retrying").count();
    assert_eq!(retried, 2, "{events:?}");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_task_that_always_fails_ends_after_its_last_attempt(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = probe::fail_until_attempt(99).option("max_attempts", 2);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("failed"), &json!(2)), "{ended}");
    assert_eq!(ended["failure"]["kind"], "plugin_error", "{ended}");
    assert_eq!(ended["failure"]["retryable"], true, "it would have been retried, had attempts been left: {ended}");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_deadline_that_has_passed_ends_the_task_without_a_run(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = Task::new("word-count", json!({"text": "x"})).option("deadline", "2001-01-01T00:00:00Z");
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("expired")), "{ended}");
    assert_eq!(daemon.http().attempts(asked.id).await, Vec::<serde_json::Value>::new());
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_snoozed_task_runs_again_and_no_attempt_is_burnt(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let now = u64::try_from(chrono::Utc::now().timestamp_millis()).expect("after 1970");
    let asked = probe::snooze(1_000, now + 1_000).option("max_attempts", 1);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
    let events = daemon.http().events(asked.id).await;
    assert!(events.iter().any(|event| event["event"] == "snoozed"), "{events:?}");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_cancelled_task_ends_cancelled_whether_it_waits_or_runs(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let waits = Task::new("word-count", json!({"text": "x"})).option("run_at", "2099-01-01T00:00:00Z");
    let runs = probe::sleep(600_000);
    let tasks = [waits, runs];
    site.submit(&daemon, &tasks).await;
    for (asked, state) in tasks.iter().zip(["scheduled", "running"]) {
        eventually(&format!("it is {state}"), async || {
            let answer = daemon.http().get(&format!("/v1/tasks/{}", asked.id)).await;
            if answer.status == 200 && answer.json()["state"] == state { Ok(()) } else { Err(answer.text) }
        })
        .await;
        daemon.http().post(&format!("/v1/tasks/{}/cancel", asked.id), &json!({})).await.expect(202);
        let ended = daemon.http().ended(asked.id).await;
        assert_eq!((&ended["state"], &ended["output"]), (&json!("cancelled"), &json!(null)), "{ended}");
        let again = daemon.http().post(&format!("/v1/tasks/{}/cancel", asked.id), &json!({})).await;
        assert!((400..500).contains(&again.status), "a terminal task never changes: {again:?}");
    }
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected::default()).await;
}
