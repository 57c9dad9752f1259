//! Requests that web pages make browsers send, and headers for browsers.

use super::site::Site;
use crate::api::Tokens;
use crate::db::{Db, Fields};
use crate::task::State;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let site = Site::new().await;
    let id = site.submit().await;
    let own = site.base.as_str();
    let marks: [&[(&str, &str)]; 5] = [
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("sec-fetch-site", "cross-site")],
        &[("origin", own), ("sec-fetch-site", "same-site")],
    ];
    for headers in marks {
        for (method, path) in [
            (Method::POST, format!("/v1/tasks/{id}/cancel")),
            (Method::POST, format!("/v1/tasks/{id}/retry")),
            (Method::POST, "/v1/tasks".into()),
            (Method::POST, "/v1/tasks/batch".into()),
            (Method::POST, "/v1/dead/redrive".into()),
            (Method::DELETE, format!("/v1/tasks/{id}/data")),
            (Method::DELETE, "/v1/tasks?label=agentry-bench".into()),
        ] {
            let (status, problem) = site.ask(method, &path, headers, None).await;
            assert_eq!((status, &problem["code"]), (403, &json!("foreign_origin")), "{path} {headers:?}: {problem}");
        }
        assert_eq!(site.ask(Method::GET, "/v1/tasks", headers, None).await.0, 200, "{headers:?}");
    }
    let row = site.db.task(id, Fields::default()).await.unwrap().unwrap();
    assert_eq!(row.state, State::Pending);
    let headers = [("origin", own), ("sec-fetch-site", "same-origin")];
    assert_eq!(site.ask(Method::POST, &format!("/v1/tasks/{id}/cancel"), &headers, None).await.0, 202);
}

#[tokio::test]
async fn a_token_does_not_admit_a_page_of_another_origin() {
    let site = Site::with(Some(Tokens::of("ops full fedcba9876543210"))).await;
    let headers = [("authorization", "Bearer fedcba9876543210"), ("origin", "https://evil.example")];
    let body = json!({"plugin": "word-count", "input": 1}).to_string();
    let (status, problem) = site.ask(Method::POST, "/v1/tasks", &headers, Some(body.clone())).await;
    assert_eq!((status, &problem["code"]), (403, &json!("foreign_origin")), "{problem}");
    assert_eq!(site.ask(Method::POST, "/v1/tasks", &headers[..1], Some(body)).await.0, 201);
}

#[tokio::test]
async fn every_answer_forbids_guessing_its_type() {
    let site = Site::new().await;
    let id = site.submit().await;
    for (method, path, headers) in [
        (Method::GET, "/healthz".to_owned(), vec![]),
        (Method::GET, "/metrics".to_owned(), vec![]),
        (Method::GET, format!("/v1/tasks/{id}"), vec![]),
        (Method::GET, format!("/v1/tasks/{id}/events"), vec![("accept", "text/event-stream")]),
        (Method::GET, "/nowhere".to_owned(), vec![]),
        (Method::PUT, "/v1/tasks".to_owned(), vec![]),
        (Method::GET, "/v1/tasks".to_owned(), vec![("host", "evil.example")]),
        (Method::POST, "/v1/tasks".to_owned(), vec![("origin", "null")]),
    ] {
        let mut request = site.http.request(method, format!("{}{path}", site.base));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
    }
}
