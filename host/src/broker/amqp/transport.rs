//! The byte stream under a connection: TCP, perhaps TLS on it, and on top of that [`mend`](super::mend), which sees every
//! frame before lapin does. And a handle to cut it.
//!
//! lapin takes its stream from a runtime, so this is one: tokio's in everything but the stream.

use super::mend::{HEAD, frame_length, mend};
use super::server;
use super::tls::{self, Trust};
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use futures_util::Stream;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::timeout;

type TokioStream = <Tokio as Reactor>::TcpStream;

/// The runtime that lapin is given.
pub(super) type WireRuntime = Runtime<RuntimeParts<Tokio, Wire>>;

/// Must be called within a tokio runtime.
pub(super) fn runtime() -> WireRuntime {
    Runtime::new(RuntimeParts::new(Tokio::current(), Wire(Tokio::current())))
}

/// Tokio's reactor, with mended streams.
#[derive(Clone, Debug)]
pub(super) struct Wire(Tokio);

impl Reactor for Wire {
    type TcpStream = Mended;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Mended>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Mended::new(Under::Plain(connecting.await?), Arc::default())) }
    }
}

/// Connect, within `patience` for each step. Runs on lapin's own thread: without time-outs here, that thread would outlive
/// an attempt that was given up.
pub(super) async fn connect(
    uri: &AMQPUri,
    trust: &Trust,
    patience: Duration,
    socket: &Arc<Socket>,
) -> lapin::Result<AsyncTcpStream<Mended>> {
    let authority = &uri.authority;
    let tokio = Tokio::current();
    let addresses: Vec<SocketAddr> =
        within(patience, tokio::net::lookup_host((authority.host.as_str(), authority.port))).await?.collect();
    let stream = within(patience, tokio.tcp_connect(addresses)).await?;
    socket.set(TcpStream::from(stream.get_ref().as_fd().try_clone_to_owned()?));
    let stream = match uri.scheme {
        AMQPScheme::AMQP => Under::Plain(stream),
        AMQPScheme::AMQPS => Under::Tls(Box::new(within(patience, tls::begin(stream, &authority.host, trust)).await?)),
    };
    Ok(AsyncTcpStream::Plain(Mended::new(stream, socket.clone())))
}

async fn within<T>(patience: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, step).await.map_err(|elapsed| io::Error::new(io::ErrorKind::TimedOut, elapsed))?
}

/// The socket under a connection, so that a connection which hangs can be cut. lapin would wait for an answer to its
/// close, with heartbeats off, until the kernel gives up on the peer.
#[derive(Default)]
pub(super) struct Socket {
    stream: Mutex<Option<TcpStream>>,
    version: OnceLock<String>,
    greeting: OnceLock<Vec<u8>>,
}

impl Socket {
    fn set(&self, socket: TcpStream) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|s| s.peer_addr().ok())
    }

    /// The version of the server, once it has greeted.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }

    /// The first bytes of the peer, once there are any.
    pub(super) fn greeting(&self) -> Option<&[u8]> {
        self.greeting.get().map(Vec::as_slice)
    }

    pub(super) fn shut(&self) {
        if let Some(socket) = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails if the peer was faster, which is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// What is under the frames.
enum Under {
    Plain(TokioStream),
    Tls(Box<TlsStream<TokioStream>>),
}

/// Runs the same expression on either stream, pinned.
macro_rules! on {
    ($under:expr, $stream:ident => $run:expr) => {
        match &mut $under {
            Under::Plain(stream) => {
                let $stream = Pin::new(stream);
                $run
            }
            Under::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $run
            }
        }
    };
}

/// A stream whose incoming frames are mended.
pub(super) struct Mended {
    inner: Under,
    incoming: Incoming,
}

impl Mended {
    fn new(inner: Under, socket: Arc<Socket>) -> Self {
        Mended { inner, incoming: Incoming { socket, ..Incoming::default() } }
    }
}

