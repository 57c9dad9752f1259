//! A provider that speaks HTTP/2, as the public ones do: many chats on one connection, and none ends with another.

use super::site::*;
use super::tls::{acceptor, certificate, settings};
use agentry_outbound::llm::*;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// It does what it is asked for; how a chat was given up is told.
struct Provider {
    address: SocketAddr,
    folder: tempfile::TempDir,
    connections: Arc<AtomicUsize>,
    told: mpsc::UnboundedReceiver<String>,
}

const FINE: &str = r#"{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}"#;

async fn provider() -> Provider {
    let folder = tempfile::tempdir().unwrap();
    let acceptor = acceptor(&certificate(&folder).1, b"h2");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let (tell, told) = mpsc::unbounded_channel();
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (end, mut ends) = mpsc::unbounded_channel();
                loop {
                    tokio::select! {
                        request = connection.accept() => match request {
                            Some(Ok((request, respond))) => { tokio::spawn(answer(request, respond, tell.clone(), end.clone())); }
                            _ => return,
                        },
                        Some(()) = ends.recv() => connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
                    }
                }
            });
        }
    });
    Provider { address, folder, connections, told }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    tell: mpsc::UnboundedSender<String>,
    end: mpsc::UnboundedSender<()>,
) {
    let (mut body, mut asked) = (request.into_body(), BytesMut::new());
    while let Some(Ok(piece)) = body.data().await {
        asked.extend_from_slice(&piece);
    }
    let asked: serde_json::Value = serde_json::from_slice(&asked).unwrap();
    let wish = asked["messages"][0]["content"].as_str().unwrap().to_owned();
    let _ = tell.send(wish.clone());
    if wish == "never" {
        let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        let _ = tell.send(format!("{reset:?}"));
        return;
    }
    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
    if wish == "fine" {
        body.send_data(FINE.into(), true).unwrap();
        return;
    }
    body.send_data(FINE[..20].to_owned().into(), false).unwrap();
    match wish.as_str() {
        "reset" => body.send_reset(h2::Reason::INTERNAL_ERROR),
        "go away" => end.send(()).unwrap(),
        _ => {
            // Zeros without end, as fast as they are read.
            while body.send_data(Bytes::from_static(&[b'0'; 16_384]), false).is_ok() {
                body.reserve_capacity(16_384);
                if !matches!(std::future::poll_fn(|cx| body.poll_capacity(cx)).await, Some(Ok(_))) {
                    break;
                }
            }
            let _ = tell.send("gave up".into());
        }
    }
}

impl Provider {
    fn llm(&self) -> Llm {
        llm(settings(self.address, self.folder.path().join("ca.pem")))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    async fn tells(&mut self, what: &str) {
        let told = tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap();
        assert_eq!(told.as_deref(), Some(what));
    }
}

async fn chat(llm: &Llm, wish: &str) -> Result<String, ChatError> {
    let request = ChatRequest { messages: vec![Message::User(wish.into())], ..question() };
    let reply = llm.chat(&request, soon()).await.map_err(|failure| failure.error)?;
    Ok(reply.message.text.unwrap_or_default())
}

#[tokio::test]
async fn chats_share_a_connection_and_one_that_is_dropped_ends_alone() {
    let mut provider = provider().await;
    let llm = provider.llm();
    assert_eq!(chat(&llm, "fine").await.as_deref(), Ok("fine"));
    provider.tells("fine").await;
    let dropped = tokio::spawn({
        let llm = llm.clone();
        async move { chat(&llm, "never").await }
    });
    provider.tells("never").await;
    assert_eq!(chat(&llm, "fine").await.as_deref(), Ok("fine"));
    provider.tells("fine").await;
    dropped.abort();
    provider.tells("Ok(CANCEL)").await;
    assert_eq!(chat(&llm, "fine").await.as_deref(), Ok("fine"));
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none_and_the_next_chat_is_answered() {
    let provider = provider().await;
    let llm = provider.llm();
    // A stream's end leaves the connection to the others; a connection's does not.
    for (wish, connections) in [("reset", 1), ("go away", 2)] {
        match chat(&llm, wish).await {
            Err(ChatError::Unavailable { reason }) => {
                assert!(reason.contains("the connection broke"), "{wish}: {reason}")
            }
            other => panic!("{wish}: {other:?}"),
        }
        assert_eq!(chat(&llm, "fine").await.as_deref(), Ok("fine"));
        assert_eq!(provider.connections(), connections, "{wish}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_and_its_stream_ended() {
    let mut provider = provider().await;
    let llm = provider.llm();
    match chat(&llm, "flood").await {
        Err(ChatError::Unparsable { reason }) => assert!(reason.contains("longer than"), "{reason}"),
        other => panic!("{other:?}"),
    }
    provider.tells("flood").await;
    provider.tells("gave up").await;
    assert_eq!(chat(&llm, "fine").await.as_deref(), Ok("fine"));
    assert_eq!(provider.connections(), 1);
}
