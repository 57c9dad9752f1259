//! What the broker itself gives up on: a task of it is settled, the rest is a dead letter with its reason.

use std::process::Command;

use e2e::amqp::Outgoing;
use e2e::daemon::run_command;
use e2e::invariants::{self, Expected};
use e2e::{Amqp, Mode, Site, Task, eventually, probe, variables};
use serde_json::json;

#[tokio::test]
async fn a_message_that_expired_in_its_queue_is_a_task_that_expired() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare(site.prefix(), "default").await;
    let task = probe::echo(json!(1));
    let message = task.message().with(|properties| properties.with_expiration("1".into()));
    site.amqp().publish(site.prefix(), "default", [message]).await;
    eventually("the broker has given it up", async || {
        let (ready, _) = site.amqp().count(&site.queue("default.returned.v2")).await?;
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

#[tokio::test]
async fn messages_whose_consumers_die_are_returned_and_run_in_the_end() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare(site.prefix(), "default").await;
    let limit = DeliveryLimit::of_version_4(&site).await;
    let task = probe::echo(json!(1));
    let without_id = Outgoing::json(json!({"plugin": "word-count", "input": {"text": "a b"}}).to_string());
    site.amqp().publish(site.prefix(), "default", [task.message(), without_id]).await;
    // Twenty-one deliveries end in the queue of returned messages; as many there change nothing.
    for (queue, then) in [("default", "default.returned.v2"), ("default.returned.v2", "default.returned.v2")] {
        let mut delivered = 0;
        eventually("each is delivered 21 times", async || {
            delivered += Amqp::take_and_die(site.broker_url(), &site.queue(queue)).await;
            if delivered >= 42 { Ok(()) } else { Err(format!("{delivered} deliveries")) }
        })
        .await;
        eventually("both are returned", async || {
            let (ready, _) = site.amqp().count(&site.queue(then)).await?;
            if ready == 2 { Ok(()) } else { Err(format!("{ready} are in {then}")) }
        })
        .await;
    }
    let daemon = site.start().await;
    assert_eq!(daemon.http().ended(task.id).await["state"], "completed");
    let database = site.database().await;
    eventually("the other has run as well", async || {
        let rows = database.tasks().await;
        let completed = rows.values().filter(|row| row.state == "completed").count();
        if completed == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    assert!(database.dead_letters().await.is_empty());
    limit.clear().await;
    daemon.stop().await;
}

#[tokio::test]
async fn messages_that_an_earlier_build_left_returned_run() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare_as_before(site.prefix(), "default").await;
    let tasks = [probe::echo(json!(1)), probe::echo(json!(2)), probe::echo(json!(3))];
    let dead = format!("{}.dead", site.prefix());
    let limited = |task: &Task| task.message().header("x-first-death-reason", "delivery_limit");
    site.amqp().publish(&dead, "default.returned", tasks[..2].iter().map(limited)).await;
    let daemon = site.start().await;
    for task in &tasks[..2] {
        assert_eq!(daemon.http().ended(task.id).await["state"], "completed");
    }
    // A host of the earlier build beside it binds its queue again: two copies, one task.
    site.amqp().bind(&site.queue("default.returned"), &dead, "default.returned").await;
    site.amqp().publish(&dead, "default.returned", [limited(&tasks[2])]).await;
    for task in &tasks {
        assert_eq!(daemon.http().ended(task.id).await["state"], "completed");
        assert_eq!(daemon.http().attempts(task.id).await.len(), 1);
    }
    invariants::hold(&site, daemon, &tasks.each_ref().map(|task| task.id), Expected::default()).await;
}

#[tokio::test]
async fn a_message_without_an_id_whose_host_dies_is_one_task() {
    let site = Site::new(Mode::Services).await;
    let mut daemon = site.setup().set("lease.ttl_seconds", 5).start().await;
    let body = json!({"plugin": "probe", "input": {"do": "sleep", "ms": 3_000}});
    site.amqp().publish(site.prefix(), "default", [Outgoing::json(body.to_string())]).await;
    let database = site.database().await;
    // It kills two hosts, and is suspected for it: by its one row, not by a new one for each delivery.
    for deaths in 0..2 {
        eventually("it runs", async || {
            let rows = database.tasks().await;
            let claimed = "SELECT count(*) FROM agentry.task_events WHERE event IN ('running', 'taken_over')";
            let claims = database.number(claimed).await?;
            if rows.len() == 1 && claims > deaths { Ok(()) } else { Err(format!("{claims} claims: {rows:?}")) }
        })
        .await;
        if deaths == 0 {
            // Killed between the claim and its acknowledgement, it would be delivered again, as another task.
            daemon.says("acknowledged task=").await;
        }
        daemon.kill();
        daemon.start_again().await;
    }
    eventually("it has ended", async || {
        let rows = database.tasks().await;
        let ended = rows.len() == 1 && rows.values().all(|row| row.state == "completed");
        if ended { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let ids: Vec<_> = database.tasks().await.into_keys().collect();
    invariants::hold(&site, daemon, &ids, Expected { take_overs: 2, ..Expected::default() }).await;
}

/// The delivery limit that RabbitMQ 4 has by default, by a policy where the broker is an earlier one.
struct DeliveryLimit(Option<String>);

impl DeliveryLimit {
    async fn of_version_4(site: &Site) -> Self {
        let version = control(&["version"]).await;
        let major = version.trim().split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.expect("a version") >= 4 {
            return Self(None);
        }
        let (name, pattern) = (site.prefix().to_owned(), format!("^{}\\.default$", site.prefix()));
        control(&["set_policy", &name, &pattern, r#"{"delivery-limit":20}"#, "--apply-to", "queues"]).await;
        Self(Some(name))
    }

    async fn clear(self) {
        if let Some(name) = self.0 {
            control(&["clear_policy", &name]).await;
        }
    }
}

async fn control(arguments: &[&str]) -> String {
    let words = variables::rabbitmqctl();
    let ended = run_command(Command::new(&words[0]).args(&words[1..]).args(arguments)).await;
    assert_eq!(ended.code, Some(0), "rabbitmqctl {arguments:?}: {ended:?}");
    ended.stdout
}
