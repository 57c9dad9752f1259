//! Tool servers are children of the daemon: they may die, and die with it.

use e2e::outside::mcp::{family, is_alive};
use e2e::outside::reach::{self, call, kind, ok, results};
use e2e::{Daemon, Mode, Site, eventually, patience::holds};
use serde_json::{Value, json};

use super::run;

async fn called(site: &Site, daemon: &Daemon, tool: &str, arguments: Value) -> Value {
    results(&run(site, daemon, reach::reach([call(tool, arguments)])).await).remove(0)
}

#[tokio::test]
async fn a_tool_server_that_dies_is_told_and_started_again() {
    let site = Site::new(Mode::Services).await;
    let daemon = reach::setup(&site).start().await;
    let before = called(&site, &daemon, "process", json!({})).await;
    let died = called(&site, &daemon, "die", json!({})).await;
    assert_eq!(kind(&died), "unavailable", "{died}");
    eventually("readiness names the tool server", async || {
        let answer = daemon.http().get("/readyz").await;
        assert_eq!(answer.status, 200, "tasks that call no tool run on: {answer:?}");
        holds(answer.text.contains("tools") && answer.text.contains("mock"), || answer.text)
    })
    .await;
    let count = e2e::Task::new("word-count", json!({"text": "one two"}));
    assert_eq!(run(&site, &daemon, count).await["state"], "completed");
    let after = eventually("the tool server is there again", async || {
        let result = called(&site, &daemon, "process", json!({})).await;
        result.get("ok").cloned().ok_or_else(|| result.to_string())
    })
    .await;
    assert_ne!(ok(&before)["text"], after["text"], "it is another process");
    eventually("readiness has nothing to say", async || {
        let answer = daemon.http().get("/readyz").await;
        holds(answer.status == 200 && !answer.text.contains("mock"), || answer.text)
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn no_tool_server_outlives_its_daemon_however_it_ends() {
    let site = Site::new(Mode::Embedded).await;
    let mut daemon = reach::setup(&site).start().await;
    for killed in [false, true] {
        let process = called(&site, &daemon, "process", json!({})).await;
        let pid: u32 = ok(&process)["text"].as_str().and_then(|text| text.parse().ok()).expect("a process id");
        let family: Vec<_> = family(daemon.pid()).into_iter().filter(|child| *child != daemon.pid()).collect();
        assert!(family.contains(&pid) && is_alive(pid), "{pid} is not in {family:?}");
        if killed {
            daemon.kill();
        } else {
            assert_eq!(daemon.terminate().await, Some(0));
        }
        eventually("every child is gone", async || {
            let left: Vec<_> = family.iter().filter(|child| is_alive(**child)).collect();
            holds(left.is_empty(), || format!("{left:?}"))
        })
        .await;
        daemon.start_again().await;
    }
    daemon.stop().await;
}
