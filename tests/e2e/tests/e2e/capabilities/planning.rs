//! The plugin `react-agent` plans, calls tools, and answers, whoever the model's provider is.

use e2e::outside::{Play, Request, Server, mcp};
use e2e::{Mode, Setup, Site, Task};
use serde_json::{Value, json};

use super::run;

/// What the model does at each turn, by how many tool results it has seen.
enum Turn {
    Calls(&'static str, Value),
    Answers(&'static str),
}

fn turn(results: usize) -> Turn {
    match results {
        0 => Turn::Calls("calculator", json!({"expression": "6 * 7"})),
        1 => Turn::Calls("search__echo", json!({"text": "forty-two"})),
        _ => Turn::Answers("It is 42. There was no error."),
    }
}

fn body(request: &Request) -> Value {
    serde_json::from_str(&request.body).expect("a request is JSON")
}

fn all<'a>(values: &'a Value, key: &str) -> Vec<&'a Value> {
    values.as_array().into_iter().flatten().flat_map(|value| value[key].as_array().into_iter().flatten()).collect()
}

fn openai(request: &Request) -> Play {
    let body = body(request);
    let results = body["messages"].as_array().expect("messages").iter().filter(|m| m["role"] == "tool").count();
    let (message, reason) = match turn(results) {
        Turn::Calls(name, arguments) => {
            let function = json!({"name": name, "arguments": arguments.to_string()});
            let call = json!({"id": format!("call_{results}"), "type": "function", "function": function});
            (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
        Turn::Answers(text) => (json!({"role": "assistant", "content": text}), "stop"),
    };
    let choice = json!({"index": 0, "message": message, "finish_reason": reason});
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    Play::json(
        200,
        &json!({"id": "1", "object": "chat.completion", "model": "m-1", "choices": [choice], "usage": usage}),
    )
}

fn anthropic(request: &Request) -> Play {
    let body = body(request);
    let results = all(&body["messages"], "content").iter().filter(|block| block["type"] == "tool_result").count();
    let (block, reason) = match turn(results) {
        Turn::Calls(name, input) => {
            (json!({"type": "tool_use", "id": format!("toolu_{results}"), "name": name, "input": input}), "tool_use")
        }
        Turn::Answers(text) => (json!({"type": "text", "text": text}), "end_turn"),
    };
    let usage = json!({"input_tokens": 10, "output_tokens": 5});
    Play::json(
        200,
        &json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [block], "stop_reason": reason,
            "stop_sequence": null, "usage": usage,
        }),
    )
}

fn gemini(request: &Request) -> Play {
    let body = body(request);
    let results = all(&body["contents"], "parts").iter().filter(|part| part["functionResponse"].is_object()).count();
    let part = match turn(results) {
        Turn::Calls(name, args) => json!({"functionCall": {"name": name, "args": args}}),
        Turn::Answers(text) => json!({"text": text}),
    };
    let usage = json!({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15});
    let content = json!({"role": "model", "parts": [part]});
    Play::json(
        200,
        &json!({
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": usage,
            "modelVersion": "m-1",
        }),
    )
}

fn setup(site: &Site, kind: &str, url: String) -> Setup {
    let plugins = site.folder().join("plugins");
    e2e::plugin::install("react-agent", &plugins);
    let allowed = |capability: &str| format!("plugins.react-agent.capabilities.{capability}");
    site.setup()
        .plugins([plugins])
        .set("llm.providers.lab.kind", kind)
        .set("llm.providers.lab.url", url)
        .set("llm.providers.lab.key", "a-key-of-some-length")
        .set("llm.models.default.provider", "lab")
        .set("llm.models.default.model", "m-1")
        .set("tools.search.command", mcp::command(site.folder()))
        .set(&allowed("http"), json!(["GET https://nowhere.invalid"]))
        .set(&allowed("llm"), json!(["default"]))
        .set(&allowed("memory"), json!(["notes"]))
        .set(&allowed("tools.search"), json!(["echo"]))
}

/// A question that needs two different tools, one of them of an MCP server; what came of it.
async fn answered(site: &Site, kind: &str, script: fn(&Request) -> Play, path: &str, asks: &str) -> e2e::Daemon {
    let models = Server::start(script).await;
    let daemon = setup(site, kind, models.url(path)).start().await;
    let task = Task::new("react-agent", json!({"question": "What is six times seven, in words and figures?"}));
    let id = task.id;
    let ended = run(site, &daemon, task).await;
    assert_eq!(ended["state"], "completed", "{ended}");
    let output = &ended["output"];
    assert_eq!(output["answer"], "It is 42. There was no error.", "{output}");
    let told = |step: &Value| [step["action"]["tool"].clone(), step["observation"].clone(), step["failed"].clone()];
    let steps: Vec<_> = output["steps"].as_array().expect("steps").iter().map(told).collect();
    let expected = [["calculator", "42"], ["search__echo", "forty-two"]];
    assert_eq!(steps, expected.map(|[tool, seen]| [json!(tool), json!(seen), json!(false)]), "{output}");
    let usage = json!({"input_tokens": 30, "output_tokens": 15, "llm_calls": 3, "tool_calls": 2});
    assert_eq!(output["usage"], usage, "{output}");
    let heard = models.requests();
    assert!(heard.len() == 3 && heard.iter().all(|request| request.target == asks), "{heard:?}");
    let shown =
        e2e::daemon::run(site.folder(), &["task", "show", &id.to_string(), "--server", daemon.http().base()]).await;
    shown.expect(0, &[]);
    for part in ["completed", "calls of capabilities, 45 tokens, ", " in calls", "search__echo"] {
        assert!(shown.stdout.contains(part), "{part:?} is not in\n{}", shown.stdout);
    }
    let calls = daemon.http().calls(id).await;
    let mut told: Vec<_> = calls.iter().map(|call| (call["capability"].as_str(), call["target"].as_str())).collect();
    told.retain(|call| *call != (Some("tools"), Some("")));
    let (asked, tool) = ((Some("llm"), Some("default")), (Some("tools"), Some("search.echo")));
    assert_eq!(told, [asked, asked, tool, asked], "{calls:?}");
    daemon
}

#[tokio::test]
async fn an_agent_answers_with_two_tools_over_openais_shape() {
    let site = Site::new(Mode::Services).await;
    answered(&site, "openai", openai, "/v1", "/v1/chat/completions").await.stop().await;
}

#[tokio::test]
async fn the_same_agent_answers_over_anthropics_shape() {
    let site = Site::new(Mode::Services).await;
    answered(&site, "anthropic", anthropic, "/v1", "/v1/messages").await.stop().await;
}

#[tokio::test]
async fn the_same_agent_answers_over_geminis_shape() {
    let site = Site::new(Mode::Services).await;
    answered(&site, "gemini", gemini, "/v1beta", "/v1beta/models/m-1:generateContent").await.stop().await;
}
