//! Chat Completions.

use super::server::{Server, raw, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::OpenAi;
use agentry_outbound::llm::*;
use serde_json::{Value, json};

fn answer(message: Value, finish_reason: Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model-1-0613",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": null}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}})
}

fn said(content: Value) -> Value {
    json!({"role": "assistant", "content": content, "refusal": null})
}

fn calling(arguments: Value) -> Value {
    json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": arguments}}]})
}

async fn read(body: Value) -> Result<ChatReply, ChatFailure> {
    ask(OpenAi, reply(200, body), &with_tools()).await
}

#[tokio::test]
async fn a_conversation_is_written_as_published() {
    let recorded = asked(OpenAi, &conversation()).await;
    assert_eq!((recorded.method.as_str(), recorded.target.as_str()), ("POST", "/v1/chat/completions"));
    assert_eq!(recorded.headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(recorded.headers["content-type"], "application/json");
    let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{\"city\":\"Oslo\"}"}});
    let tool = |name: &str| {
        json!({"type": "function", "function":
            {"name": name, "description": format!("Tells the {name}."), "parameters": parameters()}})
    };
    let expected = json!({
        "model": "model-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather and time in Oslo?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call("c1", "weather"), call("c2", "clock")]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "no clock there"},
            {"role": "system", "content": "Be polite."},
            {"role": "user", "content": "Well?"},
        ],
        "max_tokens": 64,
        "tools": [tool("weather"), tool("clock")],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "temperature": 0.7,
        "stop": ["END"],
        "seed": 7,
    });
    assert_eq!(recorded.body, expected);
}

#[tokio::test]
async fn what_was_not_asked_for_is_left_out_and_the_operators_longest_answer_holds() {
    let recorded = asked(OpenAi, &ChatRequest { max_tokens: Some(5000), ..question() }).await;
    let messages = json!([{"role": "user", "content": "What is the weather in Oslo?"}]);
    assert_eq!(recorded.body, json!({"model": "model-1", "messages": messages, "max_tokens": 100}));
}

#[tokio::test]
async fn each_tool_choice_is_written_as_published() {
    let cases = [
        (ToolChoice::Auto, json!("auto")),
        (ToolChoice::None, json!("none")),
        (ToolChoice::Required, json!("required")),
    ];
    for (choice, expected) in cases {
        let recorded = asked(OpenAi, &ChatRequest { tool_choice: Some(choice), ..with_tools() }).await;
        assert_eq!(recorded.body["tool_choice"], expected);
    }
}

#[tokio::test]
async fn each_format_is_written_as_published() {
    let format = async |format| asked(OpenAi, &ChatRequest { response_format: format, ..question() }).await;
    let recorded = format(ResponseFormat::Json).await;
    assert_eq!(recorded.body["response_format"], json!({"type": "json_object"}));
    // A provider refuses to be strict about a schema whose objects are open.
    for (schema, strict) in [(closed_schema(), true), (parameters(), false)] {
        let recorded = format(ResponseFormat::JsonSchema { name: "sum".into(), schema: schema.to_string() }).await;
        let expected =
            json!({"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": strict}});
        assert_eq!(recorded.body["response_format"], expected);
    }
}

#[tokio::test]
async fn an_answer_is_read_with_its_usage_and_its_trace() {
    let play = reply(200, answer(said("There was no error, only rain.".into()), "stop".into()));
    let reply = ask(OpenAi, play.with("x-request-id", "req-7"), &question()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("There was no error, only rain."));
    assert_eq!((reply.wants_tools, reply.usage), (false, TokenUsage { input: 19, output: 10 }));
    let trace = reply.trace;
    assert_eq!((trace.provider.as_str(), trace.model.as_str(), trace.tries), ("lab", "model-1-0613", 1));
    assert_eq!(trace.request_id.as_deref(), Some("req-7"));
    assert!(trace.request_bytes > 50 && trace.response_bytes > 100, "{trace:?}");
}

#[tokio::test]
async fn content_may_be_a_list_of_parts_and_usage_may_be_missing() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let reply = read(json!({"choices": [{"message": said(parts), "finish_reason": "stop"}]})).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("ab"));
    assert_eq!((reply.usage, reply.trace.model.as_str()), (TokenUsage::default(), "model-1"));
}

