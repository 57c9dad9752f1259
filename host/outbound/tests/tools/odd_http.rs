//! HTTP servers that answer in ways of their own: each request is answered, and at once.

use crate::http::at;
use crate::raw_server::{Log, RawServer, Reply, Request, calls, http, in_json, result, usual};
use crate::*;

/// Settings whose time-outs a request that hangs would meet.
pub fn settings(server: &RawServer) -> ServerSettings {
    let mut settings = at(server.url(), &[], None);
    settings.call = Duration::from_secs(20);
    settings
}

/// A server that answers as usual, and calls of `odd` in a way of its own.
pub async fn odd(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> RawServer {
    RawServer::start(move |_, request| if calls(request, "odd") { answer(request) } else { usual(request) }).await
}

/// Calls `echo`.
pub async fn echoes(session: &Session) {
    assert_eq!(text(session, "echo", json!({"text": "on"})).await, "on");
}

#[tokio::test]
async fn http_error_answers_the_request_that_was_posted() {
    let rpc =
        |id: Value| json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": "no luck"}}).to_string();
    let json = "Content-Type: application/json";
    for (status, header, body, words) in [
        ("400 Bad Request", json, rpc(Value::Null), "HTTP 400: no luck"),
        ("500 Internal Server Error", json, rpc(Value::Null), "HTTP 500: no luck"),
        ("400 Bad Request", json, rpc(json!("server-error")), "no luck"),
        ("400 Bad Request", json, json!({"error": {"message": "no luck"}}).to_string(), "no luck"),
        ("200 OK", json, rpc(Value::Null), "no luck"),
        ("422 Unprocessable Content", json, json!({"detail": "no luck"}).to_string(), "HTTP 422"),
        ("400 Bad Request", json, "{\"error\"".to_owned(), "HTTP 400"),
        (
            "502 Bad Gateway",
            "Content-Type: text/html",
            "<h1>no luck</h1>".to_owned(),
            "HTTP 502 Bad Gateway: <h1>no luck",
        ),
        ("503 Service Unavailable", "Content-Length: 0", String::new(), "HTTP 503"),
        ("429 Too Many Requests", "Retry-After: 1", "slow down".to_owned(), "HTTP 429"),
        ("500 Internal Server Error", "Content-Type: text/event-stream", "data: no luck\n\n".to_owned(), "HTTP 500"),
        ("200 OK", json, String::new(), "without an answer"),
        ("204 No Content", "X-Odd: 1", String::new(), "HTTP 204"),
        ("202 Accepted", "X-Odd: 1", String::new(), "HTTP 202"),
        ("200 OK", json, "null".to_owned(), "none of the protocol: null"),
        ("200 OK", json, "{\"ok\": true}".to_owned(), "none of the protocol"),
        ("200 OK", "Content-Type: text/html", "<p>Welcome</p>".to_owned(), "text/html"),
    ] {
        let reply = (status.to_owned(), header.to_owned(), body.clone());
        let server = odd(move |_| http(&reply.0, &[&reply.1], &reply.2)).await;
        let tools = only(settings(&server));
        let session = session(&tools);
        let error = call(&session, "odd", json!({})).await.unwrap_err();
        assert!(!matches!(error, ToolError::TimedOut { .. }), "{status} {body}: {error}");
        assert!(error.to_string().contains(words), "{status} {body}: {error}");
        echoes(&session).await;
        assert_eq!((server.log.count("initialize"), server.log.count("tools/call")), (1, 2), "{status} {body}");
        assert_eq!(tools.health()[0].trouble, None);
    }
}

#[tokio::test]
async fn notification_may_be_answered_with_anything() {
    for (status, header, body) in [
        ("200 OK", "Content-Type: application/json", "{}"),
        ("200 OK", "Content-Type: text/plain", "ok"),
        ("200 OK", "Content-Type: text/event-stream", ": nothing\n\n"),
        ("200 OK", "Content-Length: 0", ""),
        ("204 No Content", "X-Odd: 1", ""),
        ("202 Accepted", "Content-Type: text/html", "<p>Accepted"),
        ("500 Internal Server Error", "X-Odd: 1", "what?"),
    ] {
        let server = RawServer::start(move |_: &Log, request: &Request| {
            let is_notification = request.method == "POST" && request.message["id"].is_null();
            if is_notification { http(status, &[header], body) } else { usual(request) }
        })
        .await;
        let tools = only(settings(&server));
        echoes(&session(&tools)).await;
    }
}

#[tokio::test]
async fn answer_is_read_whatever_its_header_says() {
    for header in [
        "Content-Type: application/json; charset=utf-8",
        "content-type: APPLICATION/JSON;charset=UTF-8",
        "Content-Type: application/vnd.api+json",
        "Content-Type: text/plain",
        "Content-Type: text/html; charset=utf-8",
        "Content-Type: text/event-stream",
        "X-Odd: no content type",
    ] {
        let server = odd(move |request| {
            let result = result(request, json!({"content": [{"type": "text", "text": "here"}]}));
            http("200 OK", &[header], &format!("\u{feff}\r\n {result}\n"))
        })
        .await;
        assert_eq!(text(&session(&only(settings(&server))), "odd", json!({})).await, "here", "{header}");
    }
    // Its answer is one of a batch, its id a text or missing, and an error that is absent stands beside it.
    let forms: [fn(Value) -> Value; 4] = [
        |answer| json!([{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}, answer]),
        |mut answer| {
            answer["id"] = answer["id"].to_string().into();
            answer
        },
        |mut answer| {
            answer["id"].take();
            answer
        },
        |mut answer| {
            answer["error"] = Value::Null;
            answer.as_object_mut().unwrap().remove("jsonrpc");
            answer
        },
    ];
    for form in forms {
        let server =
            odd(move |request| in_json(&form(result(request, json!({"content": [{"type": "text", "text": "here"}]})))))
                .await;
        assert_eq!(text(&session(&only(settings(&server))), "odd", json!({})).await, "here");
    }
}

#[tokio::test]
async fn events_are_read_in_every_form() {
    let forms: [fn(&str) -> String; 9] = [
        |answer| format!("data: {answer}\n\n"),
        |answer| format!("\u{feff}: a comment\r\n\r\nevent: message\r\nid: 1\r\ndata: {answer}\r\n\r\n"),
        |answer| format!("event: ping\n\nevent: ping\ndata:\n\nevent: ping\ndata: 2026-11-30\n\ndata:{answer}\n\n"),
        |answer| format!("data: {}\n\n", answer.replacen(',', ",\ndata: ", 2)),
        |answer| {
            format!(
                "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":1}}}}\n\ndata: {answer}\n\n"
            )
        },
        |answer| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"ping\"}}\n\ndata: {answer}\n\n"),
        |answer| format!("event: response\rdata: {answer}\r\r"),
        |answer| format!("data: {answer}"),
        |answer| format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}}\n{answer}\n"),
    ];
    for (n, form) in forms.into_iter().enumerate() {
        let server = odd(move |request| {
            let result = result(request, json!({"content": [{"type": "text", "text": "here"}]})).to_string();
            http("200 OK", &["Content-Type: Text/Event-Stream; charset=utf-8"], &form(&result))
        })
        .await;
        let tools = only(settings(&server));
        let session = session(&tools);
        assert_eq!(text(&session, "odd", json!({})).await, "here", "{n}");
        echoes(&session).await;
        assert_eq!(tools.health()[0].trouble, None, "{n}");
    }
}

