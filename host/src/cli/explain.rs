//! `agentry task explain`.

use super::client::{Client, encode, refused, rows};
use super::output::{self, field};
use super::{Failed, Server, escape, settings};
use crate::config::{Services, Settings};
use crate::daemon;
use crate::explain::{PATIENCE, Places, explain, look};
use crate::task::TaskId;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Asks the daemon; and where none answers, its database and its broker.
pub async fn run(id: &str, server: &Server, config: Option<PathBuf>) -> Result<(), Failed> {
    let parsed: TaskId = id.parse().map_err(|_| Failed::usage(format!("{id:?} is not a task id, which is a UUID")))?;
    let client = Client::new(server)?;
    let path = format!("/v1/tasks/{}/explain", encode(id));
    let answer = match client.ask(Method::GET, &path, None, client.patience()).await {
        Ok(answer) => answer.map_err(refused)?,
        Err(failed) if failed.is_unreachable() => {
            output::say(&format!("agentry: {}; asking the database and the broker of the settings", failed.message));
            alone(parsed, &settings(config, Vec::new())?).await
        }
        Err(failed) => return Err(failed),
    };
    match server.json {
        true => output::json(&answer),
        false => output::data(&shown(&answer)),
    }
}

/// The same answer without a daemon.
async fn alone(id: TaskId, settings: &Settings) -> Value {
    let embedded = matches!(settings.services(), Services::Embedded);
    let late = || format!("no answer within {} s", PATIENCE.as_secs());
    let database = tokio::time::timeout(PATIENCE, daemon::database(settings));
    let broker = async {
        if embedded {
            return Err("no daemon runs, and the queue is embedded in it".to_owned());
        }
        let connected = tokio::time::timeout(PATIENCE, daemon::publisher(settings)).await;
        connected.map_err(|_| late())?.map_err(|e| e.to_string())
    };
    let (db, broker) = tokio::join!(database, broker);
    let db = db.map_err(|_| late()).and_then(|db| db.map_err(|e| e.to_string()));
    let connected = broker.as_ref().ok().cloned();
    let places = Places { db, broker, queues: settings.broker.queues.clone(), reasons: Vec::new(), embedded };
    let explanation = explain(&look(id, places).await);
    if let Some(broker) = connected {
        let _ = tokio::time::timeout(PATIENCE, broker.close()).await;
    }
    serde_json::to_value(explanation).unwrap_or_else(|_| json!({}))
}

/// For a person: the sentence first, then what it follows from.
fn shown(answer: &Value) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("{name:<8} {value}\n");
    row("task", field(answer, "id"));
    let since = match answer["since"].is_null() {
        true => String::new(),
        false => format!(" since {}", field(answer, "since")),
    };
    row(
        "state",
        if answer["state"].is_null() { "no record".into() } else { format!("{}{since}", field(answer, "state")) },
    );
    for (n, cause) in rows(answer, "causes").iter().enumerate() {
        row(if n == 0 { "why" } else { "also" }, format!("{} [{}]", field(cause, "message"), field(cause, "code")));
        if !cause["remedy"].is_null() {
            row("remedy", field(cause, "remedy"));
        }
    }
    let facts = &answer["facts"];
    for queue in rows(facts, "queues") {
        let count = |name: &str| field(queue, name);
        let error = match queue["error"].as_str() {
            Some(error) => format!(" ({})", escape::line(error)),
            None => String::new(),
        };
        row(
            "queue",
            format!(
                "{}: {} ready, {} consumers, {} returned, {} dead{error}",
                count("queue"),
                count("ready"),
                count("consumers"),
                count("returned"),
                count("dead")
            ),
        );
    }
    for host in rows(facts, "hosts") {
        row(
            "host",
            format!(
                "{}: {} of {} slots in use, renewed {}",
                field(host, "name"),
                field(host, "busy"),
                field(host, "slots"),
                field(host, "renewed_at")
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_comes_first_and_text_from_elsewhere_is_escaped() {
        let answer = json!({
            "id": "01920c3e-0000-7000-8000-000000000001", "state": "pending", "since": "2026-01-02T03:04:05Z",
            "causes": [
                {"code": "no_consumer", "message": "nothing consumes \u{1b}[31mx", "remedy": "start a host"},
                {"code": "queued", "message": "it waits", "remedy": null},
            ],
            "facts": {
                "queues": [{"queue": "default", "ready": 3, "consumers": 0, "returned": 0, "dead": null, "error": null}],
                "hosts": [{"name": "a", "busy": 1, "slots": 2, "renewed_at": "2026-01-02T03:04:05Z"}],
            },
        });
        insta::assert_snapshot!(shown(&answer));
    }
}