#[tokio::test]
async fn tool_calls_are_read_in_every_form_that_servers_write() {
    for (arguments, expected) in [
        (json!("{\"city\": \"Oslo\"}"), "{\"city\": \"Oslo\"}"),
        (json!({"city": "Oslo"}), "{\"city\":\"Oslo\"}"),
        (json!(""), "{}"),
    ] {
        for finish_reason in ["tool_calls", "stop"] {
            let reply = read(answer(calling(arguments.clone()), finish_reason.into())).await.unwrap();
            assert!(reply.wants_tools);
            let call = ToolCall { arguments: expected.into(), ..call("call_a", "weather", None) };
            assert_eq!(reply.message, Assistant { text: None, tool_calls: vec![call] });
        }
    }
}

#[tokio::test]
async fn a_call_without_an_id_gets_one_that_the_conversation_does_not_have() {
    let function = json!({"name": "clock", "arguments": "{}"});
    let message = json!({"content": "", "tool_calls": [{"function": function}, {"id": "call_4", "function": function},
        {"id": "", "function": function}]});
    let play = reply(200, answer(message, "tool_calls".into()));
    let reply = ask(OpenAi, play, &ChatRequest { tool_choice: None, ..conversation() }).await.unwrap();
    let ids: Vec<_> = reply.message.tool_calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["call_3", "call_4", "call_5"]);
}

#[tokio::test]
async fn the_function_call_of_older_servers_is_a_tool_call() {
    let message = json!({"content": null, "function_call": {"name": "clock", "arguments": "{}"}});
    let reply = read(answer(message, "function_call".into())).await.unwrap();
    assert_eq!(reply.message.tool_calls, [ToolCall { arguments: "{}".into(), ..call("call_1", "clock", None) }]);
}

#[tokio::test]
async fn what_is_not_whole_is_never_an_answer() {
    let truncated = |text: &str| ChatError::Truncated { text: text.into() };
    assert_eq!(error(read(answer(said("half".into()), "length".into())).await), truncated("half"));
    assert_eq!(error(read(answer(said(Value::Null), "length".into())).await), truncated(""));
    assert_eq!(error(read(answer(calling("{}".into()), "length".into())).await), truncated(""));
    let refused = json!({"role": "assistant", "content": null, "refusal": "I cannot help with that."});
    let parts = said(json!([{"type": "refusal", "refusal": "I cannot help with that."}]));
    for message in [refused, parts] {
        let blocked = ChatError::Blocked { reason: "I cannot help with that.".into() };
        assert_eq!(error(read(answer(message, "stop".into())).await), blocked);
    }
    let filtered = error(read(answer(said("ha".into()), "content_filter".into())).await);
    assert!(matches!(filtered, ChatError::Blocked { .. }), "{filtered}");
}

