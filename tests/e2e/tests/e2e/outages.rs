//! A dependency goes away and comes back: nothing is lost, nothing runs twice, and readiness tells.

use e2e::forward::Forward;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, probe, task, variables};
use serde_json::json;

#[tokio::test]
async fn a_task_accepted_while_the_broker_is_away_runs_when_it_is_back() {
    let site = Site::new(Mode::Services).await;
    let mut broker = Forward::to(&variables::amqp(), 5672);
    broker.restore().await;
    let daemon = site.setup().set("broker.url", broker.through(&variables::amqp())).start().await;
    broker.cut().await;
    daemon.not_ready("broker").await;
    let tasks: Vec<_> = (0..20).map(|n| Task::new("word-count", json!({"text": format!("{n}")}))).collect();
    for task in &tasks {
        daemon.http().post("/v1/tasks", &task.body()).await.expect(201);
    }
    let waiting = daemon.http().task(tasks[0].id).await;
    assert!(waiting["waiting_for"]["code"].is_string(), "it says why it waits: {waiting}");
    broker.restore().await;
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected::default()).await;
}

#[tokio::test]
async fn what_runs_when_the_broker_goes_is_finished_and_not_run_again() {
    let site = Site::new(Mode::Services).await;
    let mut broker = Forward::to(&variables::amqp(), 5672);
    broker.restore().await;
    let daemon = site.setup().set("broker.url", broker.through(&variables::amqp())).start().await;
    let tasks: Vec<_> = (0..12).map(|_| probe::sleep(700)).collect();
    site.publish(&tasks).await;
    site.running(4).await;
    broker.cut().await;
    daemon.not_ready("broker").await;
    site.ended_at_least(4).await; // settled without the broker
    broker.restore().await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    for id in &ids {
        assert_eq!(daemon.http().attempts(*id).await.len(), 1, "one run: {:?}", daemon.http().events(*id).await);
    }
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn while_the_database_is_away_nothing_is_lost_and_all_complete_after() {
    let site = Site::new(Mode::Services).await;
    let mut database = Forward::to(&site.database_url(), 5432);
    database.restore().await;
    let setup = site.setup().set("database.url", database.through(&site.database_url()));
    let daemon = setup.set("lease.ttl_seconds", 30).start().await;
    let tasks: Vec<_> = (0..40).map(|_| probe::sleep(100)).collect();
    site.publish(&tasks).await;
    site.ended_at_least(4).await;
    database.cut().await;
    daemon.not_ready("database").await;
    assert_eq!(daemon.http().get("/healthz").await.status, 200, "alive all the same");
    database.restore().await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let rows = site.database().await.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "{rows:?}");
    for id in &ids {
        assert_eq!(daemon.http().attempts(*id).await.len(), 1, "one run: {:?}", daemon.http().events(*id).await);
    }
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_and_consumed_again() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    site.amqp().delete(site.prefix(), &["default".to_owned()]).await;
    eventually("the queue is there again, and consumed", async || {
        let (_, consumers) = site.amqp().count(&site.queue("default")).await?;
        if consumers > 0 { Ok(()) } else { Err(format!("{consumers} consumers")) }
    })
    .await;
    let after = Task::new("word-count", json!({"text": "after"}));
    site.publish(std::slice::from_ref(&after)).await;
    assert_eq!(daemon.http().ended(after.id).await["state"], "completed");
    invariants::hold(&site, daemon, &[after.id], Expected::default()).await;
}
