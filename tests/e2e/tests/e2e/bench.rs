//! `agentry bench`: measures a daemon, and removes what it left.

use e2e::daemon::{Daemon, Ended, command, run, run_command};
use e2e::{Mode, Site, probe, variables};
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
    assert!(result["resources"]["cpu_us_per_task"].is_number() && result["resources_unknown"].is_null(), "{result}");
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
    let other = probe::echo(json!("not of a bench"));
    site.submit(&daemon, std::slice::from_ref(&other)).await;
    site.at_rest(&[other.id]).await;

    let via = if mode == Mode::Services { "amqp" } else { "http" };
    let words = ["--tasks", "300", "--batch", "50", "--via", via, "--in-flight", "120", "--svg", "picture.svg"];
    let ended = bench(&site, &daemon, &words).await;
    ended.expect(0, &[]);
    let first = json_of(&ended);
    whole(&first, 300);
    assert_eq!((&first["via"], &first["in_flight"]), (&json!(via), &json!(120)));
    let svg = std::fs::read_to_string(site.folder().join("picture.svg")).expect("the picture");
    assert!(svg.starts_with("<svg ") && svg.contains("word-count") && svg.contains("class=\"bar\""), "{svg}");

    let failing = probe::fail_permanent("no").input.to_string();
    let ended = bench(&site, &daemon, &["--tasks", "3", "--plugin", "probe", "--input", &failing]).await;
    ended.expect(1, &["3 of 3 tasks did not complete"]);
    assert_eq!(json_of(&ended)["states"], json!({"completed": 0, "failed": 3}));

    let database = site.database().await;
    assert_eq!(database.tasks().await.len(), 304);
    let run = first["run"].as_str().expect("the run's name");
    let ended = bench(&site, &daemon, &["--clean", "--run", run]).await;
    ended.expect(0, &[]);
    assert_eq!(json_of(&ended), json!({"deleted": 300, "cancelled": 0, "left": 0}));
    assert_eq!(database.tasks().await.len(), 4);
    bench(&site, &daemon, &["--clean"]).await.expect(0, &[]);
    let left: Vec<_> = database.tasks().await.into_keys().collect();
    assert_eq!(left, [other.id], "the tasks of others stay");
    let of_others = database.events().await.into_keys().filter(|id| *id != other.id).count();
    assert_eq!(of_others, 0, "no event of a deleted task is left");
}

#[tokio::test]
async fn clean_cancels_tasks_that_still_run() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let task = probe::sleep(600_000).option("labels", json!({"agentry-bench": "long"}));
    site.submit(&daemon, std::slice::from_ref(&task)).await;
    site.running(1).await;
    let ended = bench(&site, &daemon, &["--clean", "--run", "long"]).await;
    ended.expect(0, &[]);
    assert_eq!(json_of(&ended), json!({"deleted": 1, "cancelled": 1, "left": 0}));
    assert!(site.database().await.tasks().await.is_empty());
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
