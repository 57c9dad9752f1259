//! Killed, stopped, started again: nothing is lost and nothing is done twice.

use std::collections::BTreeSet;
use std::time::Instant;

use e2e::amqp::Outgoing;
use e2e::forward::Forward;
use e2e::http::is_terminal;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, patience, probe, task};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

e2e::in_both_modes! {
    killed_in_the_middle_of_a_thousand_tasks_it_loses_none_and_runs_each_at_most_once_more
    stopped_while_tasks_run_it_ends_cleanly_and_gives_back_what_it_interrupted
    stopped_it_lets_running_tasks_finish
    a_second_signal_ends_it_at_once_and_loses_nothing
    a_terminal_log_line_is_never_ahead_of_the_database
    killed_again_and_again_it_still_loses_nothing
}

async fn killed_in_the_middle_of_a_thousand_tasks_it_loses_none_and_runs_each_at_most_once_more(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.setup().set("lease.ttl_seconds", 5).start().await;
    let tasks: Vec<_> = (0..1_000).map(|n| probe::echo(json!({"n": n}))).collect();
    site.submit(&daemon, &tasks).await;
    site.ended_at_least(200).await;
    daemon.kill();
    let ids = task::ids(&tasks);
    let rows = site.database().await.tasks().await;
    let before: BTreeSet<Uuid> = rows.iter().filter(|(_, row)| is_terminal(&row.state)).map(|(id, _)| *id).collect();
    assert!(before.len() < tasks.len(), "it was killed too late: all {} had ended", before.len());

    daemon.start_again().await;
    site.at_rest(&ids).await;
    let histories = site.database().await.events().await;
    let mut taken_over = 0;
    for (n, id) in ids.iter().enumerate() {
        let names: Vec<_> = histories[id].iter().map(|(_, event)| event.as_str()).collect();
        let runs = names.iter().filter(|event| matches!(**event, "running" | "taken_over")).count();
        assert!(runs <= if before.contains(id) { 1 } else { 2 }, "{id} ran {runs} times: {names:?}");
        taken_over += names.iter().filter(|event| **event == "taken_over").count();
        if n % 100 == 0 {
            let ended = daemon.http().task(*id).await;
            assert_eq!((&ended["state"], &ended["output"]), (&json!("completed"), &json!({"n": n})), "{ended}");
        }
    }
    assert!(taken_over < 500, "only what was in flight is run again, not {taken_over}");
    let rows = site.database().await.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "no honest task failed");
    invariants::hold(&site, daemon, &ids, Expected { take_overs: 1, ..Expected::default() }).await;
}

async fn killed_again_and_again_it_still_loses_nothing(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.setup().set("lease.ttl_seconds", 5).start().await;
    let tasks: Vec<_> = (0..300).map(|_| probe::sleep(20)).collect();
    site.submit(&daemon, &tasks).await;
    for part in 1..=3 {
        site.ended_at_least(part * 40).await;
        daemon.kill();
        daemon.start_again().await;
    }
    invariants::hold(&site, daemon, &task::ids(&tasks), Expected { take_overs: 3, ..Expected::default() }).await;
}

async fn stopped_while_tasks_run_it_ends_cleanly_and_gives_back_what_it_interrupted(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.setup().set("shutdown.grace_seconds", 1).start().await;
    // More than there are slots; the first would outlive the grace.
    let tasks: Vec<_> = (0..12).map(|n| probe::sleep(if n < 4 { 8_000 } else { 10 })).collect();
    site.submit(&daemon, &tasks).await;
    let running = site.running(4).await;
    assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());

    let database = site.database().await;
    let rows = database.tasks().await;
    let histories = database.events().await;
    for id in &running {
        assert_eq!(rows[id].state, "pending", "{id} {:?}", histories[id]);
        assert_eq!(histories[id].last().map(|(_, event)| event.as_str()), Some("interrupted"));
    }
    daemon.start_again().await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    for id in &running {
        let ended = daemon.http().task(*id).await;
        assert_eq!(
            (&ended["state"], &ended["attempt"]),
            (&json!("completed"), &json!(1)),
            "no attempt is burnt: {ended}"
        );
    }
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

async fn stopped_it_lets_running_tasks_finish(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.start().await;
    let asked = probe::sleep(1_500);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    site.running(1).await;
    assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());
    assert_eq!(site.database().await.tasks().await[&asked.id].state, "completed");
    daemon.start_again().await;
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_second_signal_ends_it_at_once_and_loses_nothing(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.setup().set("shutdown.grace_seconds", 600).start().await;
    let asked = probe::sleep(3_000);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    site.running(1).await;
    daemon.signal(Signal::TERM);
    daemon.says("a second signal ends at once").await;
    assert_eq!(daemon.terminate().await, Some(5), "another code than after a clean end: {}", daemon.said());
    assert_eq!(site.database().await.tasks().await[&asked.id].state, "running", "it did not wait for its guest");
    daemon.start_again().await;
    site.at_rest(&[asked.id]).await;
    assert_eq!(daemon.http().task(asked.id).await["state"], "completed");
    invariants::hold(&site, daemon, &[asked.id], Expected { take_overs: 1, ..Expected::default() }).await;
}