#[tokio::test]
async fn answer_that_is_delayed_on_an_open_stream_arrives() {
    let server = RawServer::start(|log: &Log, request: &Request| {
        if !calls(request, "odd") {
            return usual(request);
        }
        let events = log.events.clone();
        let answer = result(request, json!({"content": [{"type": "text", "text": "late"}]}));
        tokio::spawn(async move {
            for event in [": still here\n\n".to_owned(), format!("data: {answer}\n\n")] {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let _ = events.send(event);
            }
        });
        Reply::Stream("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n".to_owned())
    })
    .await;
    assert_eq!(text(&session(&only(settings(&server))), "odd", json!({})).await, "late");
}

#[tokio::test]
async fn stream_that_ends_before_the_answer_is_an_error_at_once() {
    for body in
        ["", ": nothing\n\n", "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n", "data: {\"jsonr"]
    {
        let server = odd(move |_| http("200 OK", &["Content-Type: text/event-stream"], body)).await;
        let tools = only(settings(&server));
        let session = session(&tools);
        let error = call(&session, "odd", json!({})).await.unwrap_err().to_string();
        assert!(error.contains("whether it did what it was asked is not known"), "{body:?}: {error}");
        echoes(&session).await;
        assert_eq!((server.log.count("tools/call"), tools.health()[0].restarts), (2, 0), "{body:?}");
    }
}

#[tokio::test]
async fn redirect_within_the_origin_is_followed_with_the_message() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect", "301 Moved Permanently", "302 Found"] {
        let server = RawServer::start(move |_: &Log, request: &Request| match request.path.as_str() {
            "/mcp" => http(status, &["Location: /mcp/?x=1"], ""),
            "/mcp/?x=1" => usual(request),
            other => panic!("{other}"),
        })
        .await;
        echoes(&session(&only(settings(&server)))).await;
    }
}

