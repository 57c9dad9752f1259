//! The command line at a terminal, in a pipe, and as it goes on.

use std::path::Path;
use std::process::Command;

use e2e::amqp::Outgoing;
use e2e::daemon::{Ended, run, run_command};
use e2e::{Daemon, Mode, Site, eventually, probe, variables};
use serde_json::{Value, json};

/// Runs a line of a shell with `agentry` as the binary and AGENTRY_SERVER as the daemon.
async fn shell(daemon: Option<&Daemon>, folder: &Path, line: &str) -> Ended {
    let mut command = Command::new("bash");
    let function = format!("agentry() {{ {} \"$@\"; }}\nset -o pipefail\n{line}", variables::binary().display());
    command.args(["-c", &function]).env_clear().current_dir(folder).env("TERM", "xterm").env("TZ", "Asia/Tokyo");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if let Some(daemon) = daemon {
        command.env("AGENTRY_SERVER", daemon.http().base());
    }
    run_command(&mut command).await
}

/// The output of a line at a terminal with so many columns. `script` of util-linux makes the terminal.
async fn at_terminal(daemon: &Daemon, folder: &Path, columns: u16, line: &str) -> String {
    let line = format!("stty cols {columns} rows 40; {} {line}", variables::binary().display());
    let ended = shell(Some(daemon), folder, &format!("script -qec '{line}' /dev/null < /dev/null")).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

/// The text without what colours it.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[tokio::test]
async fn a_table_fits_the_terminal_and_a_pipe_has_everything() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let (good, bad) = (probe::echo(json!(1)), probe::fail_permanent("no such document"));
    site.submit(&daemon, &[good.clone(), bad.clone()]).await;
    daemon.http().ended(good.id).await;
    let failed = daemon.http().ended(bad.id).await;

    let piped = run(site.folder(), &["task", "list", "--server", daemon.http().base()]).await;
    piped.expect(0, &[]);
    assert!(piped.stdout.contains(failed["created_at"].as_str().unwrap()), "UTC, as the API has it: {piped:?}");
    assert!(piped.stdout.contains("1/3") && !piped.stdout.contains('\u{1b}'), "{piped:?}");

    for columns in [40, 80, 200] {
        let shown = at_terminal(&daemon, site.folder(), columns, "task list").await;
        let text = plain(&shown).replace('\r', "");
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(columns)), "{columns}: {text}");
        assert!(text.contains(&good.id.to_string()[..8]), "{columns}: {text}");
        assert!(text.contains("ago") || text.contains("now"), "{columns}: {text}");
        assert!(shown.contains("\u{1b}[32mcompleted") && shown.contains("\u{1b}[31mfailed"), "{columns}: {shown:?}");
    }
    let plain_list = at_terminal(&daemon, site.folder(), 80, "task list --state failed,cancelled").await;
    assert!(plain_list.contains(&bad.id.to_string()) && !plain_list.contains(&good.id.to_string()), "{plain_list}");
    let line = format!("script -qec 'NO_COLOR=1 {} task list' /dev/null < /dev/null", variables::binary().display());
    let without = shell(Some(&daemon), site.folder(), &line).await;
    assert!(!without.stdout.contains('\u{1b}') && without.stdout.contains("completed"), "{without:?}");

    // A record has local time there.
    let record = at_terminal(&daemon, site.folder(), 80, &format!("task show {}", bad.id)).await;
    assert!(plain(&record).contains("+09:00 ("), "{record}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_a_command_quietly() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let tasks: Vec<_> = (0..200).map(|n| probe::echo(json!(n))).collect();
    site.submit(&daemon, &tasks).await;
    let quiet = |ended: &Ended| assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    quiet(&shell(Some(&daemon), site.folder(), "agentry task list --limit 500 --json | head -1").await);
    quiet(&shell(Some(&daemon), site.folder(), "agentry --help | head -1").await);
    quiet(&shell(Some(&daemon), site.folder(), "agentry completions bash | head -1").await);
    quiet(&shell(None, site.folder(), "agentry openapi | head -1").await);
    // One that goes on ends as well.
    let watched = shell(Some(&daemon), site.folder(), "agentry host list --watch=1 --json | head -2").await;
    quiet(&watched);
    let lines: Vec<Value> = watched.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["hosts"][0]["alive"] == true), "{lines:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_task_is_followed_until_it_has_ended() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let asked = probe::fail_until_attempt(2);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let id = asked.id.to_string();
    let server = daemon.http().base();
    let followed = run(site.folder(), &["task", "events", &id, "--follow", "--json", "--server", server]).await;
    followed.expect(0, &[]);
    let names: Vec<String> = followed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["event"].as_str().expect("a name").to_owned())
        .collect();
    let events: Vec<String> =
        daemon.http().events(asked.id).await.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, events);
    assert!(
        names.contains(&"retrying".to_owned()) && names.last().is_some_and(|name| name == "completed"),
        "{names:?}"
    );
    // Of one that has ended there is the whole, and then an end.
    let text = run(site.folder(), &["task", "events", &id, "-f", "--server", server]).await;
    text.expect(0, &[]);
    assert_eq!(text.stdout.lines().count(), events.len(), "{text:?}");
    let logs = run(site.folder(), &["task", "logs", &id, "-f", "--json", "--server", server]).await;
    logs.expect(0, &[]);
    assert_eq!(logs.stdout.lines().count(), daemon.http().logs(asked.id).await.len(), "{logs:?}");
    let unknown = uuid::Uuid::now_v7().to_string();
    run(site.folder(), &["task", "logs", &unknown, "-f", "--server", server]).await.expect(2, &["there is no task"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_its_body() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    site.amqp().publish("", &site.queue("default"), [Outgoing::json("{\"plugin\": \"a\u{1b}[2J")]).await;
    let server = daemon.http().base();
    let letters = eventually("a dead letter", async || {
        let listed = run(site.folder(), &["dead", "list", "--json", "--server", server]).await;
        let dead = serde_json::from_str::<Value>(&listed.stdout).expect("JSON")["dead"].clone();
        if dead.as_array().is_some_and(|letters| !letters.is_empty()) { Ok(dead) } else { Err(format!("{listed:?}")) }
    })
    .await;
    let id = letters[0]["id"].to_string();
    let shown = run(site.folder(), &["dead", "show", &id, "--server", server]).await;
    shown.expect(0, &[]);
    assert!(shown.stdout.contains("not_json") && shown.stdout.contains("\\u{1b}[2J"), "{shown:?}");
    let json = run(site.folder(), &["dead", "show", &id, "--json", "--server", server]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).expect("JSON"), letters[0]);
    run(site.folder(), &["dead", "show", "999999", "--server", server]).await.expect(2, &["agentry dead list"]);
    daemon.stop().await;
}

#[tokio::test]
async fn completions_load_and_manual_pages_are_written() {
    let site = Site::new(Mode::Embedded).await;
    let loaded = "agentry completions bash > agentry.bash && bash -n agentry.bash && source ./agentry.bash && complete -p agentry";
    let ended = shell(None, site.folder(), loaded).await;
    ended.expect(0, &[]);
    assert!(ended.stdout.contains("_agentry"), "{ended:?}");
    run(site.folder(), &["completions", "powershell"]).await.expect(2, &["bash", "zsh", "fish"]);
    run(site.folder(), &["man", "pages"]).await.expect(0, &[]);
    let page = std::fs::read_to_string(site.folder().join("pages/agentry-task-list.1")).expect("a page");
    assert!(page.contains(".TH") && page.contains("failed,cancelled"), "{page}");
    std::fs::write(site.folder().join("file"), "").expect("a file");
    run(site.folder(), &["man", "file"]).await.expect(2, &["name a folder of yours"]);
}
