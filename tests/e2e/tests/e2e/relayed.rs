//! Messages of the relay that the host which receives them cannot use: their tasks have rows, and go on.

use e2e::amqp::Outgoing;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, eventually, probe};
use serde_json::json;

e2e::in_both_modes! {
    task_above_a_limit_that_was_lowered_meanwhile_runs_all_the_same
}

async fn task_above_a_limit_that_was_lowered_meanwhile_runs_all_the_same(mode: Mode) {
    let site = Site::new(mode).await;
    let mut daemon = site.start().await;
    let at = (chrono::Utc::now() + chrono::TimeDelta::seconds(5)).to_rfc3339();
    let asked = probe::echo(json!(1)).option("timeout_seconds", 600).option("run_at", at);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let database = site.database().await;
    eventually("it is scheduled", async || match database.tasks().await.get(&asked.id) {
        Some(task) if task.state == "scheduled" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());
    daemon.change(|setup| setup.set("limits.max.timeout_seconds", 300));
    daemon.start_again().await;
    let task = daemon.http().ended(asked.id).await;
    assert_eq!(task["state"], "completed", "{task}");
    assert!(database.dead_letters().await.is_empty());
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

#[tokio::test]
async fn task_with_an_option_of_a_newer_build_waits_for_a_host_of_that_build() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let asked = probe::echo(json!(1)).option("run_at", "2999-01-01T00:00:00Z");
    site.publish(std::slice::from_ref(&asked)).await;
    let database = site.database().await;
    eventually("it has a row", async || match database.tasks().await.get(&asked.id) {
        Some(_) => Ok(()),
        None => Err("it has none".to_owned()),
    })
    .await;
    // As a relay of a newer build has published it, from a row that this build cannot read either.
    let id = asked.id;
    let newer = r#"{"of_a_newer_build": 1}"#;
    let due = format!(
        "UPDATE agentry.tasks SET state = 'pending', waiting_code = NULL, run_at = NULL, options = '{newer}' WHERE id = '{id}'"
    );
    database.execute(&due).await;
    let body = json!({"id": id, "plugin": asked.plugin, "input": 1, "options": {"of_a_newer_build": 1}});
    let message = Outgoing::json(body.to_string()).header("agentry-fence", "0");
    site.amqp().publish(site.prefix(), "default", [message]).await;
    let held = eventually("it waits in the database", async || {
        let task = daemon.http().task(id).await;
        if task["waiting_for"]["code"] == "held" { Ok(task) } else { Err(task.to_string()) }
    })
    .await;
    assert_eq!(held["state"], "pending");
    assert!(held["waiting_for"]["detail"]["detail"].as_str().unwrap().contains("of_a_newer_build"), "{held}");
    assert!(database.dead_letters().await.is_empty());
    // A host that can read it takes it from there.
    database.execute(&format!("UPDATE agentry.tasks SET options = '{{}}' WHERE id = '{id}'")).await;
    assert_eq!(daemon.http().ended(id).await["state"], "completed");
}
