//! Servers that take their time. Each limit is short where it is to be reached, and all others long.

use crate::house::*;
use agentry_outbound::egress::{EgressSettings, Exchange, HttpError, Stage};
use http_body_util::{BodyExt, StreamBody};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// How often a server that trickles sends a byte.
const DRIP: Duration = Duration::from_millis(5);

/// Sends a text over and over, a byte at a time, until the peer has had enough.
async fn trickle(stream: &mut TcpStream, text: &[u8]) {
    let mut clock = tokio::time::interval(DRIP);
    for byte in text.iter().cycle() {
        clock.tick().await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

/// A server that reads a request, says something, and then nothing until the peer goes.
async fn stalling(says: &'static str) -> Server {
    Server::new(move |mut stream| async move {
        head(&mut stream).await;
        stream.write_all(says.as_bytes()).await.unwrap();
        closed_by_peer(&mut stream).await;
    })
    .await
}

async fn error(settings: EgressSettings, url: String) -> HttpError {
    let began = Instant::now();
    let error = get(&client(settings), url).await.unwrap_err();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    error
}

fn first_byte() -> EgressSettings {
    EgressSettings { first_byte: SHORT, ..open() }
}

#[tokio::test]
async fn a_server_that_never_accepts_is_given_up_on() {
    // The kernel accepts for it, and it never reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    assert_eq!(error(first_byte(), url).await, timed_out(Stage::FirstByte, SHORT));
}

#[tokio::test]
async fn a_connection_that_never_comes_is_given_up_on() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // When its queue is full, the kernel answers nobody any more.
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    let settings = EgressSettings { connect: SHORT, ..open() };
    assert_eq!(error(settings, format!("http://{address}/")).await, timed_out(Stage::Connect, SHORT));
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_on() {
    let server = Server::new(|mut stream| async move { closed_by_peer(&mut stream).await }).await;
    let settings = EgressSettings { connect: SHORT, ..open() };
    let url = format!("https://{}/", server.address);
    assert_eq!(error(settings, url).await, timed_out(Stage::Connect, SHORT));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_on() {
    let server = stalling("").await;
    assert_eq!(error(first_byte(), server.url("/")).await, timed_out(Stage::FirstByte, SHORT));
}

#[tokio::test]
async fn a_head_that_trickles_is_given_up_on() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        trickle(&mut stream, b"x: 1\r\n").await;
    })
    .await;
    assert_eq!(error(first_byte(), server.url("/")).await, timed_out(Stage::FirstByte, SHORT));
}

#[tokio::test]
async fn a_flood_of_hints_is_no_answer() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {}
    })
    .await;
    assert_eq!(error(first_byte(), server.url("/")).await, timed_out(Stage::FirstByte, SHORT));
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_on() {
    let settings = || EgressSettings { idle: SHORT, ..open() };
    for says in ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let server = stalling(says).await;
        assert_eq!(error(settings(), server.url("/")).await, timed_out(Stage::Body, SHORT));
    }
}

#[tokio::test]
async fn a_body_that_trickles_ends_with_its_exchange() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        trickle(&mut stream, b"x").await;
    })
    .await;
    let settings = EgressSettings { total: SHORT, ..open() };
    assert_eq!(error(settings, server.url("/")).await, timed_out(Stage::Total, SHORT));
}

#[tokio::test]
async fn a_body_that_never_pauses_ends_with_its_exchange() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    })
    .await;
    let client = client(EgressSettings { total: SHORT, ..open() });
    let exchange = Exchange { response_bytes: u64::MAX, ..exchange() };
    let error = send(&client, request(server.url("/")), exchange).await.unwrap_err();
    assert_eq!(error, timed_out(Stage::Total, SHORT));
}

#[tokio::test]
async fn a_body_whose_pieces_are_in_time_may_take_longer_than_one() {
    let server = Server::new(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n").await.unwrap();
        trickle(&mut stream, b"x").await;
    })
    .await;
    let idle = SHORT * 5;
    let began = Instant::now();
    let answer = get(&client(EgressSettings { idle, ..open() }), server.url("/")).await.unwrap();
    assert_eq!(answer.body.len(), 300);
    assert!(began.elapsed() > idle, "too quick to show anything: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_reader_is_not_the_servers_fault() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let client = client(EgressSettings { idle: SHORT, ..open() });
    let body = client.send(request(server.url("/")), exchange()).await.unwrap().into_body();
    let mut clock = tokio::time::interval(SHORT * 2);
    clock.tick().await;
    clock.tick().await;
    assert_eq!(&body.collect().await.unwrap().to_bytes()[..], b"hello");
}

#[tokio::test]
async fn the_tasks_end_is_the_exchanges_end() {
    let server = stalling("").await;
    let client = client(open());
    let exchange = Exchange { until: Instant::now() + SHORT, ..exchange() };
    let error = send(&client, request(server.url("/")), exchange).await.unwrap_err();
    assert!(matches!(error, HttpError::TimedOut { stage: Stage::Total, limit } if limit <= SHORT), "{error:?}");
    // Nothing is even begun when it is over.
    let accepted = server.accepted();
    let over = Exchange { until: Instant::now(), ..exchange };
    let error = send(&client, request(server.url("/")), over).await.unwrap_err();
    assert_eq!((error, server.accepted()), (timed_out(Stage::Total, Duration::ZERO), accepted));
}

#[tokio::test]
async fn the_shorter_of_a_guests_wish_and_the_operators_limit_holds() {
    let server = stalling("").await;
    for (own, wish, holds) in [(PATIENCE, SHORT, SHORT), (SHORT, PATIENCE, SHORT), (SHORT, Duration::MAX, SHORT)] {
        let client = client(EgressSettings { first_byte: own, ..open() });
        let exchange = Exchange { first_byte: Some(wish), ..exchange() };
        let error = send(&client, request(server.url("/")), exchange).await.unwrap_err();
        assert_eq!(error, timed_out(Stage::FirstByte, holds));
    }
    let server = Server::new(|mut stream| async move { closed_by_peer(&mut stream).await }).await;
    let exchange = Exchange { connect: Some(SHORT), ..exchange() };
    let error = send(&client(open()), request(format!("https://{}/", server.address)), exchange).await.unwrap_err();
    assert_eq!(error, timed_out(Stage::Connect, SHORT));
    let server = stalling("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
    let exchange = Exchange { between_bytes: Some(SHORT), ..exchange };
    let error = send(&client(open()), request(server.url("/")), exchange).await.unwrap_err();
    assert_eq!(error, timed_out(Stage::Body, SHORT));
}

#[tokio::test]
async fn a_server_that_never_reads_is_given_up_on() {
    let (listener, settings) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), first_byte());
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let endless = futures_util::stream::repeat_with(|| Ok(http_body::Frame::data(vec![b'x'; 1 << 16].into())));
    let request = http::Request::post(url).body(StreamBody::new(endless).boxed_unsync()).unwrap();
    let exchange = Exchange { request_bytes: u64::MAX, ..exchange() };
    let error = send(&client(settings), request, exchange).await.unwrap_err();
    assert_eq!(error, timed_out(Stage::FirstByte, SHORT));
}
