//! Several daemons, one queue.

use std::collections::BTreeMap;

use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, probe, task};

#[tokio::test]
async fn two_daemons_share_four_hundred_tasks_and_each_runs_once() {
    let site = Site::new(Mode::Services).await;
    let one = site.setup_named("one").start().await;
    let two = site.setup_named("two").start().await;
    let tasks: Vec<_> = (0..400).map(|_| probe::sleep(20)).collect();
    site.publish(&tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for id in &ids {
        let attempts = one.http().attempts(*id).await;
        assert_eq!(attempts.len(), 1, "{id} ran once: {attempts:?}");
        *shares.entry(attempts[0]["host"].to_string()).or_default() += 1;
    }
    assert_eq!(shares.len(), 2, "both have run some: {shares:?}");
    assert!(shares.values().all(|share| *share >= 40), "neither starves: {shares:?}");
    two.stop().await;
    invariants::hold(&site, one, &ids, Expected::default()).await;
}

#[tokio::test]
async fn long_tasks_that_a_busy_daemon_cannot_begin_go_to_an_idle_one() {
    let site = Site::new(Mode::Services).await;
    // In hand of the first, which runs two at a time, before the second is there.
    let one = site.setup_named("one").set("worker.slots", 2).start().await;
    let tasks: Vec<_> = (0..4).map(|_| probe::sleep(15_000)).collect();
    site.publish(&tasks).await;
    site.running(2).await;
    let two = site.setup_named("two").set("worker.slots", 2).start().await;
    // What the reserve of the first held goes to the second. A delivery of its other subscription stays there if that of the reserve
    // has its slot.
    site.running(3).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    two.stop().await;
    invariants::hold(&site, one, &ids, Expected { all_complete: true, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_killed_daemons_tasks_are_finished_by_the_other() {
    let site = Site::new(Mode::Services).await;
    let mut one = site.setup_named("one").set("lease.ttl_seconds", 3).start().await;
    let tasks: Vec<_> = (0..60).map(|_| probe::sleep(100)).collect();
    site.publish(&tasks).await;
    site.ended_at_least(4).await;
    let two = site.setup_named("two").set("lease.ttl_seconds", 3).start().await;
    one.kill();
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let rows = site.database().await.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "{rows:?}");
    invariants::hold(&site, two, &ids, Expected { take_overs: 1, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_task_for_a_plugin_that_only_the_other_daemon_serves_finds_its_way() {
    let site = Site::new(Mode::Services).await;
    let (few, all) = (site.folder().join("few"), site.folder().join("all"));
    e2e::plugin::install("word-count", &few);
    e2e::plugin::install("word-count", &all);
    e2e::plugin::install("outline", &all);
    let one = site.setup_named("one").plugins([few]).start().await;
    let two = site.setup_named("two").plugins([all]).start().await;
    let outline = |n| e2e::Task::new("outline", serde_json::json!({"markdown": format!("# {n}\n")}));
    let tasks: Vec<_> = (0..20).map(outline).collect();
    site.publish(&tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let rows = site.database().await.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "{rows:?}");
    one.stop().await;
    invariants::hold(&site, two, &ids, Expected::default()).await;
}

#[tokio::test]
async fn every_consumer_has_a_name_and_a_row() {
    let site = Site::new(Mode::Services).await;
    let one = site.setup_named("one").start().await;
    let two = site.setup_named("two").start().await;
    let hosts = one.http().get("/v1/hosts").await.expect(200).to_string();
    for daemon in [&one, &two] {
        assert!(hosts.contains(&format!("/{}\"", daemon.pid())), "agentry/BUILD/HOST/PID: {hosts}");
    }
    two.stop().await;
    invariants::hold(&site, one, &[], Expected::default()).await;
}

#[tokio::test]
async fn three_daemons_with_a_plugin_each_run_what_is_theirs() {
    let site = Site::new(Mode::Services).await;
    let mut daemons = Vec::new();
    for plugin in ["word-count", "outline", "probe"] {
        let folder = site.folder().join(format!("only-{plugin}"));
        e2e::plugin::install(plugin, &folder);
        daemons.push((plugin, site.setup_named(plugin).plugins([folder]).start().await));
    }
    let tasks: Vec<_> = (0..60)
        .map(|n| match n % 3 {
            0 => e2e::Task::new("word-count", serde_json::json!({"text": format!("{n}")})),
            1 => e2e::Task::new("outline", serde_json::json!({"markdown": format!("# {n}\n")})),
            _ => probe::sleep(30),
        })
        .collect();
    site.publish(&tasks).await;
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let rows = site.database().await.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "{rows:?}");
    let (_, last) = daemons.pop().expect("three daemons");
    let hosts = last.http().get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["hosts"].as_array().map(Vec::len), Some(3), "{hosts}");
    let mut ran: BTreeMap<String, std::collections::BTreeSet<String>> = BTreeMap::new();
    for task in &tasks {
        let attempts = last.http().attempts(task.id).await;
        assert_eq!(attempts.len(), 1, "{} ran once: {attempts:?}", task.id);
        ran.entry(task.plugin.clone()).or_default().insert(attempts[0]["host"].to_string());
    }
    assert!(ran.values().all(|hosts| hosts.len() == 1), "each plugin has one host: {ran:?}");
    assert_eq!(ran.values().flatten().collect::<std::collections::BTreeSet<_>>().len(), 3, "three hosts: {ran:?}");
    for (_, daemon) in daemons {
        daemon.stop().await;
    }
    invariants::hold(&site, last, &ids, Expected::default()).await;
}
