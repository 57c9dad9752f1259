//! Hosts that pause, hang, and come back: whoever is late loses, and says so.

use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, eventually, probe, task};
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn a_host_that_wakes_after_its_tasks_were_taken_over_is_fenced() {
    let site = Site::new(Mode::Services).await;
    let setup = |name| site.setup_named(name).set("lease.ttl_seconds", 2);
    let one = setup("one").start().await;
    let two = setup("two").start().await;
    let tasks: Vec<_> = (0..8).map(|_| probe::sleep(3_000)).collect();
    site.publish(&tasks).await;
    let database = site.database().await;
    eventually("eight tasks run, four on each host", async || {
        let running = database.tasks().await.values().filter(|row| row.state == "running").count();
        if running == 8 { Ok(()) } else { Err(format!("{running} do")) }
    })
    .await;
    one.signal(Signal::STOP);
    let ids = task::ids(&tasks);
    eventually("the other has taken four over", async || {
        let histories = database.events().await;
        let over = histories.values().filter(|events| events.iter().any(|(_, event)| event == "taken_over")).count();
        if over == 4 { Ok(()) } else { Err(format!("{over} are")) }
    })
    .await;
    one.signal(Signal::CONT);
    one.says("the lease had lapsed").await;
    one.says("fenced: another host has taken this task over").await;
    site.at_rest(&ids).await;
    for id in &ids {
        let ended = two.http().task(*id).await;
        assert_eq!((&ended["state"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
        let attempts = two.http().attempts(*id).await;
        let told: Vec<_> = attempts.iter().map(|attempt| attempt["ended"].as_str().unwrap_or_default()).collect();
        assert!(told == ["host_lost", "completed"] || told == ["completed"], "{attempts:?}");
    }
    one.stop().await;
    invariants::hold(&site, two, &ids, Expected { take_overs: 1, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_queue_that_acknowledges_when_it_claims_holds_nothing_and_loses_nothing() {
    let site = Site::new(Mode::Services).await;
    let setup = |name| {
        let setup = site.setup_named(name).set("queues.default.ack", "claimed").set("lease.ttl_seconds", 2);
        // More than half of the broker's consumer time-out, which such a queue has not to fear.
        setup.set("limits.max.timeout_seconds", 3_600)
    };
    let mut one = setup("one").set("log.level", "debug").start().await;
    let tasks: Vec<_> = (0..4).map(|_| probe::sleep(4_000)).collect();
    site.publish(&tasks).await;
    let database = site.database().await;
    // What is unacknowledged only the broker's own tools tell; the daemon says when it has acknowledged, in its debug log.
    eventually("four tasks run and are acknowledged", async || {
        let running = database.tasks().await.values().filter(|row| row.state == "running").count();
        let said = one.said();
        let acknowledged = tasks.iter().filter(|task| said.contains(&format!("acknowledged task={}", task.id))).count();
        if (running, acknowledged) == (4, 4) { Ok(()) } else { Err(format!("{running} do, {acknowledged} are")) }
    })
    .await;
    // A round trip on the broker's side of the connection, for what is written and not yet read.
    site.amqp().count(&site.queue("default")).await.expect("the queue is there");
    one.kill();
    let (ready, _) = site.amqp().count(&site.queue("default")).await.expect("the queue is there");
    assert_eq!(ready, 0, "nothing was given back by the broker: the row has it");
    let two = setup("two").start().await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let rows = database.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "{rows:?}");
    invariants::hold(&site, two, &ids, Expected { take_overs: 1, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_time_out_that_the_broker_would_not_wait_for_is_refused_at_start() {
    let site = Site::new(Mode::Services).await;
    let ended = site.setup().set("limits.max.timeout_seconds", 901).run_to_end().await;
    ended.expect(2, &["limits.max.timeout_seconds", "[queues.default]", "ack = \"claimed\""]);
}
