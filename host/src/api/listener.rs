//! From the address to the router: connections, how many and for how long.
//!
//! A peer that sends nothing, or reads nothing, must not keep what others need: heads have to come and answers have to move within
//! [`TIMES`], and all connections together are bounded. Who comes beyond that bound is told so, since a connection that is left in the
//! backlog looks like a daemon that hangs.

use super::certificate::Certificate;
use super::problem::Problem;
use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

/// How long a peer may take.
#[derive(Clone, Copy)]
struct Times {
    /// For a TLS handshake.
    handshake: Duration,
    /// From the opening of a connection, or the end of an answer, to the end of the next request's head.
    head: Duration,
    /// Between two pieces of an answer that the peer takes.
    stall: Duration,
}

/// What clients are told: see `host/docs/http.md`.
const TIMES: Times =
    Times { handshake: Duration::from_secs(10), head: Duration::from_secs(30), stall: Duration::from_secs(60) };
/// For an answer to one who came too late.
const REFUSAL: Duration = Duration::from_secs(2);
/// Refusals at once; beyond them a connection is closed without a word.
const REFUSALS: usize = 64;
/// Between two warnings that say the same.
const WARNING: Duration = Duration::from_secs(10);
/// After an error that is the machine's and not the peer's, such as no file left.
const PAUSE: Duration = Duration::from_millis(500);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {error}; end what listens there, or give another api.listen (port 0 picks a free one)")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// An address that is listened on, and what holds for those who come.
pub struct Listener {
    socket: TcpListener,
    certificate: Option<Certificate>,
    connections: usize,
    times: Times,
}

impl Listener {
    /// Listens on an address; port 0 picks one.
    ///
    /// # Errors
    /// An address that is in use, or not this machine's.
    pub async fn bind(
        address: SocketAddr,
        connections: usize,
        certificate: Option<Certificate>,
    ) -> Result<Listener, BindError> {
        let socket = TcpListener::bind(address).await.map_err(|error| BindError { address, error })?;
        Ok(Listener { socket, certificate, connections, times: TIMES })
    }

    /// Where it listens, as a URL without a path.
    ///
    /// # Errors
    /// The system's own.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.socket.local_addr()?))
    }

    /// Answers until `closing`, and then those requests that are under way.
    pub(super) async fn serve(self, router: Router, closing: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.connections));
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let desk = Desk { certificate: self.certificate, router, keeps: true, times: self.times };
        let refusing = Desk { router: all_taken(self.connections), keeps: false, ..desk.clone() };
        let graceful = GracefulShutdown::new();
        let (mut full, mut trouble) = (Seldom::default(), Seldom::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = closing.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_of_the_peer(&error) => continue,
                Err(error) => {
                    trouble.warn(|times| tracing::warn!(%error, times, "failed to take in a connection to the API"));
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Small answers, sent at once; a socket that refuses is no worse off.
            let _ = stream.set_nodelay(true);
            if let Ok(place) = places.clone().try_acquire_owned() {
                let attended = desk.clone().attend(stream, graceful.watcher());
                tokio::spawn(async move {
                    attended.await;
                    drop(place);
                });
                continue;
            }
            full.warn(|refused| {
                let open = self.connections;
                tracing::warn!(
                    open,
                    refused,
                    "connections to the API are refused: as many as api.connections are open"
                );
            });
            if let Ok(turn) = refusals.clone().try_acquire_owned() {
                let refused = timeout(REFUSAL, refusing.clone().attend(stream, graceful.watcher()));
                tokio::spawn(async move {
                    // One who goes on talking has had the answer.
                    let _ = refused.await;
                    drop(turn);
                });
            }
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

/// What came to nothing before it was accepted (accept(2)).
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// How a connection is answered.
#[derive(Clone)]
struct Desk {
    certificate: Option<Certificate>,
    router: Router,
    /// Whether more than one request is answered.
    keeps: bool,
    times: Times,
}

impl Desk {
    /// One connection, from its first byte to its end.
    async fn attend(self, stream: TcpStream, watcher: Watcher) {
        let Some(certificate) = &self.certificate else { return self.answer(stream, watcher).await };
        // A handshake that fails is the peer's affair: it speaks no TLS, or trusts somebody else.
        match timeout(self.times.handshake, certificate.accept(stream)).await {
            Ok(Ok(stream)) => self.answer(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client of the API"),
            Err(_) => tracing::debug!("a client of the API did not end its TLS handshake"),
        }
    }

    async fn answer<S>(&self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.times.stall));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.head)
            .keep_alive(self.keeps)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(self.router.clone()));
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection to the API broke off");
        }
    }
}

/// What is said to everybody when all places are taken.
fn all_taken(connections: usize) -> Router {
    Router::new().fallback(async move || {
        let detail = format!("{connections} connections are open (api.connections); close some, or come again");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", detail)
    })
}

/// A warning that is not repeated with each occasion.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// Calls `say` with how often it would have been said, if the last time is long enough ago.
    fn warn(&mut self, say: impl FnOnce(u64)) {
        self.times += 1;
        if self.last.is_none_or(|last| last.elapsed() >= WARNING) {
            say(self.times);
            (self.last, self.times) = (Some(Instant::now()), 0);
        }
    }
}

#[cfg(test)]
mod tests;
