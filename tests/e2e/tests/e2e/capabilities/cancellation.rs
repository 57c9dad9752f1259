//! A cancelled task lets go of what it waits for at once.

use std::time::{Duration, Instant};

use e2e::outside::reach::{self, call, chat, get, grant};
use e2e::outside::{Play, Server, llm};
use e2e::{Mode, Site, Task, eventually};
use serde_json::{Value, json};

use super::slack;

e2e::in_both_modes! {
    a_task_that_waits_in_a_call_is_cancelled_at_once_and_the_server_hears_of_it
}

async fn a_task_that_waits_in_a_call_is_cancelled_at_once_and_the_server_hears_of_it(mode: Mode) {
    let site = Site::new(mode).await;
    let (web, models) = (Server::start(|_| Play::Hang).await, llm::start(|_, _| Play::Hang).await);
    let setup = reach::with_llm(reach::setup(&site), &models);
    let daemon = grant(setup, "http", json!([format!("GET {}", web.url("/"))])).start().await;
    let noted = site.folder().join("noted");
    let note = |word: &str| noted.with_extension(word);
    let waiting = |step: Value| -> Task { reach::reach([step]) };
    let tasks = [waiting(get(web.url("/slow"))), waiting(chat("hello")), waiting(call("wait", json!({"file": noted})))];
    site.submit(&daemon, &tasks).await;
    web.asked(1).await;
    models.asked(1).await;
    eventually("the tool is called", async || note("called").exists().then_some(()).ok_or_else(String::new)).await;
    for (task, capability) in tasks.iter().zip(["http", "llm", "tools"]) {
        let began = Instant::now();
        daemon.http().post(&format!("/v1/tasks/{}/cancel", task.id), &json!({})).await.expect(202);
        let ended = daemon.http().ended(task.id).await;
        let took = began.elapsed();
        assert_eq!(ended["state"], "cancelled", "{ended}");
        assert!(took <= Duration::from_secs(1).max(slack()), "{capability}: {took:?}");
        let calls = daemon.http().calls(task.id).await;
        let told: Vec<_> = calls.iter().map(|call| [&call["capability"], &call["result"]]).collect();
        assert_eq!(told, [[&json!(capability), &json!("unfinished")]], "{calls:?}");
    }
    web.left_alone(1).await;
    models.left_alone(1).await;
    eventually("the tool's server hears that it need not answer", async || {
        note("cancelled").exists().then_some(()).ok_or_else(|| format!("its input ended: {}", note("ended").exists()))
    })
    .await;
    // Whoever calls next is served.
    let next = super::run(&site, &daemon, reach::reach([call("echo", json!({"text": "next"}))])).await;
    assert_eq!(reach::ok(&reach::results(&next)[0])["text"], "next");
    daemon.stop().await;
}
