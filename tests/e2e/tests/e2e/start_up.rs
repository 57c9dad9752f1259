//! How it starts, and how it says why it cannot.

use std::net::{Ipv4Addr, TcpListener};

use e2e::forward::{Forward, free_port};
use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Setup, Site, Task, amqp, eventually, probe, task, variables};
use lapin::types::AMQPValue;
use serde_json::json;

#[tokio::test]
async fn only_one_of_broker_and_database_is_an_error_that_names_the_other() {
    let site = Site::new(Mode::Services).await;
    let no_database = site.setup().unset("database.url").run_to_end().await;
    no_database.expect(2, &["broker.url", "database.url"]);
    let no_broker = site.setup().unset("broker.url").unset("broker.prefix").run_to_end().await;
    no_broker.expect(2, &["broker.url", "database.url"]);
    // An empty value is unset, so this is one alone as well.
    site.setup().set("database.url", "").run_to_end().await.expect(2, &["database.url"]);
}

#[tokio::test]
async fn a_port_in_use_is_fatal_and_named() {
    let site = Site::new(Mode::Embedded).await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    site.setup().set("api.listen", address.as_str()).run_to_end().await.expect(2, &[&address]);
}

#[tokio::test]
async fn a_missing_plugin_folder_is_fatal_and_named() {
    let site = Site::new(Mode::Embedded).await;
    let missing = site.folder().join("no-such-folder");
    let ended = site.setup().plugins([missing.clone()]).run_to_end().await;
    ended.expect(2, &[&missing.to_string_lossy(), "plugins.dir"]);
}

#[tokio::test]
async fn a_user_of_a_tool_server_that_does_not_exist_is_fatal_and_named() {
    let site = Site::new(Mode::Embedded).await;
    let setup = site.setup().set("tools.a.command", vec!["/bin/cat"]).set("tools.a.user", "no-such-user");
    setup.run_to_end().await.expect(2, &["tools.a.user", "there is no user \"no-such-user\"", "leave user out"]);
}

#[tokio::test]
async fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
    let site = Site::new(Mode::Embedded).await;
    site.setup().set("worker.slotz", 3).run_to_end().await.expect(2, &["worker.slotz", "worker.slots"]);
    let variable = site.setup().variable("AGENTRY_WORKER_SLOTZ", "3").run_to_end().await;
    variable.expect(2, &["AGENTRY_WORKER_SLOTZ", "AGENTRY_WORKER_SLOTS"]);
}

#[tokio::test]
async fn an_invalid_value_names_its_key_and_what_is_valid() {
    let site = Site::new(Mode::Embedded).await;
    site.setup().set("worker.slots", "many").run_to_end().await.expect(2, &["worker.slots", "many"]);
    site.setup().set("lease.ttl_seconds", -1).run_to_end().await.expect(2, &["lease.ttl_seconds"]);
    site.setup().set("log.level", "loud").run_to_end().await.expect(2, &["log.level", "debug"]);
    let url = site.setup().set("broker.url", "http://x").set("database.url", "postgres://x/y").run_to_end().await;
    url.expect(2, &["broker.url", "amqp"]);
}

#[tokio::test]
async fn settings_written_twice_and_files_that_are_missing_are_errors() {
    let site = Site::new(Mode::Embedded).await;
    let file = site.folder().join("twice.toml");
    std::fs::write(&file, "worker.slots = 1\nworker.slots = 2\n").expect("a file");
    let file = file.to_string_lossy();
    e2e::daemon::run(site.folder(), &["up", "--config", &file]).await.expect(2, &[&file, "slots"]);
    let missing = site.folder().join("none.toml").to_string_lossy().into_owned();
    e2e::daemon::run(site.folder(), &["up", "--config", &missing]).await.expect(2, &[&missing]);
}

#[tokio::test]
async fn beyond_loopback_it_refuses_to_start_without_tokens() {
    let site = Site::new(Mode::Embedded).await;
    site.setup().set("api.listen", "0.0.0.0:0").run_to_end().await.expect(2, &["api.tokens_file"]);
}

