//! Google's generateContent.

use super::server::{Server, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::Gemini;
use agentry_outbound::llm::*;
use serde_json::{Value, json};
use std::time::Duration;

fn answer(parts: Value, finish_reason: Value) -> Value {
    json!({
        "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": finish_reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 4, "thoughtsTokenCount": 30, "totalTokenCount": 42},
        "modelVersion": "model-1-001", "responseId": "resp-3"})
}

fn words(text: &str) -> Value {
    json!([{"text": text}])
}

async fn read(body: Value) -> Result<ChatReply, ChatFailure> {
    ask(Gemini, reply(200, body), &with_tools()).await
}

#[tokio::test]
async fn a_conversation_is_written_as_published() {
    let recorded = asked(Gemini, &conversation()).await;
    assert_eq!(recorded.method, "POST");
    // The key is in a header: an address stands in logs.
    assert_eq!(recorded.target, "/v1/models/model-1:generateContent");
    assert_eq!(recorded.headers["x-goog-api-key"], CANARY);
    let call = |id: &str, name: &str| json!({"functionCall": {"id": id, "name": name, "args": {"city": "Oslo"}}});
    let response = |id: &str, name: &str, response: Value| json!({"functionResponse": {"id": id, "name": name, "response": response}});
    let tool = |name: &str| json!({"name": name, "description": format!("Tells the {name}."), "parametersJsonSchema": parameters()});
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be polite."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Weather and time in Oslo?"}]},
            {"role": "model", "parts": [{"text": "I look."}, call("c1", "weather"), call("c2", "clock")]},
            {"role": "user", "parts": [
                response("c1", "weather", json!({"output": "rain"})),
                response("c2", "clock", json!({"error": "no clock there"})),
            ]},
            {"role": "user", "parts": [{"text": "Well?"}]},
        ],
        "tools": [{"functionDeclarations": [tool("weather"), tool("clock")]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "generationConfig": {"maxOutputTokens": 64, "temperature": 0.7, "stopSequences": ["END"], "seed": 7},
    });
    assert_eq!(recorded.body, expected);
}

#[tokio::test]
async fn what_was_not_asked_for_is_left_out() {
    let recorded = asked(Gemini, &question()).await;
    let contents = json!([{"role": "user", "parts": [{"text": "What is the weather in Oslo?"}]}]);
    assert_eq!(recorded.body, json!({"contents": contents, "generationConfig": {"maxOutputTokens": 100}}));
}

#[tokio::test]
async fn a_seed_fits_the_providers_number() {
    let recorded = asked(Gemini, &ChatRequest { seed: Some(u32::MAX), ..question() }).await;
    assert_eq!(recorded.body["generationConfig"]["seed"], json!(i32::MAX));
}

#[tokio::test]
async fn each_tool_choice_is_written_as_published() {
    for (choice, mode) in [(ToolChoice::Auto, "AUTO"), (ToolChoice::None, "NONE"), (ToolChoice::Required, "ANY")] {
        let recorded = asked(Gemini, &ChatRequest { tool_choice: Some(choice), ..with_tools() }).await;
        assert_eq!(recorded.body["toolConfig"], json!({"functionCallingConfig": {"mode": mode}}));
    }
}

#[tokio::test]
async fn a_form_is_the_providers_unless_there_are_tools() {
    let schema = ResponseFormat::JsonSchema { name: "sum".into(), schema: parameters().to_string() };
    let body = asked(Gemini, &ChatRequest { response_format: schema.clone(), ..question() }).await.body;
    let config = &body["generationConfig"];
    assert_eq!(
        (&config["responseMimeType"], &config["responseJsonSchema"]),
        (&json!("application/json"), &parameters())
    );
    assert_eq!(body["systemInstruction"], Value::Null);
    let body = asked(Gemini, &ChatRequest { response_format: ResponseFormat::Json, ..question() }).await.body;
    let expected = json!({"maxOutputTokens": 100, "responseMimeType": "application/json"});
    assert_eq!(body["generationConfig"], expected);
    let body = asked(Gemini, &ChatRequest { response_format: schema, ..with_tools() }).await.body;
    assert_eq!(body["generationConfig"], json!({"maxOutputTokens": 100}));
    let told = body["systemInstruction"]["parts"][0]["text"].as_str().unwrap();
    assert!(told.contains(&parameters().to_string()), "{told}");
}

#[tokio::test]
async fn a_models_name_is_percent_encoded() {
    let server = Server::new([]).await;
    let model = ModelSettings { provider: "lab".into(), model: "a/b?c#d%".into(), max_output_tokens: 1 };
    let providers = [("lab".to_owned(), provider(Gemini, server.address))].into();
    let llm = Llm::new(LlmSettings { providers, models: [("default".to_owned(), model)].into() }).unwrap();
    llm.chat(&question(), soon()).await.unwrap_err();
    assert_eq!(server.only().target, "/v1/models/a%2Fb%3Fc%23d%25:generateContent");
}

#[tokio::test]
async fn an_answer_is_read_with_the_tokens_of_its_thoughts_and_without_their_words() {
    let parts =
        json!([{"text": "Hm.", "thought": true}, {"text": "No error: "}, {"text": "rain.", "thoughtSignature": "x"}]);
    let reply = ask(Gemini, reply(200, answer(parts, "STOP".into())), &question()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("No error: rain."));
    assert_eq!((reply.wants_tools, reply.usage), (false, TokenUsage { input: 8, output: 34 }));
    assert_eq!((reply.trace.model.as_str(), reply.trace.request_id.as_deref()), ("model-1-001", Some("resp-3")));
}

