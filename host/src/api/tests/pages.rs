//! Pages of large rows.

use super::bare_call;
use super::site::Site;
use crate::db::{Db, DeadLetter, record_dead};
use crate::task::settle::{Body, Call, LogLine, Usage};
use crate::task::{Ended, Settlement, TaskId};
use serde_json::{Value, json};

const NINE_MIB: usize = 9 * 1_024 * 1_024;

/// A completed task whose output, each of two log lines and each of two calls have nine MiB.
async fn large(site: &Site) -> TaskId {
    let id = site.submit().await;
    let claimed = site.claim(id).await;
    let text = "x".repeat(NINE_MIB);
    let line = |seq| LogLine {
        seq,
        at: "2030-01-01T00:00:00Z".parse().unwrap(),
        stream: "log",
        level: "info",
        logger: String::new(),
        message: text.clone(),
        cut: false,
    };
    let body = Some(Body { bytes: text.clone().into_bytes(), size: NINE_MIB as u64 });
    let call = |seq| Call { response_body: body.clone(), ..bare_call(seq) };
    let settlement = Settlement {
        id,
        fence: claimed.fence,
        attempt: 1,
        ended: Ended::Completed { output: json!(text).to_string().into() },
        version: "0.1.0".into(),
        digest: "sha256:ab".into(),
        usage: Usage::default(),
        logs: vec![line(1), line(2)],
        calls: vec![call(1), call(2)],
    };
    site.db.settle(site.host, &[settlement]).await.unwrap();
    id
}

/// The number of rows of each page of a list.
async fn pages(site: &Site, path: &str, rows: &str, cursor: (&str, &str)) -> Vec<usize> {
    let (mut sizes, mut query) = (Vec::new(), String::new());
    loop {
        let (status, page) = site.get(&format!("{path}{query}")).await;
        assert_eq!(status, 200, "{path}{query}");
        sizes.push(page[rows].as_array().unwrap().len());
        let next = match &page[cursor.1] {
            Value::Null => return sizes,
            Value::String(next) => next.clone(),
            next => next.to_string(),
        };
        query = format!("&{}={next}", cursor.0);
    }
}

#[tokio::test]
async fn a_page_of_large_rows_is_shorter_than_its_limit() {
    let site = Site::new().await;
    let id = large(&site).await;
    large(&site).await;
    let tasks = ("cursor", "next_cursor");
    assert_eq!(pages(&site, "/v1/tasks?limit=500&fields=input,output", "tasks", tasks).await, [1, 1]);
    assert_eq!(pages(&site, "/v1/tasks?limit=500&fields=input", "tasks", tasks).await, [2]);
    let after = ("after", "next_after");
    assert_eq!(pages(&site, &format!("/v1/tasks/{id}/logs?"), "logs", after).await, [1, 1]);
    assert_eq!(pages(&site, &format!("/v1/tasks/{id}/calls?bodies=true"), "calls", after).await, [1, 1]);
    assert_eq!(pages(&site, &format!("/v1/tasks/{id}/calls?bodies=false"), "calls", after).await, [2]);
    let request = site.http.get(format!("{}/v1/tasks/{id}/logs", site.base)).header("accept", "text/event-stream");
    let stream = request.send().await.unwrap().text().await.unwrap();
    assert_eq!(stream.matches("event: log").count(), 2, "a stream goes on behind a page");
}

#[tokio::test]
async fn a_redrive_of_large_letters_names_where_to_go_on() {
    let site = Site::new().await;
    for body in ["1", "2"] {
        let letter = DeadLetter {
            reason: "not_json".into(),
            detail: "x".repeat(NINE_MIB),
            queue: "default".into(),
            task_id: None,
            plugin: None,
            body: body.as_bytes().into(),
            properties: json!({}),
            redelivered: false,
        };
        record_dead(&*site.db, &letter).await.unwrap();
    }
    assert_eq!(pages(&site, "/v1/dead?limit=500", "dead", ("cursor", "next_cursor")).await, [1, 1]);
    let redrive = async |body: Value| site.post("/v1/dead/redrive", &body).await.1;
    let first = redrive(json!({"dry_run": true})).await;
    let rest = redrive(json!({"dry_run": true, "before": first["next_before"]})).await;
    let ids = [&first["letters"][0]["id"], &rest["letters"][0]["id"]];
    assert_eq!((ids, &rest["next_before"]), ([&json!(2), &json!(1)], &Value::Null), "{first} {rest}");
}
