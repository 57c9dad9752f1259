//! An HTTP server whose every answer takes its time, as a language model's does. It counts the requests that wait at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The path that reports the most requests that waited at once; every other one waits.
const MOST: &str = "/most";

#[derive(Default)]
struct Counts {
    waiting: AtomicUsize,
    most: AtomicUsize,
}

/// Serves for ever. `listening` gets the port.
pub async fn serve(wait: Duration, listening: impl FnOnce(u16)) -> anyhow::Result<()> {
    // Thousands connect within moments, so the usual backlog of 128 would make some of them wait for a retransmission.
    let socket = tokio::net::TcpSocket::new_v4().context("failed to make a socket")?;
    socket.bind(([127, 0, 0, 1], 0).into()).context("failed to bind")?;
    let listener: TcpListener = socket.listen(16_384).context("failed to listen")?;
    listening(listener.local_addr().context("failed to read the port")?.port());
    let counts = Arc::new(Counts::default());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, for example: those who wait will give some back.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let counts = counts.clone();
        tokio::spawn(async move {
            // A client that hangs up is no concern of the server.
            let _ = answer(stream, wait, &counts).await;
        });
    }
}

async fn answer(stream: TcpStream, wait: Duration, counts: &Counts) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut line) = (String::new(), String::new());
    stream.read_line(&mut first).await?;
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let body = if path == MOST {
        counts.most.load(Ordering::Relaxed).to_string()
    } else {
        let waiting = counts.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        counts.most.fetch_max(waiting, Ordering::Relaxed);
        tokio::time::sleep(wait).await;
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
        "done".to_owned()
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}