/// Commit, then the log line, then the acknowledgement: whatever the log says has ended is so after a kill.
async fn a_terminal_log_line_is_never_ahead_of_the_database(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.setup().set("log.format", "json").start().await;
    let tasks: Vec<_> = (0..200).map(|n| Task::new("word-count", json!({"text": format!("{n}")}))).collect();
    site.submit(&daemon, &tasks).await;
    site.ended_at_least(50).await;
    daemon.kill();
    let rows = site.database().await.tasks().await;
    let said = daemon.said();
    let mut named = 0;
    for line in said.lines().filter(|line| line.contains("\"settled\"") || line.contains("\"acknowledged\"")) {
        let asked = tasks.iter().find(|task| line.contains(&task.id.to_string()));
        let asked = asked.unwrap_or_else(|| panic!("no task in {line}"));
        assert!(is_terminal(&rows[&asked.id].state), "{line}: but the row is {:?}", rows[&asked.id]);
        named += 1;
    }
    assert!(named > 0, "the log says what was settled and acknowledged");
    daemon.start_again().await;
    let expected = Expected { take_overs: 1, ..Expected::default() };
    invariants::hold(&site, daemon, &task::ids(&tasks), expected).await;
}

#[tokio::test]
async fn the_grace_is_the_whole_time_though_neither_guests_nor_the_database_end() {
    let site = Site::new(Mode::Services).await;
    let mut way = Forward::to(&site.database_url(), 5432);
    way.restore().await;
    let setup = site.setup().set("database.url", way.through(&site.database_url()));
    let mut daemon = setup.set("shutdown.grace_seconds", 10).start().await;
    let tasks: Vec<_> = (0..2).map(|_| probe::sleep(20_000)).collect();
    site.publish(&tasks).await;
    site.running(2).await;
    way.fall_silent();
    let began = Instant::now();
    assert_eq!(daemon.terminate().await, Some(5), "{}", daemon.said());
    let took = began.elapsed();
    // Ten seconds, and half of that for a slow machine.
    assert!(took < patience() / 4, "it took {took:?}");
    way.restore().await;
    daemon.start_again().await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    invariants::hold(&site, daemon, &ids, Expected { take_overs: 1, ..Expected::default() }).await;
}

#[tokio::test]
async fn backlog_of_dead_letters_leaves_time_to_end_the_lease() {
    let site = Site::new(Mode::Services).await;
    let mut daemon = site.setup().set("shutdown.grace_seconds", 6).start().await;
    let database = site.database().await;
    // Each letter that is published is due again: there is no end of them.
    database
        .execute(
            "CREATE FUNCTION agentry.again() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN NEW.publish_at := COALESCE(NEW.publish_at, statement_timestamp()); RETURN NEW; END $$;
            CREATE TRIGGER again BEFORE UPDATE ON agentry.dead_letters FOR EACH ROW EXECUTE FUNCTION agentry.again()",
        )
        .await;
    site.amqp().publish(site.prefix(), "default", [Outgoing::json("nonsense")]).await;
    eventually("it is published again and again", async || {
        match site.amqp().count(&site.queue("default.dead")).await? {
            (0..10, _) => Err("it is not".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());
    assert!(!daemon.said().contains("without a farewell"), "{}", daemon.said());
    assert_eq!(database.number("SELECT count(*) FROM agentry.hosts WHERE ended").await, Ok(1), "its lease is ended");
}

#[tokio::test]
async fn the_embedded_queue_is_durable_across_a_kill() {
    let site = Site::new(Mode::Embedded).await;
    let mut daemon = site.setup().set("worker.slots", 1).start().await;
    // One holds the only slot; the others are in the queue and nowhere else when it is killed.
    let mut tasks = vec![probe::sleep(2_000)];
    tasks.extend((0..50).map(|n| probe::echo(json!(n))));
    site.submit(&daemon, &tasks).await;
    site.running(1).await;
    daemon.kill();
    daemon.start_again().await;
    let expected = Expected { take_overs: 1, ..Expected::default() };
    invariants::hold(&site, daemon, &task::ids(&tasks), expected).await;
}

#[tokio::test]
async fn a_second_daemon_on_the_same_embedded_data_is_refused() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let second = site.setup().run_to_end().await;
    assert!(matches!(second.code, Some(1..=4)), "{second:?}");
    assert!(
        second.stderr.contains(&site.data("data").to_string_lossy().into_owned()),
        "it names the folder: {second:?}"
    );
    daemon.stop().await;
}
