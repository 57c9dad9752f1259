//! What HTTP readers see, and what they are refused.

use std::collections::BTreeSet;

use e2e::http::is_terminal;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, probe, task};
use serde_json::{Value, json};

e2e::in_both_modes! {
    a_task_read_after_its_end_never_shows_an_earlier_state
    an_unusable_request_is_refused_with_a_problem_and_leaves_no_row
    a_task_is_written_with_the_names_of_the_contract
    tasks_are_listed_by_pages_that_follow_a_cursor
    a_guests_log_lines_are_stored_with_their_attempt
    what_ran_is_on_every_attempt
    an_idempotency_key_returns_the_first_answer
}

async fn a_task_read_after_its_end_never_shows_an_earlier_state(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let asked = probe::echo(json!(n));
        daemon.http().post("/v1/tasks", &asked.body()).await.expect(201);
        ids.push(asked.id);
        // Four readers at once, each of which must see a state that only goes forward.
        let readers = (0..4).map(|_| async {
            let mut ended: Option<Value> = None;
            let mut after = 0;
            while after < 10 {
                let seen = daemon.http().task(asked.id).await;
                match &ended {
                    Some(ended) => {
                        assert_eq!(&seen, ended, "a terminal task never changes");
                        after += 1;
                    }
                    None if is_terminal(seen["state"].as_str().unwrap_or_default()) => ended = Some(seen),
                    None => {}
                }
            }
        });
        futures_util::future::join_all(readers).await;
    }
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

