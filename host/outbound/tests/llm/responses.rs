//! OpenAI's Responses API.

use super::server::{Server, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::OpenAiResponses;
use agentry_outbound::llm::*;
use serde_json::{Value, json};

/// An answer as the API writes it.
fn answer(output: Value) -> Value {
    json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "error": null,
        "incomplete_details": null, "model": "model-1-0613", "output": output, "store": false, "tools": [],
        "usage": {"input_tokens": 19, "input_tokens_details": {"cached_tokens": 16}, "output_tokens": 10,
            "output_tokens_details": {"reasoning_tokens": 8}, "total_tokens": 29}})
}

fn message(text: &str) -> Value {
    json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

fn thought() -> Value {
    json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA=="})
}

fn function(name: &str, arguments: Value) -> Value {
    json!({"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": name, "arguments": arguments, "status": "completed"})
}

async fn read(body: Value) -> Result<ChatReply, ChatFailure> {
    ask(OpenAiResponses, reply(200, body), &with_tools()).await
}

#[tokio::test]
async fn conversation_is_written_as_published_and_nothing_is_stored() {
    let request = ChatRequest { stop: Vec::new(), ..conversation() };
    let recorded = asked(OpenAiResponses, &request).await;
    assert_eq!((recorded.method.as_str(), recorded.target.as_str()), ("POST", "/v1/responses"));
    assert_eq!(recorded.headers["authorization"], format!("Bearer {CANARY}"));
    let call = |id: &str, name: &str| json!({"type": "function_call", "call_id": id, "name": name, "arguments": "{\"city\":\"Oslo\"}"});
    let tool = |name: &str| {
        json!({"type": "function", "name": name, "description": format!("Tells the {name}."),
            "parameters": parameters(), "strict": false})
    };
    let expected = json!({
        "model": "model-1",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather and time in Oslo?"},
            {"role": "assistant", "content": "I look."},
            call("c1", "weather"), call("c2", "clock"),
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": "no clock there"},
            {"role": "system", "content": "Be polite."},
            {"role": "user", "content": "Well?"},
        ],
        "max_output_tokens": 64,
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "tools": [tool("weather"), tool("clock")],
        "tool_choice": {"type": "function", "name": "weather"},
        "temperature": 0.7,
    });
    assert_eq!(recorded.body, expected);
}

#[tokio::test]
async fn each_format_is_written_as_published() {
    let format =
        async |format| asked(OpenAiResponses, &ChatRequest { response_format: format, ..question() }).await.body;
    assert_eq!(format(ResponseFormat::Json).await["text"], json!({"format": {"type": "json_object"}}));
    for (schema, strict) in [(closed_schema(), true), (parameters(), false)] {
        let body = format(ResponseFormat::JsonSchema { name: "sum".into(), schema: schema.to_string() }).await;
        let expected = json!({"format": {"type": "json_schema", "name": "sum", "schema": schema, "strict": strict}});
        assert_eq!(body["text"], expected);
    }
}

#[tokio::test]
async fn thoughts_are_asked_for_where_a_model_may_have_some() {
    for (name, thinks) in [("gpt-5-mini", true), ("o3", true), ("gpt-4o-mini", false), ("gpt-4.1", false)] {
        let server = Server::new([]).await;
        let model = ModelSettings { provider: "lab".into(), model: name.into(), max_output_tokens: 100 };
        let providers = [("lab".to_owned(), provider(OpenAiResponses, server.address))].into();
        let llm = Llm::new(LlmSettings { providers, models: [("default".to_owned(), model)].into() }).unwrap();
        llm.chat(&question(), soon()).await.unwrap_err();
        assert_eq!(server.only().body["include"].is_array(), thinks, "{name}");
    }
}

#[tokio::test]
async fn stop_is_rejected_before_anything_is_sent() {
    let server = Server::new([]).await;
    let request = ChatRequest { stop: vec!["END".into()], ..question() };
    let error = error(llm(provider(OpenAiResponses, server.address)).chat(&request, soon()).await);
    assert!(matches!(&error, ChatError::InvalidRequest { reason } if reason.contains("stop")), "{error:?}");
    assert_eq!(server.recorded().len(), 0);
}

