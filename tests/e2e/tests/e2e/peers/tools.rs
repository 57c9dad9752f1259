//! Tools of servers that others wrote, over both transports.

use e2e::peers::{Peer, clock_command, everything_command};
use e2e::{Mode, Setup, Site, Task, plugin};
use serde_json::{Value, json};

use super::{granted_to_react, publish, reply, with_model, with_plugins};

#[tokio::test]
async fn a_guest_calls_tools_over_standard_input_and_output() {
    let (site, llmock) = place().await;
    let setup = setup(&site, &llmock)
        .set("tools.search.command", everything_command())
        .set("tools.search.env.GREETING", "good morning")
        .set("tools.clock.command", clock_command())
        .set("plugins.react-agent.capabilities.tools.clock", ["convert_time"].as_slice());
    let wishes = r#"tools = { search = ["*"], clock = ["*"] }"#;
    plugin::edit(&site.folder().join("plugins/react-agent"), r#"tools = { search = ["*"] }"#, wishes);
    let time = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    let more = [
        ("search__get-env", json!({})),
        ("clock__convert_time", time),
        ("clock__get_current_time", json!({"timezone": "UTC"})),
    ];
    let steps = observed(&site, &llmock, setup, &more).await;
    let environment: Value = serde_json::from_str(text(&steps[0])).expect("an environment in JSON");
    // Only what is configured; and what is configured may be a key, so that it is taken out of whatever a server tells of it.
    assert_eq!(environment, json!({"GREETING": "***"}));
    assert!(text(&steps[1]).contains("21:00") && steps[1]["failed"] == false, "{steps:#?}");
    assert!(
        text(&steps[2]).contains("clock__get_current_time") && steps[2]["failed"] == true,
        "not granted: {steps:#?}"
    );
}

#[tokio::test]
async fn a_guest_calls_tools_over_streamable_http() {
    let (site, llmock) = place().await;
    let everything = Peer::everything(site.folder()).await;
    let setup = setup(&site, &llmock).set("tools.search.url", everything.url("/mcp"));
    assert!(observed(&site, &llmock, setup, &[]).await.is_empty());
}

async fn place() -> (Site, Peer) {
    let site = Site::new(Mode::Services).await;
    let llmock = Peer::llmock(site.folder()).await;
    (site, llmock)
}

fn setup(site: &Site, llmock: &Peer) -> Setup {
    let setup =
        granted_to_react(with_plugins(site, &["react-agent"]), &["default"]).set("tools.search.call_seconds", 2);
    with_model(setup, "default", "openai", &llmock.url("/v1"))
}

fn text(step: &Value) -> &str {
    step["observation"].as_str().expect("an observation")
}

/// Has the agent call the reference server's tools, and then `more`; checks the former, and answers with the latter's steps.
async fn observed(site: &Site, llmock: &Peer, setup: Setup, more: &[(&str, Value)]) -> Vec<Value> {
    let mut calls = vec![
        ("search__get-sum", json!({"a": 1.5, "b": 2})),
        ("search__get-sum", json!({"a": "nineteen", "b": 2})),
        ("search__echo", json!({"message": "grüße\n\"quoted\""})),
        ("search__get-structured-content", json!({"location": "Chicago"})),
        ("search__get-tiny-image", json!({})),
        ("search__trigger-long-running-operation", json!({"duration": 3600, "steps": 1})),
    ];
    let of_everything = calls.len();
    calls.extend(more.iter().cloned());
    let script: Vec<_> = calls.iter().map(|call| reply("", std::slice::from_ref(call))).collect();
    let daemon = setup.start().await;
    llmock.plays("default", script.into_iter().chain([reply("That is all.", &[])])).await;
    let asked = Task::new("react-agent", json!({"question": "What can they do?", "max_steps": calls.len()}));
    let task = publish(site, &daemon, &asked).await;
    assert_eq!(task["state"], "completed", "{task:#}");
    let mut steps = task["output"]["steps"].as_array().expect("steps").clone();
    let more = steps.split_off(of_everything);
    let failed: Vec<_> = steps.iter().map(|step| step["failed"] == true).collect();
    assert_eq!(failed, [false, true, false, false, false, true], "{steps:#?}");
    assert!(text(&steps[0]).contains("3.5"), "{steps:#?}");
    assert!(
        text(&steps[1]).contains("/a") && text(&steps[1]).contains("\"number\""),
        "it says what is wrong: {steps:#?}"
    );
    assert_eq!(text(&steps[2]), "Echo: grüße\n\"quoted\"");
    assert!(text(&steps[3]).contains("temperature"), "{steps:#?}");
    assert!(text(&steps[4]).contains("[image that cannot be shown as text]"), "{steps:#?}");
    assert!(text(&steps[5]).contains("within 2s"), "it says how long it waited: {steps:#?}");
    daemon.stop().await;
    more
}