async fn an_unusable_request_is_refused_with_a_problem_and_leaves_no_row(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let cases = [
        ("not JSON", r#"{"plugin": "word-count", "#, ""),
        ("an array", r#"["word-count", {}]"#, ""),
        ("no plugin", r#"{"input": {}}"#, "plugin"),
        ("no input", r#"{"plugin": "word-count"}"#, "input"),
        ("an unknown key", r#"{"plugin": "word-count", "input": {}, "inptu": 1}"#, "inptu"),
        ("a duplicate key", r#"{"plugin": "word-count", "input": {}, "input": {}}"#, "input"),
        ("a bad id", r#"{"id": "seven", "plugin": "word-count", "input": {}}"#, "id"),
        ("a wrong type", r#"{"plugin": 7, "input": {}}"#, ""),
        ("a bad version", r#"{"plugin": "word-count@one", "input": {}}"#, "one"),
        ("a bad option", r#"{"plugin": "word-count", "input": {}, "options": {"priority": 10}}"#, "priority"),
        ("an unknown option", r#"{"plugin": "word-count", "input": {}, "options": {"prio": 1}}"#, "prio"),
        (
            "more than a ceiling",
            r#"{"plugin": "word-count", "input": {}, "options": {"timeout_seconds": 4000000}}"#,
            "timeout_seconds",
        ),
    ];
    for (what, body, named) in cases {
        let answer = daemon.http().post_text("/v1/tasks", body.to_owned(), &[]).await;
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        assert!(answer.content_type.starts_with("application/problem+json"), "{what}: {answer:?}");
        let problem = answer.json();
        assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()), "{what}: {problem}");
        assert!(problem["detail"].to_string().contains(named), "{what} does not name {named:?}: {problem}");
    }
    let batch = json!({"tasks": [
        {"plugin": "word-count", "input": {"text": "good"}},
        {"plugin": "word-count", "inptu": {}},
    ]});
    assert!((400..500).contains(&daemon.http().post("/v1/tasks/batch", &batch).await.status), "all or nothing");
    daemon.http().get("/v1/tasks/0195d0a0-0000-7000-8000-000000000000").await.expect(404);
    assert!((400..500).contains(&daemon.http().get("/v1/tasks/seven").await.status));
    invariants::hold(&site, daemon, &[], Expected::default()).await;
}

async fn a_task_is_written_with_the_names_of_the_contract(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = Task::new("word-count", json!({"text": "x"})).option("labels", json!({"team": "search"}));
    daemon.http().post("/v1/tasks", &asked.body()).await.expect(201);
    let ended = daemon.http().ended(asked.id).await;
    let names: BTreeSet<_> = ended.as_object().expect("an object").keys().map(String::as_str).collect();
    let contract = "id plugin version digest queue state waiting_for input output failure attempt max_attempts host labels \
         created_at run_at started_at finished_at deadline retry_of traceparent erased_at";
    assert_eq!(names, contract.split_whitespace().collect());
    assert_eq!((&ended["labels"], &ended["input"]), (&json!({"team": "search"}), &json!({"text": "x"})));
    let events = daemon.http().events(asked.id).await;
    let names: BTreeSet<_> = events[0].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, "seq at event attempt fence host digest detail".split_whitespace().collect());
    let waited = daemon.http().get(&format!("/v1/tasks/{}/wait?timeout=1", asked.id)).await.expect(200);
    assert_eq!(waited, ended);
    daemon.stop().await;
}

async fn tasks_are_listed_by_pages_that_follow_a_cursor(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let tasks: Vec<_> = (0..23).map(|n| probe::echo(json!(n))).collect();
    site.submit(&daemon, &tasks).await;
    site.at_rest(&task::ids(&tasks)).await;
    let mut seen = Vec::new();
    let mut path = "/v1/tasks?plugin=probe&limit=5".to_owned();
    loop {
        let page = daemon.http().get(&path).await.expect(200);
        let rows = page["tasks"].as_array().expect("tasks");
        assert!(rows.len() <= 5, "{page}");
        assert!(rows.iter().all(|row| row["output"].is_null()), "without output unless asked: {page}");
        let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
        seen.extend(rows.iter().map(|row| (text(row, "created_at"), text(row, "id"))));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/tasks?plugin=probe&limit=5&cursor={cursor}"),
            None => break,
        }
    }
    let mut newest_first = seen.clone();
    newest_first.sort_by(|one, next| next.cmp(one));
    let mut ids = seen.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    ids.sort();
    let mut all = task::ids(&tasks).iter().map(ToString::to_string).collect::<Vec<_>>();
    all.sort();
    assert_eq!(ids, all, "every task once");
    assert_eq!(seen, newest_first, "newest first, whatever the ids");
    let old = daemon.http().get(&format!("/v1/tasks?cursor={}", all[0])).await;
    assert_eq!((old.status, old.json()["code"].as_str()), (400, Some("bad_query")), "a cursor of an earlier build");
    assert!((400..500).contains(&daemon.http().get("/v1/tasks?limit=501").await.status));
    assert!((400..500).contains(&daemon.http().get("/v1/tasks?state=finished").await.status));
    daemon.stop().await;
}

async fn a_guests_log_lines_are_stored_with_their_attempt(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = probe::fail_until_attempt(2);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    assert_eq!(daemon.http().ended(asked.id).await["state"], "completed");
    let logs = daemon.http().logs(asked.id).await;
    let attempts: BTreeSet<_> = logs.iter().map(|line| line["attempt"].as_u64()).collect();
    assert_eq!(attempts, [Some(1), Some(2)].into(), "{logs:?}");
    assert!(logs.iter().all(|line| line["cut"] == false && line["message"].is_string()), "{logs:?}");
    daemon.stop().await;
}

async fn what_ran_is_on_every_attempt(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = probe::fail_until_attempt(2);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;
    let attempts = daemon.http().attempts(asked.id).await;
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    for attempt in &attempts {
        assert!(attempt["build"].as_str().is_some_and(|build| !build.is_empty()), "{attempt}");
        assert_eq!(attempt["digest"], ended["digest"], "{attempt}");
        assert!(attempt["usage"]["wall_us"].as_u64().is_some_and(|time| time > 0), "{attempt}");
    }
    daemon.stop().await;
}

async fn an_idempotency_key_returns_the_first_answer(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let submit = async |text: &str, key: &str| {
        let body = json!({"plugin": "word-count", "input": {"text": text}}).to_string();
        daemon.http().post_text("/v1/tasks", body, &[("idempotency-key", key)]).await
    };
    let first = submit("a", "k1").await.expect(201);
    let again = submit("a", "k1").await.expect(200);
    assert_eq!(first["id"], again["id"]);
    assert_eq!(submit("b", "k1").await.status, 409);
    assert_ne!(submit("a", "k2").await.expect(201)["id"], first["id"]);
    daemon.stop().await;
}
