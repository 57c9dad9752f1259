//! The broker fails in every way that it can: what runs is finished and re-attached, never run again; consumers and what
//! belongs at the broker come back by themselves.

use std::time::{Duration, Instant};

use e2e::forward::Forward;
use e2e::invariants::{self, Expected};
use e2e::private::Broker;
use e2e::{Amqp, Daemon, Mode, Site, Task, eventually, patience, probe, task, variables};
use serde_json::json;
use uuid::Uuid;

/// Time in which `host/docs/messages.md` promises to replace a channel or a connection that fell silent.
fn thirty_seconds() -> Duration {
    patience() / 2
}

#[tokio::test]
async fn connections_that_fall_silent_are_replaced_within_thirty_seconds() {
    let site = Site::new(Mode::Services).await;
    let mut way = Forward::to(site.broker_url(), 5672);
    way.restore().await;
    let daemon = site.setup().set("broker.url", way.through(site.broker_url())).start().await;
    let under_way: Vec<_> = (0..3).map(|_| probe::sleep(3_000)).collect();
    site.publish(&under_way).await;
    site.running(3).await;
    way.fall_silent();
    way.restore().await; // for whoever connects anew
    let began = Instant::now();
    let (consumed, published) = (words("consumed"), words("published"));
    site.publish(std::slice::from_ref(&consumed)).await;
    daemon.http().post("/v1/tasks", &published.body()).await.expect(201);
    daemon.http().ended(consumed.id).await;
    let consuming = began.elapsed();
    daemon.http().ended(published.id).await;
    let publishing = began.elapsed();
    assert!(
        consuming.max(publishing) < thirty_seconds(),
        "consumed after {consuming:?}, published after {publishing:?}"
    );
    let ids = [task::ids(&under_way), vec![consumed.id, published.id]].concat();
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_queue_deleted_while_its_tasks_run_costs_no_run() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let under_way: Vec<_> = (0..4).map(|_| probe::sleep(1_500)).collect();
    site.publish(&under_way).await;
    site.running(4).await;
    site.amqp().delete(site.prefix(), &["default".to_owned()]).await;
    let after = words("after");
    routed(&site, &after).await;
    let ids = [task::ids(&under_way), vec![after.id]].concat();
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_binding_that_vanishes_is_noticed_and_bound_again_without_anybody_publishing_here() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    site.amqp().unbind(&site.queue("default"), site.prefix(), "default").await;
    let task = words("after");
    let began = Instant::now();
    routed(&site, &task).await;
    assert!(began.elapsed() < thirty_seconds(), "bound again after {:?}", began.elapsed());
    site.once_each(&daemon, &[task.id]).await;
    invariants::hold(&site, daemon, &[task.id], Expected::default()).await;
}

#[tokio::test]
async fn an_exchange_that_vanishes_is_declared_again_with_all_its_bindings() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    for exchange in [site.prefix().to_owned(), format!("{}.dead", site.prefix())] {
        site.amqp().delete_exchange(&exchange).await;
    }
    let tasks: Vec<_> = (0..10).map(|n| words(&format!("{n}"))).collect();
    let began = Instant::now();
    for task in &tasks {
        daemon.http().post("/v1/tasks", &task.body()).await.expect(201);
    }
    let ids = task::ids(&tasks);
    site.once_each(&daemon, &ids).await;
    assert!(began.elapsed() < thirty_seconds(), "all were published after {:?}", began.elapsed());
    let bad = e2e::amqp::Outgoing::json("no task"); // which has a way to its end again
    site.amqp().publish(site.prefix(), "default", [bad]).await;
    eventually("the dead-letter queue takes it", async || {
        let (ready, _) = site.amqp().count(&site.queue("default.dead")).await?;
        if ready == 1 { Ok(()) } else { Err(format!("{ready} ready")) }
    })
    .await;
    invariants::hold(&site, daemon, &ids, Expected { dead_letters: 1, ..Expected::default() }).await;
}

