//! `agentry bench`: measures a daemon, and removes what it left.

mod cleaning;
mod faults;

use std::process::Stdio;

use e2e::daemon::{Daemon, Ended, command, run, run_command};
use e2e::{Database, Mode, Site, eventually, plugin, probe, variables};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Runs `agentry bench` against a daemon, with the settings that it was started with.
async fn bench(site: &Site, daemon: &Daemon, words: &[&str]) -> Ended {
    let mut command = command(site.folder());
    command.args(["bench", "--json", "--server", daemon.http().base()]).args(words);
    if site.mode == Mode::Services {
        command.env("AGENTRY_BROKER_URL", site.broker_url()).env("AGENTRY_DATABASE_URL", site.database_url());
        command.env("AGENTRY_BROKER_PREFIX", site.prefix());
    }
    run_command(&mut command).await
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {ended:?}"))
}

/// Every figure is there and plausible.
fn whole(result: &Value, tasks: u64) {
    assert_eq!(result["sent"], tasks, "{result}");
    assert_eq!(result["states"], json!({"completed": tasks}), "{result}");
    let numbers = [
        "/submission/seconds",
        "/submission/per_second",
        "/throughput/per_second",
        "/throughput/seconds",
        "/throughput/from_submission_per_second",
        "/throughput/from_submission_seconds",
        "/latency_ms/p50",
        "/latency_ms/p90",
        "/latency_ms/p99",
        "/latency_ms/p99_9",
        "/latency_ms/max",
        "/latency_ms/mean",
        "/resources/resident_mib",
        "/resources/peak_resident_mib",
    ];
    for path in numbers {
        assert!(result.pointer(path).and_then(Value::as_f64).is_some_and(|n| n > 0.0), "{path} in {result}");
    }
    let resources = &result["resources"];
    assert!(resources["cpu_us_per_task"].is_number() || resources["cpu_per_task_unknown"].is_string(), "{result}");
    assert!(result["resources_unknown"].is_null() && result["interrupted"].is_null(), "{result}");
    for path in ["/run", "/at", "/server", "/via", "/plugin", "/shape"] {
        assert!(
            result.pointer(path).and_then(Value::as_str).is_some_and(|text| !text.is_empty()),
            "{path} in {result}"
        );
    }
    let order = ["p50", "p90", "p99", "p99_9", "max"].map(|name| result["latency_ms"][name].as_f64());
    assert!(order.is_sorted(), "{result}");
}

e2e::in_both_modes! {
    a_flood_is_measured_and_clean_leaves_no_row_of_it
}

