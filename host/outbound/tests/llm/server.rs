//! A server with a script: it records what it is asked, and plays what it is told, good manners or bad.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Play {
    /// Answers.
    Reply { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Answers with what was in the request's headers.
    Echo { status: u16 },
    /// Says nothing, until the client goes.
    HangBeforeHead,
    /// Sends the head of a success and these bytes of a longer body, and then nothing, until the client goes.
    HangInBody(Vec<u8>),
    /// Sends a byte at a time, and never an end.
    Trickle,
    /// Closes without a word.
    CloseBeforeHead,
    /// Sends the head of a success and these bytes of a longer body, and closes.
    CloseInBody(Vec<u8>),
    /// Sends these bytes, which are no HTTP, and closes.
    Garbage(Vec<u8>),
    /// Sends the head of a success and zeros without end.
    Flood,
}

/// JSON with a status.
pub fn reply(status: u16, body: Value) -> Play {
    let headers = vec![("content-type".into(), "application/json".into())];
    Play::Reply { status, headers, body: body.to_string().into_bytes() }
}

/// Bytes with a status and a content type.
pub fn raw(status: u16, content_type: &str, body: &str) -> Play {
    Play::Reply { status, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
}

impl Play {
    /// With a header.
    pub fn with(mut self, name: &str, value: &str) -> Play {
        let Play::Reply { headers, .. } = &mut self else { panic!("only a reply has headers") };
        headers.push((name.into(), value.into()));
        self
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// What happens at the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request is there.
    Asked,
    /// The client went while something was owed to it.
    Gone,
}

/// See the module. It ends with the test's runtime.
pub struct Server {
    pub address: SocketAddr,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
}

/// What each connection has.
#[derive(Clone)]
struct Stage {
    script: Arc<Mutex<VecDeque<Play>>>,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Server {
    /// Listens, and plays.
    pub async fn new(script: impl IntoIterator<Item = Play>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        let stage = Stage { script, recorded: recorded.clone(), events: sender };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, stage.clone()));
            }
        });
        Server { address, recorded, events: receiver.into() }
    }

    /// What was asked so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.recorded.lock().unwrap().clone()
    }

    /// The one request that there was.
    pub fn only(&self) -> Recorded {
        let mut recorded = self.recorded();
        assert_eq!(recorded.len(), 1, "{recorded:?}");
        recorded.remove(0)
    }

    /// Waits for an event.
    pub async fn sees(&self, event: Event) {
        let mut events = self.events.lock().await;
        let seen = async { while events.recv().await.unwrap() != event {} };
        tokio::time::timeout(super::site::PATIENCE, seen).await.unwrap();
    }
}

async fn serve(mut stream: TcpStream, stage: Stage) {
    let mut buffer = Vec::new();
    while let Some(recorded) = request(&mut stream, &mut buffer).await {
        let headers = recorded.headers.clone();
        stage.recorded.lock().unwrap().push(recorded);
        let over = raw(418, "text/plain", "the script is over");
        let play = stage.script.lock().unwrap().pop_front().unwrap_or(over);
        // Nobody listens where a test does not care.
        let _ = stage.events.send(Event::Asked);
        match act(&mut stream, play, &headers).await {
            Some(Event::Gone) => {
                let _ = stage.events.send(Event::Gone);
                return;
            }
            Some(Event::Asked) => {}
            None => return,
        }
    }
}

/// Plays; `Asked`: the connection lives on; `None`: the server closes it.
async fn act(stream: &mut TcpStream, play: Play, headers: &BTreeMap<String, String>) -> Option<Event> {
    const LONGER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    match play {
        Play::Reply { status, headers, body } => send(stream, status, &headers, &body).await,
        Play::Echo { status } => {
            let words = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ");
            let message = serde_json::json!({"content": words, "role": "assistant"});
            let body = serde_json::json!({"error": {"message": words, "type": "server_error"},
                "choices": [{"message": message, "finish_reason": "stop"}]});
            let body =
                if status == 200 { serde_json::json!({"choices": body["choices"], "model": words}) } else { body };
            let headers = vec![("x-request-id".into(), words)];
            send(stream, status, &headers, body.to_string().as_bytes()).await
        }
        Play::HangBeforeHead => gone(stream).await,
        Play::HangInBody(begin) => {
            stream.write_all(LONGER.as_bytes()).await.ok()?;
            stream.write_all(&begin).await.ok()?;
            gone(stream).await
        }
        Play::Trickle => {
            stream.write_all(ENDLESS.as_bytes()).await.ok()?;
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(b"1\r\n \r\n").await.is_ok() {
                pace.tick().await;
            }
            Some(Event::Gone)
        }
        Play::Flood => {
            stream.write_all(ENDLESS.as_bytes()).await.ok()?;
            let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            Some(Event::Gone)
        }
        Play::CloseBeforeHead => None,
        Play::CloseInBody(begin) => {
            stream.write_all(LONGER.as_bytes()).await.ok()?;
            stream.write_all(&begin).await.ok()?;
            stream.shutdown().await.ok()?;
            None
        }
        Play::Garbage(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.shutdown().await.ok()?;
            None
        }
    }
}

async fn send(stream: &mut TcpStream, status: u16, headers: &[(String, String)], body: &[u8]) -> Option<Event> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()?;
    Some(Event::Asked)
}

/// Waits until the client goes.
async fn gone(stream: &mut TcpStream) -> Option<Event> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    Some(Event::Gone)
}

/// Reads a request; `None`: there is none.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Recorded> {
    let end = loop {
        match buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => break end,
            None => more(stream, buffer).await?,
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let headers: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Recorded { method: first.next().unwrap(), target: first.next().unwrap(), headers, body })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(n) if n > 0 => Some(()),
        _ => None,
    }
}
