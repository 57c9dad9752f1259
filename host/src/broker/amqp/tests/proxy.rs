//! A network that fails on demand: a TCP proxy in front of RabbitMQ, with real sockets.

use super::Prefix;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which of the connections so far are affected: all up to this number.
#[derive(Clone, Copy, Default)]
struct Broken {
    cut_upto: u64,
    silent_upto: u64,
    dead_ends: bool,
}

pub(super) struct Proxy {
    pub(super) port: u16,
    state: watch::Sender<Broken>,
    accepted: watch::Receiver<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(behind: &url::Url) -> Proxy {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), behind)
    }

    pub(super) fn on(listener: TcpListener, behind: &url::Url) -> Proxy {
        let target = (behind.host_str().expect("a host").to_owned(), behind.port().unwrap_or(5672));
        let port = listener.local_addr().expect("bound").port();
        let (state, watching) = watch::channel(Broken::default());
        let (count, accepted) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.send_modify(|n| *n += 1);
                let number = *count.borrow();
                let far = TcpStream::connect((target.0.as_str(), target.1)).await.expect("RabbitMQ is there");
                let (near, far) = (near.into_split(), far.into_split());
                // Both ends are kept open by both directions, so that a silent connection stays silent, not closed.
                let keep = Arc::new(());
                tokio::spawn(forward(near.0, far.1, number, watching.clone(), keep.clone()));
                tokio::spawn(forward(far.0, near.1, number, watching.clone(), keep));
            }
        });
        Proxy { port, state, accepted, accepting }
    }

    /// The prefix as seen through here.
    pub(super) fn before(&self, place: &Prefix) -> Prefix {
        let mut url = place.url.clone();
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(self.port)).expect("a port");
        Prefix { name: place.name.clone(), url }
    }

    /// Cut every connection there is.
    pub(super) fn cut(&self) {
        let now = *self.accepted.borrow();
        self.state.send_modify(|s| s.cut_upto = now);
    }

    /// Every connection there is stays open and carries nothing any more; new ones work.
    pub(super) fn silence(&self) {
        let now = *self.accepted.borrow();
        self.state.send_modify(|s| s.silent_upto = now);
    }

    /// New connections are accepted and carry nothing.
    pub(super) fn set_dead_ends(&self, on: bool) {
        self.state.send_modify(|s| s.dead_ends = on);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.send_modify(|s| s.cut_upto = u64::MAX);
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    mut state: watch::Receiver<Broken>,
    _keep: Arc<()>,
) {
    let mut buffer = vec![0; 64 << 10];
    let dead_end = state.borrow().dead_ends;
    loop {
        let now = *state.borrow_and_update();
        if now.cut_upto >= number {
            return;
        }
        let silent = dead_end || now.silent_upto >= number;
        tokio::select! {
            read = from.read(&mut buffer), if !silent => match read {
                Ok(n) if n > 0 => if to.write_all(&buffer[..n]).await.is_err() { return },
                _ => return,
            },
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