#[tokio::test]
async fn calls_without_ids_get_one_which_the_provider_is_not_told_and_signatures_go_back() {
    let parts = json!([
        {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "clock"}},
        {"functionCall": {"id": "fc-9", "name": "clock", "args": {"city": "Rome"}}},
    ]);
    let server = Server::new([reply(200, answer(parts.clone(), "STOP".into()))]).await;
    let llm = llm(provider(Gemini, server.address));
    let reply = llm.chat(&with_tools(), soon()).await.unwrap();
    assert!(reply.wants_tools);
    let calls = &reply.message.tool_calls;
    let read: Vec<_> = calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
    assert_eq!(read, [("call_1", r#"{"city":"Oslo"}"#), ("call_2", "{}"), ("fc-9", r#"{"city":"Rome"}"#)]);
    let mut next = with_tools();
    let result = ToolResult { id: "call_1".into(), name: "weather".into(), content: "rain".into(), failed: false };
    next.messages.extend([Message::Assistant(reply.message), Message::Tool(result)]);
    llm.chat(&next, soon()).await.unwrap_err();
    let body = &server.recorded()[1].body;
    let mut expected = parts;
    expected[1]["functionCall"]["args"] = json!({});
    assert_eq!(body["contents"][1], json!({"role": "model", "parts": expected}));
    let response = json!({"functionResponse": {"name": "weather", "response": {"output": "rain"}}});
    assert_eq!(body["contents"][2]["parts"], json!([response]));
}

#[tokio::test]
async fn each_way_to_finish_has_its_outcome() {
    let cut = error(read(answer(words("half"), "MAX_TOKENS".into())).await);
    assert_eq!(cut, ChatError::Truncated { text: "half".into() });
    // Thoughts may use up all there is; there is no content then.
    let cut = json!({"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]});
    assert_eq!(error(read(cut).await), ChatError::Truncated { text: String::new() });
    for reason in [
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    ] {
        let blocked = error(read(answer(words("par"), reason.into())).await);
        assert_eq!(blocked, ChatError::Blocked { reason: reason.into() });
    }
    for reason in
        ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "OTHER", "FINISH_REASON_UNSPECIFIED"]
    {
        let mut body = answer(words("par"), reason.into());
        body["candidates"][0]["finishMessage"] = "print(".into();
        match error(read(body).await) {
            ChatError::Unparsable { reason: told } => assert!(told.contains(&format!("{reason}: print(")), "{told}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_never_an_answer_and_says_why() {
    let blocked =
        json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 8}});
    let failure = read(blocked).await.unwrap_err();
    assert_eq!(failure.error, ChatError::Blocked { reason: "the prompt was blocked: PROHIBITED_CONTENT".into() });
    assert_eq!(failure.usage, TokenUsage { input: 8, output: 0 });
    let call = |args: Value| json!([{"functionCall": {"name": "weather", "args": args}}]);
    let cases = [
        (json!({"candidates": []}), "no candidates"),
        (json!({}), "no candidates"),
        (json!(7), "no candidates"),
        (answer(json!([]), "STOP".into()), "neither text nor tool calls"),
        (answer(json!([{"text": "Hm.", "thought": true}]), "STOP".into()), "neither text nor tool calls"),
        (answer(call(json!("Oslo")), "STOP".into()), "do not parse"),
        (answer(call(json!(["Oslo"])), "STOP".into()), "no object"),
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
    let long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
    let key = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
    let none = json!([]);
    let cases = [
        (400, "INVALID_ARGUMENT", "bad schema", &none, "InvalidRequest", "bad schema"),
        (400, "INVALID_ARGUMENT", long, &none, "TooLong", "1200000"),
        (400, "INVALID_ARGUMENT", "API key not valid.", &key, "Unavailable", "llm.providers.lab.key"),
        (
            400,
            "FAILED_PRECONDITION",
            "enable billing",
            &none,
            "Unavailable",
            "llm.providers.lab is used up or not set up",
        ),
        (401, "UNAUTHENTICATED", "who?", &none, "Unavailable", "llm.providers.lab.key"),
        (403, "PERMISSION_DENIED", "no", &none, "Unavailable", "llm.providers.lab.key"),
        (404, "NOT_FOUND", "models/model-1 is not found", &none, "Unavailable", "llm.models.default.model"),
        (429, "RESOURCE_EXHAUSTED", "quota", &none, "RateLimited", "quota"),
        (500, "INTERNAL", "oops", &none, "Unavailable", "oops"),
        (503, "UNAVAILABLE", "overloaded", &none, "Unavailable", "overloaded"),
        (504, "DEADLINE_EXCEEDED", "late", &none, "Unavailable", "late"),
    ];
    for (status, kind, message, details, class, words) in cases {
        let body = json!({"error": {"code": status, "message": message, "status": kind, "details": details}});
        for body in [body.clone(), json!([body])] {
            let shown = format!("{:?}", error(ask(Gemini, reply(status, body), &question()).await));
            assert!(shown.starts_with(class) && shown.contains(words), "{status} {kind}: {shown}");
        }
        let shown = format!("{:?}", error(ask(Gemini, reply(200, body), &question()).await));
        assert!(shown.starts_with(class), "200 with {kind}: {shown}");
    }
}

#[tokio::test]
async fn when_to_come_again_stands_in_the_details() {
    for (delay, millis) in [("34.5s", 34_500), ("1e19s", 30 * 86_400_000)] {
        let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay});
        let error_body = json!({"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [retry]});
        let limited = error(ask(Gemini, reply(429, json!({"error": error_body})), &question()).await);
        let after = Some(Duration::from_millis(millis));
        assert_eq!(limited, ChatError::RateLimited { reason: "quota".into(), after });
    }
}