async fn a_flood_is_measured_and_clean_leaves_no_row_of_it(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    // A user may give his own tasks this label.
    let other = probe::echo(json!("not of a bench")).option("labels", json!({"agentry-bench": "hello"}));
    site.submit(&daemon, std::slice::from_ref(&other)).await;
    site.at_rest(&[other.id]).await;

    let via = if mode == Mode::Services { "amqp" } else { "http" };
    let words = ["--tasks", "300", "--batch", "50", "--via", via, "--in-flight", "120", "--svg", "picture.svg"];
    let ended = bench(&site, &daemon, &words).await;
    ended.expect(0, &[]);
    let first = json_of(&ended);
    whole(&first, 300);
    assert_eq!((&first["via"], &first["in_flight"]), (&json!(via), &json!(120)));
    assert!(first["in_flight_ceiling_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{first}");
    assert!(first["legs"]["run"]["p99_le_ms"].is_number(), "{first}");
    let svg = std::fs::read_to_string(site.folder().join("picture.svg")).expect("the picture");
    assert!(svg.starts_with("<svg ") && svg.contains("word-count") && svg.contains("class=\"bar\""), "{svg}");

    let failing = probe::fail_permanent("no").input.to_string();
    let ended = bench(&site, &daemon, &["--tasks", "3", "--plugin", "probe", "--input", &failing]).await;
    ended.expect(1, &["3 of 3 tasks did not complete"]);
    let failed = json_of(&ended);
    assert_eq!(failed["states"], json!({"completed": 0, "failed": 3}));
    let reason = &failed["reasons"][0];
    assert_eq!((&reason["state"], &reason["count"]), (&json!("failed"), &json!(3)), "{failed}");
    assert!(reason["first_message"].as_str().is_some_and(|message| message.contains("no")), "{failed}");

    let database = site.database().await;
    assert_eq!(database.tasks().await.len(), 304);
    let run = first["run"].as_str().expect("the run's name");
    let ended = bench(&site, &daemon, &["--clean", "--run", run]).await;
    ended.expect(0, &[]);
    assert_eq!(json_of(&ended), json!({"deleted": 300, "cancelled": 0, "left": 0, "runs_left": []}));
    assert_eq!(database.tasks().await.len(), 4);
    let again = bench(&site, &daemon, &["--clean", "--run", run]).await;
    again.expect(1, &["no task of the run", run]);
    assert_eq!(json_of(&again), json!({"deleted": 0, "cancelled": 0, "left": 0, "runs_left": []}));
    bench(&site, &daemon, &["--clean"]).await.expect(0, &[]);
    let left: Vec<_> = database.tasks().await.into_keys().collect();
    assert_eq!(left, [other.id], "the tasks of others stay");
    let of_others = database.events().await.into_keys().filter(|id| *id != other.id).count();
    assert_eq!(of_others, 0, "no event of a deleted task is left");
}

#[tokio::test]
async fn an_embedded_daemon_is_measured_at_a_rate_and_ended() {
    let site = Site::new(Mode::Embedded).await;
    let plugins = variables::plugins().to_string_lossy().into_owned();
    let words = ["bench", "--json", "--embedded", "--plugins", &plugins, "--rate", "100/s", "--for", "2s"];
    let ended = run(site.folder(), &words).await;
    ended.expect(0, &[]);
    let result = json_of(&ended);
    whole(&result, 200);
    assert_eq!(result["embedded"], true, "{result}");
    let seconds = result["submission"]["seconds"].as_f64().expect("a number");
    assert!(seconds >= 1.9, "the last task is not sent before its time: {result}");
    let address = result["server"].as_str().expect("its address").trim_start_matches("http://").to_owned();
    let gone = std::net::TcpStream::connect(&address).is_err();
    assert!(gone, "a daemon still listens at {address}");
}

#[tokio::test]
async fn a_daemon_elsewhere_is_not_loaded_without_yes() {
    let site = Site::new(Mode::Embedded).await;
    for words in [&["bench"][..], &["bench", "--clean"]] {
        let words = [words, &["--server", "http://192.0.2.1:7070"]].concat();
        run(site.folder(), &words).await.expect(2, &["192.0.2.1:7070", "--yes"]);
    }
    run(site.folder(), &["bench", "--embedded", "--via", "amqp"]).await.expect(2, &["--via http"]);
    run(site.folder(), &["bench", "--rate", "10/s"]).await.expect(2, &["--for"]);
}

#[tokio::test]
async fn a_plugin_that_cannot_run_is_rejected_before_a_task_is_sent() {
    let site = Site::new(Mode::Embedded).await;
    let plugins = site.folder().join("plugins");
    let folder = plugin::install("word-count", &plugins);
    std::fs::remove_file(folder.join(plugin::component(&folder))).expect("the component is removed");
    let daemon = site.setup().plugins([plugins.clone()]).start().await;
    let missing = plugin::component(&folder);
    bench(&site, &daemon, &[]).await.expect(2, &["no task was sent", "does not load", &missing, "built or repaired"]);
    bench(&site, &daemon, &["--plugin", "nosuch"])
        .await
        .expect(2, &["no task was sent", "nosuch", "agentry plugin list"]);
    assert!(site.database().await.tasks().await.is_empty());
    let plugins = plugins.to_string_lossy().into_owned();
    let ended = run(site.folder(), &["bench", "--embedded", "--plugins", &plugins]).await;
    ended.expect(2, &["no task was sent", "does not load", &missing]);
}

#[tokio::test]
async fn a_request_never_exceeds_the_limit_of_a_body() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.setup().set("api.body_mib", 1).set("limits.max.message_kib", 2_048).start().await;
    let input = |kib: usize| {
        let text = json!({"text": "x".repeat(kib * 1_024)}).to_string();
        std::fs::write(site.folder().join("input.json"), text).expect("the input is written");
    };
    input(300);
    let ended = bench(&site, &daemon, &["--tasks", "8", "--input", "@input.json"]).await;
    ended.expect(0, &["3 tasks instead of 8 (--batch)", "api.body_mib allows 1048576"]);
    let result = json_of(&ended);
    assert_eq!((&result["states"], &result["batch"]), (&json!({"completed": 8}), &json!(3)), "{result}");
    input(1_100);
    let ended = bench(&site, &daemon, &["--tasks", "8", "--input", "@input.json"]).await;
    ended.expect(2, &["no task was sent", "api.body_mib allows 1048576 bytes", "smaller --input"]);
}

