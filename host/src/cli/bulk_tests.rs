//! Against a daemon that says what a test wants.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// What was asked, one `METHOD PATH` each.
type Asked = Arc<Mutex<Vec<String>>>;

/// A daemon that answers with a status and a body; requests have none.
async fn daemon(answer: impl Fn(&[String]) -> (u16, Value) + Send + 'static) -> (Server, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { server: format!("http://{}", listener.local_addr().unwrap()), json: true };
    let asked = Asked::default();
    let told = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut lines = BufReader::new(&mut stream).lines();
            let first = lines.next_line().await.unwrap().unwrap_or_default();
            while lines.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
            told.lock().unwrap().push(first.trim_end_matches(" HTTP/1.1").to_owned());
            let (status, body) = answer(&told.lock().unwrap());
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    (server, asked)
}

fn all(server: Server) -> Bulk {
    Bulk {
        ids: Vec::new(),
        state: None,
        plugin: None,
        kind: None,
        queue: None,
        label: None,
        since: None,
        all: true,
        limit: None,
        rate: None,
        dry_run: false,
        server,
    }
}

async fn run(bulk: &Bulk, verb: Verb) -> (Tally, Result<(), Failed>) {
    let (mut tally, mut pace) = (Tally::default(), Pace::new(None));
    let client = Client::new(&bulk.server).unwrap();
    let end = bulk.matching(verb, &client, &mut tally, &mut pace).await;
    (tally, end)
}

fn page(ids: &[TaskId]) -> (u16, Value) {
    let tasks: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
    (200, json!({"tasks": tasks, "next_cursor": null}))
}

#[tokio::test]
async fn what_waits_again_after_it_ran_is_cancelled_too() {
    let (runs, moves) = (TaskId::now_v7(), TaskId::now_v7());
    let (server, asked) = daemon(move |asked| {
        let last = asked.last().unwrap();
        if last.starts_with("POST") {
            return (202, json!({"state": "running"}));
        }
        // It ran when the waiting were listed, and waits for its next attempt when the running are.
        let ran = asked.iter().any(|request| request.contains("state=running"));
        match (last.contains("state=running"), last.contains("state=retrying")) {
            (true, _) => page(&[runs]),
            (_, true) if ran => page(&[moves]),
            _ => page(&[]),
        }
    })
    .await;
    let (tally, end) = run(&all(server), Verb::Cancel).await;
    end.unwrap();
    let asked = asked.lock().unwrap();
    let cancelled: Vec<_> = asked.iter().filter(|request| request.starts_with("POST")).cloned().collect();
    assert_eq!(cancelled, [runs, moves].map(|id| format!("POST /v1/tasks/{id}/cancel")), "each once");
    assert_eq!((tally.matched, tally.done), (2, 2));
}

#[tokio::test]
async fn a_token_that_may_not_is_the_end_and_not_a_refusal_of_each() {
    let ids = [TaskId::now_v7(), TaskId::now_v7()];
    let (server, asked) = daemon(move |asked| match asked.last().unwrap().starts_with("POST") {
        true => (403, json!({"code": "forbidden", "detail": "this token's scope is read"})),
        false => page(&ids),
    })
    .await;
    let (tally, end) = run(&all(server), Verb::Retry).await;
    let failed = end.unwrap_err();
    assert_eq!((failed.code, tally.refused), (2, 0));
    assert!(failed.message.contains("scope is read"), "{failed:?}");
    assert_eq!(asked.lock().unwrap().iter().filter(|request| request.starts_with("POST")).count(), 1);
}