/// What was read: handed on up to `given`, mended up to `mended`, beyond that the beginning of a frame.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    given: usize,
    mended: usize,
    /// The peer does not speak AMQP, or has hung up: everything passes as it is.
    raw: bool,
    /// Where the version goes that the first frame reports.
    socket: Arc<Socket>,
    greeted: bool,
}

impl Incoming {
    /// Take in what was read; nothing is the end.
    fn take_in(&mut self, read: &[u8]) {
        self.bytes.drain(..self.given);
        self.mended -= self.given;
        self.given = 0;
        self.bytes.extend_from_slice(read);
        if !self.greeted && !read.is_empty() {
            // Set once: one stream belongs to one socket.
            let _ = self.socket.greeting.set(read.iter().take(8).copied().collect());
        }
        self.raw |= read.is_empty();
        while !self.raw {
            match frame_length(&self.bytes[self.mended..]) {
                Ok(Some(length)) if self.bytes.len() - self.mended >= length => {
                    let frame = &mut self.bytes[self.mended..self.mended + length];
                    mend(frame);
                    if !std::mem::replace(&mut self.greeted, true)
                        && let Some(version) = frame.get_mut(HEAD..).and_then(server::version)
                    {
                        // Set once: one stream belongs to one socket.
                        let _ = self.socket.version.set(version);
                    }
                    self.mended += length;
                }
                Ok(_) => return,
                Err(_) => self.raw = true,
            }
        }
        self.mended = self.bytes.len();
    }

    fn hand_on(&mut self, to: &mut [u8]) -> usize {
        let n = to.len().min(self.mended - self.given);
        to[..n].copy_from_slice(&self.bytes[self.given..self.given + n]);
        self.given += n;
        n
    }
}

impl AsyncRead for Mended {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let n = this.incoming.hand_on(to);
            if n > 0 || to.is_empty() {
                return Poll::Ready(Ok(n));
            }
            let mut read = [0; 16 << 10];
            let n = ready!(on!(this.inner, stream => stream.poll_read(cx, &mut read)))?;
            this.incoming.take_in(&read[..n]);
            if n == 0 {
                return Poll::Ready(Ok(this.incoming.hand_on(to)));
            }
        }
    }
}

impl AsyncWrite for Mended {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        on!(self.inner, stream => stream.poll_write(cx, from))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self.inner, stream => stream.poll_write_vectored(cx, from))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.inner, stream => stream.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.inner, stream => stream.poll_close(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feed `bytes` in pieces; what comes out.
    fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut incoming = Incoming::default();
        let mut out = Vec::new();
        let mut buffer = [0; 5];
        for piece in bytes.chunks(piece).chain([&[][..]]) {
            incoming.take_in(piece);
            while let n @ 1.. = incoming.hand_on(&mut buffer) {
                out.extend_from_slice(&buffer[..n]);
            }
        }
        out
    }

    #[test]
    fn frames_pass_in_whatever_pieces_they_come() {
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xce];
        let close = |text: &[u8]| {
            let payload = [&[0, 20, 0, 40, 1, 148, text.len() as u8], text, &[0; 4]].concat();
            [&[1, 0, 1], &(payload.len() as u32).to_be_bytes()[..], &payload, b"\xce"].concat()
        };
        let sent = [&heartbeat[..], &close(b"\xff!"), &heartbeat, &close(b"fine"), &heartbeat[..4]].concat();
        let mended = [&heartbeat[..], &close(b"?!"), &heartbeat, &close(b"fine"), &heartbeat[..4]].concat();
        for piece in [1, 2, 3, 7, 8, 9, 1000] {
            assert_eq!(through(&sent, piece), mended, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_amqp_passes_as_it_is() {
        let sent = b"HTTP/1.1 400 Bad Request\r\n\xff";
        assert_eq!(through(sent, 3), sent);
    }
}
