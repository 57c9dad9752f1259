//! The daemon's own streams, and what a person sees of a guest's.

use std::io::{PipeReader, PipeWriter, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use adversary::process::Process;
use adversary::{Case, cases};
use e2e::daemon::{Ended, run};
use e2e::{Http, Mode, Site, Task, eventually, probe, task};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::attacks::setup;

/// How many tasks are run, each of which is logged.
const TASKS: usize = 200;

#[tokio::test]
async fn a_daemon_whose_log_nobody_reads_runs_tasks_and_ends_cleanly() {
    let _beside = adversary::MACHINE.read().await;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    fill(&mut writer);
    works_and_ends(writer).await;
    drop(reader);
}

#[tokio::test]
async fn a_daemon_whose_log_has_lost_its_reader_runs_tasks_and_ends_cleanly() {
    let _beside = adversary::MACHINE.read().await;
    let (reader, writer): (PipeReader, PipeWriter) = std::io::pipe().expect("a pipe");
    drop(reader);
    works_and_ends(writer).await;
}

/// Writes until nothing more fits.
fn fill(writer: &mut PipeWriter) {
    let flags = fcntl_getfl(&*writer).expect("the pipe's flags");
    fcntl_setfl(&*writer, flags | OFlags::NONBLOCK).expect("it does not wait");
    while writer.write(&[b'x'; 512]).is_ok() {}
    fcntl_setfl(&*writer, flags).expect("it waits again");
}

async fn works_and_ends(stderr: PipeWriter) {
    let site = Site::new(Mode::Services).await;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let setup = site.setup().set("log.level", "debug").set("api.listen", address.clone());
    let mut command = setup.command();
    let mut child = command.stderr(Stdio::from(OwnedFd::from(stderr))).spawn().expect("the daemon starts");
    drop(command); // it holds the pipe open
    let http = Http::new(&format!("http://{address}"));
    eventually("the daemon is ready", async || match http.try_get("/readyz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let tasks: Vec<Task> = (0..TASKS).map(|n| probe::echo(json!(n))).collect();
    site.publish(&tasks).await;
    site.at_rest(&task::ids(&tasks)).await;
    let rows = site.database().await.tasks().await;
    assert!(tasks.iter().all(|task| rows[&task.id].state == "completed"), "{rows:?}");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it can be signalled");
    let status = eventually("the daemon ends", async || {
        let ended = child.try_wait().expect("a child can be waited for");
        ended.ok_or_else(|| format!("it has {:?}", Process(child.id()).threads()))
    })
    .await;
    assert_eq!(status.code(), Some(0), "a clean end");
}

#[tokio::test]
async fn what_a_guest_writes_steers_no_terminal() {
    let _beside = adversary::MACHINE.read().await;
    let site = Site::new(Mode::Services).await;
    let ids = [
        "escapes-in-the-log",
        "nul-in-the-log",
        "forged-failure",
        "forged-panic",
        "output-clears-the-screen",
        "forged-lines",
    ];
    let cases: Vec<Case> = cases::all().into_iter().filter(|case| ids.contains(&case.id)).collect();
    assert_eq!(cases.len(), ids.len());
    let daemon = setup(&site, &cases).start().await;
    let plugins = site.folder().join("plugins");
    let evil = plugins.join("evil");
    std::fs::create_dir_all(&evil).expect("a folder");
    std::fs::write(evil.join("plugin.toml"), "manifest = 1\n[plugin]\nname = \"\\u001b[2Jx\"\n").expect("a manifest");
    let server = daemon.http().base().to_owned();
    let mut views = vec![vec!["plugin", "list"], vec!["task", "list"]];
    let tasks: Vec<Task> = cases.iter().map(|case| Task::new(case.id, case.input.clone())).collect();
    site.publish(&tasks).await;
    let asked: Vec<String> = task::ids(&tasks).iter().map(ToString::to_string).collect();
    site.at_rest(&task::ids(&tasks)).await;
    eventually("the bad manifest is listed", async || {
        let text = daemon.http().get("/v1/plugins").await.text;
        if text.contains("/evil") { Ok(()) } else { Err(text) }
    })
    .await;
    for id in &asked {
        views.extend(["show", "logs", "events"].map(|verb| vec!["task", verb, id]));
    }
    for view in &views {
        let ended = run(site.folder(), &[&view[..], &["--server", &server]].concat()).await;
        assert!(!ended.stdout.is_empty(), "{view:?}: {ended:?}");
        harmless(view, &ended);
        let ended = run(site.folder(), &[&view[..], &["--server", &server, "--json"]].concat()).await;
        assert_eq!(ended.code, Some(0), "{view:?}: {ended:?}");
        let values: Vec<Value> = serde_json::Deserializer::from_str(&ended.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{view:?}: {error}: {ended:?}"));
        assert!(!values.is_empty(), "{view:?}");
        harmless_json(view, &ended);
    }
    for case in &cases {
        let folder = plugins.join(case.id).to_string_lossy().into_owned();
        let ended = run(site.folder(), &["run", &folder, "--input", &case.input.to_string()]).await;
        let words = ["run", case.id];
        match case.id {
            // Output is data, and comes byte for byte.
            "output-clears-the-screen" => assert_eq!(ended.code, Some(0), "{ended:?}"),
            _ => harmless(&words, &ended),
        }
    }
    assert!(!daemon.said().contains('\u{1b}'), "the daemon's own log");
    daemon.stop().await;
}

/// No control characters but those that end lines and fill columns.
fn harmless(what: &[&str], ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        let steers = |c: char| {
            c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{feff}' | '\u{2066}'..='\u{2069}')
        };
        if let Some(c) = text.chars().find(|c| steers(*c)) {
            panic!("{what:?} shows {c:?}: {ended:?}");
        }
        let forged = text.lines().find(|line| line.starts_with(cases::FORGED));
        assert!(forged.is_none(), "{what:?} shows {forged:?} as a line of its own");
    }
}

/// JSON escapes what steers a terminal by itself, but for what is above ASCII.
fn harmless_json(what: &[&str], ended: &Ended) {
    let bad = ended.stdout.chars().find(|c| c.is_ascii_control() && *c != '\n');
    assert!(bad.is_none(), "{what:?} --json shows {bad:?}: {ended:?}");
}
