//! A proxy in this process: it makes tunnels (CONNECT) and hands plain requests on, all to one address whatever name is asked for, as
//! a proxy does that resolves names itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Behaviour of a proxy.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Connects.
    Connects,
    /// Wants these credentials, as `Basic` encodes them.
    Wants(&'static str),
    /// Answers with a status and a body that repeats the request's head.
    Refuses(u16),
    /// Says nothing, until the client goes.
    Hangs,
    /// Closes the connection.
    Closes,
}

/// See the module. It ends with the test's runtime.
pub struct Proxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One before an address.
    pub async fn new(manner: Manner, target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manner.clone(), target, seen.clone()));
            }
        });
        Proxy { address, heads }
    }

    /// The first lines of what it was asked.
    pub fn asked(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads.iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// Its address, with credentials.
    pub fn url(&self, credentials: &str) -> agentry_outbound::Proxy {
        format!("http://{credentials}{}", self.address).parse().unwrap()
    }
}

async fn serve(stream: TcpStream, manner: Manner, target: SocketAddr, heads: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(stream.read_line(&mut head).await, Ok(1..)) {
            return;
        }
    }
    heads.lock().unwrap().push(head.clone());
    let first = head.lines().next().unwrap_or_default().to_owned();
    let is_tunnel = first.starts_with("CONNECT ");
    let status = match manner {
        Manner::Connects => 200,
        Manner::Wants(basic) => {
            let sent = head.lines().any(|line| {
                line.to_ascii_lowercase().starts_with("proxy-authorization:")
                    && line.ends_with(&format!("Basic {basic}"))
            });
            if sent { 200 } else { 407 }
        }
        Manner::Refuses(status) => status,
        Manner::Hangs => {
            let mut rest = [0; 64];
            while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            return;
        }
        Manner::Closes => return,
    };
    if status != 200 {
        let answer =
            format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{head}", head.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    let Ok(mut onward) = TcpStream::connect(target).await else { return };
    if is_tunnel {
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
    } else {
        // `GET http://name/path HTTP/1.1` becomes `GET /path HTTP/1.1`.
        let mut words = first.split(' ');
        let (method, url) = (words.next().unwrap(), words.next().unwrap());
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        let rest = head.split_once("\r\n").unwrap().1;
        let kept: String = rest
            .lines()
            .filter(|line| !line.to_ascii_lowercase().starts_with("proxy-"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let _ = onward.write_all(format!("{method} /{path} HTTP/1.1\r\n{kept}").as_bytes()).await;
    }
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}
