//! An agent at work: a question that needs two tools, over RabbitMQ, on every vendor's shape.

use e2e::daemon::run;
use e2e::peers::{Peer, everything_command};
use e2e::{Daemon, Mode, Site, Task};
use serde_json::{Value, json};

use super::{granted_to_react, publish, reply, with_model, with_plugins};

const QUESTION: &str = "What is the sum of 19 and 23, taken twelve times?";

/// What aimock answers. The second and the third only if the observation before them came from the real tool.
fn fixtures() -> Value {
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110});
    json!([
        {"match": {"userMessage": QUESTION, "turnIndex": 0, "toolName": "calculator"}, "response": {"usage": usage,
            "content": "First the sum.",
            "toolCalls": [{"id": "call_1", "name": "search__get-sum", "arguments": {"a": 19, "b": 23}}]}},
        {"match": {"userMessage": QUESTION, "turnIndex": 1, "toolCallId": "call_1", "toolResultContains": "is 42"},
            "response": {"usage": usage, "content": "Now twelve times that.",
            "toolCalls": [{"id": "call_2", "name": "calculator", "arguments": {"expression": "42 * 12"}}]}},
        {"match": {"userMessage": QUESTION, "turnIndex": 2, "toolCallId": "call_2", "toolResultContains": "504"},
            "response": {"usage": usage, "content": "It is 504."}},
    ])
}

/// The same for llmock, which plays it in order whatever it is asked.
fn script() -> [Value; 3] {
    [
        reply("First the sum.", &[("search__get-sum", json!({"a": 19, "b": 23}))]),
        reply("Now twelve times that.", &[("calculator", json!({"expression": "42 * 12"}))]),
        reply("It is 504.", &[]),
    ]
}

#[tokio::test]
async fn an_agent_answers_with_two_tools_and_the_same_plugin_speaks_to_openai_anthropic_and_gemini() {
    let site = Site::new(Mode::Services).await;
    let aimock = Peer::aimock(site.folder(), &fixtures()).await;
    let llmock = Peer::llmock(site.folder()).await;
    let setup = granted_to_react(with_plugins(&site, &["react-agent"]), &["default"]);
    let setup = setup.set("tools.search.command", everything_command());
    let mut daemon = with_model(setup, "default", "openai", &aimock.url("/v1")).start().await;
    let first = answered(&site, &daemon).await;
    shown(&site, &daemon, &first).await;

    let elsewhere = [
        ("anthropic", aimock.url("/v1")),
        ("openai", llmock.url("/v1")),
        ("anthropic", llmock.url("/anthropic/v1")),
        ("gemini", llmock.url("/gemini/v1beta")),
    ];
    for (kind, url) in elsewhere {
        assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());
        daemon.change(|setup| with_model(setup, "default", kind, &url));
        daemon.start_again().await;
        llmock.plays("default", script()).await;
        let task = answered(&site, &daemon).await;
        assert_eq!(task["digest"], first["digest"], "the same plugin: {task}");
        llmock.http().post("/_llmock/reset", &json!({})).await.expect(200); // aimock's turn leaves the script
    }
    daemon.stop().await;
}

/// Asks the question, and checks that it was answered by what the tools really gave.
async fn answered(site: &Site, daemon: &Daemon) -> Value {
    let task = publish(site, daemon, &Task::new("react-agent", json!({"question": QUESTION}))).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("completed"), &json!(1)), "{task:#}");
    let output = &task["output"];
    assert_eq!(output["answer"], "It is 504.", "{output:#}");
    let steps = output["steps"].as_array().expect("steps");
    let tools: Vec<_> = steps.iter().map(|step| &step["action"]["tool"]).collect();
    assert_eq!(tools, ["search__get-sum", "calculator"], "{output:#}");
    assert_eq!(steps[0]["thought"], "First the sum.", "{output:#}");
    assert_eq!(steps[0]["observation"], "The sum of 19 and 23 is 42.", "{output:#}");
    assert_eq!(steps[1]["observation"], "504", "{output:#}");
    assert!(steps.iter().all(|step| step["failed"] == false), "{output:#}");
    assert_eq!((&output["usage"]["llm_calls"], &output["usage"]["tool_calls"]), (&json!(3), &json!(2)), "{output:#}");
    task
}

/// Calls, tokens and time stand in the API and on the command line.
async fn shown(site: &Site, daemon: &Daemon, task: &Value) {
    let id = task["id"].as_str().expect("an id");
    let calls = daemon.http().get(&format!("/v1/tasks/{id}/calls")).await.expect(200);
    let calls = calls["calls"].as_array().expect("calls");
    let of = |capability: &str, operation: &str| -> Vec<&Value> {
        calls.iter().filter(|call| call["capability"] == capability && call["operation"] == operation).collect()
    };
    let (chats, tools) = (of("llm", "chat"), of("tools", "call"));
    assert_eq!((chats.len(), tools.len()), (3, 1), "{calls:#?}");
    assert!(tools[0]["target"].as_str().is_some_and(|target| target.contains("get-sum")), "{calls:#?}");
    assert!(calls.iter().all(|call| call["result"] == "ok" && call["duration_us"].as_i64() > Some(0)), "{calls:#?}");
    assert!(chats.iter().all(|call| call["response_bytes"].as_i64() > Some(0)), "{calls:#?}");
    assert_eq!(task["output"]["usage"]["input_tokens"], 300, "{task}");
    assert_eq!(task["output"]["usage"]["output_tokens"], 30, "{task}");

    let server = daemon.http().base();
    let show = run(site.folder(), &["task", "show", id, "--server", server]).await;
    show.expect(0, &[]);
    for part in ["completed", "search__get-sum", "calculator", "calls of capabilities, 330 tokens", " wall"] {
        assert!(show.stdout.contains(part), "{part:?} is not shown: {}", show.stdout);
    }
    let calls = run(site.folder(), &["task", "calls", id, "--server", server]).await;
    calls.expect(0, &[]);
    assert_eq!(calls.stdout.lines().filter(|line| line.contains(" chat ")).count(), 3, "{}", calls.stdout);
    assert!(calls.stdout.contains("get-sum"), "{}", calls.stdout);
}
