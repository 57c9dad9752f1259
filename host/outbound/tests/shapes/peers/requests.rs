//! Whatever a guest may ask, each provider is asked in the way that its own SDK would.

use super::{KINDS, Providers, client};
use crate::site::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi, OpenAiResponses};
use agentry_outbound::llm::*;
use serde_json::{Value, json};

/// What each is asked, without any of what may be left out: `whole` is an answer.
fn whole(kind: ProviderKind) -> &'static str {
    match kind {
        OpenAiResponses => unreachable!("its SDK's types are not among the peers"),
        OpenAi => "finish/stop",
        Anthropic => "finish/end_turn",
        Gemini => "finish/STOP",
    }
}

/// Requests that have everything, alone and together.
fn requests() -> Vec<(&'static str, ChatRequest)> {
    let chosen = |choice| ChatRequest { tool_choice: Some(choice), ..with_tools() };
    let formed = |format| ChatRequest { response_format: format, ..question() };
    let schema = |schema: Value| ResponseFormat::JsonSchema { name: "sum".into(), schema: schema.to_string() };
    let silent = Tool { description: String::new(), parameters: "{}".into(), ..tool("silent") };
    let nested = json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"type": "array", "items": {"enum": ["x", 1, null]}}}, "additionalProperties": false});
    let nested = Tool { parameters: nested.to_string(), ..tool("nested") };
    let said = |text: &str| Message::Assistant(Assistant { text: Some(text.into()), tool_calls: Vec::new() });
    let mut prefilled = question();
    prefilled.messages.extend([said("It is"), Message::User("Go on.".into()), said("It is really")]);
    let mut twice = question();
    twice.messages.extend([Message::User("And now?".into()), Message::System("Be kind.".into())]);
    vec![
        ("a question", question()),
        ("everything", conversation()),
        ("everything but a temperature", ChatRequest { temperature: None, ..conversation() }),
        ("tools", with_tools()),
        ("tools of any kind", ChatRequest { tools: vec![silent, nested], ..question() }),
        ("auto", chosen(ToolChoice::Auto)),
        ("none", chosen(ToolChoice::None)),
        ("required", chosen(ToolChoice::Required)),
        ("named", chosen(ToolChoice::Named("clock".into()))),
        ("JSON", formed(ResponseFormat::Json)),
        ("JSON that fits", formed(schema(closed_schema()))),
        ("JSON that fits an open schema", formed(schema(json!({"type": "object"})))),
        ("JSON and tools", ChatRequest { response_format: schema(closed_schema()), ..with_tools() }),
        ("cold", ChatRequest { temperature: Some(0.0), ..question() }),
        ("hot", ChatRequest { temperature: Some(1.0), ..question() }),
        ("many stops", ChatRequest { stop: ["a", "\n", "ä", "\""].map(str::to_owned).into(), ..question() }),
        ("a large seed", ChatRequest { seed: Some(u32::MAX), ..question() }),
        ("an answer begun", prefilled),
        ("two in a row", twice),
    ]
}

#[tokio::test]
async fn whatever_is_asked_is_asked_as_the_providers_own_sdk_would() {
    let providers = Providers::get();
    for kind in KINDS {
        for (name, request) in requests() {
            let case = if request.response_format == ResponseFormat::Text { whole(kind.0) } else { "form" };
            let reply = providers.llm(kind, case).chat(&request, soon()).await;
            let reply = reply.unwrap_or_else(|failure| panic!("{}, {name}: {}", kind.1, failure.error));
            assert_eq!(reply.trace.tries, 1, "{}, {name}", kind.1);
        }
    }
}

#[tokio::test]
async fn what_came_with_a_call_goes_back_with_its_result_as_published() {
    let providers = Providers::get();
    for kind in KINDS {
        let mut request = with_tools();
        let first = providers.llm(kind, "calls").chat(&request, soon()).await.unwrap();
        let call = first.message.tool_calls[0].clone();
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("weather", r#"{"city":"Oslo"}"#), "{}", kind.1);
        assert_eq!(call.opaque.is_some(), kind.0 != OpenAi, "{}", kind.1);
        request.messages.push(Message::Assistant(first.message));
        let result = ToolResult { id: call.id, name: call.name, content: "rain".into(), failed: kind.0 == Gemini };
        request.messages.push(Message::Tool(result));
        let second = providers.llm(kind, whole(kind.0)).chat(&request, soon()).await;
        second.unwrap_or_else(|failure| panic!("{}: {}", kind.1, failure.error));
    }
}

/// A good request of each provider, with the headers that carry its key and version.
fn good(kind: ProviderKind) -> (&'static str, Vec<(&'static str, &'static str)>, Value) {
    let schema = json!({"type": "object"});
    match kind {
        OpenAiResponses => unreachable!("its SDK's types are not among the peers"),
        OpenAi => (
            "chat/completions",
            vec![("authorization", "Bearer key")],
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stop": ["x"],
                "tools": [{"type": "function", "function": {"name": "t", "parameters": schema}}]}),
        ),
        Anthropic => (
            "messages",
            vec![("x-api-key", "key"), ("anthropic-version", "2026-10-21")],
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
                "max_tokens": 3, "stop_sequences": ["x"], "tools": [{"name": "t", "input_schema": schema}]}),
        ),
        Gemini => (
            "models/m:generateContent",
            vec![("x-goog-api-key", "key")],
            json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
                "generationConfig": {"maxOutputTokens": 3, "stopSequences": ["x"]},
                "tools": [{"functionDeclarations": [{"name": "t", "parametersJsonSchema": schema}]}]}),
        ),
    }
}