#[tokio::test]
async fn redirect_that_leaves_the_origin_or_the_method_is_refused_by_name() {
    let other = RawServer::start(|_: &Log, request: &Request| usual(request)).await;
    let away = format!("Location: {}?key=hidden", other.url());
    let elsewhere = RawServer::start(move |_: &Log, _: &Request| http("307 Temporary Redirect", &[&away], "")).await;
    let error = call(&session(&only(settings(&elsewhere))), "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains(other.url().as_str()) && error.contains("set url"), "{error}");
    assert!(!error.contains("hidden"), "{error}");
    assert_eq!(other.log.count("initialize"), 0);
    let see = RawServer::start(|_: &Log, _: &Request| http("303 See Other", &["Location: /there"], "")).await;
    let error = call(&session(&only(settings(&see))), "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("HTTP 303") && error.contains("/there"), "{error}");
    assert!(error.contains("whether it did what it was asked is not known"), "{error}");
    let found =
        RawServer::start(|_: &Log, _: &Request| http("302 Found", &["Location: http://me:pw@192.0.2.7/"], "")).await;
    let error = call(&session(&only(settings(&found))), "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("set url to that address if it is right; whether it did"), "{error}");
    let round = RawServer::start(|_: &Log, _: &Request| http("307 Temporary Redirect", &["Location: /mcp"], "")).await;
    let error = call(&session(&only(settings(&round))), "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("more than 5 times"), "{error}");
}

/// A server of the transport of revision 2024-11-05.
async fn old(endpoint: String) -> RawServer {
    RawServer::start(move |log: &Log, request: &Request| {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/mcp") => Reply::Stream(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nevent: endpoint\ndata: {endpoint}\n\n"
            )),
            ("POST", "/messages?id=7") => {
                let answer = match request.message["method"].as_str().unwrap_or_default() {
                    "initialize" => result(request, raw_server::initialized(&json!("2024-11-05"))),
                    "tools/list" => result(request, json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})),
                    "tools/call" => result(request, json!({"content": [request.message["params"]["arguments"]["text"]]})),
                    _ => return http("202 Accepted", &[], "Accepted"),
                };
                let _ = log.events.send(format!("event: message\r\ndata: {answer}\r\n\r\n"));
                http("202 Accepted", &[], "Accepted")
            }
            _ => http("404 Not Found", &["Content-Type: text/html"], "Cannot POST /mcp"),
        }
    })
    .await
}

#[tokio::test]
async fn server_of_the_old_transport_is_spoken_to_in_it() {
    let server = old("/messages?id=7".to_owned()).await;
    let tools = only(settings(&server));
    let session = session(&tools);
    for n in 0..3 {
        assert_eq!(text(&session, "echo", json!({"text": n.to_string()})).await, n.to_string());
    }
    assert_eq!((server.log.count("GET"), tools.health()[0].restarts), (1, 0));
    tools.close().await;
}

#[tokio::test]
async fn server_of_the_old_transport_that_takes_a_post_is_recognised() {
    for post in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\nAccepted",
        "",
    ] {
        let server = RawServer::start(move |log: &Log, request: &Request| {
            let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nevent: endpoint\ndata: ./say\n\n";
            match (request.method.as_str(), request.path.as_str()) {
                ("GET", "/mcp") => Reply::Stream(stream.to_owned()),
                // It opens a stream whatever the method.
                ("POST", "/mcp") if post.is_empty() => Reply::Stream(stream.to_owned()),
                ("POST", "/mcp") => Reply::Whole(post.to_owned()),
                _ => {
                    let answer = match request.message["method"].as_str().unwrap_or_default() {
                        "initialize" => result(request, raw_server::initialized(&json!("2024-11-05"))),
                        "tools/list" => result(request, json!({"tools": [{"name": "echo"}]})),
                        _ => result(request, json!({"content": ["said"]})),
                    };
                    let _ = log.events.send(format!("event: message\ndata: {answer}\n\n"));
                    http("202 Accepted", &[], "")
                }
            }
        })
        .await;
        assert_eq!(text(&session(&only(settings(&server))), "echo", json!({})).await, "said", "{post:?}");
    }
}

#[tokio::test]
async fn answer_that_comes_over_the_stream_of_the_session_arrives() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: none\n\n",
        "HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n",
    ] {
        let server = RawServer::start(move |log: &Log, request: &Request| {
            if request.method == "GET" {
                return Reply::Stream(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hi\n\n"
                        .to_owned(),
                );
            }
            if !calls(request, "odd") {
                return usual(request);
            }
            let (events, answer) = (log.events.clone(), result(request, json!({"content": ["there"]})));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = events.send(format!("data: {answer}\n\n"));
            });
            Reply::Whole(reply.to_owned())
        })
        .await;
        let tools = only(settings(&server));
        let session = session(&tools);
        session.list(later()).await.unwrap();
        eventually("the stream is open", || async { (server.log.count("GET") > 0).then_some(()) }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(text(&session, "odd", json!({})).await, "there", "{reply}");
        assert_eq!(text(&session, "odd", json!({})).await, "there", "{reply}");
    }
}

#[tokio::test]
async fn old_transport_with_another_origin_is_refused_by_name() {
    let server = old("http://192.0.2.7:8080/messages".to_owned()).await;
    let error = call(&session(&only(settings(&server))), "echo", json!({})).await.unwrap_err().to_string();
    assert!(error.contains("HTTP+SSE") && error.contains("http://192.0.2.7:8080"), "{error}");
}
