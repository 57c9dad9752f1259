//! What operators do when something went wrong: ask again, deliver again, forget.

use e2e::amqp::Outgoing;
use e2e::daemon::{Daemon, Ended, run};
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, eventually, probe};
use serde_json::{Value, json};
use uuid::Uuid;

async fn command(site: &Site, daemon: &Daemon, words: &[&str]) -> Ended {
    let mut arguments = words.to_vec();
    arguments.extend(["--json", "--server", daemon.http().base()]);
    run(site.folder(), &arguments).await
}

async fn told(site: &Site, daemon: &Daemon, words: &[&str]) -> Value {
    let ended = command(site, daemon, words).await;
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {ended:?}"))
}

fn id_of(value: &Value) -> Uuid {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no id"))
}

e2e::in_both_modes! {
    failed_tasks_are_retried_once_however_often_it_is_asked
    waiting_tasks_are_cancelled_by_filter
    an_erased_task_leaves_no_trace_of_what_it_held
}

async fn failed_tasks_are_retried_once_however_often_it_is_asked(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let failing: Vec<_> = (0..3).map(|n| probe::fail_permanent(&format!("no. {n}"))).collect();
    let good = probe::echo(json!("good"));
    site.submit(&daemon, &failing).await;
    site.submit(&daemon, std::slice::from_ref(&good)).await;
    let mut ids: Vec<Uuid> = failing.iter().map(|task| task.id).chain([good.id]).collect();
    site.at_rest(&ids).await;

    let filters = ["--kind", "plugin_error", "--plugin", "probe", "--since", "1h"];
    let retry = |more: &[&'static str]| [&["task", "retry"], &filters[..], more].concat();
    let plan = told(&site, &daemon, &retry(&["--dry-run"])).await;
    assert_eq!((&plan["matched"], &plan["done"]), (&json!(3), &json!(3)), "{plan}");
    let first = told(&site, &daemon, &retry(&["--limit", "2"])).await;
    assert_eq!(first["done"], 2, "{first}");
    let second = told(&site, &daemon, &retry(&["--rate", "100/s"])).await;
    // The retries may have failed by now, and are failed tasks as any others; the tasks behind them are not retried again.
    let retries: Vec<Uuid> = [&first, &second]
        .iter()
        .flat_map(|answer| answer["tasks"].as_array().expect("tasks"))
        .filter(|task| task["outcome"] == "retried")
        .map(|task| id_of(&task["retry"]))
        .collect();
    ids.extend(&retries);
    site.at_rest(&ids).await;
    for task in &failing {
        let of = daemon.http().get(&format!("/v1/tasks?retry_of={}", task.id)).await.expect(200);
        assert_eq!(of["tasks"].as_array().map(Vec::len), Some(1), "{of}");
        let new = daemon.http().task(id_of(&of["tasks"][0]["id"])).await;
        assert_eq!((&new["input"], &new["state"]), (&task.input, &json!("failed")), "{new}");
    }
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

async fn waiting_tasks_are_cancelled_by_filter(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let later = |team: &str| {
        let task = probe::echo(json!(1)).option("run_at", "2999-01-01T00:00:00Z");
        task.option("labels", json!({"team": team}))
    };
    let (search, ads) = ([later("search"), later("search")], later("ads"));
    site.submit(&daemon, &search).await;
    site.submit(&daemon, std::slice::from_ref(&ads)).await;
    let database = site.database().await;
    eventually("three tasks wait", async || match database.tasks().await.len() {
        3 => Ok(()),
        n => Err(format!("{n} rows")),
    })
    .await;
    command(&site, &daemon, &["task", "cancel"]).await.expect(2, &["--all", "--since 1h"]);
    command(&site, &daemon, &["task", "cancel", "--since", "soon"]).await.expect(2, &["soon", "1h"]);
    command(&site, &daemon, &["task", "cancel", "--all", "--rate", "fast"]).await.expect(2, &["fast", "50/s"]);
    command(&site, &daemon, &["task", "cancel", "--state", "failed"]).await.expect(2, &["failed", "scheduled"]);
    let done = told(&site, &daemon, &["task", "cancel", "--label", "team=search"]).await;
    assert_eq!((&done["matched"], &done["done"]), (&json!(2), &json!(2)), "{done}");
    for task in &search {
        assert_eq!(daemon.http().task(task.id).await["state"], "cancelled");
    }
    assert_eq!(daemon.http().task(ads.id).await["state"], "scheduled");
    told(&site, &daemon, &["task", "cancel", &ads.id.to_string()]).await;
    assert_eq!(daemon.http().task(ads.id).await["state"], "cancelled");
    daemon.stop().await;
}

async fn an_erased_task_leaves_no_trace_of_what_it_held(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let (secret, kept) = (probe::fail_permanent("hunter2"), probe::echo(json!("kept")));
    site.submit(&daemon, &[secret.clone(), kept.clone()]).await;
    site.at_rest(&[secret.id, kept.id]).await;
    let id = secret.id.to_string();
    let task = told(&site, &daemon, &["task", "erase", &id]).await;
    assert!(task["erased_at"].is_string() && task["input"].is_null(), "{task}");
    let shown = told(&site, &daemon, &["task", "show", &id]).await;
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    assert_eq!(
        (&shown["task"]["state"], &shown["task"]["failure"]["kind"]),
        (&json!("failed"), &json!("plugin_error"))
    );
    command(&site, &daemon, &["task", "retry", &id]).await.expect(2, &["erased"]);
    assert_eq!(daemon.http().task(kept.id).await["output"], json!("kept"));
    invariants::hold(&site, daemon, &[secret.id, kept.id], Expected::default()).await;
}

#[tokio::test]
async fn a_dead_letter_is_redriven_once_under_a_new_id() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.setup().set("limits.max.timeout_seconds", 400).start().await;
    // It asks for more time than this daemon gives; later on the ceiling is raised.
    let old = Uuid::now_v7();
    let body = format!(
        r#"{{"id": "{old}", "plugin": "word-count", "input": {{"text": "a b"}}, "options": {{"timeout_seconds": 500}}}}"#
    );
    site.amqp().publish(site.prefix(), "default", [Outgoing::json(body), Outgoing::json("{")]).await;
    eventually("two dead letters", async || match site.database().await.dead_letters().await.len() {
        2 => Ok(()),
        n => Err(format!("{n} letters")),
    })
    .await;
    daemon.stop().await;

    let daemon = site.start().await;
    command(&site, &daemon, &["dead", "redrive"]).await.expect(2, &["--all"]);
    let plan = told(&site, &daemon, &["dead", "redrive", "--all", "--dry-run"]).await;
    assert_eq!(plan["letters"].as_array().map(Vec::len), Some(2), "{plan}");
    let done = told(&site, &daemon, &["dead", "redrive", "--reason", "bad_options", "--rate", "50/s"]).await;
    assert_eq!(done["redriven"], 1, "{done}");
    let new = id_of(&done["letters"][0]["task_id"]);
    let task = daemon.http().ended(new).await;
    assert_eq!((&task["state"], &task["output"]["words"]), (&json!("completed"), &json!(2)), "{task}");
    assert_ne!(new, old);
    assert_eq!(daemon.http().task(old).await["state"], "failed", "a terminal task never changes");
    let again = told(&site, &daemon, &["dead", "redrive", "--reason", "bad_options"]).await;
    assert_eq!(again["letters"], json!([]), "{again}");
    let list = told(&site, &daemon, &["dead", "list", "--reason", "bad_options"]).await;
    assert_eq!(list["dead"][0]["redriven_as"], json!(new), "{list}");

    // As if it had died before the letter was marked: it goes once more, under the same id, which is recognised.
    let before = daemon.http().events(new).await;
    let marks = "redriven_at = NULL, redrives = redrives - 1";
    let unmark = format!("UPDATE agentry.dead_letters SET {marks} WHERE redriven_as = '{new}'");
    site.database().await.execute(&unmark).await;
    let repeated = told(&site, &daemon, &["dead", "redrive", "--reason", "bad_options"]).await;
    assert_eq!((&repeated["redriven"], id_of(&repeated["letters"][0]["task_id"])), (&json!(1), new), "{repeated}");
    eventually("the queue is empty", async || match site.amqp().count(&site.queue("default")).await {
        Ok((0, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(daemon.http().events(new).await, before);
    daemon.stop().await;
}

#[tokio::test]
async fn prune_forgets_what_is_past_its_time_and_says_what_it_would() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let tasks = [probe::echo(json!(1)), probe::echo(json!(2)), probe::fail_permanent("no")];
    site.submit(&daemon, &tasks).await;
    site.at_rest(&tasks.iter().map(|task| task.id).collect::<Vec<_>>()).await;
    daemon.stop().await;

    let file = site.folder().join("prune.toml");
    let data = format!("data.dir = {:?}\nretention.failed_days = 1\n", site.data("data"));
    std::fs::write(&file, format!("{data}retention.completed_days = 0\n")).expect("a file");
    let prune = async |words: &[&str]| {
        let file = file.to_string_lossy();
        let words = [&["prune", "--json", "--config", &*file], words].concat();
        let ended = run(site.folder(), &words).await;
        ended.expect(0, &[]);
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")
    };
    let plan = prune(&["--dry-run"]).await;
    assert_eq!((&plan["prunable"]["completed"]["count"], &plan["prunable"]["failed"]["count"]), (&json!(2), &json!(0)));
    assert!(plan["prunable"]["completed"]["oldest"].is_string(), "{plan}");
    let sizes = plan["tables"].as_array().expect("tables");
    assert!(sizes.iter().any(|size| size["table"] == "tasks" && size["rows"] == 3), "{plan}");
    assert_eq!(prune(&[]).await, json!({"deleted": 2}));
    assert_eq!(site.database().await.tasks().await.keys().collect::<Vec<_>>(), [&tasks[2].id]);
    assert_eq!(prune(&[]).await, json!({"deleted": 0}));
}
