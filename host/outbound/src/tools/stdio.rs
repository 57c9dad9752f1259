//! The protocol over a child's standard streams: one message a line.
//!
//! rmcp has such a transport. It keeps reading behind a line that is too long, writes what it cannot read to the log, and waits
//! for a server that reads nothing; ours ends the session, and takes credentials out before anybody sees a message.

use super::line::{Line, Lines};
use super::link::{Link, admit, is_answer};
use super::process::Pipes;
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};

/// How many messages may wait for a server to read them.
const QUEUE: usize = 16;

/// A client's side of standard streams.
pub(super) struct StdioTransport {
    lines: Lines<ChildStdout>,
    outgoing: Option<mpsc::Sender<Outgoing>>,
    link: Arc<Link>,
}

/// A line, and who waits for it to be written.
type Outgoing = (Vec<u8>, oneshot::Sender<io::Result<()>>);

impl StdioTransport {
    /// Over a child's pipes. A message longer than `most` bytes ends the session, and so does a server that reads nothing for
    /// as long as `patience`.
    pub(super) fn new(pipes: Pipes, link: Arc<Link>, most: usize, patience: Duration) -> StdioTransport {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write(pipes.stdin, queue, link.clone(), patience));
        StdioTransport { lines: Lines::new(pipes.stdout, most), outgoing: Some(outgoing), link }
    }
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
        async move {
            let answer = is_answer(&item);
            let closed = || io::Error::from(io::ErrorKind::NotConnected);
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let (written, heard) = oneshot::channel();
            outgoing.ok_or_else(closed)?.send((line, written)).await.map_err(|_| closed())?;
            heard.await.map_err(|_| closed())??;
            link.sent(answer);
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let line = tokio::select! {
                biased;
                line = self.lines.next() => line,
                () = self.link.ended() => return None,
            };
            match line {
                Ok(Line::Whole(line)) => {
                    if let Some(message) = admit(&self.link, line) {
                        return Some(message);
                    }
                }
                Ok(Line::TooLong { most }) => self.link.end(&format!("it sent a message of more than {most} bytes")),
                Ok(Line::End) => self.link.end("it ended"),
                Err(error) => self.link.end(&format!("its output cannot be read: {error}")),
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