#[tokio::test]
async fn a_task_above_the_limit_of_a_message_is_rejected_by_the_limit() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.setup().set("limits.max.message_kib", 64).start().await;
    let text = json!({"text": "x".repeat(65 * 1_024)}).to_string();
    std::fs::write(site.folder().join("input.json"), text).expect("the input is written");
    let ended = bench(&site, &daemon, &["--tasks", "2", "--input", "@input.json"]).await;
    ended.expect(2, &["limits.max.message_kib allows 65536", "smaller --input"]);
}

#[tokio::test]
async fn a_daemon_that_sends_no_response_is_given_up_after_the_patience() {
    let site = Site::new(Mode::Embedded).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    // Without a scheme: HTTP.
    let server = silent.local_addr().expect("an address").to_string();
    for words in [&["bench"][..], &["bench", "--clean"]] {
        let words = [words, &["--server", &server, "--patience", "1s"]].concat();
        run(site.folder(), &words).await.expect(3, &["no response", &server, "within 1 s (--patience)"]);
    }
}

/// Starts `agentry bench`, interrupts it once `ready` holds, and returns how it ended.
async fn interrupted(site: &Site, words: &[&str], ready: impl AsyncFn() -> Result<(), String>) -> Ended {
    let mut command = command(site.folder());
    command.env("TMPDIR", site.folder());
    command.args(["bench", "--json"]).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    eventually("the load runs", ready).await;
    kill_process(pid, Signal::INT).expect("a child can be signalled");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("a thread").expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn an_interrupted_run_reports_what_was_measured_and_how_to_clean_up() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let server = daemon.http().base().to_owned();
    let database = site.database().await;
    let words = ["--server", &server, "--rate", "50/s", "--for", "600s"];
    let ended = interrupted(&site, &words, async || match database.tasks().await.len() {
        0..20 => Err("too few tasks".to_owned()),
        _ => Ok(()),
    })
    .await;
    let result = json_of(&ended);
    assert_eq!(result["interrupted"], "SIGINT", "{result}");
    assert!(result["states"]["completed"].as_u64().is_some_and(|n| (1..1_000).contains(&n)), "{result}");
    let run_id = result["run"].as_str().expect("the run's name");
    let clean = format!("agentry bench --clean --run {run_id} --server {server}");
    ended.expect(130, &["interrupted by SIGINT", &clean]);
    let words: Vec<&str> = clean.split(' ').skip(1).collect();
    run(site.folder(), &words).await.expect(0, &[]);
    assert!(database.tasks().await.is_empty());
}

#[tokio::test]
async fn an_interrupted_run_on_an_embedded_daemon_leaves_nothing_to_clean() {
    let site = Site::new(Mode::Embedded).await;
    let plugins = variables::plugins().to_string_lossy().into_owned();
    let words = ["--embedded", "--plugins", &plugins, "--rate", "50/s", "--for", "600s", "--svg", "picture.svg"];
    let ended = interrupted(&site, &words, async || {
        // The one folder there is the embedded daemon's.
        let all = std::fs::read_dir(site.folder()).map_err(|error| error.to_string())?;
        let found = all.flatten().find(|entry| entry.path().is_dir());
        let data = found.ok_or("no folder")?.path().join("data");
        match Database::sqlite_in(&data).await.tasks().await.len() {
            0..20 => Err("too few tasks".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    ended.expect(130, &["interrupted by SIGINT", "were deleted with the embedded daemon"]);
    assert!(!ended.stderr.contains("--clean"), "{ended:?}");
    let result = json_of(&ended);
    assert!(result["states"]["completed"].as_u64().is_some_and(|n| n > 0), "{result}");
    let address = result["server"].as_str().expect("its address").trim_start_matches("http://").to_owned();
    assert!(std::net::TcpStream::connect(&address).is_err(), "a daemon still listens at {address}");
}
