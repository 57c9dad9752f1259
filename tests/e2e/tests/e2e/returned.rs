//! What the broker itself gives up on: a task of it is settled, the rest is a dead letter with its reason.

use e2e::amqp::Outgoing;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, probe};
use serde_json::json;

#[tokio::test]
async fn a_message_that_expired_in_its_queue_is_a_task_that_expired() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare(site.prefix(), "default").await;
    let task = probe::echo(json!(1));
    let message = task.message().with(|properties| properties.with_expiration("1".into()));
    site.amqp().publish(site.prefix(), "default", [message]).await;
    eventually("the broker has given it up", async || {
        let (ready, _) = site.amqp().count(&site.queue("default.returned")).await?;
        if ready == 1 { Ok(()) } else { Err(format!("{ready} are returned")) }
    })
    .await;
    let daemon = site.start().await;
    let ended = daemon.http().ended(task.id).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("expired")), "{ended}");
    invariants::hold(&site, daemon, &[task.id], Expected::default()).await;
}

#[tokio::test]
async fn a_task_that_came_to_its_delivery_limit_runs_all_the_same() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let tasks = [probe::echo(json!(1)), probe::echo(json!(2))];
    site.publish(&tasks[..1]).await;
    daemon.http().ended(tasks[0].id).await;
    // One has ended meanwhile, the other was never claimed: its hosts died before they could.
    for task in &tasks {
        let message = task.message().header("x-first-death-reason", "delivery_limit");
        site.amqp().publish(&format!("{}.dead", site.prefix()), "default.returned", [message]).await;
    }
    for task in &tasks {
        let ended = daemon.http().ended(task.id).await;
        assert_eq!(ended["state"], "completed", "{ended}");
        assert_eq!(daemon.http().attempts(task.id).await.len(), 1);
    }
    invariants::hold(&site, daemon, &tasks.each_ref().map(|task| task.id), Expected::default()).await;
}

#[tokio::test]
async fn what_was_thrown_out_ends_its_task_and_what_belongs_to_none_is_a_dead_letter() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let task = Task::new("word-count", json!({"text": "a"}));
    let dead = format!("{}.dead", site.prefix());
    let thrown = |message: Outgoing| message.header("x-first-death-reason", "rejected");
    site.amqp().publish(&dead, "default.returned", [thrown(task.message()), thrown(Outgoing::json("[1"))]).await;
    let ended = daemon.http().ended(task.id).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("rejected")), "{ended}");
    assert_eq!(ended["failure"]["detail"]["reason"], "rejected");
    let database = site.database().await;
    eventually("the other is a dead letter", async || {
        let letters = database.dead_letters().await;
        if letters.len() == 1 { Ok(()) } else { Err(format!("{letters:?}")) }
    })
    .await;
    invariants::hold(&site, daemon, &[task.id], Expected { dead_letters: 1, ..Expected::default() }).await;
}
