//! `agentry bench --clean`: which tasks are deleted, and which are left.

use super::faults::{ended, signal, started};
use super::{bench, json_of};
use e2e::daemon::run;
use e2e::{Mode, Site, eventually, probe};
use rustix::process::Signal;
use serde_json::json;
use std::process::{Command, Stdio};

/// The id of a run, as a bench gives it to its tasks.
const RUN: &str = "019f0c51e6f27a06b1c39f4d2a0be5c1";

#[tokio::test]
async fn clean_of_a_named_run_cancels_tasks_that_still_run() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let task = probe::sleep(600_000).option("labels", json!({"agentry-bench": RUN}));
    let own = probe::echo(json!(1)).option("labels", json!({"agentry-bench": "hello"}));
    site.submit(&daemon, &[task.clone(), own.clone()]).await;
    site.at_rest(&[own.id]).await;
    site.running(1).await;

    let kept = bench(&site, &daemon, &["--clean"]).await;
    let remedy = format!("agentry bench --clean --run {RUN} --server {}", daemon.http().base());
    kept.expect(1, &["may still be going", "1 task that did not end", &remedy]);
    assert_eq!(json_of(&kept)["deleted"], 0);
    assert_eq!(json_of(&kept)["runs_left"][0]["run"], RUN);
    bench(&site, &daemon, &["--clean", "--run", "hello"]).await.expect(2, &["32 hexadecimal digits"]);
    assert_eq!(site.database().await.tasks().await.len(), 2);

    let ended = bench(&site, &daemon, &["--clean", "--run", RUN]).await;
    ended.expect(0, &[]);
    assert_eq!(json_of(&ended), json!({"deleted": 1, "cancelled": 1, "left": 0, "runs_left": []}));
    let left: Vec<_> = site.database().await.tasks().await.into_keys().collect();
    assert_eq!(left, [own.id], "a task of a user stays");
}

#[tokio::test]
async fn clean_leaves_a_run_whose_tasks_end_faster_than_it_sends_them() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let mut command: Command = e2e::daemon::command(site.folder());
    command.args(["bench", "--json", "--server", daemon.http().base(), "--rate", "2/s", "--for", "12s"]);
    let load = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let database = site.database().await;
    eventually("the load runs", async || match database.tasks().await.len() {
        0..2 => Err("too few tasks".to_owned()),
        _ => Ok(()),
    })
    .await;
    bench(&site, &daemon, &["--clean"]).await.expect(1, &["may still be going", "--clean --run"]);
    let output = tokio::task::spawn_blocking(|| load.wait_with_output()).await.expect("a thread").expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    bench(&site, &daemon, &["--clean"]).await.expect(0, &[]);
    assert!(database.tasks().await.is_empty());
}

#[tokio::test]
async fn an_interrupted_clean_ends_with_what_was_done() {
    let site = Site::new(Mode::Embedded).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = silent.local_addr().expect("an address").to_string();
    let tool = started(&site, &["--clean", "--server", &server]);
    let status = format!("/proc/{}/status", tool.id());
    eventually("it listens for SIGINT", async || {
        let status = std::fs::read_to_string(&status).map_err(|error| error.to_string())?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        let caught = u64::from_str_radix(caught.trim(), 16).map_err(|error| error.to_string())?;
        if caught & 2 == 0 { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    signal(tool.id(), Signal::INT);
    let ended = ended(tool).await;
    ended.expect(130, &["interrupted by SIGINT", "repeat --clean"]);
    assert_eq!(json_of(&ended), json!({"deleted": 0, "cancelled": 0, "left": 0, "runs_left": []}));
}

#[tokio::test]
async fn a_server_that_is_not_a_daemon_is_named() {
    let site = Site::new(Mode::Embedded).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let stranger = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4_096];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await; // any request
            let response = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, response).await;
        }
    });
    let commands: [&[&str]; 6] = [
        &["bench"],
        &["bench", "--clean"],
        &["bench", "--clean", "--run", RUN],
        &["task", "list"],
        &["host", "list"],
        &["submit", "word-count", "--input", "1"],
    ];
    for words in commands {
        let looks = format!("this does not look like an Agentry daemon at {server}");
        run(site.folder(), &[words, &["--server", &server]].concat()).await.expect(3, &[&looks]);
    }
    stranger.abort();
}
