//! Paused queues, disabled plugins and drained hosts: nothing begins, nothing is lost, and everybody is told.

use chrono::{DateTime, TimeDelta, Utc};
use e2e::daemon::run;
use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Site, Task, eventually, probe, task};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

e2e::in_both_modes! {
    under_a_pause_nothing_begins_and_afterwards_all_complete_once
    a_disabled_plugin_waits_and_the_other_of_its_queue_goes_on
    a_pause_survives_its_daemon
}

/// Longer than every host takes to hear of a brake.
const HEARD: TimeDelta = TimeDelta::seconds(2);

async fn command(site: &Site, daemon: &Daemon, words: &[&str]) -> Value {
    let words = [words, &["--json", "--server", daemon.http().base()]].concat();
    let ended = run(site.folder(), &words).await;
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

async fn waits_for(daemon: &Daemon, id: Uuid) -> Value {
    daemon.http().task(id).await["waiting_for"].clone()
}

/// When the first attempt of each task that has begun did.
async fn beginnings(daemon: &Daemon, ids: &[Uuid]) -> Vec<DateTime<Utc>> {
    let mut begun = Vec::new();
    for id in ids {
        let answer = daemon.http().get(&format!("/v1/tasks/{id}/events")).await;
        if answer.status != 200 {
            continue;
        }
        let events = answer.json()["events"].as_array().cloned().unwrap_or_default();
        let first = events.iter().find(|event| event["event"] == "running").map(|event| event["at"].clone());
        begun.extend(first.map(|at| serde_json::from_value::<DateTime<Utc>>(at).expect("a time")));
    }
    begun
}

async fn under_a_pause_nothing_begins_and_afterwards_all_complete_once(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.setup().set("worker.slots", 2).start().await;
    // Some that are claimed before they run and some that are not; more than can run before the pause.
    let mut tasks: Vec<Task> = (0..30).map(|_| probe::sleep(300)).collect();
    tasks.extend((0..10).map(|_| probe::fail_until_attempt(2)));
    site.submit(&daemon, &tasks).await;
    let ids = task::ids(&tasks);
    site.ended_at_least(4).await;
    let told = command(&site, &daemon, &["queue", "pause", "default", "--reason", "a bad release"]).await;
    assert_eq!((&told["changed"], &told["behind"]), (&json!(true), &json!([])), "{told}");
    let paused: DateTime<Utc> = serde_json::from_value(told["brake"]["since"].clone()).expect("a time");
    let late = Task::new("probe", json!({"do": "echo", "value": 1}));
    let accepted = daemon.http().post("/v1/tasks", &late.body()).await.expect(201);
    assert_eq!(accepted["waiting_for"]["code"], "paused", "{accepted}");
    // Longer than deliveries are held, so that some were given back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let all = [ids.clone(), vec![late.id]].concat();
    let begun = beginnings(&daemon, &all).await;
    assert!(begun.len() < all.len(), "the pause came too late to show anything");
    assert!(begun.iter().all(|at| *at < paused + HEARD), "begun under the pause: {begun:?}, paused {paused}");
    let ready = daemon.http().get("/readyz").await.expect(200);
    assert!(ready.to_string().contains("is paused by api (a bad release)"), "{ready}");
    let explained = daemon.http().get(&format!("/v1/tasks/{}/explain", late.id)).await.expect(200);
    assert!(explained["summary"].to_string().contains("`agentry queue resume default`"), "{explained}");
    let queues = command(&site, &daemon, &["queue", "list"]).await;
    assert_eq!(queues["queues"][0]["paused"]["reason"], "a bad release", "{queues}");
    command(&site, &daemon, &["queue", "resume", "default"]).await;
    site.at_rest(&all).await;
    let audit = command(&site, &daemon, &["audit"]).await;
    let actions: Vec<_> = audit["audit"].as_array().expect("changes").iter().map(|change| &change["action"]).collect();
    assert_eq!(actions, ["queue.resume", "queue.pause"], "{audit}");
    invariants::hold(&site, daemon, &all, Expected { all_complete: true, ..Expected::default() }).await;
}

async fn a_disabled_plugin_waits_and_the_other_of_its_queue_goes_on(mode: Mode) {
    let site = Site::new(mode).await;
    // Waiting for a disabled plugin is no waiting in vain.
    let daemon = site.setup().set("plugins.unknown_grace_seconds", 1).start().await;
    command(&site, &daemon, &["plugin", "disable", "word-count", "--reason", "it is wrong"]).await;
    let held: Vec<Task> = (0..20).map(|n| Task::new("word-count", json!({"text": format!("a {n}")}))).collect();
    let free: Vec<Task> = (0..20).map(|n| probe::echo(json!(n))).collect();
    let mixed: Vec<Task> = held.iter().cloned().zip(free.iter().cloned()).flat_map(|(a, b)| [a, b]).collect();
    site.submit(&daemon, &mixed).await;
    for task in &free {
        assert_eq!(daemon.http().ended(task.id).await["state"], "completed");
    }
    for task in &held {
        eventually("it is parked", async || {
            let answer = daemon.http().get(&format!("/v1/tasks/{}", task.id)).await;
            let row = answer.json();
            let parked = answer.status == 200 && row["waiting_for"]["detail"]["brake"]["by"] == "api";
            if parked { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(waits_for(&daemon, held[0].id).await["code"], "paused");
    command(&site, &daemon, &["plugin", "enable", "word-count"]).await;
    let all = task::ids(&mixed);
    site.at_rest(&all).await;
    invariants::hold(&site, daemon, &all, Expected { all_complete: true, ..Expected::default() }).await;
}

async fn a_pause_survives_its_daemon(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.start().await;
    command(&site, &daemon, &["queue", "pause", "default"]).await;
    let tasks: Vec<Task> = (0..10).map(|n| probe::echo(json!(n))).collect();
    let ids = task::ids(&tasks);
    site.submit(&daemon, &tasks).await;
    daemon.kill();
    daemon.start_again().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(beginnings(&daemon, &ids).await.is_empty(), "a daemon that starts heeds the pause at once");
    command(&site, &daemon, &["queue", "resume", "default"]).await;
    site.at_rest(&ids).await;
    invariants::hold(&site, daemon, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}

#[tokio::test]
async fn of_two_hosts_the_one_that_is_not_drained_does_everything() {
    let site = Site::new(Mode::Services).await;
    let (one, two) = (site.setup_named("one").start().await, site.setup_named("two").start().await);
    let slow: Vec<Task> = (0..8).map(|_| probe::sleep(10_000)).collect();
    site.publish(&slow).await;
    site.running(4).await;
    let hosts = two.http().get("/v1/hosts").await.expect(200);
    let of = format!("/{}", one.pid());
    let hosts = hosts["hosts"].as_array().expect("hosts").clone();
    let id = hosts.iter().find(|host| host["name"].as_str().is_some_and(|name| name.ends_with(&of)));
    let id = id.and_then(|host| host["id"].as_str()).expect("the host").to_owned();
    // Asked of the other: any host of a cluster takes it.
    command(&site, &two, &["host", "drain", &id, "--reason", "a new kernel"]).await;
    let tasks: Vec<Task> = (0..40).map(|n| probe::echo(json!(n))).collect();
    site.publish(&tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    for task in &ids {
        let attempts = two.http().attempts(*task).await;
        assert!(attempts.iter().all(|attempt| attempt["host"] != id.as_str()), "a drained host ran it: {attempts:?}");
    }
    let ready = one.http().get("/readyz").await.expect(200);
    assert!(ready.to_string().contains("(a new kernel)"), "it stays up and says so: {ready}");
    let slow_ids = task::ids(&slow);
    site.at_rest(&slow_ids).await;
    command(&site, &two, &["host", "undrain", &id]).await;
    let again: Vec<Task> = (0..40).map(|_| probe::sleep(300)).collect();
    site.publish(&again).await;
    let all = [ids, slow_ids, task::ids(&again)].concat();
    site.at_rest(&all).await;
    let mut of_one = 0;
    for task in &again {
        of_one += two.http().attempts(task.id).await.iter().filter(|attempt| attempt["host"] == id.as_str()).count();
    }
    assert!(of_one > 0, "it takes tasks again");
    one.stop().await;
    invariants::hold(&site, two, &all, Expected { all_complete: true, ..Expected::default() }).await;
}
