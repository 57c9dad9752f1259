//! What the tests stand on.

use agentry_outbound::egress::{
    Client, Egress, EgressSettings, Exchange, HttpError, HttpGrant, PrivateNetwork, RequestBody, Stage,
};
use agentry_outbound::pattern::UrlPattern;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long anything may take that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A limit that is to be reached.
pub const SHORT: Duration = Duration::from_millis(200);

/// Nothing is opened.
pub fn closed() -> EgressSettings {
    EgressSettings {
        nameservers: Vec::new(),
        private: Vec::new(),
        proxy: None,
        ca_file: None,
        connect: PATIENCE,
        first_byte: PATIENCE,
        idle: PATIENCE,
        total: PATIENCE * 2,
    }
}

pub fn network(text: &str, port: Option<u16>) -> PrivateNetwork {
    PrivateNetwork { network: text.parse().unwrap(), port }
}

/// Loopback is opened.
pub fn open() -> EgressSettings {
    EgressSettings { private: vec![network("127.0.0.0/8", None), network("::1/128", None)], ..closed() }
}

pub fn pattern(text: &str) -> UrlPattern {
    text.parse().unwrap()
}

/// Everything that can be granted.
pub fn any() -> HttpGrant {
    HttpGrant { requests: vec![pattern("* http://*:*"), pattern("* https://*:*")], secrets: Vec::new() }
}

pub fn client(settings: EgressSettings) -> Client {
    Egress::new(settings).unwrap().client(any())
}

pub fn exchange() -> Exchange {
    Exchange {
        until: Instant::now() + PATIENCE * 3,
        connect: None,
        first_byte: None,
        between_bytes: None,
        request_bytes: 1 << 20,
        response_bytes: 1 << 20,
    }
}

pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub fn full(text: impl Into<Bytes>) -> RequestBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn request(url: impl AsRef<str>) -> http::Request<RequestBody> {
    http::Request::get(url.as_ref()).body(empty()).unwrap()
}

/// A response whose body came whole.
#[derive(Debug)]
pub struct Answer {
    pub head: http::response::Parts,
    pub body: Bytes,
}

pub async fn send(
    client: &Client,
    request: http::Request<RequestBody>,
    exchange: Exchange,
) -> Result<Answer, HttpError> {
    let sent = async {
        let (head, body) = client.send(request, exchange).await?.into_parts();
        Ok(Answer { head, body: body.collect().await?.to_bytes() })
    };
    tokio::time::timeout(PATIENCE * 2, sent).await.expect("the exchange ends")
}

pub async fn get(client: &Client, url: impl AsRef<str>) -> Result<Answer, HttpError> {
    send(client, request(url), exchange()).await
}

/// Waits for what is to happen.
pub async fn soon<F: Future>(event: F) -> F::Output {
    tokio::time::timeout(PATIENCE, event).await.expect("it happens")
}

pub fn timed_out(stage: Stage, limit: Duration) -> HttpError {
    HttpError::TimedOut { stage, limit }
}

/// A server whose every connection is handled by one function.
pub struct Server {
    pub address: SocketAddr,
    accepted: watch::Receiver<usize>,
}

impl Server {
    pub async fn new<F, H>(handle: H) -> Server
    where
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Server::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), handle)
    }

    pub fn on<F, H>(listener: TcpListener, handle: H) -> Server
    where
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let (count, accepted) = watch::channel(0);
        let handle = Arc::new(handle);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                tokio::spawn(handle(stream));
            }
        });
        Server { address, accepted }
    }

    /// Answers every request on every connection with the same bytes, then closes it.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Server {
        let bytes = Arc::new(bytes.into());
        Server::new(move |stream| answer(stream, bytes.clone())).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }
}

async fn answer(mut stream: TcpStream, bytes: Arc<Vec<u8>>) {
    head(&mut stream).await;
    // The client may have had enough.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

/// Reads a request's head.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Waits for the peer's end of the connection, and reads what it still sends.
pub async fn closed_by_peer(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 4_096];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}

/// A server that answers 200 with `ok` and keeps its connections, and tells what it was asked.
pub async fn listening() -> (Server, mpsc::UnboundedReceiver<String>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let server = Server::new(move |stream| keep(stream, asked.clone())).await;
    (server, requests)
}

/// Answers with `ok` until the peer closes.
pub async fn keep<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, asked: mpsc::UnboundedSender<String>) {
    loop {
        let mut asks = head(&mut stream).await;
        if asks.is_empty() {
            return;
        }
        let length = asks.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        asks.push_str(&String::from_utf8_lossy(&body));
        let _ = asked.send(asks);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}