#[tokio::test]
async fn beyond_loopback_it_refuses_to_start_without_tls_unless_that_is_allowed() {
    let site = Site::new(Mode::Embedded).await;
    let setup = || site.setup().set("api.listen", "0.0.0.0:0").token("0123456789abcdef");
    setup().run_to_end().await.expect(2, &["api.tls_cert", "api.plaintext"]);
    let mut daemon = setup().set("api.plaintext", true).start().await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert!(daemon.said().contains("may read or change it"), "{}", daemon.said());
}

#[tokio::test]
async fn a_refused_password_is_fatal_and_never_shown() {
    let site = Site::new(Mode::Services).await;
    let mut url: reqwest::Url = variables::amqp().parse().expect("a URL");
    url.set_password(Some("not-the-passw0rd")).expect("a password fits");
    let ended = site.setup().set("broker.url", url.as_str()).run_to_end().await;
    ended.expect(2, &["broker"]);
    assert!(!ended.stderr.contains("not-the-passw0rd"), "{ended:?}");
}

#[tokio::test]
async fn a_database_user_that_is_refused_is_fatal() {
    let site = Site::new(Mode::Services).await;
    let mut url: reqwest::Url = site.database_url().parse().expect("a URL");
    url.set_username("nobody_of_that_name").expect("a name fits");
    let ended = site.setup().set("database.url", url.as_str()).run_to_end().await;
    ended.expect(2, &["database", "nobody_of_that_name"]);
}

#[tokio::test]
async fn an_unreachable_database_is_retried_while_it_says_that_it_is_not_ready() {
    let site = Site::new(Mode::Services).await;
    let way = Forward::to(&site.database_url(), 5432);
    let setup = site.setup().set("database.url", way.through(&site.database_url()));
    ready_when_restored(&site, setup, way, "database").await;
}

#[tokio::test]
async fn an_unreachable_broker_is_retried_while_it_says_that_it_is_not_ready() {
    let site = Site::new(Mode::Services).await;
    let way = Forward::to(&variables::amqp(), 5672);
    let setup = site.setup().set("broker.url", way.through(&variables::amqp()));
    ready_when_restored(&site, setup, way, "broker").await;
}

