//! A database that is away while an agent wants to spend or to keep: it hears that, and the task is tried again.

use e2e::forward::Forward;
use e2e::outside::reach::{self, chat, get, grant, must};
use e2e::outside::{Play, Server, llm};
use e2e::{Mode, Site};
use serde_json::{Value, json};
use tokio::sync::watch;

async fn tried_again_after_an_outage(step: Value, capability: &str) {
    let site = Site::new(Mode::Services).await;
    let mut way = Forward::to(&site.database_url(), 5432);
    way.restore().await;
    let (open, gate) = watch::channel(false);
    let web = Server::start(move |_| Play::Behind(gate.clone(), Box::new(Play::text(200, "go on")))).await;
    let models = llm::start(|_, _| llm::says("hello")).await;
    let setup = reach::with_llm(reach::setup(&site), &models)
        .set("database.url", way.through(&site.database_url()))
        .set("database.timeout_seconds", 1);
    let daemon = grant(setup, "http", json!([format!("GET {}", web.url("/"))])).start().await;
    let task = reach::reach([get(web.url("/")), must(step)]);
    site.publish(std::slice::from_ref(&task)).await;
    web.asked(1).await;
    way.cut().await;
    open.send(true).expect("the server lives");
    daemon.says("results wait for the database in the spool").await;
    way.restore().await;
    let ended = daemon.http().ended(task.id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("completed"), &json!(2)), "{ended}");
    let calls = daemon.http().calls(task.id).await;
    let told: Vec<_> = calls
        .iter()
        .filter(|call| call["capability"] == capability)
        .map(|call| (call["attempt"].as_u64().unwrap_or_default(), call["result"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(told, [(1, "unavailable"), (2, "ok")], "{calls:?}");
    // Of the database a guest hears no more than that it is away.
    let events = daemon.http().events(task.id).await;
    let retrying = events.iter().find(|event| event["event"] == "retrying").expect("it was tried again");
    let message = retrying["detail"].to_string();
    assert!(message.contains("does not answer") && !message.contains(&way.port().to_string()), "{retrying}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_budget_that_cannot_be_asked_is_not_used_up() {
    tried_again_after_an_outage(chat("hello"), "llm").await;
}

#[tokio::test]
async fn a_value_that_cannot_be_kept_is_tried_again() {
    tried_again_after_an_outage(json!({"set": {"key": "k", "value": "v"}}), "keyvalue").await;
}
