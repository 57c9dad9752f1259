//! One question, and the cause with its remedy: each cause is staged.

use e2e::daemon::{Ended, run, run_command};
use e2e::forward::{Forward, free_port};
use e2e::private::Broker;
use e2e::{Mode, Site, Task, daemon, eventually, patience, probe, variables};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The time that an answer may take: 5 s, on a machine of ordinary speed.
fn promised() -> Duration {
    patience() / 12
}

/// The file with the settings of the site's daemon, whether one runs or not.
fn settings(site: &Site) -> String {
    let _ = site.setup().command();
    site.folder().join("data.toml").to_string_lossy().into_owned()
}

/// Asks without a daemon: nothing listens at the address.
async fn ask_alone(site: &Site, id: &str, more: &[&str]) -> Ended {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    ask_at(site, &nowhere, id, more).await
}

/// Asks at an address, within the promise.
async fn ask_at(site: &Site, server: &str, id: &str, more: &[&str]) -> Ended {
    let settings = settings(site);
    let mut words = vec!["task", "explain", id, "--server", server, "--config", &settings];
    words.extend(more);
    let began = Instant::now();
    let told = run(site.folder(), &words).await;
    let took = began.elapsed();
    assert!(took < promised(), "took {took:?}: {told:?}");
    told
}

fn causes(answer: &Value) -> Vec<&str> {
    answer["causes"].as_array().expect("causes").iter().filter_map(|cause| cause["code"].as_str()).collect()
}

