//! One command before anything else: green on a healthy machine, and with one part broken that part is named with its remedy.

use e2e::amqp::quorum;
use e2e::daemon::{Daemon, Ended, Setup, run};
use e2e::forward::{Forward, free_port};
use e2e::{Amqp, Mode, Site, eventually, patience, plugin, probe};
use lapin::types::{AMQPValue, FieldTable};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The time that the command may take: 15 s, on a machine of ordinary speed, and its start.
fn promised() -> Duration {
    patience() / 3
}

/// A daemon with one plugin: the others need grants, and those of the tests take long to compile.
fn setup(site: &Site) -> Setup {
    let folder = site.folder().join("good");
    if !folder.exists() {
        plugin::install("word-count", &folder);
    }
    site.setup().plugins([folder])
}

/// Asks with the settings of a daemon that need not run.
async fn ask(site: &Site, setup: &Setup, server: &str, more: &[&str]) -> Ended {
    let _ = setup.command();
    let settings = site.folder().join("data.toml").to_string_lossy().into_owned();
    let mut words = vec!["doctor", "--config", &settings, "--server", server];
    words.extend(more);
    let began = Instant::now();
    let told = run(site.folder(), &words).await;
    assert!(began.elapsed() < promised(), "it took {:?}: {told:?}", began.elapsed());
    told
}

fn nowhere() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// The report of an exit with this code.
async fn report(site: &Site, setup: &Setup, server: &str, code: i32) -> Value {
    let told = ask(site, setup, server, &["--json"]).await;
    told.expect(code, &[]);
    serde_json::from_str(&told.stdout).expect("JSON")
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"))
}

/// Checks that ended like this.
fn with<'a>(report: &'a Value, status: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("checks").iter().filter(|check| check["status"] == status);
    checks.filter_map(|check| check["name"].as_str()).collect()
}

/// Checks that these failed and no other, that each has a remedy, and that the first says this.
#[track_caller]
fn failed(report: &Value, names: &[&str], says: &str) {
    assert_eq!(with(report, "failed"), names, "{report:#}");
    for name in names {
        let findings = check(report, name)["findings"].as_array().expect("findings");
        let failures: Vec<_> = findings.iter().filter(|finding| finding["status"] == "failed").collect();
        assert!(!failures.is_empty(), "{report:#}");
        assert!(failures.iter().all(|finding| finding["remedy"].as_str().is_some_and(|r| !r.is_empty())), "{report:#}");
    }
    let text = check(report, names[0]).to_string();
    assert!(text.contains(says), "{says:?}: {text}");
}

/// A healthy daemon is green in both forms.
async fn healthy(site: &Site, daemon: &Daemon) {
    let setup = setup(site);
    let server = daemon.http().base();
    let report = report(site, &setup, server, 0).await;
    assert_eq!(with(&report, "failed"), Vec::<&str>::new(), "{report:#}");
    // Other tests use the same server.
    let warnings: Vec<_> =
        with(&report, "warning").into_iter().filter(|name| *name != "database.connections").collect();
    assert_eq!(warnings, Vec::<&str>::new(), "{report:#}");
    assert_eq!(check(&report, "daemon")["facts"]["ready"], true, "{report:#}");
    let skipped = with(&report, "skipped");
    let reasons = skipped.iter().map(|name| check(&report, name)["findings"][0]["message"].as_str());
    assert!(reasons.into_iter().all(|reason| reason.is_some()), "{report:#}");
    let told = ask(site, &setup, server, &[]).await;
    told.expect(0, &[]);
    assert!(told.stdout.contains(", 0 failed"), "{told:?}");
    assert!(
        told.stdout.lines().all(|line| line.chars().count() <= 80 || !line.trim().contains(' ')),
        "{}",
        told.stdout
    );
}

#[tokio::test]
async fn a_healthy_machine_is_green() {
    let site = Site::new(Mode::Services).await;
    let daemon = setup(&site).start().await;
    healthy(&site, &daemon).await;
    daemon.stop().await;
    // Without a daemon nothing is broken, and what is missing is said.
    let report = report(&site, &setup(&site), &nowhere(), 0).await;
    assert!(with(&report, "warning").contains(&"hosts"), "{report:#}");
    assert!(check(&report, "hosts").to_string().contains("agentry up"), "{report:#}");
    assert_eq!(check(&report, "daemon")["status"], "skipped", "{report:#}");
}

#[tokio::test]
async fn embedded_it_is_green_with_a_daemon_and_makes_nothing_without() {
    let site = Site::new(Mode::Embedded).await;
    let before = report(&site, &setup(&site), &nowhere(), 0).await;
    assert_eq!(check(&before, "database.connection")["status"], "skipped", "{before:#}");
    assert!(!site.data("data").exists(), "asking made a data folder");
    let daemon = setup(&site).start().await;
    healthy(&site, &daemon).await;
    daemon.stop().await;
}

