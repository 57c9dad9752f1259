//! `agentry run`, with nothing around it but the servers.

use e2e::daemon::run;
use e2e::peers::{Peer, everything_command};
use e2e::{Mode, Site, plugin};
use serde_json::{Value, json};

use super::reply;

#[tokio::test]
async fn an_agent_is_run_by_hand_with_a_model_and_tools_of_others() {
    let site = Site::new(Mode::Embedded).await;
    let llmock = Peer::llmock(site.folder()).await;
    let script = [
        reply("", &[("search__echo", json!({"message": "a word"}))]),
        reply("", &[("remember", json!({"text": "the word is: a word"}))]),
        reply("", &[("recall", json!({"query": "word"}))]),
        reply("The word is: a word.", &[]),
    ];
    llmock.plays("some-model", script).await;
    let agent = plugin::built("react-agent").to_string_lossy().into_owned();
    let model = format!("openai={}", llmock.url("/v1"));
    let tool = format!("search={}", everything_command().join(" "));
    let arguments = [
        "run",
        &agent,
        "--llm",
        &model,
        "--model",
        "some-model",
        "--tool",
        &tool,
        "--allow-http",
        "GET https://example.com",
        "--input",
        r#"{"question": "What is the word?"}"#,
    ];
    let ended = run(site.folder(), &arguments).await;
    ended.expect(0, &["calling search__echo"]);
    let output: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(output["answer"], "The word is: a word.", "{output:#}");
    let observed: Vec<_> = output["steps"].as_array().expect("steps").iter().map(|step| &step["observation"]).collect();
    assert_eq!(observed[0], "Echo: a word", "{output:#}");
    assert!(observed[2].as_str().is_some_and(|seen| seen.contains("the word is: a word")), "{output:#}");
}