#[tokio::test]
async fn while_plugins_are_compiled_it_is_alive_and_says_so_and_ends_at_a_signal() {
    let site = Site::new(Mode::Embedded).await;
    let address = format!("127.0.0.1:{}", free_port());
    let mut daemon = site.setup().set("api.listen", address.as_str()).spawn();
    let http = e2e::Http::new(&format!("http://{address}"));
    eventually("it is alive, and compiles", async || {
        let (alive, ready) = (http.try_get("/healthz").await, http.try_get("/readyz").await);
        let seen = (alive.map(|answer| answer.status).ok(), ready.as_ref().map(|answer| answer.status).ok());
        let says_why = ready.is_ok_and(|answer| answer.json()["reasons"][0]["code"] == "plugins");
        if seen == (Some(200), Some(503)) && says_why { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let answer =
        http.post("/v1/tasks", &Task::new("word-count", json!({"text": "too early"})).body()).await.expect(503);
    assert_eq!(answer["code"], "starting", "{answer}");
    assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());
    assert!(daemon.said().contains("while plugins were compiled"), "{}", daemon.said());
}

async fn ready_when_restored(site: &Site, setup: Setup, mut way: Forward, named: &str) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut daemon = setup.set("api.listen", address.as_str()).spawn();
    let http = e2e::Http::new(&format!("http://{address}"));
    eventually("it is alive, and not ready", async || {
        let (alive, ready) = (http.try_get("/healthz").await, http.try_get("/readyz").await);
        let seen = (alive.map(|answer| answer.status).ok(), ready.as_ref().map(|answer| answer.status).ok());
        let says_why = ready.is_ok_and(|answer| answer.text.contains(named));
        if seen == (Some(200), Some(503)) && says_why { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert!(!daemon.said().contains("\nready http"), "{}", daemon.said());
    daemon.says(&way.port().to_string()).await; // which one

    // It comes up, and the daemon must find it by itself.
    way.restore().await;
    daemon.ready().await;
    http.get("/readyz").await.expect(200);
    works(site, daemon).await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_an_error_that_names_queue_argument_and_both_values() {
    let site = Site::new(Mode::Services).await;
    let mut arguments = amqp::quorum();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("somewhere-else".into()));
    let queue = site.queue("default");
    site.amqp().declare_queue(&queue, arguments).await;
    let ended = site.setup().run_to_end().await;
    let wanted = format!("{}.dead", site.prefix());
    ended.expect(2, &[&queue, "x-dead-letter-exchange", "somewhere-else", &wanted]);
    assert_eq!(site.amqp().count(&queue).await, Ok((0, 0)), "the queue is still there");
}

#[tokio::test]
async fn without_declare_missing_queues_are_an_error() {
    let site = Site::new(Mode::Services).await;
    let ended = site.setup().set("broker.declare", false).run_to_end().await;
    ended.expect(2, &["broker.declare"]);
    assert!(site.amqp().count(&site.queue("default")).await.is_err(), "nothing was declared");
}

e2e::in_both_modes! {
    the_start_up_lines_say_what_is_in_use_and_where_each_setting_came_from
    it_starts_and_works_with_standard_streams_closed
    a_log_that_nobody_reads_never_blocks_work
    with_a_warm_cache_it_is_ready_within_two_seconds
    nothing_inherited_switches_a_component
}

async fn the_start_up_lines_say_what_is_in_use_and_where_each_setting_came_from(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.setup().argument("--slots").argument("3").start().await;
    let said = daemon.said();
    let settings = site.folder().join("data.toml").to_string_lossy().into_owned();
    assert!(said.contains(&settings), "the file that it was set in: {said}");
    assert!(said.contains(&*variables::plugins().to_string_lossy()), "the plugin folder, absolute: {said}");
    match mode {
        Mode::Services => {
            let url: reqwest::Url = variables::amqp().parse().expect("a URL");
            let port = url.port().unwrap_or(5672).to_string();
            assert!(said.contains(&port) && said.contains(site.prefix()), "broker and database: {said}");
            if let Some(password) = url.password() {
                assert!(!said.contains(&format!(":{password}@")), "the password: {said}");
            }
        }
        Mode::Embedded => {
            assert!(said.contains("EMBEDDED: this process alone; nothing consumes RabbitMQ"), "{said}");
            assert!(said.contains(&*site.data("data").to_string_lossy()), "the data folder: {said}");
        }
    }
    daemon.stop().await;
}

async fn it_starts_and_works_with_standard_streams_closed(mode: Mode) {
    let site = Site::new(mode).await;
    let address = format!("127.0.0.1:{}", free_port());
    // Written by the harness; the shell then starts the same with every stream closed.
    let first = site.setup().set("api.listen", address.as_str()).start().await;
    first.stop().await;
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" up --config \"$1\" <&- >&- 2>&-"]);
    shell.arg(variables::binary()).arg(site.folder().join("data.toml"));
    shell.env_clear().current_dir(site.folder());
    let mut child = KilledOnDrop(shell.spawn().expect("a shell"));
    let http = e2e::Http::new(&format!("http://{address}"));
    let asked = Task::new("word-count", json!({"text": "unseen"}));
    eventually("it takes a task", async || match http.try_get("/readyz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}; it has ended: {:?}", child.0.try_wait())),
    })
    .await;
    http.post("/v1/tasks", &asked.body()).await.expect(201);
    assert_eq!(http.ended(asked.id).await["state"], "completed");
}