/// The places at which something is put that is not published.
fn wrong(kind: ProviderKind) -> Vec<(&'static str, Value)> {
    match kind {
        OpenAiResponses => unreachable!("its SDK's types are not among the peers"),
        OpenAi => vec![
            ("/seeds", json!(7)),
            ("/seed", json!("7")),
            ("/stop/0", json!(7)),
            ("/messages/0/name_of", json!("x")),
            ("/messages/0/role", json!("model")),
            ("/messages/0/content", json!([{"type": "txt", "text": "hi"}])),
            ("/tools/0/function/schema", json!({})),
            ("/tool_choice", json!("any")),
            ("/response_format", json!({"type": "json_schema", "json_schema": {}})),
        ],
        Anthropic => vec![
            ("/temperature", json!(0.5)),
            ("/seed", json!(7)),
            ("/max_tokens", json!("3")),
            ("/stop_sequences/0", json!(7)),
            ("/messages/0/role", json!("model")),
            ("/messages/0/content/0/words", json!("hi")),
            ("/messages/0/content", json!([{"type": "tool_result", "content": "x"}])),
            ("/tools/0/parameters", json!({})),
            ("/tool_choice", json!({"type": "required"})),
            ("/output_config", json!({"format": {"type": "json", "schema": {}}})),
        ],
        Gemini => vec![
            ("/system_instruction", json!({"parts": [{"text": "x"}]})),
            ("/generationConfig/seed", json!("x")),
            ("/generationConfig/max_output_tokens", json!(3)),
            ("/generationConfig/stop", json!(["x"])),
            ("/contents/0/name", json!("x")),
            ("/contents/0/parts/0/words", json!("x")),
            ("/contents/0/parts/0/functionCall", json!({"name": "t", "arguments": {}})),
            ("/tools/0/functionDeclarations/0/schema", json!({})),
            ("/toolConfig", json!({"functionCallingConfig": {"mode": "REQUIRED"}})),
        ],
    }
}

/// Without this the tests above could not fail.
#[tokio::test]
async fn what_is_not_published_is_refused() {
    let providers = Providers::get();
    for kind in KINDS {
        let (path, headers, body) = good(kind.0);
        let sent = async |path: &str, headers: &[(&str, &str)], body: &Value| {
            let url = format!("{}/{path}", providers.root(kind, whole(kind.0)));
            let mut request = client().post(url).body(body.to_string());
            for (name, value) in
                headers.iter().chain(&[("content-type", "application/json"), ("accept", "application/json")])
            {
                request = request.header(*name, *value);
            }
            let response = request.send().await.unwrap();
            (response.status().as_u16(), String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned())
        };
        let (status, said) = sent(path, &headers, &body).await;
        assert_eq!(status, 200, "{}: {said}", kind.1);
        if kind.0 == OpenAi {
            // Its name at OpenAI's own addresses, which no test has.
            let mut newer = body.clone();
            newer["max_completion_tokens"] = newer["max_tokens"].take();
            newer.as_object_mut().unwrap().remove("max_tokens");
            assert_eq!(sent(path, &headers, &newer).await.0, 200);
        }
        for (place, value) in wrong(kind.0) {
            let mut body = body.clone();
            let (parent, member) = place.rsplit_once('/').unwrap();
            match body.pointer_mut(parent).unwrap() {
                Value::Array(items) => items[0] = value,
                object => object[member] = value,
            }
            assert_eq!(sent(path, &headers, &body).await.0, 422, "{}: {place}", kind.1);
        }
        assert_eq!(sent("elsewhere", &headers, &body).await.0, 422, "{}", kind.1);
        for n in 0..headers.len() {
            let mut headers = headers.clone();
            headers.remove(n);
            assert_eq!(sent(path, &headers, &body).await.0, 422, "{}: without a header", kind.1);
        }
    }
}
