//! The protocol over a child's standard streams: one message a line.
//!
//! rmcp has such a transport. It keeps reading behind a line that is too long, writes what it cannot read to the log, and waits
//! for a server that reads nothing; ours ends the session, and takes credentials out before anybody sees a message.

use super::assembly::Assembly;
use super::intake;
use super::line::{Line, Lines};
use super::link::{Asked, Link, is_answer, key};
use super::negotiation::{Negotiation, PROBE, STATELESS, Verdict};
use super::process::Pipes;
use rmcp::RoleClient;
use rmcp::model::{ClientNotification, JsonRpcMessage};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How many messages may wait for a server to read them.
const QUEUE: usize = 16;

/// A client's side of standard streams.
pub(super) struct StdioTransport {
    lines: Lines<ChildStdout>,
    outgoing: Option<mpsc::Sender<Outgoing>>,
    link: Arc<Link>,
    assembly: Assembly,
    /// Messages of a batch that were not read yet.
    ready: VecDeque<RxJsonRpcMessage<RoleClient>>,
    /// The search for a revision that both speak, until it is over.
    negotiation: Arc<Mutex<Option<Negotiation>>>,
    /// When the server should have answered what it was asked after its rejection.
    probe: Option<Instant>,
}

/// A line, and who waits for it to be written.
type Outgoing = (Vec<u8>, oneshot::Sender<io::Result<()>>);

impl StdioTransport {
    /// Over a child's pipes. A message longer than `most` bytes ends the session, and so does a server that reads nothing for
    /// as long as `patience`.
    pub(super) fn new(pipes: Pipes, link: Arc<Link>, most: usize, patience: Duration) -> StdioTransport {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write(pipes.stdin, queue, link.clone(), patience));
        StdioTransport {
            lines: Lines::new(pipes.stdout, most),
            outgoing: Some(outgoing),
            link,
            assembly: Assembly::new(most),
            ready: VecDeque::new(),
            negotiation: Arc::default(),
            probe: None,
        }
    }

    /// Takes what a line says: a message, a part of one, or noise.
    async fn take(&mut self, value: Value) {
        let Some(value) = self.negotiate(value).await else { return };
        self.ready.extend(intake::messages(&self.link, value));
    }

    /// Takes answers while a revision is sought; what is left for the session.
    async fn negotiate(&mut self, value: Value) -> Option<Value> {
        let next = {
            let mut negotiation = self.negotiation.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(begun) = negotiation.as_mut() else { return Some(value) };
            let id = value.get("id").and_then(key);
            let is_error = value.get("error").is_some_and(|error| !error.is_null());
            let is_answer = value.get("method").is_none() && (id == key(&begun.id()) || id.is_none() && is_error);
            if !is_answer || !intake::is_message(&value) {
                return Some(value);
            }
            let Value::Object(members) = value else { return Some(value) };
            match begun.answered(members) {
                Verdict::Again => begun.request(),
                Verdict::Done(members) => {
                    let initialize = negotiation.take().map(Negotiation::into_initialize).unwrap_or_default();
                    self.probe = None;
                    return Some(self.agreed(members, &initialize));
                }
            }
        };
        self.probe = Some(Instant::now() + PROBE);
        // A server that does not read it is noticed by whoever waits for the session.
        let _ = send(self.outgoing.clone(), &next).await;
        None
    }
}

impl StdioTransport {
    /// The answer to `initialize` when the search is over.
    fn agreed(&self, mut members: Map<String, Value>, initialize: &Value) -> Value {
        if members.get("result").is_some_and(|result| result["protocolVersion"] == STATELESS) {
            self.link.set_stateless();
        }
        members.insert("id".into(), initialize["id"].clone());
        members.into()
    }

    /// Takes silence for a rejection.
    async fn give_up_probe(&mut self) {
        let silent = {
            let negotiation = self.negotiation.lock().unwrap_or_else(PoisonError::into_inner);
            negotiation.as_ref().map(|begun| json!({"id": begun.id(), "error": "it did not answer"}))
        };
        self.probe = None;
        if let Some(silent) = silent {
            self.take(silent).await;
        }
    }
}

/// Has a message written, and waits until it is.
async fn send(outgoing: Option<mpsc::Sender<Outgoing>>, message: &impl serde::Serialize) -> io::Result<()> {
    let closed = || io::Error::from(io::ErrorKind::NotConnected);
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let (written, heard) = oneshot::channel();
    outgoing.ok_or_else(closed)?.send((line, written)).await.map_err(|_| closed())?;
    heard.await.map_err(|_| closed())?
}

/// Writes what is queued, until the session ends; then standard input is closed.
async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Outgoing>, link: Arc<Link>, patience: Duration) {
    loop {
        let next = tokio::select! {
            () = link.ended() => return,
            next = queue.recv() => next,
        };
        let Some((line, written)) = next else { return };
        let writing = async {
            stdin.write_all(&line).await?;
            stdin.flush().await
        };
        let result = tokio::select! {
            () = link.ended() => return,
            result = tokio::time::timeout(patience, writing) => result,
        };
        let result = result.unwrap_or_else(|_| {
            link.end(&format!("it did not read its input for {patience:?}"));
            Err(io::ErrorKind::TimedOut.into())
        });
        // A server that closed its input goes on to close its output, which says more.
        let _ = written.send(result);
    }
}

impl Transport<RoleClient> for StdioTransport {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let (outgoing, link) = (self.outgoing.clone(), self.link.clone());
        link.sends(&item);
        if Asked::in_message(&item).is_some_and(|(_, asked)| asked == Asked::Initialize) {
            let begun = serde_json::to_value(&item).ok().map(Negotiation::new);
            *self.negotiation.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        }
        async move {
            // Without a handshake there is nothing to end it.
            if link.is_stateless() && is_initialized(&item) {
                return Ok(());
            }
            send(outgoing, &item).await?;
            link.sent(is_answer(&item));
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            // `None`: it is silent where it should answer.
            let value = {
                let probe = self.probe;
                let line = tokio::select! {
                    biased;
                    line = self.lines.next() => Some(line),
                    () = self.link.ended() => return None,
                    () = sleep_until(probe) => None,
                };
                match line {
                    None => None,
                    Some(Ok(Line::Whole(line))) => Some(self.assembly.take(&self.link, line)),
                    Some(Ok(Line::TooLong { most })) => {
                        self.link.end(&format!("it sent a message of more than {most} bytes"));
                        Some(None)
                    }
                    Some(Ok(Line::End)) => {
                        self.link.end("it ended");
                        Some(None)
                    }
                    Some(Err(error)) => {
                        self.link.end(&format!("its output cannot be read: {error}"));
                        Some(None)
                    }
                }
            };
            match value {
                Some(Some(value)) => self.take(value).await,
                Some(None) => {}
                None => self.give_up_probe().await,
            }
            if self.link.is_ended() {
                return None;
            }
        }
    }

    async fn close(&mut self) -> Result<(), io::Error> {
        self.outgoing = None;
        self.link.end("it was closed");
        Ok(())
    }
}

fn is_initialized(message: &TxJsonRpcMessage<RoleClient>) -> bool {
    let JsonRpcMessage::Notification(notification) = message else { return false };
    matches!(notification.notification, ClientNotification::InitializedNotification(_))
}

/// Waits until a moment; for ever if there is none.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