#[tokio::test]
async fn what_is_unroutable_says_so_and_leaves_when_somebody_binds_the_queue() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare(site.prefix(), "default").await;
    // Forbidden to declare, so that the binding stays away for as long as is looked at it.
    let daemon = site.setup().set("broker.declare", false).start().await;
    site.amqp().unbind(&site.queue("default"), site.prefix(), "default").await;
    let tasks: Vec<_> = (0..5).map(|n| words(&format!("{n}"))).collect();
    for task in &tasks {
        daemon.http().post("/v1/tasks", &task.body()).await.expect(201);
    }
    for task in &tasks {
        waits_for(&daemon, task.id, "unroutable").await;
    }
    assert_eq!(site.database().await.outbox().await, 5, "they stay in the outbox");
    site.amqp().declare(site.prefix(), "default").await;
    let ids = task::ids(&tasks);
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_broker_that_is_restarted_or_killed_costs_no_run() {
    let mut broker = Broker::start("").await;
    let mut site = Site::private(&broker.url(), &variables::postgres()).await;
    let daemon = site.start().await;
    let mut ids = Vec::new();
    // The kill comes second: RabbitMQ writes a new quorum queue's name to disk half a second late, and one that is killed before
    // has a queue that nobody can consume from.
    for politely in [true, false] {
        let tasks: Vec<_> = (0..8).map(|_| probe::sleep(1_000)).collect();
        site.publish(&tasks).await;
        site.running(4).await;
        if politely {
            broker.control(&["stop_app"]).await;
            daemon.not_ready("broker").await;
            broker.control(&["start_app"]).await;
        } else {
            broker.kill();
            daemon.not_ready("broker").await;
            site.ended_at_least(ids.len() + 4).await; // settled without it
            broker.start_again().await;
        }
        site.reconnect().await;
        ids.extend(task::ids(&tasks));
        site.once_each(&daemon, &ids).await;
    }
    // What the broker delivered again is in the daemon's hands, and would go back unread if it ended now.
    let unacknowledged = async || broker.control(&["list_queues", "--quiet", "--no-table-headers", "messages"]).await;
    eventually("deliveries to be acknowledged", async || match unacknowledged().await {
        counts if counts.split_whitespace().all(|count| count == "0") => Ok(()),
        counts => Err(counts),
    })
    .await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn connections_that_the_broker_closes_cost_no_run() {
    let broker = Broker::start("").await;
    let mut site = Site::private(&broker.url(), &variables::postgres()).await;
    let daemon = site.start().await;
    let tasks: Vec<_> = (0..24).map(|_| probe::sleep(800)).collect();
    site.publish(&tasks).await;
    for _ in 0..3 {
        site.running(2).await;
        broker.control(&["close_all_connections", "an operator's mishap"]).await;
    }
    site.reconnect().await;
    let ids = task::ids(&tasks);
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn under_a_memory_alarm_publishing_waits_and_everything_else_goes_on() {
    let broker = Broker::start("").await;
    let site = Site::private(&broker.url(), &variables::postgres()).await;
    let daemon = site.start().await;
    let published: Vec<_> = (0..12).map(|_| probe::sleep(400)).collect();
    site.publish(&published).await;
    site.running(4).await;
    broker.control(&["set_vm_memory_high_watermark", "0.000001"]).await;
    let submitted: Vec<_> = (0..5).map(|n| words(&format!("{n}"))).collect();
    for task in &submitted {
        daemon.http().post("/v1/tasks", &task.body()).await.expect(201);
    }
    reports_that_publishing_waits(&daemon, "alarm").await;
    // Consumed, run, settled, acknowledged, all under the alarm.
    site.once_each(&daemon, &task::ids(&published)).await;
    for task in &submitted {
        waits_for(&daemon, task.id, "not_published").await;
    }
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    let ids = [task::ids(&published), task::ids(&submitted)].concat();
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_queue_that_accepts_nothing_is_tried_seldom_and_drained_when_it_does() {
    let broker = Broker::start("").await;
    let site = Site::private(&broker.url(), &variables::postgres()).await;
    let daemon = site.start().await;
    let refuse = r#"{"max-length": 0, "overflow": "reject-publish"}"#;
    let queue = format!("^{}$", site.queue("default"));
    broker.control(&["set_policy", "full", &queue, refuse, "--apply-to", "queues"]).await;
    let tasks: Vec<_> = (0..3_000).map(|n| words(&format!("{n}"))).collect();
    let bodies: Vec<_> = tasks.iter().map(Task::body).collect();
    daemon.http().post("/v1/tasks/batch", &json!({"tasks": bodies})).await.expect(201);
    reports_that_publishing_waits(&daemon, "default").await;
    let database = site.database().await;
    // Counts of a row's versions are reported with a delay of a second.
    let written = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'outbox'";
    let before = database.number(written).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let updates = database.number(written).await.unwrap() - before;
    // Each row is set aside again every five seconds or later. A relay that does not rest writes each of them many times a second.
    assert!(updates < 40_000, "{updates} updates of the outbox in ten seconds");
    assert!(daemon.said().matches("refuses tasks of this queue").count() <= 2, "{}", daemon.said());
    broker.control(&["clear_policy", "full"]).await;
    let (began, ids) = (Instant::now(), task::ids(&tasks));
    eventually("the outbox is empty", async || match database.outbox().await {
        0 => Ok(()),
        left => Err(format!("{left} rows")),
    })
    .await;
    assert!(began.elapsed() < thirty_seconds(), "empty after {:?}", began.elapsed());
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_dead_letter_queue_that_accepts_nothing_delays_no_task_and_loses_no_letter() {
    let broker = Broker::start("").await;
    let site = Site::private(&broker.url(), &variables::postgres()).await;
    let daemon = site.start().await;
    let refuse = r#"{"max-length": 0, "overflow": "reject-publish"}"#;
    let dead = site.queue("default.dead");
    broker.control(&["set_policy", "full", &format!("^{dead}$"), refuse, "--apply-to", "queues"]).await;
    let bad = (0..2_000).map(|n| e2e::amqp::Outgoing::json(format!("no task {n}")));
    site.amqp().publish(site.prefix(), "default", bad).await;
    let good: Vec<_> = (0..200).map(|n| words(&format!("{n}"))).collect();
    site.publish(&good).await;
    let ids = task::ids(&good);
    site.once_each(&daemon, &ids).await;
    reports_that_publishing_waits(&daemon, "dead letters of queue default").await;
    let database = site.database().await;
    eventually("every letter has a row", async || {
        match database.number("SELECT count(*) FROM agentry.dead_letters").await? {
            2_000 => Ok(()),
            rows => Err(format!("{rows} rows")),
        }
    })
    .await;
    let waiting = database.unpublished().await;
    assert!(waiting > 1_900, "{waiting} letters wait");
    assert!(daemon.said().matches("refuses dead letters").count() <= 2, "{}", daemon.said());
    broker.control(&["clear_policy", "full"]).await;
    eventually("every letter is published", async || match database.unpublished().await {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await;
    let (arrived, _) = site.amqp().count(&dead).await.unwrap();
    assert!(arrived >= 2_000, "{arrived} letters arrived");
    invariants::hold(&site, daemon, &ids, Expected { dead_letters: 2_000, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_task_that_outlasts_the_brokers_consumer_time_out_runs_once() {
    let broker = Broker::start("{consumer_timeout, 2000}, {channel_tick_interval, 500}").await;
    let site = Site::private(&broker.url(), &variables::postgres()).await;
    // The operator was wrong about the broker's time-out: nothing warned the daemon.
    let daemon = site.start().await;
    let tasks: Vec<_> = (0..2).map(|_| probe::sleep(7_000)).collect();
    site.publish(&tasks).await;
    daemon.says("timeout").await; // RabbitMQ's word for why it closed the channel
    let ids = task::ids(&tasks);
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

fn words(text: &str) -> Task {
    Task::new("word-count", json!({"text": text}))
}

/// Waits until `/readyz` says 200 and why tasks are not published.
async fn reports_that_publishing_waits(daemon: &Daemon, why: &str) {
    eventually(&format!("publishing waits because of {why}"), async || {
        let answer = daemon.http().get("/readyz").await;
        let reasons = answer.json()["reasons"].clone();
        let said = reasons.as_array().into_iter().flatten().any(|reason| {
            reason["code"] == "publishing" && reason["message"].as_str().is_some_and(|text| text.contains(why))
        });
        if answer.status == 200 && said { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

/// Publishes it until it arrives in a queue.
async fn routed(site: &Site, task: &Task) {
    let amqp = Amqp::connect(site.broker_url()).await;
    eventually("a message reaches the queue", async || amqp.is_routed(site.prefix(), "default", task.message()).await)
        .await;
}

async fn waits_for(daemon: &Daemon, id: Uuid, code: &str) {
    eventually(&format!("{id} waits for {code}"), async || {
        let task = daemon.http().task(id).await;
        if task["waiting_for"]["code"] == code { Ok(()) } else { Err(task["waiting_for"].to_string()) }
    })
    .await;
}
