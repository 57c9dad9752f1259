//! A plain HTTP/1.1 server: it answers as its play says, and remembers what it heard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::patience::{eventually, holds};

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Play {
    /// An answer: status, headers, body.
    Reply(u16, Vec<(String, String)>, Vec<u8>),
    /// An answer that waits for the test to open the gate.
    Behind(watch::Receiver<bool>, Box<Play>),
    /// Nothing, until the client goes away.
    Hang,
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, and nothing more until the client goes away.
    Stall(Vec<u8>),
    /// These bytes, and a space every so often for as long as the client stays.
    Drip(Vec<u8>, Duration),
}

impl Play {
    /// A text with a status.
    pub fn text(status: u16, body: impl Into<String>) -> Play {
        Play::Reply(status, vec![("content-type".into(), "text/plain".into())], body.into().into_bytes())
    }

    /// JSON with a status.
    pub fn json(status: u16, body: &serde_json::Value) -> Play {
        Play::Reply(status, vec![("content-type".into(), "application/json".into())], body.to_string().into_bytes())
    }
}

/// A request as it was heard.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its headers, the names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

impl Request {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

type Script = Arc<dyn Fn(&Request) -> Play + Send + Sync>;

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    gone: AtomicUsize,
}

/// A server on a port of its own. Dropped: gone, with its connections.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// Listens on 127.0.0.1.
    pub async fn start(script: impl Fn(&Request) -> Play + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, script): (Arc<Seen>, Script) = (Arc::default(), Arc::new(script));
        let accepting = tokio::spawn(accept(listener, seen.clone(), script));
        Server { address, seen, accepting }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections were made, whether or not anything was asked.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().expect("no panic while it is held").clone()
    }

    /// Waits until so many requests have come.
    pub async fn asked(&self, times: usize) {
        eventually(&format!("the server is asked {times} times"), async || {
            let requests = self.requests();
            holds(requests.len() >= times, || format!("{requests:?}"))
        })
        .await;
    }

    /// Waits until so many clients have gone away from a request that had no answer.
    pub async fn left_alone(&self, times: usize) {
        eventually(&format!("{times} clients go away"), async || {
            let gone = self.seen.gone.load(Ordering::SeqCst);
            holds(gone >= times, || format!("{gone} have"))
        })
        .await;
    }
}

async fn accept(listener: TcpListener, seen: Arc<Seen>, script: Script) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                seen.connections.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(stream, seen.clone(), script.clone()));
            }
            Some(_) = open.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>, script: Script) {
    let mut pending = Vec::new();
    while let Some(request) = read(&mut stream, &mut pending).await {
        let mut play = script(&request);
        seen.requests.lock().expect("no panic while it is held").push(request);
        if let Play::Behind(mut gate, then) = play {
            tokio::select! {
                _ = gate.wait_for(|open| *open) => play = *then,
                () = silence(&mut stream) => play = Play::Hang,
            }
        }
        let bytes = match play {
            Play::Reply(status, headers, body) => answer(status, &headers, &body),
            Play::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await; // the client may be gone
                return;
            }
            Play::Stall(bytes) => {
                if stream.write_all(&bytes).await.is_ok() {
                    silence(&mut stream).await;
                }
                return;
            }
            Play::Drip(mut bytes, pause) => {
                while stream.write_all(&bytes).await.is_ok() {
                    bytes = b" ".to_vec();
                    tokio::time::sleep(pause).await; // that is what it is to drip
                }
                return;
            }
            Play::Behind(..) | Play::Hang => {
                silence(&mut stream).await;
                seen.gone.fetch_add(1, Ordering::SeqCst);
                return;
            }
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Until the client has gone. What it still says is of no interest.
async fn silence(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// The next request, if there is one. `pending` is what came after the last one.
async fn read(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<Request> {
    let head = loop {
        if let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            break pending.drain(..end + 4).collect::<Vec<u8>>();
        }
        more(stream, pending).await?;
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let pairs = lines.filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<_, _> =
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
    while pending.len() < length {
        more(stream, pending).await?;
    }
    let body = String::from_utf8_lossy(&pending.drain(..length).collect::<Vec<u8>>()).into_owned();
    Some(Request { method, target, headers, body })
}

async fn more(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<()> {
    let read = stream.read_buf(pending).await.ok()?;
    (read > 0).then_some(())
}

fn answer(status: u16, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As Asked\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}
