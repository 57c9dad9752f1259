//! A way to a service that can be cut: connections end, new ones are refused, until it is restored.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

use reqwest::Url;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};

/// A local port that leads to a service.
pub struct Forward {
    port: u16,
    to: (String, u16),
    accepting: Option<JoinHandle<()>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Forward {
    /// A way to the service of a URL, cut as yet.
    pub fn to(url: &str, default_port: u16) -> Self {
        let url: Url = url.parse().expect("a URL");
        let to = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(default_port));
        Self { port: free_port(), to, accepting: None, connections: Arc::default() }
    }

    /// The URL with this way in place of the service's address.
    pub fn through(&self, url: &str) -> String {
        let mut url: Url = url.parse().expect("a URL");
        url.set_host(Some("127.0.0.1")).expect("a host fits");
        url.set_port(Some(self.port)).expect("a port fits");
        url.to_string()
    }

    /// The local port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets connections through.
    pub async fn restore(&mut self) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.expect("the port is still free");
        let (to, connections) = (self.to.clone(), self.connections.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let to = to.clone();
                let connection = tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await; // either end may go
                    }
                });
                connections.lock().expect("no panic while it is held").push(connection.abort_handle());
            }
        }));
    }

    /// Ends all connections and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await; // so that the port is free again
        }
        for connection in self.connections.lock().expect("no panic while it is held").drain(..) {
            connection.abort();
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}