/// Waits until the first cause is this, each time within the promise, and returns the answer.
async fn first(daemon: &daemon::Daemon, id: Uuid, code: &str) -> Value {
    eventually(&format!("{code} of {id}"), async || {
        let began = Instant::now();
        let answer = daemon.http().get(&format!("/v1/tasks/{id}/explain")).await.expect(200);
        let took = began.elapsed();
        assert!(took < promised(), "took {took:?}: {answer}");
        match causes(&answer).first() {
            Some(first) if *first == code => Ok(answer),
            _ => Err(answer.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn a_task_that_was_published_while_no_daemon_runs_is_explained_without_one() {
    let site = Site::new(Mode::Services).await;
    site.start().await.stop().await;
    let settings = settings(&site);
    let words = ["submit", "probe", "--input", r#"{"do": "echo", "value": 1}"#, "--via", "amqp", "--config", &settings];
    let submitted = run(site.folder(), &words).await;
    submitted.expect(0, &[]);
    let id = submitted.stdout.trim();
    let told = ask_alone(&site, id, &[]).await;
    told.expect(0, &["no daemon answers"]);
    for part in [
        "no record",
        r#"nothing consumes the queue "default", where 1 message waits"#,
        "agentry up",
        "1 ready, 0 consumers",
    ] {
        assert!(told.stdout.contains(part), "{part:?}: {told:?}");
    }
    let daemon = site.start().await;
    let id: Uuid = id.parse().expect("an id");
    site.at_rest(&[id]).await;
    assert_eq!(causes(&first(&daemon, id, "completed").await), ["completed"]);
    daemon.stop().await;
}

#[tokio::test]
async fn publishing_names_what_is_missing() {
    let site = Site::new(Mode::Services).await;
    let settings = settings(&site);
    let submit = |more: &'static [&'static str]| {
        let mut words = vec!["submit", "probe", "--input", "{}", "--via", "amqp", "--config", settings.as_str()];
        words.extend(more);
        let mut command = daemon::command(site.folder());
        command.args(&words);
        command
    };
    run_command(&mut submit(&[])).await.expect(3, &["failed to publish", "broker.prefix"]);
    run_command(&mut submit(&["--priority", "11"])).await.expect(2, &["priority"]);
    run_command(&mut submit(&["--id", "seven"])).await.expect(2, &["--id", "UUID"]);
    let embedded = Site::new(Mode::Embedded).await;
    let words = ["submit", "probe", "--input", "{}", "--via", "amqp"];
    run(embedded.folder(), &words).await.expect(2, &["broker.url", "--via http"]);
}

#[tokio::test]
async fn embedded_a_stopped_daemon_is_named() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let task = probe::echo(json!(1)).option("run_at", "2999-01-01T00:00:00Z");
    site.submit(&daemon, std::slice::from_ref(&task)).await;
    daemon.stop().await;
    let told = ask_alone(&site, &task.id.to_string(), &["--json"]).await;
    told.expect(0, &[]);
    let answer: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(causes(&answer)[..2], ["no_host", "scheduled"], "{answer}");
    let unknown = ask_alone(&site, &Uuid::now_v7().to_string(), &["--json"]).await;
    unknown.expect(0, &[]);
    let answer: Value = serde_json::from_str(&unknown.stdout).expect("JSON");
    assert_eq!(causes(&answer), ["broker_away", "no_host", "no_record"], "{answer}");
}

#[tokio::test]
async fn asking_without_a_database_says_so_and_makes_none() {
    let site = Site::new(Mode::Embedded).await;
    let told = ask_alone(&site, &Uuid::now_v7().to_string(), &[]).await;
    told.expect(0, &[]);
    for part in ["database_refused", "data.dir", "unknown"] {
        assert!(told.stdout.contains(part), "{part:?}: {told:?}");
    }
    assert!(!site.data("data").exists(), "asking made a data folder");
}

#[tokio::test]
async fn a_daemon_that_says_nothing_is_not_waited_for() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let task = probe::echo(json!(1)).option("run_at", "2999-01-01T00:00:00Z");
    site.submit(&daemon, std::slice::from_ref(&task)).await;
    first(&daemon, task.id, "scheduled").await;
    daemon.signal(Signal::STOP);
    let told = ask_at(&site, daemon.http().base(), &task.id.to_string(), &[]).await;
    told.expect(0, &["has not responded"]);
    assert!(told.stdout.contains("[scheduled]"), "{told:?}");
    daemon.signal(Signal::CONT);
    daemon.stop().await;
}

#[tokio::test]
async fn plugins_that_are_missing_or_broken_are_named_with_their_cause() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let missing = Task::new("no-such-plugin", json!(null));
    site.publish(std::slice::from_ref(&missing)).await;
    let answer = first(&daemon, missing.id, "no_plugin").await;
    assert!(answer["causes"][0]["remedy"].as_str().is_some_and(|text| text.contains("plugins.dir")), "{answer}");
    let folder = site.folder().join("broken");
    std::fs::create_dir(&folder).expect("a folder");
    let folder = e2e::plugin::install("probe", &folder);
    e2e::plugin::edit(&folder, "name = \"probe\"", "name = \"broken\"\nno_such_key = 1");
    let setup = site.setup_named("other").plugins([folder.parent().expect("a parent").to_owned()]);
    let other = setup.start().await;
    let broken = Task::new("broken", json!(null));
    site.publish(std::slice::from_ref(&broken)).await;
    // Whichever host received it: both consume the queue, and one of them does not have the plugin at all.
    let answer = first(&daemon, broken.id, "plugin_broken").await;
    assert!(answer["summary"].as_str().is_some_and(|text| text.contains("no_such_key")), "{answer}");
    other.stop().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_dead_letter_an_ended_and_an_unknown_task_are_named() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let bad = probe::echo(json!(1)).option("priority", 11);
    let failing = probe::fail_permanent("no such document");
    site.publish(&[bad.clone(), failing.clone()]).await;
    let answer = first(&daemon, bad.id, "failed").await;
    assert!(answer["summary"].as_str().is_some_and(|text| text.contains("agentry dead redrive")), "{answer}");
    let answer = first(&daemon, failing.id, "failed").await;
    assert!(answer["summary"].as_str().is_some_and(|text| text.contains("no such document")), "{answer}");
    let answer = first(&daemon, Uuid::now_v7(), "no_record").await;
    assert_eq!(answer["facts"]["queues"][0]["queue"], "default", "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn embedded_a_failed_task_names_its_remedy() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let failing = probe::fail_permanent("no such document");
    site.submit(&daemon, std::slice::from_ref(&failing)).await;
    let answer = first(&daemon, failing.id, "failed").await;
    assert!(answer["summary"].as_str().is_some_and(|text| text.contains("agentry task retry")), "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_dead_owner_is_named_and_then_its_successor() {
    let site = Site::new(Mode::Services).await;
    let (first_of, mut owner) =
        (probe::sleep(60_000), site.setup_named("owner").set("lease.ttl_seconds", 5).start().await);
    site.publish(std::slice::from_ref(&first_of)).await;
    site.running(1).await;
    let answer = first(&owner, first_of.id, "running").await;
    assert!(answer["causes"][0]["message"].as_str().is_some_and(|text| text.contains("attempt 1")), "{answer}");
    let before = answer["causes"][0]["detail"]["host"].clone();
    owner.kill();
    let id = first_of.id.to_string();
    // Nothing else is alive, so that this comes before the owner's end.
    eventually("no host is alive", async || {
        let told = ask_alone(&site, &id, &["--json"]).await;
        let answer: Value = serde_json::from_str(&told.stdout).map_err(|error| error.to_string())?;
        match causes(&answer)[..] {
            ["no_host", "owner_lost", ..] => Ok(()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
    let successor = site.setup_named("successor").set("lease.ttl_seconds", 5).start().await;
    eventually("the successor runs it", async || {
        let answer = successor.http().get(&format!("/v1/tasks/{id}/explain")).await.expect(200);
        match (causes(&answer).first(), &answer["causes"][0]["detail"]["host"]) {
            (Some(&"running"), host) if *host != before => Ok(()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
    successor.stop().await;
}

#[tokio::test]
async fn database_and_broker_that_are_away_are_named() {
    let site = Site::new(Mode::Services).await;
    let mut to_database = Forward::to(&site.database_url(), 5432);
    let mut to_broker = Forward::to(site.broker_url(), 5672);
    to_database.restore().await;
    to_broker.restore().await;
    let setup = site
        .setup()
        .set("database.url", to_database.through(&site.database_url()))
        .set("broker.url", to_broker.through(site.broker_url()));
    let daemon = setup.start().await;
    let task = probe::echo(json!(1)).option("run_at", "2999-01-01T00:00:00Z");
    site.submit(&daemon, std::slice::from_ref(&task)).await;
    to_broker.cut().await;
    let waiting = probe::echo(json!(2));
    site.submit(&daemon, std::slice::from_ref(&waiting)).await;
    first(&daemon, waiting.id, "broker_away").await;
    to_database.cut().await;
    first(&daemon, task.id, "database_away").await;
    to_database.restore().await;
    to_broker.restore().await;
    first(&daemon, task.id, "scheduled").await;
    first(&daemon, waiting.id, "completed").await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_broker_under_an_alarm_is_named() {
    let broker = Broker::start("").await;
    let site = Site::private(&broker.url(), &variables::postgres()).await;
    let daemon = site.start().await;
    broker.control(&["set_vm_memory_high_watermark", "0.000001"]).await;
    let task = probe::echo(json!(1));
    daemon.http().post("/v1/tasks", &task.body()).await.expect(201);
    let id = task.id;
    let told = first(&daemon, id, "broker_blocked").await;
    let cause = &told["causes"][0];
    assert!(cause["message"].as_str().is_some_and(|message| message.contains("alarm")), "{told}");
    assert!(cause["remedy"].as_str().is_some_and(|remedy| remedy.contains("list_alarms")), "{told}");
    // The broker tells only who publishes that it is blocked, so the command alone names where to look.
    let alone = ask_alone(&site, &id.to_string(), &[]).await;
    alone.expect(0, &[]);
    assert!(alone.stdout.contains("committed and not yet published"), "{alone:?}");
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    first(&daemon, id, "completed").await;
    daemon.stop().await;
}