#[tokio::test]
async fn what_cannot_be_read_is_never_an_answer_and_says_why() {
    let unknown = json!({"content": null, "tool_calls": [{"id": "x", "function": {"name": "rm", "arguments": "{}"}}]});
    let cases = [
        (json!({}), "choices[0].message"),
        (json!({"choices": []}), "choices[0].message"),
        (json!([1, 2]), "choices[0].message"),
        (answer(said("what?".into()), "mystery".into()), "\"mystery\""),
        (answer(said(Value::Null), "stop".into()), "neither text nor tool calls"),
        (answer(said(" \n".into()), "stop".into()), "neither text nor tool calls"),
        (answer(said(Value::Null), "tool_calls".into()), "calls no tool"),
        (answer(calling("{\"city\": \"Os".into()), "tool_calls".into()), "do not parse"),
        (answer(calling("[1]".into()), "tool_calls".into()), "no object"),
        (answer(calling(json!([1])), "tool_calls".into()), "no object"),
        (answer(unknown, "tool_calls".into()), "\"rm\", which was not offered"),
    ];
    for (body, why) in cases {
        match error(read(body.clone()).await) {
            ChatError::Unparsable { reason } => assert!(reason.contains(why), "{reason}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn usage_is_told_of_answers_that_are_none() {
    let failure = read(answer(said("half".into()), "length".into())).await.unwrap_err();
    assert_eq!(failure.usage, TokenUsage { input: 19, output: 10 });
    assert_eq!((failure.trace.tries, failure.trace.model.as_str()), (1, "model-1-0613"));
    assert_eq!(failure.trace.request_id.as_deref(), Some("chatcmpl-1"));
}

fn fault(message: &str, kind: &str, code: Value) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

#[tokio::test]
async fn each_error_has_its_class() {
    let long = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.";
    let key = fault("Incorrect API key provided: sk-can*****", "invalid_request_error", "invalid_api_key".into());
    let moderated = json!({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}});
    let cases = [
        (400, fault("bad 'temperature'", "invalid_request_error", Value::Null), "InvalidRequest", "bad 'temperature'"),
        (422, json!({"detail": "field required"}), "InvalidRequest", "field required"),
        (400, fault(long, "invalid_request_error", "context_length_exceeded".into()), "TooLong", "8192"),
        (400, json!({"object": "error", "message": long, "type": "BadRequestError", "code": 400}), "TooLong", "8192"),
        (400, fault("the request exceeds", "exceed_context_size_error", json!(400)), "TooLong", "exceeds"),
        (413, json!(null), "TooLong", "status 413"),
        (401, key.clone(), "Unavailable", "llm.providers.lab.key"),
        (403, fault("no", "forbidden", Value::Null), "Unavailable", "llm.providers.lab.key"),
        (403, moderated, "Blocked", "flagged"),
        (400, fault("filtered", "", "content_filter".into()), "Blocked", "filtered"),
        (404, fault("no such model", "", "model_not_found".into()), "Unavailable", "llm.models.default.model"),
        (402, fault("pay", "", json!(402)), "Unavailable", "llm.providers.lab is used up"),
        (429, fault("slow down", "requests", "rate_limit_exceeded".into()), "RateLimited", "slow down"),
        (429, fault("no money", "insufficient_quota", "insufficient_quota".into()), "Unavailable", "no money"),
        (500, fault("oops", "server_error", Value::Null), "Unavailable", "oops"),
        (503, json!({"error": "overloaded"}), "Unavailable", "overloaded"),
        (418, json!("tea"), "InvalidRequest", "tea"),
    ];
    for (status, body, class, words) in cases {
        let error = error(ask(OpenAi, reply(status, body.clone()), &question()).await);
        let shown = format!("{error:?}");
        assert!(shown.starts_with(class) && shown.contains(words), "{status} {body}: {shown}");
        assert!(!shown.contains("sk-can"), "{shown}");
    }
}

#[tokio::test]
async fn an_error_with_the_status_of_a_success_is_an_error() {
    let body = json!({"error": {"message": "upstream is down", "code": 502}});
    let in_choice = json!({"choices": [{"finish_reason": "error", "message": {"content": "par"},
        "error": {"code": 429, "message": "upstream is busy"}}]});
    let shown = [body, in_choice, json!({"error": "model is loading"})].map(read);
    let mut errors = Vec::new();
    for outcome in shown {
        errors.push(format!("{:?}", error(outcome.await)));
    }
    assert!(errors[0].starts_with("Unavailable") && errors[0].contains("upstream is down"), "{errors:?}");
    assert!(errors[1].starts_with("RateLimited") && errors[1].contains("upstream is busy"), "{errors:?}");
    assert!(errors[2].starts_with("Unavailable") && errors[2].contains("model is loading"), "{errors:?}");
}

#[tokio::test]
async fn the_body_counts_and_not_its_content_type() {
    let body = answer(said("fine".into()), "stop".into()).to_string();
    let reply = ask(OpenAi, raw(200, "text/plain", &body), &question()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("fine"));
}

#[tokio::test]
async fn what_a_gateway_wants_back_with_a_call_goes_back() {
    let extra = json!({"google": {"thought_signature": "sig=="}});
    let mut message = calling("{\"city\":\"Oslo\"}".into());
    message["tool_calls"][0]["extra_content"] = extra.clone();
    let server = Server::new([reply(200, answer(message, "tool_calls".into()))]).await;
    let llm = llm(provider(OpenAi, server.address));
    let reply = llm.chat(&with_tools(), soon()).await.unwrap();
    let mut next = with_tools();
    next.messages.push(Message::Assistant(reply.message));
    llm.chat(&next, soon()).await.unwrap_err();
    assert_eq!(server.recorded()[1].body["messages"][1]["tool_calls"][0]["extra_content"], extra);
}
