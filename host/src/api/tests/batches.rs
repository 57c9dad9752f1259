//! Batches that are sent again.

use super::site::Site;
use reqwest::Method;
use serde_json::{Value, json};

async fn send(site: &Site, key: &str, tasks: &Value) -> (u16, Value) {
    let body = json!({"tasks": tasks}).to_string();
    site.ask(Method::POST, "/v1/tasks/batch", &[("idempotency-key", key)], Some(body)).await
}

fn task(input: u8) -> Value {
    json!({"plugin": "word-count", "input": input})
}

async fn count(site: &Site) -> usize {
    site.get("/v1/tasks").await.1["tasks"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_batch_under_an_idempotency_key_is_made_once() {
    let site = Site::new().await;
    // The same content twice: two tasks, as without a key.
    let batch = json!([task(1), task(1), task(2)]);
    let (status, first) = send(&site, "k", &batch).await;
    assert_eq!(status, 201, "{first}");
    let (status, again) = send(&site, "k", &batch).await;
    assert_eq!((status, count(&site).await), (200, 3), "{again}");
    for (one, other) in first["tasks"].as_array().unwrap().iter().zip(again["tasks"].as_array().unwrap()) {
        assert_eq!((&one["id"], &one["created"], &other["created"]), (&other["id"], &json!(true), &json!(false)));
    }
    let (status, other) = send(&site, "k2", &batch).await;
    assert_eq!((status, count(&site).await), (201, 6), "{other}");
    let single = [("idempotency-key", "k")];
    assert_eq!(site.ask(Method::POST, "/v1/tasks", &single, Some(task(1).to_string())).await.0, 201);
}

#[tokio::test]
async fn another_batch_under_the_same_idempotency_key_is_a_conflict_and_makes_nothing() {
    let site = Site::new().await;
    assert_eq!(send(&site, "k", &json!([task(1), task(2)])).await.0, 201);
    let (status, problem) = send(&site, "k", &json!([task(1), task(3), task(4)])).await;
    assert_eq!((status, &problem["code"], &problem["index"]), (409, &json!("conflict"), &json!(1)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("another Idempotency-Key"), "{problem}");
    assert_eq!(count(&site).await, 2);
    let with_id = json!([task(1), {"id": uuid::Uuid::now_v7(), "plugin": "word-count", "input": 1}]);
    let (status, problem) = send(&site, "k3", &with_id).await;
    assert_eq!((status, &problem["code"], &problem["index"]), (400, &json!("bad_idempotency_key"), &json!(1)));
    for key in ["".to_owned(), "k".repeat(256)] {
        let (status, problem) = send(&site, &key, &json!([task(1)])).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_idempotency_key")), "{problem}");
    }
    assert_eq!(count(&site).await, 2);
}
