//! Connections: whose they are, and when they end.

use crate::house::*;
use agentry_outbound::egress::{Egress, HttpError};
use http_body_util::BodyExt;
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A server that says something and then waits for its peer's end, which it tells. It tells before that it was asked.
async fn waiting(says: &'static str) -> (Server, mpsc::UnboundedReceiver<&'static str>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = Server::new(move |mut stream| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(says.as_bytes()).await.unwrap();
            let _ = tell.send("asked");
            closed_by_peer(&mut stream).await;
            let _ = tell.send("closed");
        }
    });
    (server.await, told)
}

#[tokio::test]
async fn dropping_an_exchange_closes_its_connection() {
    let (server, mut told) = waiting("").await;
    let client = client(open());
    let sending = tokio::spawn({
        let (client, url) = (client.clone(), server.url("/"));
        async move { client.send(request(url), exchange()).await.map(drop) }
    });
    assert_eq!(soon(told.recv()).await, Some("asked"));
    sending.abort();
    assert_eq!(soon(told.recv()).await, Some("closed"));
    drop(client);
}

#[tokio::test]
async fn dropping_a_body_closes_its_connection() {
    let (server, mut told) = waiting("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    let client = client(open());
    let mut body = client.send(request(server.url("/")), exchange()).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert_eq!(soon(told.recv()).await, Some("asked"));
    drop(body);
    assert_eq!(soon(told.recv()).await, Some("closed"));
}

#[tokio::test]
async fn a_body_that_failed_closes_its_connection() {
    let (server, mut told) = waiting("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let client = client(open());
    let exchange = agentry_outbound::egress::Exchange { response_bytes: 3, ..exchange() };
    // The body is held, and the connection is closed all the same.
    let mut body = client.send(request(server.url("/")), exchange).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap_err(), HttpError::ResponseTooLarge { limit: 3 });
    assert_eq!(soon(told.recv()).await, Some("asked"));
    assert_eq!(soon(told.recv()).await, Some("closed"));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_plugin_keeps_its_connections_and_shares_them_with_nobody() {
    let (server, _requests) = listening().await;
    let egress = Egress::new(open()).unwrap();
    let (one, other) = (egress.client(any()), egress.client(any()));
    for client in [&one, &one, &one.clone()] {
        get(client, server.url("/")).await.unwrap();
    }
    assert_eq!(server.accepted(), 1);
    get(&other, server.url("/")).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_made_anew() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let client = client(open());
    for _ in 0..3 {
        assert_eq!(get(&client, server.url("/")).await.unwrap().body, "ok");
    }
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn a_refused_connection_says_so_and_not_where() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = get(&client(open()), format!("http://localhost:{port}/")).await.unwrap_err();
    assert_eq!(error, HttpError::Connect { host: "localhost".into(), reason: "connection refused".into() });
}

/// Names the URL for the child process in which the test runs again.
const CHILD: &str = "EGRESS_TEST_CHILD_URL";

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    if let Ok(url) = std::env::var(CHILD) {
        assert_eq!(get(&client(open()), url).await.unwrap().body, "ok");
        return;
    }
    let (server, _requests) = listening().await;
    let (proxy, _none) = listening().await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "connections::proxies_of_the_environment_are_ignored"]).env(CHILD, server.url("/"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, proxy.url(""));
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy").env_remove("REQUEST_METHOD");
    let ran = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    assert_eq!((server.accepted(), proxy.accepted()), (1, 0));
}
