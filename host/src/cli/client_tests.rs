//! Errors for responses that no daemon gives, and for connections that fail.

use super::*;
use serde_json::json;

/// A server that accepts a connection, reads a little and does `then` with it.
async fn server(then: impl FnOnce(tokio::net::TcpStream, tokio::net::TcpListener) + Send + 'static) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { server: listener.local_addr().unwrap().to_string(), json: false };
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 1_024];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut some).await;
        then(stream, listener);
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(&server).unwrap()
}

#[tokio::test]
async fn a_daemon_that_sends_no_response_is_given_up_after_the_patience() {
    let (keep, held) = tokio::sync::oneshot::channel();
    let client =
        server(move |stream, _| drop(keep.send(stream))).await.patient(Duration::from_millis(200), "--patience");
    let error = client.get("/healthz").await.unwrap_err();
    assert_eq!(error.code, 3);
    assert!(error.message.contains("within 0.2 s (--patience)"), "{error:?}");
    assert!(!error.message.contains("no daemon"), "{error:?}");
    drop(held);
}

#[tokio::test]
async fn a_connection_that_ends_while_a_body_is_sent_is_not_called_a_missing_daemon() {
    let (keep, held) = tokio::sync::oneshot::channel();
    let client = server(move |_, listener| drop(keep.send(listener))).await;
    // The listener still accepts connections, and nothing reads from them.
    let client = client.patient(Duration::from_millis(500), "");
    let error = client.post("/v1/tasks/batch", "x".repeat(8 << 20)).await.unwrap_err();
    assert!(error.message.contains("8388608 bytes") && error.message.contains("api.body_mib"), "{error:?}");
    assert!(!error.message.contains("no daemon"), "{error:?}");
    drop(held);
}

#[tokio::test]
async fn a_daemon_that_ended_is_not_blamed_on_the_size_of_a_body() {
    let client = server(|stream, listener| drop((listener, stream))).await;
    let error = client.post("/v1/tasks/batch", "x".repeat(8 << 20)).await.unwrap_err();
    assert!(error.message.contains("has ended") && !error.message.contains("body_mib"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_a_daemon_is_not_taken_for_one() {
    for response in [
        "200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "302 Found\r\nlocation: /\r\n\r\n",
        "200 OK\r\ncontent-length: 6\r\n\r\n<html>",
    ] {
        let client = server(move |stream, _| {
            let _ = stream.try_write(format!("HTTP/1.1 {response}").as_bytes());
        })
        .await;
        let error = client.page("/v1/tasks", "tasks").await.unwrap_err();
        assert_eq!(error.code, 3);
        let looks = error.message.contains("does not look like an Agentry daemon at http://127.0.0.1:");
        assert!(looks && error.message.contains("--server"), "{response}: {error:?}");
    }
}

#[test]
fn a_failed_handshake_says_what_to_change() {
    for (cause, remedy) in [
        ("received corrupt message of type InvalidContentType", "http://"),
        ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "CA:FALSE"),
        ("invalid peer certificate: Other(OtherError(UnsupportedCertVersion))", "version 3"),
        ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        ("invalid peer certificate: NotValidForName", "api.tls_cert"),
    ] {
        assert!(tls_problem(cause).is_some_and(|hint| hint.contains(remedy)), "{cause}");
    }
    assert_eq!(tls_problem("Connection refused (os error 111)"), None);
}

#[tokio::test]
async fn a_daemon_with_tls_is_not_called_a_daemon_that_ended() {
    let client = server(|stream, _| drop(stream.try_write(b"\x15\x03\x03\x00\x02\x02\x16"))).await;
    let error = client.get("/healthz").await.unwrap_err();
    assert!(error.message.contains("https://"), "{error:?}");
}

#[test]
fn a_token_is_taken_without_the_newline_of_its_file() {
    assert_eq!(token("secret\n".into()).unwrap().as_deref(), Some("secret"));
    assert_eq!(token(" \n".into()).unwrap(), None);
    for bad in ["a b", "a\nb", "a\u{1}b"] {
        let error = token(bad.into()).unwrap_err();
        assert!(error.message.contains("AGENTRY_TOKEN") && !error.message.contains(bad), "{error:?}");
    }
}

#[test]
fn an_answer_is_read_whatever_its_tasks_hold() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in ["1e999", r#""\ud800""#, &deep] {
        let task = format!(r#"{{"id":"a","state":"completed","output":{odd},"attempt":1}}"#);
        let read = read(&format!(r#"{{"tasks":[{task},{{"id":"b"}}],"next_cursor":null}}"#), LEVELS);
        let expected = json!({"id": "a", "state": "completed", "output": odd, "attempt": 1});
        assert_eq!(read, json!({"tasks": [expected, {"id": "b"}], "next_cursor": null}));
    }
    assert_eq!(read("<html>", LEVELS), Value::Null);
}