async fn a_log_that_nobody_reads_never_blocks_work(mode: Mode) {
    let site = Site::new(mode).await;
    let address = format!("127.0.0.1:{}", free_port());
    let setup = site.setup().set("api.listen", address.as_str()).set("log.level", "trace");
    // The other end of the pipe stays open, and its 64 KiB are full long before the tasks are done.
    let child = KilledOnDrop(setup.command().spawn().expect("the binary starts"));
    let http = e2e::Http::new(&format!("http://{address}"));
    eventually("it is ready", async || match http.try_get("/readyz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let tasks: Vec<_> = (0..500).map(|n| probe::echo(json!(n))).collect();
    let bodies: Vec<_> = tasks.iter().map(Task::body).collect();
    http.post("/v1/tasks/batch", &json!({"tasks": bodies})).await.expect(201);
    site.at_rest(&task::ids(&tasks)).await;
    drop(child);
}

struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// The best of a few, since others use the machine.
async fn with_a_warm_cache_it_is_ready_within_two_seconds(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.start().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        assert_eq!(daemon.terminate().await, Some(0));
        let began = std::time::Instant::now();
        daemon.start_again().await;
        times.push(began.elapsed());
        if began.elapsed().as_secs() < 2 {
            break;
        }
    }
    let allowed = std::time::Duration::from_secs(2).mul_f64(e2e::patience().as_secs_f64() / 60.0);
    assert!(times.iter().any(|time| *time < allowed), "{times:?}");
    daemon.stop().await;
}

async fn nothing_inherited_switches_a_component(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site
        .setup()
        .variable("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .variable("AMQP_URL", "amqp://127.0.0.1:1")
        .variable("RABBITMQ_URL", "amqp://127.0.0.1:1")
        .variable("PGHOST", "127.0.0.1")
        .variable("PGPORT", "1")
        .variable("PGUSER", "nobody_of_that_name")
        .variable("HTTP_PROXY", "http://127.0.0.1:1")
        .variable("RUST_LOG", "off")
        // What Kubernetes injects for a service of that name is no setting.
        .variable("AGENTRY_SERVICE_HOST", "10.0.0.1")
        .variable("AGENTRY_SERVICE_PORT", "80")
        .variable("AGENTRY_PORT", "tcp://10.0.0.1:80")
        .start()
        .await;
    works(&site, daemon).await;
}

#[tokio::test]
async fn a_variable_that_the_postgres_client_would_obey_is_refused_by_name() {
    let site = Site::new(Mode::Services).await;
    let ended = site.setup().variable("PGOPTIONS", "-c default_transaction_read_only=on").run_to_end().await;
    ended.expect(2, &["database.url", "PGOPTIONS"]);
}

#[tokio::test]
async fn a_database_migrated_by_a_newer_build_is_refused() {
    let site = Site::new(Mode::Services).await;
    site.start().await.stop().await;
    site.database().await.execute(NEWER_SCHEMA).await;
    let ended = site.setup().run_to_end().await;
    ended.expect(4, &["9999", "99.0.0"]);
}

/// What a much newer build would leave behind, with which this one cannot work.
const NEWER_SCHEMA: &str = "INSERT INTO agentry.schema_version (version, name, checksum, min_build, applied_by)
    VALUES (9999, 'from the future', 'x', '99.0.0', '99.0.0')";

#[tokio::test]
async fn an_empty_database_is_refused_without_migrate_and_migrated_by_the_command() {
    let site = Site::new(Mode::Services).await;
    let refused = site.setup().argument("--no-migrate").run_to_end().await;
    refused.expect(4, &["agentry migrate"]);
    let settings = site.folder().join("data.toml").to_string_lossy().into_owned();
    e2e::daemon::run(site.folder(), &["migrate", "--config", &settings]).await.expect(0, &[]);
    let daemon = site.setup().argument("--no-migrate").start().await;
    works(&site, daemon).await;
}

#[tokio::test]
async fn two_daemons_may_start_on_an_empty_database_at_once() {
    let site = Site::new(Mode::Services).await;
    let mut one = site.setup_named("one").spawn();
    let mut two = site.setup_named("two").spawn();
    one.ready().await;
    two.ready().await;
    two.stop().await;
    works(&site, one).await;
}

/// It does one task, and what must hold holds.
async fn works(site: &Site, daemon: Daemon) {
    let asked = Task::new("word-count", json!({"text": "it works"}));
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    assert_eq!(daemon.http().ended(asked.id).await["state"], "completed");
    invariants::hold(site, daemon, &[asked.id], Expected::default()).await;
}
