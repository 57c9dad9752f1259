//! What a plugin keeps: from one task to the next, from one daemon to the next, for itself alone.

use e2e::outside::reach::{self, get, grant, ok, results};
use e2e::outside::{Play, Server};
use e2e::{Mode, Setup, Site, Task, eventually, task};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{install_as, run};

e2e::in_both_modes! {
    what_is_kept_outlasts_the_task_and_the_daemon_and_is_the_plugins_own
    increments_of_many_tasks_at_once_add_up
}

fn read() -> [Value; 3] {
    [
        json!({"get": {"key": "colour"}}),
        json!({"search": {"query": "which FOX?"}}),
        json!({"search": {"query": "whale"}}),
    ]
}

/// With another plugin, which asks for the same names.
fn with_another(site: &Site, name: &str) -> Setup {
    let setup = reach::setup_named(site, name);
    let plugins = site.folder().join("plugins");
    if !plugins.join("another").exists() {
        install_as("another", &plugins);
    }
    let granted = [
        ("http", json!(["GET https://nowhere.invalid"])),
        ("llm", json!(["default"])),
        ("tools.mock", json!(["*"])),
        ("keyvalue", json!(["cache"])),
        ("memory", json!(["notes"])),
        ("config", json!(["region"])),
    ];
    let key = |capability| format!("plugins.another.capabilities.{capability}");
    granted.into_iter().fold(setup, |setup, (capability, policy)| setup.set(&key(capability), policy))
}

async fn what_is_kept_outlasts_the_task_and_the_daemon_and_is_the_plugins_own(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = with_another(&site, "data").start().await;
    let kept = reach::reach([
        json!({"set": {"key": "colour", "value": "red"}}),
        json!({"remember": {"text": "The quick brown fox sleeps in the barn."}}),
        json!({"remember": {"text": "The hound barks."}}),
    ]);
    let kept = run(&site, &daemon, kept).await;
    assert!(results(&kept).iter().all(|result| result.get("ok").is_some()), "{kept}");
    let expected = [json!("red"), json!(["The quick brown fox sleeps in the barn."]), json!([])];
    let found = |task: &Value| results(task).iter().map(|result| ok(result).clone()).collect::<Vec<_>>();
    assert_eq!(found(&run(&site, &daemon, reach::reach(read())).await), expected);
    let another = Task::new("another", read().into_iter().collect());
    assert_eq!(
        found(&run(&site, &daemon, another).await),
        [Value::Null, json!([]), json!([])],
        "another's are its own"
    );
    let daemon = match mode {
        Mode::Services => {
            daemon.stop().await;
            with_another(&site, "other").start().await
        }
        Mode::Embedded => {
            daemon.kill();
            daemon.start_again().await;
            daemon
        }
    };
    assert_eq!(found(&run(&site, &daemon, reach::reach(read())).await), expected, "another daemon finds the same");
    daemon.stop().await;
}

async fn increments_of_many_tasks_at_once_add_up(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = reach::setup(&site).set("worker.slots", 10).start().await;
    let tasks: Vec<_> = (0..20).map(|_| reach::reach([json!({"increment": {"key": "visits"}})])).collect();
    site.submit(&daemon, &tasks).await;
    site.at_rest(&task::ids(&tasks)).await;
    let mut sums = Vec::new();
    for task in &tasks {
        sums.push(ok(&results(&daemon.http().task(task.id).await)[0]).as_u64().unwrap());
    }
    sums.sort_unstable();
    assert_eq!(sums, (1..=20).collect::<Vec<_>>(), "each saw its own");
    let read = run(&site, &daemon, reach::reach([json!({"get": {"key": "visits"}})])).await;
    assert_eq!(ok(&results(&read)[0]), "20");
    daemon.stop().await;
}

#[tokio::test]
async fn an_attempt_that_was_taken_over_writes_nothing_any_more() {
    let site = Site::new(Mode::Services).await;
    let web = Server::start(|_| Play::text(200, "noted")).await;
    let setup = |name| {
        let setup = reach::setup_named(&site, name).set("lease.ttl_seconds", 2);
        grant(setup, "http", json!([format!("GET {}", web.url("/"))]))
    };
    let (one, task) = (
        setup("one").start().await,
        reach::reach([
            get(web.url("/began")),
            json!({"sleep_ms": 3_000}),
            json!({"increment": {"key": "late"}}),
            json!({"remember": {"text": "written late"}}),
            get(web.url("/wrote")),
        ]),
    );
    site.publish(std::slice::from_ref(&task)).await;
    web.asked(1).await;
    one.signal(Signal::STOP);
    let two = setup("two").start().await;
    let ended = two.http().ended(task.id).await;
    assert_eq!(ok(&results(&ended)[2]), &json!(1), "{ended}");
    // It wakes, and its guest goes on where it was.
    one.signal(Signal::CONT);
    eventually("both have tried to write", async || {
        let wrote = web.requests().iter().filter(|request| request.target == "/wrote").count();
        if wrote == 2 { Ok(()) } else { Err(format!("{:?}", web.requests())) }
    })
    .await;
    one.says("fenced: another host has taken this task over").await;
    let read = reach::reach([json!({"get": {"key": "late"}})]);
    assert_eq!(ok(&results(&run(&site, &two, read).await)[0]), "1", "one of the two has written");
    one.stop().await;
    two.stop().await;
}
