//! A task whose hosts keep dying runs in a process of its own: the guilty one ends, the innocent pass.

use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Setup, Site, eventually, probe, task};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

e2e::in_both_modes! {
    an_honest_task_whose_hosts_keep_dying_is_isolated_and_completes
    a_task_that_kills_the_process_that_it_runs_alone_in_ends_as_host_lost
    a_cancelled_task_in_the_lane_stops_within_a_second
    the_process_of_the_lane_has_no_secret_in_its_environment
}

async fn an_honest_task_whose_hosts_keep_dying_is_isolated_and_completes(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.setup().set("lease.ttl_seconds", 5).start().await;
    let tasks: Vec<_> = (0..3).map(|_| probe::sleep(2_500)).collect();
    site.submit(&daemon, &tasks).await;
    // More deaths than any budget has, and none of them the tasks' doing.
    for death in 1..=7 {
        claimed(&site, &tasks[0].id, death).await;
        daemon.kill();
        daemon.start_again().await;
    }
    let ids = task::ids(&tasks);
    site.at_rest(&ids).await;
    let rows = site.database().await.tasks().await;
    assert!(rows.values().all(|row| row.state == "completed"), "no honest task is ever host_lost: {rows:?}");
    let logs = daemon.http().logs(ids[0]).await;
    assert!(!logs.is_empty(), "what a guest says in the lane is kept as well");
    invariants::hold(&site, daemon, &ids, Expected { take_overs: 7, ..Expected::default() }).await;
}

async fn a_task_that_kills_the_process_that_it_runs_alone_in_ends_as_host_lost(mode: Mode) {
    let site = Site::new(mode).await;
    let (daemon, guilty) = suspected(&site, 60_000).await;
    let innocent = probe::sleep(100);
    site.submit(&daemon, std::slice::from_ref(&innocent)).await;
    // Its child dies each time that it runs, and the daemon lives.
    let first = child(&daemon, None).await;
    kill_process(first, Signal::KILL).unwrap();
    kill_process(child(&daemon, Some(first)).await, Signal::KILL).unwrap();
    let ended = daemon.http().ended(guilty).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&"failed".into(), &"host_lost".into()), "{ended}");
    assert_eq!(ended["failure"]["detail"]["limit"], "host_losses");
    assert_eq!(daemon.http().ended(innocent.id).await["state"], "completed");
    assert!(daemon.said().contains("a task killed the process that it ran alone in"), "it is loud");
    let expected = Expected { take_overs: 2, host_lost: 1, ..Expected::default() };
    invariants::hold(&site, daemon, &[guilty, innocent.id], expected).await;
}

async fn a_cancelled_task_in_the_lane_stops_within_a_second(mode: Mode) {
    let site = Site::new(mode).await;
    let (daemon, id) = suspected(&site, 60_000).await;
    child(&daemon, None).await;
    daemon.http().post(&format!("/v1/tasks/{id}/cancel"), &serde_json::json!({})).await.expect(202);
    let ended = daemon.http().ended(id).await;
    assert_eq!(ended["state"], "cancelled", "{ended}");
    eventually("its process is gone", async || {
        let children = children(&daemon);
        if children.is_empty() { Ok(()) } else { Err(format!("{children:?}")) }
    })
    .await;
    invariants::hold(&site, daemon, &[id], Expected { take_overs: 2, ..Expected::default() }).await;
}

async fn the_process_of_the_lane_has_no_secret_in_its_environment(mode: Mode) {
    let site = Site::new(mode).await;
    // A setting that the child needs, one that a client needs, and one of another program.
    let names = ["AGENTRY_LIMITS_DEFAULT_TIMEOUT_SECONDS", "AGENTRY_TOKEN", "CLOUD_KEY"];
    let setup = site.setup().variable(names[0], "271").variable(names[1], "canary-1").variable(names[2], "canary-2");
    let (daemon, id) = suspected_by(&site, setup, 3_000).await;
    let lane = child(&daemon, None).await;
    match std::fs::read(format!("/proc/{}/environ", lane.as_raw_nonzero())) {
        Ok(environment) => {
            let environment = String::from_utf8_lossy(&environment);
            assert!(environment.contains("PATH="), "it was read: {environment:?}");
            for name in names {
                assert!(!environment.contains(name), "{name}: {environment:?}");
            }
        }
        // It is closed to an ordinary user.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    let ended = daemon.http().ended(id).await;
    assert_eq!(ended["state"], "completed", "it has the settings all the same: {ended}");
    invariants::hold(&site, daemon, &[id], Expected { take_overs: 2, ..Expected::default() }).await;
}

/// A daemon with a task that has lost two hosts.
async fn suspected(site: &Site, milliseconds: u64) -> (Daemon, Uuid) {
    suspected_by(site, site.setup(), milliseconds).await
}

async fn suspected_by(site: &Site, setup: Setup, milliseconds: u64) -> (Daemon, Uuid) {
    let mut daemon = setup.set("lease.ttl_seconds", 5).start().await;
    let task = probe::sleep(milliseconds);
    site.submit(&daemon, std::slice::from_ref(&task)).await;
    for death in 1..=2 {
        claimed(site, &task.id, death).await;
        daemon.kill();
        daemon.start_again().await;
    }
    (daemon, task.id)
}

/// Until a task has been claimed so many times, or has ended.
async fn claimed(site: &Site, id: &Uuid, times: usize) {
    let database = site.database().await;
    eventually(&format!("{id} is claimed {times} times"), async || {
        let histories = database.events().await;
        let history = histories.get(id).map(Vec::as_slice).unwrap_or_default();
        let claims = history.iter().filter(|(_, event)| matches!(event.as_str(), "running" | "taken_over")).count();
        let ended = history.iter().any(|(_, event)| matches!(event.as_str(), "completed" | "failed"));
        if claims >= times || ended { Ok(()) } else { Err(format!("{history:?}")) }
    })
    .await;
}

/// The lane's process, once there is one, and another than this.
async fn child(daemon: &Daemon, not: Option<Pid>) -> Pid {
    eventually("the lane has a process", async || {
        let found = children(daemon).into_iter().find(|pid| Some(*pid) != not);
        found.ok_or_else(|| "it has none".to_owned())
    })
    .await
}

fn children(daemon: &Daemon) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).into_iter().flatten().flatten();
    tasks
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .filter(|pid| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.contains("isolate")
        })
        .filter_map(Pid::from_raw)
        .collect()
}
