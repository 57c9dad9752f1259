//! Retry, erase, redrive.

use super::site::{PATIENCE, Site};
use crate::broker::{PublishError, Target};
use crate::db::{DeadLetter, record_dead};
use crate::task::TaskId;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn an_ended_task_is_retried_and_the_relay_is_woken() {
    let site = Site::new().await;
    let body = r#"{"plugin": "word-count", "input": {"b": 1.00, "a": 2}, "options": {"priority": 7,
        "run_at": "2020-01-01T00:00:00Z", "labels": {"team": "search"}}}"#;
    let (_, old) = site.ask(Method::POST, "/v1/tasks", &[], Some(body.into())).await;
    let id = old["id"].as_str().unwrap();
    let retry = format!("/v1/tasks/{id}/retry");
    let (status, problem) = site.ask(Method::POST, &retry, &[], None).await;
    assert_eq!((status, &problem["code"], &problem["state"]), (409, &json!("not_ended"), &json!("pending")));
    site.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await;
    tokio::time::timeout(PATIENCE, site.outbox.notified()).await.expect("of the submission");

    let (status, new) = site.ask(Method::POST, &retry, &[], None).await;
    assert_eq!((status, &new["state"], &new["retry_of"]), (201, &json!("pending"), &json!(id)), "{new}");
    assert_eq!((&new["run_at"], &new["labels"]), (&Value::Null, &json!({"team": "search"})), "{new}");
    tokio::time::timeout(PATIENCE, site.outbox.notified()).await.expect("the relay is woken");
    let path = format!("{}/v1/tasks/{}", site.base, new["id"].as_str().unwrap());
    let text = site.http.get(path).send().await.unwrap().text().await.unwrap();
    assert!(text.contains(r#""input":{"b": 1.00, "a": 2}"#), "byte for byte: {text}");

    let (status, problem) = site.ask(Method::POST, &retry, &[], None).await;
    assert_eq!((status, &problem["code"], &problem["retry"]), (409, &json!("retry_under_way"), &new["id"]));
    site.post(&format!("/v1/tasks/{}/cancel", new["id"].as_str().unwrap()), &json!({})).await;
    let (status, problem) = site.ask(Method::POST, &format!("{retry}?once=true"), &[], None).await;
    assert_eq!((status, &problem["code"], &problem["retry"]), (409, &json!("already_retried"), &new["id"]));
    assert_eq!(site.ask(Method::POST, &retry, &[], None).await.0, 201);
    let (_, page) = site.get(&format!("/v1/tasks?retry_of={id}")).await;
    assert_eq!(page["tasks"].as_array().unwrap().len(), 2, "{page}");
    let nobody = format!("/v1/tasks/{}/retry", TaskId::now_v7());
    assert_eq!(site.ask(Method::POST, &nobody, &[], None).await.0, 404);
}

#[tokio::test]
async fn a_retry_under_an_idempotency_key_is_made_once() {
    let site = Site::new().await;
    let (one, two) = (site.submit().await, site.submit().await);
    for id in [one, two] {
        site.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await;
    }
    let key = [("idempotency-key", "k")];
    let retry = async |id| site.ask(Method::POST, &format!("/v1/tasks/{id}/retry"), &key, None).await;
    let (first, again, other) = (retry(one).await, retry(one).await, retry(two).await);
    assert_eq!((first.0, again.0, other.0), (201, 200, 409), "{other:?}");
    assert_eq!(first.1["id"], again.1["id"]);
    assert_eq!(other.1["code"], "conflict");
}

#[tokio::test]
async fn an_erased_task_is_shown_as_such_and_is_not_retried() {
    let site = Site::new().await;
    let id = site.submit().await;
    let data = format!("/v1/tasks/{id}/data");
    let (status, problem) = site.ask(Method::DELETE, &data, &[], None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_ended")));
    let claimed = site.claim(id).await;
    site.complete(id, claimed.fence).await;
    let (status, task) = site.ask(Method::DELETE, &data, &[], None).await;
    assert_eq!((status, &task["state"], &task["input"]), (200, &json!("completed"), &Value::Null), "{task}");
    assert!(task["output"].is_null() && task["erased_at"].is_string(), "{task}");
    assert_eq!(site.ask(Method::DELETE, &data, &[], None).await, (200, task));
    let (status, problem) = site.ask(Method::POST, &format!("/v1/tasks/{id}/retry"), &[], None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("erased")));
}

async fn letter(site: &Site, reason: &str, body: &str) -> i64 {
    let letter = DeadLetter {
        reason: reason.into(),
        detail: "why".into(),
        queue: "default".into(),
        task_id: None,
        plugin: None,
        body: body.as_bytes().into(),
        properties: json!({"headers": {"agentry-reason": reason}}),
        redelivered: false,
    };
    record_dead(&*site.db, &letter).await.unwrap().id
}

#[tokio::test]
async fn letters_are_redriven_once_under_new_ids() {
    let site = Site::new().await;
    let bad = letter(&site, "not_json", "{").await;
    let one = letter(&site, "bad_options", r#"{"id": 1, "plugin": "a"}"#).await;
    let two = letter(&site, "bad_options", r#"{"plugin": "a"}"#).await;
    let redrive = async |body: Value| site.post("/v1/dead/redrive", &body).await;
    let of = |answer: &Value| {
        let letters = answer["letters"].as_array().unwrap().clone();
        letters
            .iter()
            .map(|l| (l["id"].as_i64().unwrap(), l["outcome"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let told = |letters: &[i64], word: &str| letters.iter().map(|id| (*id, word.to_owned())).collect::<Vec<_>>();
    let (_, answer) = redrive(json!({"reason": "bad_options", "dry_run": true})).await;
    assert_eq!(of(&answer), told(&[two, one], "would_redrive"));
    assert!(site.published.lock().unwrap().is_empty());

    // Not confirmed: it may be tried again, and goes under the same id.
    site.refusals.lock().unwrap().push(PublishError::Unroutable("x".into()));
    let (_, failed) = redrive(json!({"reason": "bad_options", "limit": 1})).await;
    assert_eq!((of(&failed), &failed["next_before"]), (told(&[two], "failed"), &json!(two)));
    let (_, answer) = redrive(json!({"reason": "bad_options", "since": "1h", "rate_per_second": 1000})).await;
    assert_eq!(of(&answer), told(&[two, one], "redriven"));
    assert_eq!(answer["letters"][0]["task_id"], failed["letters"][0]["task_id"]);
    let published = std::mem::take(&mut *site.published.lock().unwrap());
    let bodies: Vec<Value> = published.iter().map(|p| serde_json::from_slice(&p.message.body).unwrap()).collect();
    assert_eq!(bodies, [json!({"plugin": "a"}), json!({"id": answer["letters"][1]["task_id"], "plugin": "a"})]);
    assert!(published.iter().all(|p| p.target == Target::Tasks("default".into()) && p.message.headers.is_empty()));

    let (_, rest) = redrive(json!({})).await;
    assert_eq!(of(&rest), told(&[bad], "redriven"));
    assert_eq!(of(&redrive(json!({})).await.1), []);
    assert_eq!(of(&redrive(json!({"ids": [one, 99]})).await.1), [(one, "skipped".into()), (99, "unknown".into())]);
    let (_, plan) = redrive(json!({"ids": [one, 99], "dry_run": true})).await;
    assert_eq!(of(&plan), [(one, "skipped".into()), (99, "unknown".into())], "as it would be");
    let (_, plan) = redrive(json!({"ids": [one], "dry_run": true, "again": true})).await;
    assert_eq!(of(&plan), told(&[one], "would_redrive"));
    let (_, again) = redrive(json!({"ids": [one], "again": true})).await;
    assert_eq!(of(&again), told(&[one], "redriven"));
    assert_ne!(again["letters"][0]["task_id"], answer["letters"][1]["task_id"]);
    let (_, page) = site.get("/v1/dead?limit=1&reason=bad_options&since=1h").await;
    assert!(page["dead"][0]["redriven_at"].is_string(), "{page}");
    assert_eq!(page["dead"][0]["redriven_as"], answer["letters"][0]["task_id"]);
}

#[tokio::test]
async fn a_redrive_that_cannot_be_is_refused_by_name() {
    let site = Site::new().await;
    for (body, part) in [
        (json!({"since": "yesterday"}), "or a duration such as 1h"),
        (json!({"limit": 501}), "limit is 501; it takes a number from 1 to 500"),
        (json!({"rate_per_second": 0}), "rate_per_second is 0"),
        (json!({"ids": [1], "reason": "x"}), "exclude each other"),
        (json!({"again": true}), "name the letters"),
        (json!({"reasons": "x"}), "unknown field `reasons`"),
    ] {
        let (status, problem) = site.post("/v1/dead/redrive", &body).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(part), "{body}: {problem}");
    }
}

#[tokio::test]
async fn only_tasks_of_a_named_bench_run_are_deleted_and_only_once_they_have_ended() {
    let site = Site::new().await;
    let (run, other) = (crate::api::new_run(), crate::api::new_run());
    let mut ids = Vec::new();
    let own = ("agentry-bench", "hello");
    for (key, value) in [("agentry-bench", run.as_str()), ("agentry-bench", &run), own, ("team", &run)] {
        let body = json!({"plugin": "word-count", "input": 1, "options": {"labels": {key: value}}});
        let (status, task) = site.ask(Method::POST, "/v1/tasks", &[], Some(body.to_string())).await;
        assert_eq!(status, 201, "{task}");
        ids.push(task["id"].clone());
    }
    for id in [&ids[0], &ids[2], &ids[3]] {
        site.post(&format!("/v1/tasks/{}/cancel", id.as_str().unwrap()), &json!({})).await;
    }
    let (_, listed) = site.get("/v1/benches").await;
    let runs = listed["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "a task of a user is no run: {listed}");
    assert_eq!((&runs[0]["run"], &runs[0]["ended"], &runs[0]["unfinished"]), (&json!(run), &json!(1), &json!(1)));
    assert!(runs[0]["idle_seconds"].as_f64().is_some_and(|idle| (0.0..60.0).contains(&idle)), "{listed}");
    let of_team = format!("?label=team={run}");
    let bad = ["", of_team.as_str(), "?label=agentry-bench=", "?label=agentry-bench", "?label=agentry-bench=hello"];
    for query in bad {
        let (status, problem) = site.ask(Method::DELETE, &format!("/v1/tasks{query}"), &[], None).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_query")), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("GET /v1/benches"), "{query}: {problem}");
    }
    let delete = async |query: &str| site.ask(Method::DELETE, &format!("/v1/tasks?{query}"), &[], None).await;
    assert_eq!(delete(&format!("label=agentry-bench={run}&limit=0")).await.0, 400);
    let none = json!({"deleted": 0, "unfinished": []});
    assert_eq!(delete(&format!("label=agentry-bench={other}")).await, (200, none));
    let one = json!({"deleted": 1, "unfinished": [ids[1]]});
    assert_eq!(delete(&format!("label=agentry-bench%3D{run}")).await, (200, one));
    let (_, page) = site.get("/v1/tasks").await;
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(3), "{page}");
}
