//! HTTP/2: streams of one connection, and what becomes of the others when one ends.

use crate::house::*;
use crate::tls::{Authority, named, url};
use agentry_outbound::egress::{EgressSettings, HttpError, Stage};
use bytes::Bytes;
use h2::server::SendResponse;
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

/// A server of HTTP/2, with one function for every request.
async fn http2<F, H>(authority: &Authority, answer: H) -> Server
where
    H: Fn(http::Request<h2::RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (acceptor, answer) = (authority.certify(named("localhost"), b"h2"), Arc::new(answer));
    Server::new(move |stream| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        async move {
            let stream: TlsStream<TcpStream> = acceptor.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond));
            }
        }
    })
    .await
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_speaks_it() {
    let authority = Authority::new();
    let server = http2(&authority, |request, mut respond| async move {
        let port = request.uri().port_u16().unwrap();
        assert_eq!(request.uri().to_string(), format!("https://localhost:{port}/"));
        assert!(!request.headers().contains_key("host"));
        let response = http::Response::builder().header("x-a", "1").body(()).unwrap();
        respond.send_response(response, false).unwrap().send_data("ok".into(), true).unwrap();
    });
    let server = server.await;
    let client = client(authority.settings());
    let (one, other) = tokio::join!(get(&client, url(&server, "localhost")), get(&client, url(&server, "localhost")));
    for answer in [one.unwrap(), other.unwrap(), get(&client, url(&server, "localhost")).await.unwrap()] {
        assert_eq!((&answer.body[..], answer.head.version), (&b"ok"[..], http::Version::HTTP_2));
    }
}

#[tokio::test]
async fn caps_and_limits_hold_over_http_2() {
    let authority = Authority::new();
    let server = http2(&authority, |_, mut respond| async move {
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        while body.send_data(vec![b'x'; 1_024].into(), false).is_ok() {
            body.reserve_capacity(1_024);
            if !matches!(std::future::poll_fn(|cx| body.poll_capacity(cx)).await, Some(Ok(_))) {
                return;
            }
        }
    });
    let server = server.await;
    let error = get(&client(authority.settings()), url(&server, "localhost")).await.unwrap_err();
    assert_eq!(error, HttpError::ResponseTooLarge { limit: 1 << 20 });

    let server = http2(&authority, |_, respond| async move {
        // Held, and never answered.
        std::future::pending::<()>().await;
        drop(respond);
    });
    let server = server.await;
    let client = client(EgressSettings { first_byte: SHORT, ..authority.settings() });
    let error = get(&client, url(&server, "localhost")).await.unwrap_err();
    assert_eq!(error, timed_out(Stage::FirstByte, SHORT));
}

#[tokio::test]
async fn dropping_an_exchange_resets_its_stream() {
    let authority = Authority::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = http2(&authority, move |_, mut respond| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(None);
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = tell.send(reset.ok());
        }
    });
    let server = server.await;
    let client = client(authority.settings());
    let sending = tokio::spawn({
        let (client, url) = (client.clone(), url(&server, "localhost"));
        async move { client.send(request(url), exchange()).await.map(drop) }
    });
    assert_eq!(soon(told.recv()).await, Some(None));
    sending.abort();
    assert_eq!(soon(told.recv()).await, Some(Some(h2::Reason::CANCEL)));
}

#[tokio::test]
async fn a_stream_that_is_reset_is_broken_and_a_head_that_is_too_large_is_no_answer() {
    let authority = Authority::new();
    let server = http2(&authority, |_, mut respond| async move {
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data("half".into(), false).unwrap();
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let server = server.await;
    let error = get(&client(authority.settings()), url(&server, "localhost")).await.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. }), "{error:?}");

    let server = http2(&authority, |_, mut respond| async move {
        let mut response = http::Response::new(());
        for n in 0..100 {
            response.headers_mut().append("x-long", format!("{n}{}", "x".repeat(1_000)).parse().unwrap());
        }
        let _ = respond.send_response(response, true);
    });
    let server = server.await;
    let error = get(&client(authority.settings()), url(&server, "localhost")).await.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. } | HttpError::HeadTooLarge), "{error:?}");
}