#[tokio::test]
async fn each_broken_part_of_the_settings_and_the_services_is_named() {
    let site = Site::new(Mode::Services).await;
    let fresh = setup(&site);
    // Before `up` was ever run: no schema, and nothing declared.
    let never = report(&site, &fresh, &nowhere(), 1).await;
    failed(&never, &["database.schema"], "agentry migrate");
    assert!(with(&never, "warning").contains(&"broker.topology"), "{never:#}");
    assert!(site.amqp().count(&site.queue("default")).await.is_err(), "asking declared a queue");
    fresh.clone().start().await.stop().await;

    let unknown = report(&site, &fresh.clone().set("worker.slotz", 3), &nowhere(), 1).await;
    failed(&unknown, &["settings"], "worker.slots");
    let away = format!("postgres://u:s3kret@127.0.0.1:{}/d", free_port());
    let no_database = report(&site, &fresh.clone().set("database.url", away), &nowhere(), 1).await;
    failed(&no_database, &["database.connection"], "database.url");
    assert_eq!(check(&no_database, "broker.topology")["status"], "ok", "{no_database:#}");
    assert!(!no_database.to_string().contains("s3kret"), "{no_database:#}");
    let mut stranger: reqwest::Url = site.database_url().parse().expect("a URL");
    stranger.set_username("no_such_user").expect("a user fits");
    let refused = report(&site, &fresh.clone().set("database.url", stranger.as_str()), &nowhere(), 1).await;
    failed(&refused, &["database.connection"], "no_such_user");

    let away = format!("amqp://guest:s3kret@127.0.0.1:{}", free_port());
    let no_broker = report(&site, &fresh.clone().set("broker.url", away), &nowhere(), 1).await;
    failed(&no_broker, &["broker.connection"], "broker.url");
    assert_eq!(check(&no_broker, "database.schema")["status"], "ok", "{no_broker:#}");
    let mut wrong: reqwest::Url = site.broker_url().parse().expect("a URL");
    wrong.set_password(Some("wr0ng-and-s3kret")).expect("a password fits");
    let refused = report(&site, &fresh.clone().set("broker.url", wrong.as_str()), &nowhere(), 1).await;
    failed(&refused, &["broker.connection"], "credentials");
    assert!(!refused.to_string().contains("s3kret"), "{refused:#}");

    site.amqp().declare_queue(&site.queue("second"), FieldTable::default()).await;
    let foreign = fresh.clone().set("broker.queues", json!(["default", "second"]));
    failed(&report(&site, &foreign, &nowhere(), 1).await, &["broker.topology"], "is needed");
    let managed = fresh.set("broker.management_url", format!("http://u:s3kret@127.0.0.1:{}", free_port()));
    let managed = report(&site, &managed, &nowhere(), 1).await;
    failed(&managed, &["broker.management"], "rabbitmq_management");
    assert!(!managed.to_string().contains("s3kret"), "{managed:#}");
}

#[tokio::test]
async fn each_broken_part_of_the_host_is_named() {
    let site = Site::new(Mode::Embedded).await;
    let folder = site.folder().join("plugins");
    let broken = folder.join("broken");
    std::fs::create_dir_all(&broken).expect("a folder");
    plugin::install("word-count", &folder);
    let manifest = "manifest = 1\n[plugin]\nname = \"broken\"\nversion = \"1.0.0\"\n";
    std::fs::write(broken.join("plugin.toml"), manifest).expect("a manifest");
    let own = site.setup().plugins([folder.clone()]);
    failed(&report(&site, &own, &nowhere(), 1).await, &["plugins"], "broken");
    std::fs::remove_dir_all(&broken).expect("it goes");
    let none = site.setup().plugins([site.folder().join("none")]);
    failed(&report(&site, &none, &nowhere(), 1).await, &["plugins"], "none");
    let tokens = own.clone().set("api.tokens_file", site.folder().join("no-tokens").to_string_lossy().into_owned());
    failed(&report(&site, &tokens, &nowhere(), 1).await, &["api"], "api.tokens_file");

    let daemon = own.clone().start().await;
    daemon.signal(Signal::STOP);
    let silent = report(&site, &own, daemon.http().base(), 1).await;
    failed(&silent, &["daemon"], "daemon's log");
    daemon.signal(Signal::CONT);
    daemon.stop().await;
}

#[tokio::test]
async fn services_that_are_silent_are_not_waited_for() {
    let site = Site::new(Mode::Services).await;
    let (mut database, mut broker) = (Forward::to(&site.database_url(), 5432), Forward::to(site.broker_url(), 5672));
    database.restore().await;
    broker.restore().await;
    database.fall_silent();
    broker.fall_silent();
    let setup = setup(&site)
        .set("database.url", database.through(&site.database_url()))
        .set("broker.url", broker.through(site.broker_url()));
    let report = report(&site, &setup, &nowhere(), 1).await;
    failed(&report, &["database.connection", "broker.connection"], "no ");
    assert!(report["took_ms"].as_u64().is_some_and(|ms| ms < 15_000), "{report:#}");
}

#[tokio::test]
async fn a_host_that_is_not_served_is_not_ready_until_it_is() {
    let site = Site::new(Mode::Services).await;
    site.amqp().declare(site.prefix(), "default").await;
    // Only one consumer at a time is served, whatever the others have room for.
    let name = site.queue("second");
    let mut arguments = quorum();
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    site.amqp().declare_queue(&name, arguments).await;
    site.amqp().bind(&name, site.prefix(), "second").await;
    for companion in ["returned.v2", "dead"] {
        site.amqp().declare_queue(&format!("{name}.{companion}"), quorum()).await;
    }
    let holder = Amqp::hold(site.broker_url(), &name).await;
    let setup = site.setup().set("broker.declare", false).set("broker.queues", json!(["default", "second"]));
    let daemon = setup.start().await;
    let tasks: Vec<_> = (0..3).map(|n| probe::echo(json!(n))).collect();
    site.amqp().publish(site.prefix(), "second", tasks.iter().map(|task| task.message())).await;
    daemon.not_ready("stalled").await;
    let answer = daemon.http().get("/readyz").await;
    assert!(answer.text.contains(r#"the queue \"second\" has messages ready"#), "{answer:?}");
    holder.close().await;
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    site.at_rest(&ids).await;
    eventually("it is ready again", async || {
        let answer = daemon.http().get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    daemon.stop().await;
}
