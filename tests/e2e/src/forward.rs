//! A way to a service that can be cut (connections end, new ones are refused) or fall silent (connections stay open, and
//! nothing comes through), until it is restored.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

use reqwest::Url;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

/// A local port that leads to a service.
pub struct Forward {
    port: u16,
    to: (String, u16),
    accepting: Option<JoinHandle<()>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    silence: watch::Sender<Silence>,
}

/// How often it fell silent, and whether it is.
#[derive(Clone, Copy, Default)]
struct Silence {
    times: u64,
    lasts: bool,
}

impl Forward {
    /// A way to the service of a URL, cut as yet.
    pub fn to(url: &str, default_port: u16) -> Self {
        let url: Url = url.parse().expect("a URL");
        let to = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(default_port));
        Self { port: free_port(), to, accepting: None, connections: Arc::default(), silence: watch::Sender::default() }
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

    /// From now on what is open stays open and nothing comes through, in either direction, ever; new connections are
    /// accepted and as mute until it is restored.
    pub fn fall_silent(&self) {
        self.silence.send_modify(|silence| *silence = Silence { times: silence.times + 1, lasts: true });
    }

    /// Lets new connections through.
    pub async fn restore(&mut self) {
        self.silence.send_modify(|silence| silence.lasts = false);
        if self.accepting.is_some() {
            return;
        }
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.expect("the port is still free");
        let (to, connections, silence) = (self.to.clone(), self.connections.clone(), self.silence.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let to = to.clone();
                let mut silence = silence.subscribe();
                let before = *silence.borrow();
                let connection = tokio::spawn(async move {
                    let Ok(mut to) = TcpStream::connect(to).await else { return };
                    let fallen = silence.wait_for(|now| before.lasts || now.times > before.times);
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => return, // either end may go
                        _ = fallen => {}
                    }
                    std::future::pending::<()>().await; // with both ends open
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