/// A server that answers `/` with "ok", begins an answer to `/half` and does not end it, and tells what it was asked, and how `/half`
/// and `/never`, which it does not answer at all, were given up.
async fn telling(authority: &Authority) -> (Server, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = http2(authority, move |request, mut respond| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(request.uri().path().to_owned());
            let reset = match request.uri().path() {
                "/never" => std::future::poll_fn(|cx| respond.poll_reset(cx)).await,
                "/half" => {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data("half".into(), false).unwrap();
                    std::future::poll_fn(|cx| body.poll_reset(cx)).await
                }
                _ => {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data("ok".into(), true).unwrap();
                    return;
                }
            };
            let _ = tell.send(format!("{reset:?}"));
        }
    });
    (server.await, told)
}

#[tokio::test]
async fn what_is_dropped_ends_its_stream_and_the_connection_serves_on() {
    let authority = Authority::new();
    let (server, mut told) = telling(&authority).await;
    let client = client(authority.settings());
    let at = |path: &str| format!("{}{}", url(&server, "localhost").trim_end_matches('/'), path);
    assert_eq!(get(&client, at("/")).await.unwrap().body, "ok");
    assert_eq!(soon(told.recv()).await.as_deref(), Some("/"));
    // Before its head.
    let sending = tokio::spawn({
        let (client, url) = (client.clone(), at("/never"));
        async move { client.send(request(url), exchange()).await.map(drop) }
    });
    assert_eq!(soon(told.recv()).await.as_deref(), Some("/never"));
    sending.abort();
    assert_eq!(soon(told.recv()).await.as_deref(), Some("Ok(CANCEL)"));
    // Within its body, by the guest and by a limit.
    let mut body = client.send(request(at("/half")), exchange()).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    drop(body);
    assert_eq!(soon(told.recv()).await.as_deref(), Some("/half"));
    assert_eq!(soon(told.recv()).await.as_deref(), Some("Ok(CANCEL)"));
    let capped = agentry_outbound::egress::Exchange { response_bytes: 3, ..exchange() };
    let error = send(&client, request(at("/half")), capped).await.unwrap_err();
    assert_eq!(error, HttpError::ResponseTooLarge { limit: 3 });
    assert_eq!(soon(told.recv()).await.as_deref(), Some("/half"));
    assert_eq!(soon(told.recv()).await.as_deref(), Some("Ok(CANCEL)"));
    assert_eq!(get(&client, at("/")).await.unwrap().body, "ok");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_goes_away_breaks_what_it_has_not_answered_and_is_connected_to_anew() {
    let authority = Authority::new();
    let acceptor = authority.certify(named("localhost"), b"h2");
    let server = Server::new(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream: TlsStream<TcpStream> = acceptor.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            if request.uri().path() == "/" {
                body.send_data("ok".into(), true).unwrap();
            } else {
                body.send_data("half".into(), false).unwrap();
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            while connection.accept().await.is_some() {}
        }
    });
    let server = server.await;
    let client = client(authority.settings());
    let half = format!("{}half", url(&server, "localhost"));
    let error = get(&client, half).await.unwrap_err();
    assert!(matches!(&error, HttpError::Broken { .. }), "{error:?}");
    assert_eq!(get(&client, url(&server, "localhost")).await.unwrap().body, "ok");
    assert_eq!(server.accepted(), 2);
}

/// RFC 9113, 9.1.1 would allow it: the certificate is good for both, and both have the one address. But each name is judged, and a
/// connection is the name's that it was made for.
#[tokio::test]
async fn a_connection_is_never_used_for_another_name() {
    let authority = Authority::new();
    let mut both = named("localhost");
    both.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    let acceptor = authority.certify(both, b"h2");
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = Server::new(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let stream: TlsStream<TcpStream> = acceptor.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut names = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                names.push(request.uri().host().unwrap().to_owned());
                let _ = tell.send(names.clone());
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        }
    });
    let server = server.await;
    let client = client(authority.settings());
    for host in ["localhost", "127.0.0.1", "localhost"] {
        get(&client, url(&server, host)).await.unwrap();
    }
    assert_eq!(soon(told.recv()).await.unwrap(), ["localhost"]);
    assert_eq!(soon(told.recv()).await.unwrap(), ["127.0.0.1"]);
    assert_eq!(soon(told.recv()).await.unwrap(), ["localhost", "localhost"]);
    assert_eq!(server.accepted(), 2);
}
