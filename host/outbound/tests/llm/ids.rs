//! Ids of calls: unique for the guest, and the provider's own for the provider.

use super::server::{Server, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi, OpenAiResponses};
use agentry_outbound::llm::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn openai(ids: &[Value]) -> Value {
    let call = |id: &Value| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}});
    let calls: Vec<Value> = ids.iter().map(call).collect();
    json!({"choices": [{"message": {"content": null, "tool_calls": calls}, "finish_reason": "tool_calls"}]})
}

fn anthropic(ids: &[Value]) -> Value {
    let call = |id: &Value| json!({"type": "tool_use", "id": id, "name": "weather", "input": {"city": "Oslo"}});
    json!({"content": ids.iter().map(call).collect::<Vec<_>>(), "stop_reason": "tool_use"})
}

fn gemini(ids: &[Value]) -> Value {
    let part = |id: &Value| json!({"functionCall": {"id": id, "name": "weather", "args": {"city": "Oslo"}}});
    json!({"candidates": [{"content": {"parts": ids.iter().map(part).collect::<Vec<_>>()}, "finishReason": "STOP"}]})
}

/// Plays turns with these ids, answers every call with the id that the guest has, and returns the last request.
async fn played(kind: ProviderKind, turns: &[&[Value]]) -> (Vec<String>, Value) {
    let body = match kind {
        OpenAi | OpenAiResponses => openai,
        Anthropic => anthropic,
        Gemini => gemini,
    };
    let server = Server::new(turns.iter().map(|ids| reply(200, body(ids)))).await;
    let llm = llm(provider(kind, server.address));
    let mut request = with_tools();
    let mut ids = Vec::new();
    for _ in turns {
        let reply = llm.chat(&request, soon()).await.unwrap();
        let calls = reply.message.tool_calls.clone();
        request.messages.push(Message::Assistant(reply.message));
        for call in calls {
            let content = format!("rain for {}", call.id);
            let result = ToolResult { id: call.id.clone(), name: call.name, content, failed: false };
            request.messages.push(Message::Tool(result));
            ids.push(call.id);
        }
    }
    llm.chat(&request, soon()).await.unwrap_err();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    (ids, server.recorded().last().unwrap().body.clone())
}

/// The ids of calls and of results, in order.
fn sent(body: &Value) -> (Vec<Value>, Vec<Value>) {
    let messages = body["messages"].as_array().unwrap();
    let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    let results = messages.iter().filter(|message| message["role"] == "tool");
    (calls.map(|call| call["id"].clone()).collect(), results.map(|one| one["tool_call_id"].clone()).collect())
}

#[tokio::test]
async fn repeated_ids_are_unique_for_the_guest_and_consistent_for_the_provider() {
    let (ids, body) = played(OpenAi, &[&[json!("a"), json!("a"), json!("")], &[json!("a"), Value::Null]]).await;
    assert_eq!(ids, ["a", "call_1", "call_2", "call_4", "call_5"]);
    let (calls, results) = sent(&body);
    // Within one message an id stands for one call; across messages it is the provider's own.
    assert_eq!(calls, ["a", "call_1", "call_2", "a", "call_5"].map(Value::from));
    assert_eq!(results, calls);
    let contents = body["messages"].as_array().unwrap().iter().filter(|message| message["role"] == "tool");
    let contents: Vec<_> = contents.map(|message| message["content"].as_str().unwrap().to_owned()).collect();
    assert_eq!(contents, ids.iter().map(|id| format!("rain for {id}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn ids_of_kimi_go_back_as_they_came() {
    let id = json!("functions.weather:0");
    let (ids, body) = played(OpenAi, &[std::slice::from_ref(&id), std::slice::from_ref(&id)]).await;
    assert_eq!(ids, ["functions.weather:0", "call_2"]);
    assert_eq!(sent(&body), (vec![id.clone(), id.clone()], vec![id.clone(), id]));
}

#[tokio::test]
async fn results_of_repeated_ids_follow_their_calls_at_anthropic() {
    let (ids, body) = played(Anthropic, &[&[json!("toolu_1"), json!("toolu_1"), Value::Null]]).await;
    assert_eq!(ids, ["toolu_1", "call_1", "call_2"]);
    let of = |message: usize, member: &str| -> Vec<Value> {
        body["messages"][message]["content"].as_array().unwrap().iter().map(|block| block[member].clone()).collect()
    };
    assert_eq!(of(1, "id"), ["toolu_1", "call_1", "call_2"].map(Value::from));
    assert_eq!(of(2, "tool_use_id"), of(1, "id"));
}

#[tokio::test]
async fn ids_of_gemini_go_back_and_made_ones_do_not() {
    // Also where Google's look like those that the host makes.
    let (ids, body) = played(Gemini, &[&[json!("call_4162774"), json!("call_4162774"), Value::Null]]).await;
    assert_eq!(ids, ["call_4162774", "call_1", "call_2"]);
    let of = |content: usize, member: &str| -> Vec<Value> {
        let parts = body["contents"][content]["parts"].as_array().unwrap();
        parts.iter().map(|part| part[member]["id"].clone()).collect()
    };
    let expected = vec![json!("call_4162774"), Value::Null, Value::Null];
    assert_eq!(of(1, "functionCall"), expected);
    assert_eq!(of(2, "functionResponse"), expected);
}

#[tokio::test]
async fn results_for_gemini_stand_in_the_order_of_their_calls() {
    let server = Server::new([reply(200, gemini(&[Value::Null, Value::Null]))]).await;
    let llm = llm(provider(Gemini, server.address));
    let mut request = with_tools();
    let reply = llm.chat(&request, soon()).await.unwrap();
    let calls = reply.message.tool_calls.clone();
    request.messages.push(Message::Assistant(reply.message));
    for call in calls.iter().rev() {
        let (id, name, content) = (call.id.clone(), call.name.clone(), call.id.clone());
        request.messages.push(Message::Tool(ToolResult { id, name, content, failed: false }));
    }
    llm.chat(&request, soon()).await.unwrap_err();
    let body = &server.recorded()[1].body;
    let parts = body["contents"][2]["parts"].as_array().unwrap();
    let outputs: Vec<_> = parts.iter().map(|part| part["functionResponse"]["response"]["output"].clone()).collect();
    assert_eq!(outputs, ["call_1", "call_2"].map(Value::from));
}
