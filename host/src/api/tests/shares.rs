//! Bounds of one token.

use super::site::{CONNECTIONS, PATIENCE, Site};
use crate::api::{Tokens, follow};

const ONE: &str = "0123456789abcdef";
const OTHER: &str = "fedcba9876543210";

async fn site() -> Site {
    Site::with(Some(Tokens::of(&format!("one read {ONE}\nother full {OTHER}")))).await
}

/// Submits a task; no worker runs it.
async fn submitted(site: &Site) -> String {
    let body = r#"{"plugin": "word-count", "input": 1}"#.to_owned();
    let bearer = format!("Bearer {OTHER}");
    let (_, task) = site.ask(reqwest::Method::POST, "/v1/tasks", &[("authorization", &bearer)], Some(body)).await;
    task["id"].as_str().unwrap().to_owned()
}

async fn get(site: &Site, token: &str, path: &str, accept: &str) -> reqwest::Response {
    let request = site.http.get(format!("{}{path}", site.base)).bearer_auth(token).header("accept", accept);
    request.send().await.unwrap()
}

#[tokio::test]
async fn requests_of_one_token_are_bounded() {
    let site = site().await;
    let id = submitted(&site).await;
    let wait = format!("/v1/tasks/{id}/wait?timeout=300");
    let mut waiting = Vec::new();
    for _ in 0..CONNECTIONS / 2 {
        let request = site.http.get(format!("{}{wait}", site.base)).bearer_auth(ONE);
        waiting.push(tokio::spawn(request.send()));
    }
    let task = format!("/v1/tasks/{id}");
    let refused = async {
        loop {
            let answer = get(&site, ONE, &task, "*/*").await;
            if answer.status() == 429 {
                assert!(answer.headers().contains_key("retry-after"));
                return answer.text().await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("its share is taken");
    assert!(refused.contains("too_many_requests"), "{refused}");
    assert_eq!(get(&site, OTHER, &task, "*/*").await.status(), 200);
    assert_eq!(get(&site, ONE, "/healthz", "*/*").await.status(), 200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    let free = async {
        while get(&site, ONE, &task, "*/*").await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("a closed connection gives its place back");
}

#[tokio::test]
async fn streams_of_one_token_are_bounded() {
    let site = site().await;
    let events = format!("/v1/tasks/{}/events", submitted(&site).await);
    let mut open = Vec::new();
    while open.len() < follow::STREAMS / 4 && open.len() < CONNECTIONS - 2 {
        let stream = get(&site, ONE, &events, "text/event-stream").await;
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    let refused = get(&site, ONE, &events, "text/event-stream").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.text().await.unwrap().contains("too_many_streams"));
    assert_eq!(get(&site, OTHER, &events, "text/event-stream").await.status(), 200);
}
