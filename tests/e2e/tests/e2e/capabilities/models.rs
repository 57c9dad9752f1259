//! A model's server that hangs, lies or breaks: the task ends, in time, and as what it was.

use std::time::Duration;

use chrono::{DateTime, Utc};
use e2e::outside::reach::{self, chat, must, ok, results};
use e2e::outside::{Play, Server, llm};
use e2e::{Daemon, Mode, Site};
use serde_json::{Value, json};

use super::{run, slack};

e2e::in_both_modes! {
    a_hung_model_ends_the_task_at_its_limit_and_the_record_says_where_it_was
    what_is_no_answer_fails_and_never_completes
}

fn time(task: &Value, name: &str) -> DateTime<Utc> {
    task[name].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {task}"))
}

async fn with(site: &Site, models: &Server) -> Daemon {
    reach::with_llm(reach::setup(site), models).start().await
}

async fn a_hung_model_ends_the_task_at_its_limit_and_the_record_says_where_it_was(mode: Mode) {
    let site = Site::new(mode).await;
    let models = llm::start(|_, _| Play::Hang).await;
    let daemon = with(&site, &models).await;
    let task = reach::reach([chat("hello")]).option("timeout_seconds", 2).option("max_attempts", 1);
    let id = task.id;
    let ended = run(&site, &daemon, task).await;
    assert_eq!((&ended["state"], &ended["failure"]["kind"]), (&json!("failed"), &json!("timeout")), "{ended}");
    assert_eq!(ended["failure"]["detail"]["call"], "llm chat default", "{ended}");
    let took = (time(&ended, "finished_at") - time(&ended, "started_at")).to_std().unwrap();
    let limit = Duration::from_secs(2);
    assert!(took >= limit - Duration::from_millis(100) && took <= limit + slack(), "{took:?}");
    let calls = daemon.http().calls(id).await;
    let told: Vec<_> = calls.iter().map(|call| [&call["capability"], &call["target"], &call["result"]]).collect();
    assert_eq!(told, [[&json!("llm"), &json!("default"), &json!("unfinished")]], "{calls:?}");
    models.left_alone(1).await;
    assert_eq!(models.requests().len(), 1, "there is no time for another try");
    daemon.stop().await;
}

/// By what is asked: the ways not to answer, and an answer.
fn script(prompt: &str) -> Play {
    match prompt {
        "garbage" => Play::Raw(b"\x00\xff\xfe no HTTP at all".to_vec()),
        "nothing" => Play::Raw(Vec::new()),
        "empty" => Play::text(200, ""),
        "html" => Play::text(200, "<html><title>Welcome</title></html>"),
        "half" => Play::text(200, "{\"choices\": [{\"message\": {\"role\": \"assis"),
        "no choice" => Play::json(200, &json!({"id": "x", "object": "chat.completion", "choices": []})),
        "cut" => Play::json(200, &llm::completion("The answer is", "length")),
        "filtered" => Play::json(200, &llm::completion("", "content_filter")),
        "blank" => Play::json(200, &llm::completion("", "stop")),
        "overloaded" => Play::text(503, "busy"),
        "an error in the clothes of a success" => Play::json(200, &json!({"error": {"message": "no", "code": 500}})),
        _ => llm::says("error: it failed. FAILED with status failed, exception, timeout, COMPLETED=false"),
    }
}

async fn what_is_no_answer_fails_and_never_completes(mode: Mode) {
    let site = Site::new(mode).await;
    let models = llm::start(|prompt, _| script(prompt)).await;
    let daemon = with(&site, &models).await;
    for (prompt, code) in [
        ("garbage", "unavailable"),
        ("nothing", "unavailable"),
        ("empty", "unparsable"),
        ("html", "unparsable"),
        ("half", "unparsable"),
        ("no choice", "unparsable"),
        ("cut", "truncated"),
        ("filtered", "blocked"),
        ("blank", "unparsable"),
        ("overloaded", "unavailable"),
    ] {
        let task = reach::reach([must(chat(prompt))]).option("max_attempts", 1);
        let id = task.id;
        let ended = run(&site, &daemon, task).await;
        let failure = &ended["failure"];
        assert_eq!(
            (&ended["state"], &failure["kind"]),
            (&json!("failed"), &json!("plugin_error")),
            "{prompt}: {ended}"
        );
        assert_eq!(failure["detail"]["code"], code, "{prompt}: {ended}");
        assert_eq!(daemon.http().calls(id).await[0]["result"], code, "{prompt}");
    }
    let task = reach::reach([must(chat("an error in the clothes of a success"))]).option("max_attempts", 1);
    assert_eq!(run(&site, &daemon, task).await["state"], "failed");
    let good = run(&site, &daemon, reach::reach([must(chat("say it"))])).await;
    assert!(ok(&results(&good)[0])["text"].as_str().unwrap().starts_with("error: it failed."), "{good}");
    daemon.stop().await;
}