#[tokio::test]
async fn answer_is_read_with_its_usage_and_its_trace() {
    let reply = read(answer(json!([thought(), message("ra"), message("in")]))).await.unwrap();
    assert_eq!(reply.message, Assistant { text: Some("rain".into()), tool_calls: Vec::new() });
    assert_eq!((reply.wants_tools, reply.usage), (false, TokenUsage { input: 19, output: 10 }));
    let trace = reply.trace;
    assert_eq!((trace.model.as_str(), trace.request_id.as_deref()), ("model-1-0613", Some("resp_1")));
    assert_eq!((trace.tokens.cached, trace.tokens.reasoning, trace.tokens.is_estimated), (Some(16), Some(8), false));
}

#[tokio::test]
async fn thoughts_before_a_call_go_back_right_before_it() {
    let bare = json!({"type": "reasoning", "id": "rs_0", "summary": [], "encrypted_content": null});
    let output = json!([bare, thought(), message("I look."), function("weather", json!("{\"city\":\"Oslo\"}"))]);
    let server = Server::new([reply(200, answer(output))]).await;
    let llm = llm(provider(OpenAiResponses, server.address));
    let reply = llm.chat(&with_tools(), soon()).await.unwrap();
    assert!(reply.wants_tools);
    assert_eq!(reply.message.text.as_deref(), Some("I look."));
    let mut next = with_tools();
    let result = ToolResult { id: "call_a".into(), name: "weather".into(), content: "rain".into(), failed: false };
    next.messages.extend([Message::Assistant(reply.message), Message::Tool(result)]);
    llm.chat(&next, soon()).await.unwrap_err();
    let input = server.recorded()[1].body["input"].as_array().unwrap()[1..].to_vec();
    let call =
        json!({"type": "function_call", "call_id": "call_a", "name": "weather", "arguments": "{\"city\":\"Oslo\"}"});
    let expected = json!([{"role": "assistant", "content": "I look."}, thought(), call,
        {"type": "function_call_output", "call_id": "call_a", "output": "rain"}]);
    assert_eq!(Value::Array(input), expected);
}

#[tokio::test]
async fn each_way_to_end_has_its_outcome() {
    let with = |status: &str, reason: Value, output: Value| {
        let mut body = answer(output);
        body["status"] = status.into();
        body["incomplete_details"] = json!({"reason": reason});
        body
    };
    let half = || json!([message("half")]);
    let refusal = json!([{"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}]);
    let failed =
        json!({"id": "r", "status": "failed", "output": [], "error": {"code": "server_error", "message": "oops"}});
    let limited = json!({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow down"}});
    let cases = [
        (with("incomplete", json!("max_output_tokens"), half()), "Truncated", "half"),
        (with("incomplete", json!("content_filter"), half()), "Blocked", "content_filter"),
        (with("incomplete", Value::Null, half()), "Unparsable", "incomplete"),
        (with("in_progress", Value::Null, half()), "Unparsable", "in_progress"),
        (with("mystery", Value::Null, half()), "Unparsable", "mystery"),
        (answer(refusal), "Blocked", "I cannot."),
        (answer(json!([])), "Unparsable", "neither text nor tool calls; its status is"),
        (answer(json!([thought()])), "Unparsable", "it has reasoning"),
        (answer(json!([{"type": "web_search_call", "id": "ws_1"}, message("rain")])), "Unparsable", "web_search_call"),
        (answer(json!([function("rm", json!("{}"))])), "Unparsable", "rm"),
        (answer(json!([function("weather", json!("{"))])), "Unparsable", "do not parse"),
        (failed, "Unavailable", "oops"),
        (limited, "RateLimited", "slow down"),
        (json!({}), "Unparsable", "no output"),
    ];
    for (body, class, words) in cases {
        let shown = format!("{:?}", error(read(body.clone()).await));
        assert!(shown.starts_with(class) && shown.contains(words), "{body}: {shown}");
    }
    for status in [json!("completed"), Value::Null] {
        let mut body = answer(half());
        body["status"] = status;
        assert_eq!(read(body).await.unwrap().message.text.as_deref(), Some("half"));
    }
}

#[tokio::test]
async fn errors_are_those_of_the_other_api() {
    let body = json!({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}});
    let limited = error(ask(OpenAiResponses, reply(429, body), &question()).await);
    assert_eq!(limited, ChatError::RateLimited { reason: "slow down".into(), after: None });
    let lost = error(ask(OpenAiResponses, reply(404, json!({"detail": "Not Found"})), &question()).await).to_string();
    assert!(lost.contains("llm.providers.lab.url") && lost.contains("POST /v1/responses"), "{lost}");
}
