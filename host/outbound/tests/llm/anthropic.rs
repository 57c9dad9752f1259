//! Anthropic's Messages.

use super::server::{Server, reply};
use super::site::*;
use agentry_outbound::Secret;
use agentry_outbound::llm::ProviderKind::Anthropic;
use agentry_outbound::llm::*;
use serde_json::{Value, json};

fn answer(content: Value, stop_reason: Value) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "model-1-20260101", "content": content,
        "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 6}})
}

fn words(text: &str) -> Value {
    json!([{"type": "text", "text": text}])
}

fn tool_use(input: Value) -> Value {
    json!([{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": input}])
}

async fn read(body: Value) -> Result<ChatReply, ChatFailure> {
    ask(Anthropic, reply(200, body), &with_tools()).await
}

#[tokio::test]
async fn a_conversation_is_written_as_published() {
    let recorded = asked(Anthropic, &conversation()).await;
    assert_eq!((recorded.method.as_str(), recorded.target.as_str()), ("POST", "/v1/messages"));
    assert_eq!(recorded.headers["x-api-key"], CANARY);
    // There is a temperature in it, which later versions refuse.
    assert_eq!(recorded.headers["anthropic-version"], "2023-06-01");
    assert!(!recorded.headers.contains_key("authorization"));
    let call = |id: &str, name: &str| json!({"type": "tool_use", "id": id, "name": name, "input": {"city": "Oslo"}});
    let tool =
        |name: &str| json!({"name": name, "description": format!("Tells the {name}."), "input_schema": parameters()});
    let expected = json!({
        "model": "model-1",
        "max_tokens": 64,
        "system": "Be brief.\n\nBe polite.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather and time in Oslo?"}]},
            {"role": "assistant", "content":
                [{"type": "text", "text": "I look."}, call("c1", "weather"), call("c2", "clock")]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "no clock there", "is_error": true},
            ]},
            {"role": "user", "content": [{"type": "text", "text": "Well?"}]},
        ],
        "tools": [tool("weather"), tool("clock")],
        "tool_choice": {"type": "tool", "name": "weather"},
        "temperature": 0.7,
        "stop_sequences": ["END"],
    });
    assert_eq!(recorded.body, expected);
}

#[tokio::test]
async fn the_longest_answer_is_always_said_and_nothing_else_that_was_not_asked_for() {
    let recorded = asked(Anthropic, &question()).await;
    assert_eq!(recorded.headers["anthropic-version"], "2026-10-21");
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "What is the weather in Oslo?"}]}]);
    assert_eq!(recorded.body, json!({"model": "model-1", "max_tokens": 100, "messages": messages}));
}

#[tokio::test]
async fn the_operators_version_of_the_api_holds() {
    let server = Server::new([]).await;
    let headers = [("Anthropic-Version".to_owned(), Secret::new("2024-10-22"))].into();
    let settings = ProviderSettings { headers, ..provider(Anthropic, server.address) };
    llm(settings).chat(&conversation(), soon()).await.unwrap_err();
    assert_eq!(server.only().headers["anthropic-version"], "2024-10-22");
}

#[tokio::test]
async fn each_tool_choice_is_written_as_published() {
    for (choice, expected) in [(ToolChoice::Auto, "auto"), (ToolChoice::None, "none"), (ToolChoice::Required, "any")] {
        let recorded = asked(Anthropic, &ChatRequest { tool_choice: Some(choice), ..with_tools() }).await;
        assert_eq!(recorded.body["tool_choice"], json!({"type": expected}));
    }
}

#[tokio::test]
async fn a_closed_schema_is_the_providers_and_any_other_form_is_an_instruction() {
    let format = async |format| asked(Anthropic, &ChatRequest { response_format: format, ..question() }).await.body;
    let schema = |schema: Value| ResponseFormat::JsonSchema { name: "sum".into(), schema: schema.to_string() };
    let body = format(schema(closed_schema())).await;
    assert_eq!(body["output_config"], json!({"format": {"type": "json_schema", "schema": closed_schema()}}));
    assert_eq!(body["system"], Value::Null);
    let body = format(schema(parameters())).await;
    assert_eq!(body["output_config"], Value::Null);
    assert!(body["system"].as_str().unwrap().contains(&parameters().to_string()), "{body}");
    let body = format(ResponseFormat::Json).await;
    assert!(body["system"].as_str().unwrap().contains("JSON alone"), "{body}");
}

#[tokio::test]
async fn an_answer_is_read_with_all_its_input_and_the_request_id() {
    for stop_reason in ["end_turn", "stop_sequence"] {
        let play = reply(200, answer(words("An error? No, rain."), stop_reason.into())).with("request-id", "req_9");
        let reply = ask(Anthropic, play, &question()).await.unwrap();
        assert_eq!(reply.message.text.as_deref(), Some("An error? No, rain."));
        // What was read from the cache, and written to it, was input too.
        assert_eq!((reply.wants_tools, reply.usage), (false, TokenUsage { input: 20, output: 6 }));
        assert_eq!(reply.trace.request_id.as_deref(), Some("req_9"));
        assert_eq!(reply.trace.model, "model-1-20260101");
    }
}

