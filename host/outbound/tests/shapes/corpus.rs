//! Answers of servers as they were reported, and what is read of them. A case has a name, a source, how it was asked, what came, and
//! what is expected; see `corpus/*.json`.

use crate::server::{Play, Server};
use crate::site;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi};
use agentry_outbound::llm::{ChatFailure, ChatReply, ChatRequest, ProviderKind, ResponseFormat, Tokens};
use serde_json::{Value, json};

fn request(ask: &Value) -> ChatRequest {
    let format = match ask.as_str().unwrap() {
        "text" => return site::question(),
        "tools" => return site::with_tools(),
        "json" => ResponseFormat::Json,
        "schema" => ResponseFormat::JsonSchema { name: "sum".into(), schema: site::closed_schema().to_string() },
        other => panic!("a case asks for {other}"),
    };
    ChatRequest { response_format: format, ..site::question() }
}

fn play(case: &Value) -> Play {
    let status = case["status"].as_u64().map_or(200, |status| u16::try_from(status).unwrap());
    let body = case["raw"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
    let headers = case["headers"].as_object().cloned().unwrap_or_default();
    let headers = headers.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    Play::Reply { status, headers, body: body.into_bytes() }
}

/// The outcome of a case, with those members alone that it expects.
fn shown(outcome: &Result<ChatReply, ChatFailure>, expected: &Value) -> Value {
    let trace = match outcome {
        Ok(ChatReply { trace, .. }) | Err(ChatFailure { trace, .. }) => trace,
    };
    let Tokens { input, output, is_estimated, cached, cache_written, reasoning } = trace.tokens;
    let mut all = json!({"text": null, "calls": [], "error": null, "tokens": [input, output], "estimated": is_estimated,
        "cached": cached, "written": cache_written, "reasoning": reasoning});
    match outcome {
        Ok(reply) => {
            let calls = reply.message.tool_calls.iter().map(|call| json!([call.id, call.name, call.arguments]));
            all["calls"] = calls.collect();
            all["text"] = json!(reply.message.text);
        }
        Err(failure) => {
            let words = format!("{:?}: {}", failure.error, failure.error);
            let wanted = expected["error"].as_array().cloned().unwrap_or_default();
            let all_there = wanted.iter().enumerate().all(|(n, part)| {
                let part = part.as_str().unwrap();
                if n == 0 { words.starts_with(part) } else { words.contains(part) }
            });
            all["error"] = if all_there && !wanted.is_empty() { wanted.into() } else { json!(words) };
        }
    }
    let default = json!({"text": null, "calls": [], "error": null});
    let members = expected.as_object().unwrap().keys().chain(default.as_object().unwrap().keys());
    members.map(|name| (name.clone(), all[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

async fn hold(kind: ProviderKind, corpus: &str) {
    let cases: Vec<Value> = serde_json::from_str(corpus).unwrap();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let server = Server::new([play(case)]).await;
        let llm = site::llm(site::provider(kind, server.address));
        let outcome = llm.chat(&request(&case["ask"]), site::soon()).await;
        let mut expected = json!({"text": null, "calls": [], "error": null});
        expected.as_object_mut().unwrap().extend(case["expect"].as_object().unwrap().clone());
        let shown = shown(&outcome, &expected);
        if shown != expected {
            wrong.push(format!("{}:\n  expected {expected}\n  was      {shown}", case["name"]));
        }
        assert!(case["source"].is_string(), "{}: a case has a source", case["name"]);
    }
    assert!(wrong.is_empty(), "{} of {} cases of {kind:?}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn answers_of_servers_that_speak_like_openai_are_read() {
    hold(OpenAi, include_str!("corpus/openai.json")).await;
    hold(OpenAi, include_str!("corpus/openai-tools.json")).await;
    hold(OpenAi, include_str!("corpus/openai-faults.json")).await;
}

#[tokio::test]
async fn answers_of_servers_that_speak_like_anthropic_are_read() {
    hold(Anthropic, include_str!("corpus/anthropic.json")).await;
}

#[tokio::test]
async fn answers_of_servers_that_speak_like_gemini_are_read() {
    hold(Gemini, include_str!("corpus/gemini.json")).await;
}
