//! Streams of events and logs, and when they end.

use super::site::{PATIENCE, Site};
use crate::db::{Db, Label};
use crate::task::TaskId;

/// The status, and the whole stream: a stream that does not end fails by the client's time-out.
async fn follow(site: &Site, path: &str, last: Option<&str>) -> (u16, String) {
    let mut request = site.http.get(format!("{}{path}", site.base)).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.text().await.unwrap_or_else(|e| panic!("{path} after {last:?} does not end: {e}")))
}

/// Reads the beginning of a stream, so that it is known to be open.
async fn open(site: &Site, path: &str) -> reqwest::Response {
    let request = site.http.get(format!("{}{path}", site.base)).header("accept", "text/event-stream");
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.chunk().await.unwrap().expect("the history so far");
    answer
}

#[tokio::test]
async fn a_reader_that_comes_back_after_the_end_gets_no_content() {
    let site = Site::new().await;
    let id = site.submit().await;
    let claimed = site.claim(id).await;
    site.complete(id, claimed.fence).await;
    let events = format!("/v1/tasks/{id}/events");
    for last in ["3", "4", "9223372036854775807"] {
        assert_eq!(follow(&site, &events, Some(last)).await, (204, String::new()), "after {last}");
    }
    let (status, rest) = follow(&site, &events, Some("2")).await;
    assert!(status == 200 && rest.contains("event: completed"), "{rest}");
    // It logged nothing.
    assert_eq!(follow(&site, &format!("/v1/tasks/{id}/logs"), None).await, (204, String::new()));
    let gone = format!("/v1/tasks/{}/events", TaskId::now_v7());
    assert_eq!(follow(&site, &gone, Some("3")).await.0, 404);
}

#[tokio::test]
async fn a_stream_from_after_the_last_event_ends_with_the_task() {
    let site = Site::new().await;
    for part in ["events", "logs"] {
        let id = site.submit().await;
        let claimed = site.claim(id).await;
        let path = format!("/v1/tasks/{id}/{part}?after=100");
        let end = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            site.complete(id, claimed.fence).await;
        };
        let ((status, text), ()) = tokio::join!(follow(&site, &path, None), end);
        assert!((status == 200 || status == 204) && !text.contains("data:"), "{part}: {status} {text}");
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_task_is_deleted() {
    let site = Site::new().await;
    let body = r#"{"plugin": "word-count", "input": 1, "options": {"labels": {"run": "x"}}}"#;
    let (_, task) = site.ask(reqwest::Method::POST, "/v1/tasks", &[], Some(body.into())).await;
    let id: TaskId = task["id"].as_str().unwrap().parse().unwrap();
    let stream = open(&site, &format!("/v1/tasks/{id}/events")).await;
    // Between two reads of the stream: it sees no last event.
    site.db.cancel(id).await.unwrap();
    let label = Label { key: "run".into(), value: "x".into() };
    assert_eq!(site.db.delete_labelled(&label, 1).await.unwrap().deleted, 1);
    tokio::time::timeout(PATIENCE, stream.text()).await.expect("it ends").unwrap();
}
