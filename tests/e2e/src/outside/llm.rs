//! A language model's server in the shape of OpenAI's chat completions, which answers as a script says.

use serde_json::{Value, json};

use super::{Play, Request, Server};

/// A server whose script is asked with the last thing that the user said.
pub async fn start(script: impl Fn(&str, &Request) -> Play + Send + Sync + 'static) -> Server {
    Server::start(move |request| match (request.method.as_str(), request.target.as_str()) {
        ("POST", "/v1/chat/completions") => script(&prompt(request), request),
        _ => Play::text(404, "no such path"),
    })
    .await
}

/// What the user said last.
fn prompt(request: &Request) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("a request is JSON");
    let last = body["messages"].as_array().and_then(|messages| messages.last()).expect("a message");
    last["content"].as_str().expect("its text").to_owned()
}

/// An answer that is whole, of 10 and 5 tokens.
pub fn says(text: &str) -> Play {
    Play::json(200, &completion(text, "stop"))
}

/// A completion as published, with a reason why it ended.
pub fn completion(text: &str, finish_reason: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_767_225_600, "model": "model-1-0101",
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": text, "refusal": null}, "logprobs": null,
            "finish_reason": finish_reason,
        }],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}
