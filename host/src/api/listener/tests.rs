//! Peers of every kind, on real sockets.

use super::*;
use axum::body::Body;
use axum::routing::get;
use futures_util::stream;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// A time limit that a test waits for.
const SOON: Duration = Duration::from_millis(200);
/// A time limit that no test reaches.
const LATER: Duration = Duration::from_secs(3_600);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Serves `/`, and `/endless` with a response that does not end.
async fn listen(connections: usize, times: Times, certificate: Option<Certificate>) -> SocketAddr {
    let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap(), connections, certificate).await.unwrap();
    listener.times = times;
    let address = listener.socket.local_addr().unwrap();
    let endless = async || Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 65_536])));
    let router = Router::new().route("/", get(async || "hello")).route("/endless", get(endless));
    tokio::spawn(listener.serve(router, CancellationToken::new()));
    address
}

/// Everything until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection is closed");
    String::from_utf8_lossy(&said).into_owned()
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut said = vec![0; 4_096];
    let read = timeout(PATIENCE, stream.read(&mut said)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&said[..read]).into_owned()
}

#[tokio::test]
async fn connection_without_a_complete_head_is_closed() {
    let times = Times { handshake: LATER, head: SOON, stall: LATER };
    let address = listen(8, times, None).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-a: ").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut idle).await.ends_with("hello"));
    for stream in [silent, slow, idle] {
        let said = rest(stream).await;
        assert!(!said.contains("200"), "{said}");
    }
}

#[tokio::test]
async fn connection_beyond_the_limit_receives_503() {
    let times = Times { handshake: LATER, head: LATER, stall: LATER };
    let address = listen(2, times, None).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.ends_with("hello"));
        open.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(REQUEST).await.unwrap();
    let said = rest(third).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("too_many_connections"), "{said}");
    assert!(said.contains("api.connections") && said.to_lowercase().contains("retry-after"), "{said}");
    drop(open.pop());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if ask(&mut stream).await.ends_with("hello") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place is free");
}

#[tokio::test]
async fn connection_of_a_peer_that_does_not_read_is_closed() {
    let times = Times { handshake: LATER, head: LATER, stall: SOON };
    let address = listen(1, times, None).await;
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let others = async {
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if ask(&mut stream).await.ends_with("hello") {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, others).await.expect("the only place is free");
    drop(deaf);
}

#[tokio::test]
async fn listener_with_a_certificate_accepts_tls_alone_and_bounds_handshakes() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificate = Certificate::load(&cert, &key).unwrap();
    let times = Times { handshake: SOON, head: LATER, stall: LATER };
    let address = listen(8, times, Some(certificate)).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([authority]).build().unwrap();
    let answer = client.get(format!("https://localhost:{}/", address.port())).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "hello");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(REQUEST).await.unwrap();
    assert!(!rest(plain).await.contains("HTTP"));
    rest(TcpStream::connect(address).await.unwrap()).await;
}
