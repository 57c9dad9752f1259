//! Servers that answer badly.

use crate::house::*;
use agentry_outbound::egress::HttpError;
use tokio::io::AsyncWriteExt;

async fn answered(bytes: impl Into<Vec<u8>>) -> Result<Answer, HttpError> {
    let server = Server::answering(bytes).await;
    let error = get(&client(open()), server.url("/secret-path?q=secret-query")).await;
    if let Err(error) = &error {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret-"), "{text}");
    }
    error
}

fn is_broken(answer: &Result<Answer, HttpError>) -> bool {
    matches!(answer, Err(HttpError::Broken { .. }))
}

#[tokio::test]
async fn a_good_answer_comes_through() {
    let answer = answered("HTTP/1.1 201 Created\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (201, &b"hello"[..]));
    assert_eq!(answer.head.headers["x-a"], "1");
    assert!(answer.head.extensions.is_empty(), "they hold the server's address");
}

#[tokio::test]
async fn http_1_0_until_the_connection_is_closed_is_an_answer() {
    let answer = answered("HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
    assert_eq!(&answer.body[..], b"until the end");
}

#[tokio::test]
async fn chunks_and_trailers_come_through() {
    let answer =
        answered("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").await;
    let answer = answer.unwrap();
    assert_eq!(&answer.body[..], b"abcde");
    assert!(!answer.head.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn headers_of_the_connection_stay_with_the_host() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
                upgrade: h2c\r\nx-end: 1\r\ncontent-length: 0\r\n\r\n";
    let answer = answered(head).await.unwrap();
    let mut names: Vec<_> = answer.head.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-end"]);
}

#[tokio::test]
async fn a_declared_length_above_the_cap_is_refused_before_it_is_read() {
    for length in ["1048577", "9223372036854775807"] {
        let server = Server::new(move |mut stream| async move {
            head(&mut stream).await;
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await;
            // Not a byte of it comes.
            closed_by_peer(&mut stream).await;
        });
        let error = get(&client(open()), server.await.url("/")).await.unwrap_err();
        assert_eq!(error, HttpError::ResponseTooLarge { limit: 1 << 20 });
    }
}

#[tokio::test]
async fn the_length_in_the_answer_to_head_is_of_no_body() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await;
    let mut request = request(server.url("/"));
    *request.method_mut() = http::Method::HEAD;
    let answer = send(&client(open()), request, exchange()).await.unwrap();
    assert_eq!((answer.head.headers["content-length"].as_bytes(), answer.body.len()), (&b"99999999999"[..], 0));
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_at_the_cap() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 4_096], b"\r\n".to_vec()].concat();
        while stream.write_all(&chunk).await.is_ok() {}
    });
    let error = get(&client(open()), server.await.url("/")).await.unwrap_err();
    assert_eq!(error, HttpError::ResponseTooLarge { limit: 1 << 20 });
}

#[tokio::test]
async fn the_cap_is_exact() {
    let server = Server::answering("HTTP/1.0 200 OK\r\n\r\n0123456789").await;
    let client = client(open());
    for (cap, fits) in [(10, true), (9, false), (0, false)] {
        let exchange = agentry_outbound::egress::Exchange { response_bytes: cap, ..exchange() };
        let answer = send(&client, request(server.url("/")), exchange).await;
        match answer {
            Ok(answer) => assert!(fits && answer.body.len() == 10),
            Err(error) => assert_eq!((error, fits), (HttpError::ResponseTooLarge { limit: cap }, false)),
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let broken = [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for bytes in broken {
        let answer = answered(bytes).await;
        assert!(is_broken(&answer), "{bytes:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    let garbage = [
        "220 mail.test ESMTP\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\u{0}\u{1}\u{2}\u{3}",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    ];
    for bytes in garbage {
        let answer = answered(bytes).await;
        assert!(is_broken(&answer), "{bytes:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_chunk_of_no_size_is_no_answer() {
    for size in ["zz", "-1", "", "fffffffffffffffff", "1 1", "0x1"] {
        let answer =
            answered(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\na\r\n0\r\n\r\n")).await;
        assert!(is_broken(&answer), "{size:?}: {answer:?}");
    }
    // A size that is one, of more than anybody may send.
    let answer = answered("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\na").await;
    assert!(is_broken(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_head_without_an_end_is_too_large() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let error = get(&client(open()), server.await.url("/")).await.unwrap_err();
    assert_eq!(error, HttpError::HeadTooLarge);
}

#[tokio::test]
async fn a_head_of_too_many_headers_is_too_large() {
    let many = "x: 1\r\n".repeat(101);
    let error = answered(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n")).await.unwrap_err();
    assert_eq!(error, HttpError::HeadTooLarge);
}

/// `abc` (RFC 1952). What is not inflated here would not be inflated if it were a bomb.
const ZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x4c\x4a\x06\x00\xc2\x41\x24\x35\x03\x00\x00\x00";

#[tokio::test]
async fn what_is_compressed_stays_compressed() {
    for coding in ["gzip", "br", "zstd", "deflate"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", ZIPPED.len());
        let answer = answered([head.as_bytes(), ZIPPED].concat()).await.unwrap();
        assert_eq!((&answer.body[..], answer.head.headers["content-encoding"].as_bytes()), (ZIPPED, coding.as_bytes()));
    }
}

#[tokio::test]
async fn another_protocol_is_not_switched_to() {
    let answer =
        answered("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert!(is_broken(&answer), "{answer:?}");
}

#[tokio::test]
async fn hints_before_the_answer_are_passed_over() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(3);
    let answer = answered(format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await.unwrap();
    assert_eq!(answer.head.status, 200);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (inside, _requests) = listening().await;
    for status in [301, 302, 303, 307, 308] {
        let head = format!("HTTP/1.1 {status} Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", inside.url("/"));
        let answer = answered(head).await.unwrap();
        assert_eq!(answer.head.status, status);
        assert_eq!(answer.head.headers["location"], inside.url("/"));
    }
    assert_eq!(inside.accepted(), 0);
}