#[tokio::test]
async fn tool_calls_are_read() {
    let reply = read(answer(tool_use(json!({"city": "Oslo"})), "tool_use".into())).await.unwrap();
    assert!(reply.wants_tools);
    let expected = Assistant { text: Some("I look.".into()), tool_calls: vec![call("toolu_1", "weather", None)] };
    assert_eq!(reply.message, expected);
}

#[tokio::test]
async fn thoughts_before_a_call_go_back_with_it_byte_for_byte() {
    let thought = json!({"type": "thinking", "thinking": "Hm: \"Oslo\"?", "signature": "EqQB=="});
    let hidden = json!({"type": "redacted_thinking", "data": "Emw="});
    let mut content = tool_use(json!({"city": "Oslo"}));
    content.as_array_mut().unwrap().splice(0..0, [thought.clone(), hidden.clone()]);
    let server = Server::new([reply(200, answer(content, "tool_use".into()))]).await;
    let llm = llm(provider(Anthropic, server.address));
    let reply = llm.chat(&with_tools(), soon()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("I look."));
    let mut next = with_tools();
    next.messages.push(Message::Assistant(reply.message));
    llm.chat(&next, soon()).await.unwrap_err();
    let blocks = &server.recorded()[1].body["messages"][1]["content"];
    assert_eq!((&blocks[0], &blocks[1], &blocks[2]["type"]), (&thought, &hidden, &json!("text")));
}

#[tokio::test]
async fn what_another_provider_wanted_back_is_left_out() {
    let mut request = with_tools();
    let tool_calls = vec![call("c1", "weather", Some("gemini:sig"))];
    request.messages.push(Message::Assistant(Assistant { text: None, tool_calls }));
    let body = asked(Anthropic, &request).await.body;
    let expected = json!([{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}]);
    assert_eq!(body["messages"][1]["content"], expected);
}

#[tokio::test]
async fn each_way_to_stop_has_its_outcome() {
    for stop_reason in ["max_tokens", "model_context_window_exceeded"] {
        let cut = error(read(answer(words("half"), stop_reason.into())).await);
        assert_eq!(cut, ChatError::Truncated { text: "half".into() });
    }
    let mut refusal = answer(words("I"), "refusal".into());
    let blocked = |reason: &str| ChatError::Blocked { reason: reason.into() };
    assert_eq!(error(read(refusal.clone()).await), blocked("the model refused"));
    refusal["stop_details"] = json!({"type": "refusal", "category": "bio", "explanation": null});
    assert_eq!(error(read(refusal.clone()).await), blocked("bio"));
    refusal["stop_details"]["explanation"] = "not this".into();
    assert_eq!(error(read(refusal).await), blocked("not this"));
    let cases = [
        (answer(words("…"), "pause_turn".into()), "paused"),
        (answer(words("…"), "mystery".into()), "\"mystery\""),
        (answer(json!([]), "end_turn".into()), "neither text nor tool calls"),
        (answer(json!([{"type": "thinking", "thinking": "Hm."}]), "end_turn".into()), "neither text nor tool calls"),
        (answer(tool_use(json!("Oslo")), "tool_use".into()), "do not parse"),
        (json!({"type": "message"}), "no content"),
        (json!("hello"), "no content"),
    ];
    for (body, why) in cases {
        match error(read(body.clone()).await) {
            ChatError::Unparsable { reason } => assert!(reason.contains(why), "{reason}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn each_error_has_its_class() {
    let long = "prompt is too long: 210000 tokens > 200000 maximum";
    let poor = "Your credit balance is too low to access the Anthropic API.";
    let cases = [
        (400, "invalid_request_error", "messages: bad", "InvalidRequest", "messages: bad"),
        (400, "invalid_request_error", long, "TooLong", "210000"),
        (400, "invalid_request_error", poor, "Unavailable", "llm.providers.lab is used up"),
        (401, "authentication_error", "invalid x-api-key", "Unavailable", "llm.providers.lab.key"),
        (402, "billing_error", "pay", "Unavailable", "llm.providers.lab is used up"),
        (403, "permission_error", "not yours", "Unavailable", "llm.providers.lab.key"),
        (404, "not_found_error", "model: model-1", "Unavailable", "llm.models.default.model"),
        (413, "request_too_large", "too large", "TooLong", "too large"),
        (429, "rate_limit_error", "slow down", "RateLimited", "slow down"),
        (500, "api_error", "oops", "Unavailable", "oops"),
        (504, "timeout_error", "late", "Unavailable", "late"),
        (529, "overloaded_error", "Overloaded", "Unavailable", "Overloaded"),
        // The type is newer than this code; the status is not.
        (529, "mystery_error", "hm", "Unavailable", "hm"),
    ];
    for (status, kind, message, class, words) in cases {
        let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
        let shown = format!("{:?}", error(ask(Anthropic, reply(status, body.clone()), &question()).await));
        assert!(shown.starts_with(class) && shown.contains(words), "{status} {kind}: {shown}");
        // The same in the clothes of a success is no answer either.
        assert!(ask(Anthropic, reply(200, body), &question()).await.is_err());
    }
}
