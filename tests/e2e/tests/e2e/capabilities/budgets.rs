//! What a task and a plugin may spend, whoever runs it and however often.

use e2e::outside::reach::{self, chat, must};
use e2e::outside::{Play, llm};
use e2e::patience::holds;
use e2e::{Mode, Site, eventually};
use serde_json::json;
use tokio::sync::watch;

use super::run;

e2e::in_both_modes! {
    tokens_of_a_task_are_counted_over_all_its_attempts
    tokens_of_interrupted_runs_are_returned_to_their_task
    tokens_that_a_provider_does_not_count_are_booked_as_estimated
    requests_of_a_plugin_are_counted_over_a_day
}

/// An answer that costs a hundred tokens.
fn dear() -> Play {
    let mut completion = llm::completion("hello", "stop");
    completion["usage"] = json!({"prompt_tokens": 10, "completion_tokens": 90, "total_tokens": 100});
    Play::json(200, &completion)
}

async fn tokens_of_a_task_are_counted_over_all_its_attempts(mode: Mode) {
    let site = Site::new(mode).await;
    let models = llm::start(|_, _| dear()).await;
    let setup = reach::with_llm(reach::setup(&site), &models).set("plugins.reach.limits.llm_tokens", 250);
    let daemon = setup.start().await;
    // Each attempt asks once and fails, so that none by itself is beyond the limit.
    let task = reach::reach([must(chat("hello")), must(json!({"retry_until_attempt": 9}))]).option("max_attempts", 9);
    let id = task.id;
    let ended = run(&site, &daemon, task).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("budget_exceeded")), "{ended}");
    let message = ended["failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("llm_tokens") && message.contains("250"), "it names the limit: {message}");
    assert_eq!((&ended["attempt"], models.requests().len()), (&json!(3), 2), "not tried again: {ended}");
    let calls = daemon.http().calls(id).await;
    let told: Vec<_> = calls.iter().map(|call| call["result"].as_str().unwrap_or_default()).collect();
    assert_eq!(told, ["ok", "ok", "budget_exceeded"], "{calls:?}");
    // Another task has its own.
    let other = run(&site, &daemon, reach::reach([must(chat("hello"))])).await;
    assert_eq!(other["state"], "completed", "{other}");
    daemon.stop().await;
}

/// Without the estimate a provider that counts nothing would cost nothing.
async fn tokens_that_a_provider_does_not_count_are_booked_as_estimated(mode: Mode) {
    let site = Site::new(mode).await;
    let models = llm::start(|_, _| {
        let mut completion = llm::completion("hello", "stop");
        completion["usage"] = json!(null);
        Play::json(200, &completion)
    })
    .await;
    // The longest answer that the model's settings allow is a part of the estimate.
    let setup = reach::with_llm(reach::setup(&site), &models).set("plugins.reach.limits.llm_tokens", 250);
    let daemon = setup.set("llm.models.default.max_output_tokens", 150).start().await;
    let task = reach::reach([must(chat("hello")), chat("hello")]);
    let id = task.id;
    run(&site, &daemon, task).await;
    let calls = daemon.http().calls(id).await;
    let told: Vec<_> = calls.iter().map(|call| call["result"].as_str().unwrap_or_default()).collect();
    assert_eq!((told, models.requests().len()), (vec!["ok", "budget_exceeded"], 1), "{calls:?}");
    let detail = &calls[0]["detail"];
    assert_eq!((&detail["estimated"], &detail["output_tokens"]), (&json!(true), &json!(150)), "{detail}");
    let input = detail["input_tokens"].as_u64().unwrap_or_default();
    let attempt = &daemon.http().attempts(id).await[0];
    assert!(input > 0, "{detail}");
    assert_eq!(attempt["usage"]["llm_tokens"], json!(input + 150), "{attempt}");
    daemon.stop().await;
}

/// Two hosts are replaced while a task runs: one is killed, one drains. Without the return its third run would have nothing left.
async fn tokens_of_interrupted_runs_are_returned_to_their_task(mode: Mode) {
    let site = Site::new(mode).await;
    let (gate, open) = watch::channel(false);
    let models = llm::start(move |prompt, _| match prompt {
        "wait" => Play::Behind(open.clone(), Box::new(dear())),
        _ => dear(),
    })
    .await;
    let setup = reach::with_llm(reach::setup(&site), &models).set("plugins.reach.limits.llm_tokens", 400);
    let mut daemon = setup.set("lease.ttl_seconds", 5).set("shutdown.grace_seconds", 0).start().await;
    let task = reach::reach([must(chat("hello")), must(chat("wait"))]);
    let id = task.id;
    site.submit(&daemon, &[task]).await;
    for run in 1..=3 {
        eventually(&format!("run {run} waits for the model"), async || {
            let asked = models.requests().len();
            holds(asked >= 2 * run, || format!("{asked} requests"))
        })
        .await;
        match run {
            1 => daemon.kill(),
            2 => assert_eq!(daemon.terminate().await, Some(0)),
            _ => {
                gate.send_replace(true);
                break;
            }
        }
        daemon.start_again().await;
    }
    let ended = daemon.http().ended(id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
    daemon.stop().await;
}

async fn requests_of_a_plugin_are_counted_over_a_day(mode: Mode) {
    let site = Site::new(mode).await;
    let models = llm::start(|_, _| llm::says("hello")).await;
    let setup = |name| {
        let setup = reach::with_llm(reach::setup_named(&site, name), &models);
        setup.set("plugins.reach.budgets.llm_requests_per_day", 3)
    };
    let asking = || reach::reach([must(chat("hello"))]);
    let mut daemon = setup("data").start().await;
    for _ in 0..2 {
        assert_eq!(run(&site, &daemon, asking()).await["state"], "completed");
    }
    let daemon = match mode {
        // Another host, with nothing but the database in common.
        Mode::Services => {
            daemon.stop().await;
            setup("other").start().await
        }
        Mode::Embedded => {
            daemon.kill();
            daemon.start_again().await;
            daemon
        }
    };
    assert_eq!(run(&site, &daemon, asking()).await["state"], "completed");
    let ended = run(&site, &daemon, asking()).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("budget_exceeded")), "{ended}");
    assert!(ended["failure"]["message"].as_str().unwrap_or_default().contains("llm_requests_per_day"), "{ended}");
    assert_eq!((&ended["attempt"], models.requests().len()), (&json!(1), 3), "{ended}");
    daemon.stop().await;
}
