//! The form of an answer is checked by the host, whatever the provider promises.

use super::server::{Server, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi, OpenAiResponses};
use agentry_outbound::llm::*;
use serde_json::{Value, json};

/// An answer with a text, in each provider's shape.
fn answer(kind: ProviderKind, text: &str) -> Value {
    match kind {
        OpenAi => json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}),
        OpenAiResponses => {
            json!({"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}], "status": "completed"})
        }
        Anthropic => json!({"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}),
        Gemini => json!({"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}),
    }
}

async fn check(format: ResponseFormat, text: &str) -> Result<(), ChatError> {
    let request = ChatRequest { response_format: format, ..question() };
    let mut outcomes = Vec::new();
    for kind in [OpenAi, OpenAiResponses, Anthropic, Gemini] {
        let outcome = ask(kind, reply(200, answer(kind, text)), &request).await;
        outcomes.push(outcome.map(|reply| assert_eq!(reply.message.text.as_deref(), Some(text))).map_err(|f| f.error));
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
    outcomes.remove(0)
}

fn schema(schema: &Value) -> ResponseFormat {
    ResponseFormat::JsonSchema { name: "sum".into(), schema: schema.to_string() }
}

fn unparsable(outcome: Result<(), ChatError>) -> String {
    match outcome.unwrap_err() {
        ChatError::Unparsable { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_fits_is_passed_on_byte_for_byte() {
    check(ResponseFormat::Json, " [1,  2]\n").await.unwrap();
    check(schema(&closed_schema()), "{ \"answer\": 42 }").await.unwrap();
    check(ResponseFormat::Json, r#"{"error": "none"}"#).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_none() {
    for text in ["forty-two", "so: ```json\n{}\n```", "{\"answer\": 42", "{} and more"] {
        assert!(unparsable(check(ResponseFormat::Json, text).await).contains("does not parse"));
        assert!(unparsable(check(schema(&closed_schema()), text).await).contains("does not parse"));
    }
    let why = unparsable(check(schema(&closed_schema()), r#"{"answer": "42"}"#).await);
    assert!(why.contains("\"/answer\"") && why.contains("integer"), "{why}");
    let why = unparsable(check(schema(&closed_schema()), "{}").await);
    assert!(why.contains("\"sum\"") && why.contains("answer"), "{why}");
}

#[tokio::test]
async fn an_answer_that_asks_for_tools_is_not_complete_and_not_checked() {
    let message = json!({"content": "I look.",
        "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": "{}"}}]});
    let body = json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]});
    let request = ChatRequest { response_format: schema(&closed_schema()), ..with_tools() };
    assert!(ask(OpenAi, reply(200, body), &request).await.unwrap().wants_tools);
}

#[tokio::test]
async fn a_schema_that_is_none_is_never_sent() {
    let server = Server::new([]).await;
    let llm = llm(provider(OpenAi, server.address));
    let format = ResponseFormat::JsonSchema { name: "sum".into(), schema: r#"{"type": "integr"}"#.into() };
    let error = error(llm.chat(&ChatRequest { response_format: format, ..question() }, soon()).await);
    assert!(matches!(&error, ChatError::InvalidRequest { reason } if reason.contains("\"sum\"")), "{error}");
    assert_eq!(server.recorded().len(), 0);
}

#[tokio::test]
async fn answer_that_is_compressed_unasked_is_read() {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;
    let body = br#"{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(body).unwrap();
    let reply = |encoding: &str, body: Vec<u8>| super::server::Play::Reply {
        status: 200,
        headers: vec![("content-encoding".into(), encoding.into())],
        body,
    };
    for play in [
        reply("gzip", gzip.finish().unwrap()),
        reply("deflate", zlib.finish().unwrap()),
        reply("identity", body.to_vec()),
    ] {
        let outcome = ask(OpenAi, play.clone(), &question()).await;
        assert_eq!(outcome.unwrap().message.text.as_deref(), Some("fine"), "{play:?}");
    }
    match error(ask(OpenAi, reply("br", vec![1, 2, 3]), &question()).await) {
        ChatError::Unparsable { reason } => {
            assert!(reason.contains("not asked to be") && reason.contains("br"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    // A few bytes that become many are cut off like a long answer.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 20 << 20]).unwrap();
    match error(ask(OpenAi, reply("gzip", bomb.finish().unwrap()), &question()).await) {
        ChatError::Unparsable { reason } => assert!(reason.contains("longer than 16777216 bytes"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let recorded = asked(OpenAi, &question()).await;
    assert_eq!(recorded.headers["accept-encoding"], "identity");
}
