//! One agent's conversation, unchanged, through all three shapes.

use super::server::{Server, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi, OpenAiResponses};
use agentry_outbound::llm::*;
use serde_json::{Value, json};

/// Two calls at once, and then the answer.
fn script(kind: ProviderKind) -> [Value; 2] {
    let (oslo, rome) = (json!({"city": "Oslo"}), json!({"city": "Rome"}));
    match kind {
        OpenAi => {
            let call = |id: &str, name: &str, arguments: &Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
            let calls = [call("a", "weather", &oslo), call("b", "clock", &rome)];
            let asks = json!({"choices": [{"message": {"content": "Wait.", "tool_calls": calls}, "finish_reason": "tool_calls"}]});
            [asks, json!({"choices": [{"message": {"content": "Rain, and noon."}, "finish_reason": "stop"}]})]
        }
        OpenAiResponses => {
            let call = |id: &str, name: &str, arguments: &Value| json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments.to_string()});
            let message = |text: &str| json!({"type": "message", "content": [{"type": "output_text", "text": text}]});
            let output = [message("Wait."), call("a", "weather", &oslo), call("b", "clock", &rome)];
            [
                json!({"output": output, "status": "completed"}),
                json!({"output": [message("Rain, and noon.")], "status": "completed"}),
            ]
        }
        Anthropic => {
            let call = |id: &str, name: &str, input: &Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
            let text = |text: &str| json!({"type": "text", "text": text});
            let content = [text("Wait."), call("a", "weather", &oslo), call("b", "clock", &rome)];
            [
                json!({"content": content, "stop_reason": "tool_use"}),
                json!({"content": [text("Rain, and noon.")], "stop_reason": "end_turn"}),
            ]
        }
        Gemini => {
            let call = |name: &str, args: &Value| json!({"functionCall": {"name": name, "args": args}});
            let candidate = |parts: Value| json!({"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}]});
            [
                candidate(json!([{"text": "Wait."}, call("weather", &oslo), call("clock", &rome)])),
                candidate(json!([{"text": "Rain, and noon."}])),
            ]
        }
    }
}

/// What the provider is told the second time, beyond the question: the model's turn and the results.
fn told(kind: ProviderKind, body: &Value) -> Value {
    let turns = match kind {
        Gemini => &body["contents"],
        OpenAiResponses => &body["input"],
        OpenAi | Anthropic => &body["messages"],
    };
    Value::Array(turns.as_array().unwrap()[1..].to_vec())
}

fn expected(kind: ProviderKind) -> Value {
    let [asks, _] = script(kind);
    match kind {
        OpenAi => {
            let mut said = asks["choices"][0]["message"].clone();
            said["role"] = "assistant".into();
            json!([said, {"role": "tool", "tool_call_id": "a", "content": "rain"},
                {"role": "tool", "tool_call_id": "b", "content": "stopped"}])
        }
        OpenAiResponses => json!([{"role": "assistant", "content": "Wait."}, asks["output"][1], asks["output"][2],
            {"type": "function_call_output", "call_id": "a", "output": "rain"},
            {"type": "function_call_output", "call_id": "b", "output": "stopped"}]),
        Anthropic => json!([{"role": "assistant", "content": asks["content"]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "b", "content": "stopped", "is_error": true}]}]),
        Gemini => json!([{"role": "model", "parts": asks["candidates"][0]["content"]["parts"]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "weather", "response": {"output": "rain"}}},
                {"functionResponse": {"name": "clock", "response": {"error": "stopped"}}}]}]),
    }
}

#[tokio::test]
async fn the_same_agent_works_with_every_provider() {
    for kind in [OpenAi, OpenAiResponses, Anthropic, Gemini] {
        let server = Server::new(script(kind).map(|body| reply(200, body))).await;
        let llm = llm(provider(kind, server.address));
        let mut request = with_tools();
        let first = llm.chat(&request, soon()).await.unwrap();
        assert!(first.wants_tools && first.message.text.as_deref() == Some("Wait."), "{kind:?}: {first:?}");
        let calls = first.message.tool_calls.clone();
        let read: Vec<_> = calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(read, [("weather", r#"{"city":"Oslo"}"#), ("clock", r#"{"city":"Rome"}"#)], "{kind:?}");
        request.messages.push(Message::Assistant(first.message));
        for (call, (content, failed)) in calls.into_iter().zip([("rain", false), ("stopped", true)]) {
            let ToolCall { id, name, .. } = call;
            request.messages.push(Message::Tool(ToolResult { id, name, content: content.into(), failed }));
        }
        let second = llm.chat(&request, soon()).await.unwrap();
        assert!(!second.wants_tools, "{kind:?}");
        assert_eq!(second.message.text.as_deref(), Some("Rain, and noon."), "{kind:?}");
        assert_eq!(told(kind, &server.recorded()[1].body), expected(kind), "{kind:?}");
    }
}
