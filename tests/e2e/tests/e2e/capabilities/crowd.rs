//! Those who wait for a model hold nobody up.

use e2e::invariants::{self, Expected};
use e2e::outside::reach::{self, chat, must};
use e2e::outside::{Play, llm};
use e2e::{Mode, Site, Task, task};
use serde_json::json;
use tokio::sync::watch;

#[tokio::test]
async fn a_thousand_word_counts_pass_a_hundred_agents_that_wait_for_a_model() {
    let site = Site::new(Mode::Services).await;
    let (open, gate) = watch::channel(false);
    // It answers nobody before the word counts are done: slower than any time that could be written here.
    let models = llm::start(move |_, _| Play::Behind(gate.clone(), Box::new(llm::says("at last")))).await;
    let setup = reach::with_llm(reach::setup(&site), &models)
        .set("worker.slots", 160)
        // Far fewer than the agents: those that wait leave their turns to others.
        .set("worker.computing", 2)
        .set("llm.providers.lab.concurrency", 128)
        .set("plugins.reach.limits.timeout_seconds", 300);
    let daemon = setup.start().await;
    let agents: Vec<_> = (0..100).map(|_| reach::reach([must(chat("hello"))])).collect();
    site.publish(&agents).await;
    models.asked(100).await;
    let counts: Vec<_> = (0..1_000).map(|n| Task::new("word-count", json!({"text": format!("number {n}")}))).collect();
    site.publish(&counts).await;
    site.at_rest(&task::ids(&counts)).await;
    let rows = site.database().await.tasks().await;
    let running = agents.iter().filter(|agent| rows[&agent.id].state == "running").count();
    assert_eq!(running, 100, "every agent has waited all the time");
    open.send(true).expect("the server lives");
    let ids: Vec<_> = task::ids(&agents).into_iter().chain(task::ids(&counts)).collect();
    site.at_rest(&ids).await;
    assert_eq!((models.requests().len(), models.connections() <= 100), (100, true), "each asked once");
    invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}
