//! The accept loop of the API: bounds on the number of connections and on their times.
//!
//! A peer that sends nothing, or reads nothing, must not occupy a connection for long: [`TIMES`] bounds heads, handshakes and stalled
//! responses. A connection beyond the bound is accepted and receives 503. Left in the backlog, it would look like a daemon that hangs.

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

/// Time limits of a connection.
#[derive(Clone, Copy)]
struct Times {
    /// For a TLS handshake.
    handshake: Duration,
    /// From the opening of a connection, or the end of a response, to the end of the next request's head.
    head: Duration,
    /// Between two reads of the peer, while a response is sent.
    stall: Duration,
}

/// Documented in `host/docs/http.md`.
const TIMES: Times =
    Times { handshake: Duration::from_secs(10), head: Duration::from_secs(30), stall: Duration::from_secs(60) };
/// Bytes that are read of a head at most; hyper responds with 431 to a longer one.
const HEAD: usize = 64 * 1_024;
/// Time for the response to a connection beyond the bound.
const REJECTION: Duration = Duration::from_secs(2);
/// Rejections at the same time. Further connections are closed without a response.
const REJECTIONS: usize = 64;
/// Time between two equal warnings.
const WARNING: Duration = Duration::from_secs(10);
/// Pause after a failed accept for a local reason, such as no free file descriptor.
const PAUSE: Duration = Duration::from_millis(500);

/// An address that the API cannot listen on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {error}; end what listens there, or give another api.listen (port 0 picks a free one)")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// A listening socket with the bounds of its connections.
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
    /// An address that is in use, or not of this machine.
    pub async fn bind(
        address: SocketAddr,
        connections: usize,
        certificate: Option<Certificate>,
    ) -> Result<Listener, BindError> {
        let socket = TcpListener::bind(address).await.map_err(|error| BindError { address, error })?;
        Ok(Listener { socket, certificate, connections, times: TIMES })
    }

    /// URL of the socket, without a path.
    ///
    /// # Errors
    /// The error of getsockname(2).
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.socket.local_addr()?))
    }

    /// Its certificate, if it speaks TLS.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        self.certificate.clone()
    }

    /// Serves requests until `closing`, then completes those under way.
    pub(super) async fn serve(self, router: Router, closing: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.connections));
        let rejections = Arc::new(Semaphore::new(REJECTIONS));
        let server = Server { certificate: self.certificate, router, keep_alive: true, times: self.times };
        let rejecting = Server { router: rejection(self.connections), keep_alive: false, ..server.clone() };
        let graceful = GracefulShutdown::new();
        let (mut full, mut trouble) = (Throttled::default(), Throttled::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = closing.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_of_the_peer(&error) => continue,
                Err(error) => {
                    trouble.warn(|times| tracing::warn!(%error, times, "failed to accept a connection to the API"));
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Small responses are sent at once. If it fails, the connection is only slower.
            let _ = stream.set_nodelay(true);
            if let Ok(place) = places.clone().try_acquire_owned() {
                let served = server.clone().serve(stream, graceful.watcher());
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
                continue;
            }
            full.warn(|rejected| {
                let limit = self.connections;
                tracing::warn!(limit, rejected, "connections to the API rejected: api.connections are open; raise it");
            });
            if let Ok(place) = rejections.clone().try_acquire_owned() {
                let rejected = timeout(REJECTION, rejecting.clone().serve(stream, graceful.watcher()));
                tokio::spawn(async move {
                    // After the time-out the response was sent, or the peer does not read.
                    let _ = rejected.await;
                    drop(place);
                });
            }
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

/// Whether a connection ended before it was accepted: see accept(2).
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection.
#[derive(Clone)]
struct Server {
    certificate: Option<Certificate>,
    router: Router,
    /// Whether a connection takes more than one request.
    keep_alive: bool,
    times: Times,
}

impl Server {
    /// Serves a connection until it ends.
    async fn serve(self, stream: TcpStream, watcher: Watcher) {
        let Some(certificate) = &self.certificate else { return self.respond(stream, watcher).await };
        // A failed handshake is a client that does not speak TLS, or does not trust the certificate.
        match timeout(self.times.handshake, certificate.accept(stream)).await {
            Ok(Ok(stream)) => self.respond(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with a client of the API failed"),
            Err(_) => tracing::debug!("TLS handshake with a client of the API timed out"),
        }
    }

    async fn respond<S>(&self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.times.stall));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.head)
            .max_buf_size(HEAD)
            .keep_alive(self.keep_alive)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(self.router.clone()));
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection to the API failed");
        }
    }
}

/// Responds to every request that all connections are in use.
fn rejection(connections: usize) -> Router {
    Router::new().fallback(async move || {
        let detail = format!(
            "{connections} connections are open, which is the limit (api.connections); close unused ones, or retry"
        );
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", detail)
    })
}

/// A warning that is logged at most once per [`WARNING`].
#[derive(Default)]
struct Throttled {
    last: Option<Instant>,
    times: u64,
}

impl Throttled {
    /// Calls `log` with the number of occasions since the last call, if that is long enough ago.
    fn warn(&mut self, log: impl FnOnce(u64)) {
        self.times += 1;
        if self.last.is_none_or(|last| last.elapsed() >= WARNING) {
            log(self.times);
            (self.last, self.times) = (Some(Instant::now()), 0);
        }
    }
}

#[cfg(test)]
mod tests;
