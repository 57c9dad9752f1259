//! Runs of `agentry bench` whose daemon, input or own process fails.

use super::json_of;
use e2e::daemon::{Ended, command, run};
use e2e::{Mode, Site, eventually, variables};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Stdio};

pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("a process can be signalled");
}

/// Starts `agentry bench`.
pub fn started(site: &Site, words: &[&str]) -> Child {
    let mut command = command(site.folder());
    command.env("TMPDIR", site.folder());
    command.args(["bench", "--json"]).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

pub async fn ended(child: Child) -> Ended {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("a thread").expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Starts a long run on an embedded daemon, and waits until tasks end. Returns the daemon's process id, too.
async fn embedded(site: &Site, words: &[&str]) -> (Child, u32) {
    let plugins = variables::plugins().to_string_lossy().into_owned();
    let words = [&["--embedded", "--plugins", &plugins, "--rate", "50/s", "--for", "600s"], words].concat();
    let tool = started(site, &words);
    eventually("the load runs", async || {
        let all = std::fs::read_dir(site.folder()).map_err(|error| error.to_string())?;
        let found = all.flatten().find(|entry| entry.path().is_dir());
        let data = found.ok_or("no folder")?.path().join("data");
        match e2e::Database::sqlite_in(&data).await.tasks().await.len() {
            0..20 => Err("too few tasks".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let pid = tool.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the children");
    (tool, children.trim().parse().expect("one child"))
}

fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A process that has ended may wait for its parent.
    stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('Z'))
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_a_partial_result_and_the_command_that_cleans_up() {
    let site = Site::new(Mode::Embedded).await;
    let mut daemon = site.start().await;
    let server = daemon.http().base().to_owned();
    let tool = started(&site, &["--server", &server, "--rate", "50/s", "--for", "600s"]);
    let database = site.database().await;
    eventually("the load runs", async || match database.tasks().await.len() {
        0..20 => Err("too few tasks".to_owned()),
        _ => Ok(()),
    })
    .await;
    daemon.kill();
    let ended = ended(tool).await;
    let result = json_of(&ended);
    assert!(result["sent"].as_u64().is_some_and(|sent| sent >= 20), "{result}");
    assert_eq!(result["states"]["unknown"], result["sent"], "{result}");
    assert!(result["counted"]["ended"].as_u64().is_some_and(|ended| ended > 0), "{result}");
    assert!(result["error"].as_str().is_some_and(|error| error.contains(&server)), "{result}");
    let run = result["run"].as_str().expect("its id");
    ended.expect(3, &[&format!("agentry bench --clean --run {run} --server {server}")]);
    assert!(!ended.stderr.contains("body_mib"), "{ended:?}");
}

#[tokio::test]
async fn an_embedded_daemon_that_is_killed_or_stopped_is_named() {
    for (fault, says) in [(Signal::KILL, "ended during the run (signal: 9"), (Signal::STOP, "stopped by a signal")] {
        let site = Site::new(Mode::Embedded).await;
        let (tool, daemon) = embedded(&site, &["--patience", "2s"]).await;
        signal(daemon, fault);
        let begun = std::time::Instant::now();
        let ended = ended(tool).await;
        ended.expect(3, &[says, "were deleted with the embedded daemon"]);
        assert!(begun.elapsed().as_secs() < 20, "it is not waited for: {ended:?}");
        assert!(json_of(&ended)["error"].as_str().is_some_and(|error| error.contains(says)), "{ended:?}");
        assert!(is_gone(daemon), "the daemon goes on");
    }
}

#[tokio::test]
async fn an_embedded_daemon_does_not_outlive_a_tool_that_is_killed() {
    let site = Site::new(Mode::Embedded).await;
    let (tool, daemon) = embedded(&site, &[]).await;
    signal(tool.id(), Signal::KILL);
    ended(tool).await;
    eventually("the daemon ends", async || if is_gone(daemon) { Ok(()) } else { Err("it goes on".to_owned()) }).await;
}

#[tokio::test]
async fn what_cannot_work_is_rejected_before_a_task_is_sent() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let server = daemon.http().base();
    let mut cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["bench", "--input", "@/dev/zero"], "/dev/zero exceeds 134217728 bytes"),
        (vec!["bench", "--input", "@"], "without the name of a file"),
        (vec!["submit", "word-count", "--input", "@/dev/zero"], "/dev/zero exceeds 134217728 bytes"),
        (vec!["bench", "--svg", "no/such/folder/a.svg"], "--svg"),
        (vec!["bench", "--svg", "."], "--svg"),
    ];
    for (words, says) in &mut cases {
        words.extend(["--server", server]);
        run(site.folder(), words).await.expect(2, &[says]);
    }
    std::fs::create_dir(site.folder().join("empty")).expect("a folder");
    let none = run(site.folder(), &["bench", "--embedded", "--plugins", "empty"]).await;
    none.expect(2, &["no task was sent", "no plugin is installed on it"]);
    let query = format!("{server}/?a=b");
    run(site.folder(), &["bench", "--server", &query]).await.expect(2, &["it has a query"]);
    assert!(site.database().await.tasks().await.is_empty());
}

#[tokio::test]
async fn a_run_whose_first_request_is_rejected_leaves_nothing_to_delete() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let words = ["bench", "--tasks", "3000", "--queue", "no such queue", "--svg", "a.svg"];
    let ended = run(site.folder(), &[&words[..], &["--server", daemon.http().base()]].concat()).await;
    ended.expect(2, &["queue", "; no task was accepted"]);
    assert!(!ended.stderr.contains("may still wait") && ended.stdout.is_empty(), "{ended:?}");
    assert!(!PathBuf::from(site.folder()).join("a.svg").exists(), "nothing to draw");
    assert!(site.database().await.tasks().await.is_empty());
}
