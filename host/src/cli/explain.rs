//! `agentry task explain`.

use super::client::{Client, encode, refused, rows};
use super::output::{self, field};
use super::{Failed, Server, escape, settings};
use crate::broker::Broker;
use crate::config::{Services, Settings};
use crate::daemon::{self, MigrateError};
use crate::explain::{DatabaseError, PATIENCE, Places, explain, look};
use crate::task::TaskId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The time after which database and broker are asked as well: a daemon that responds has done so by then.
const EAGER: Duration = Duration::from_millis(1_500);
/// The time that the daemon has: it knows more than an answer without it, and waits for a database that is away.
const DAEMON: Duration = Duration::from_secs(3);
/// The time that connecting to each of them may take.
const CONNECT: Duration = Duration::from_millis(1_500);

/// Asks the daemon, and where none responds, its database and its broker.
pub async fn run(id: &str, server: &Server, config: Option<PathBuf>) -> Result<(), Failed> {
    let parsed: TaskId = id.parse().map_err(|_| Failed::usage(format!("{id:?} is not a task id, which is a UUID")))?;
    let client = Client::new(server)?;
    let path = format!("/v1/tasks/{}/explain", encode(id));
    // More than the daemon takes. One that is stopped accepts connections and says nothing.
    let began = Instant::now();
    let asked = client.ask(Method::GET, &path, None, PATIENCE + Duration::from_secs(6));
    tokio::pin!(asked);
    let (failed, answer) = match tokio::time::timeout(EAGER, &mut asked).await {
        Ok(Ok(Ok(answer))) => return print(server, &answer),
        Ok(Ok(Err(answer))) if is_final(answer.status) => return Err(refused(answer)),
        Ok(Ok(Err(answer))) => (escape::line(&answer.detail), None),
        Ok(Err(failed)) if failed.is_unreachable() => (failed.message, None),
        Ok(Err(failed)) => return Err(failed),
        Err(_) => {
            let seconds = DAEMON.as_secs_f32();
            let late = format!("the daemon at {} has not responded within {seconds} s", client.address());
            // Settings that cannot be read matter only where no daemon responds.
            let alone = async {
                match settings(config.clone(), Vec::new()) {
                    Ok(settings) => alone(parsed, settings).await,
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::pin!(alone);
            tokio::select! {
                biased;
                asked = &mut asked => match asked {
                    Ok(Ok(answer)) => return print(server, &answer),
                    _ => (late, None),
                },
                alone = &mut alone => match tokio::time::timeout_at(began + DAEMON, &mut asked).await {
                    Ok(Ok(Ok(answer))) => return print(server, &answer),
                    _ => (late, Some(alone)),
                },
            }
        }
    };
    output::say(&format!("agentry: {failed}; the answer is from the database and the broker of the settings"));
    let (answer, broker) = match answer {
        Some(answer) => answer,
        None => alone(parsed, settings(config, Vec::new())?).await,
    };
    let printed = print(server, &answer);
    if let Some(broker) = broker {
        let _ = tokio::time::timeout(CONNECT, broker.close()).await;
    }
    printed
}

/// Whether a daemon that refuses would do so again: a token is missing or wrong. One of an earlier build has no such route, and one
/// that is starting answers nothing yet.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::NOT_FOUND && status != StatusCode::TOO_MANY_REQUESTS
}

fn print(server: &Server, answer: &Value) -> Result<(), Failed> {
    match server.json {
        true => output::json(answer),
        false => output::data(&shown(answer)),
    }
}

/// The same answer without a daemon, and the connection to be closed.
async fn alone(id: TaskId, settings: Settings) -> (Value, Option<Arc<dyn Broker>>) {
    let embedded = matches!(settings.services(), Services::Embedded);
    let late = || format!("no connection within {} s", CONNECT.as_secs_f32());
    let database = async {
        match tokio::time::timeout(CONNECT, daemon::database(&settings)).await {
            Err(_) => Err(DatabaseError::Away(late())),
            Ok(Err(MigrateError::Schema(why))) => Err(DatabaseError::Schema(why)),
            Ok(Err(MigrateError::Unavailable(why))) => Err(DatabaseError::Away(why)),
            Ok(Err(MigrateError::Configuration(why))) => Err(DatabaseError::Refused(why)),
            Ok(Ok(db)) => Ok(db),
        }
    };
    let broker = async {
        if embedded {
            return Err("it is embedded in the daemon".to_owned());
        }
        let connected = tokio::time::timeout(CONNECT, daemon::publisher(&settings)).await;
        connected.map_err(|_| late())?.map_err(|error| error.to_string())
    };
    let (db, broker) = tokio::join!(database, broker);
    let connected = broker.as_ref().ok().cloned();
    let places = Places { db, broker, queues: settings.broker.queues.clone(), daemon: None, embedded };
    let explanation = explain(&look(id, places).await);
    (serde_json::to_value(explanation).unwrap_or_else(|_| json!({})), connected)
}

/// Text for a person: the causes first, then the facts.
fn shown(answer: &Value) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("{name:<8} {value}\n");
    let facts = &answer["facts"];
    row("task", field(answer, "id"));
    let state = match (answer["state"].is_null(), facts["database"].is_null()) {
        (false, _) if answer["since"].is_null() => field(answer, "state"),
        (false, _) => format!("{} since {}", field(answer, "state"), field(answer, "since")),
        (true, true) => "no record".into(),
        (true, false) => "unknown: the database says nothing".into(),
    };
    row("state", state);
    for (n, cause) in rows(answer, "causes").iter().enumerate() {
        row(if n == 0 { "why" } else { "also" }, format!("{} [{}]", field(cause, "message"), field(cause, "code")));
        if !cause["remedy"].is_null() {
            row("remedy", field(cause, "remedy"));
        }
    }
    if !facts["place"].is_null() {
        row("broker", field(facts, "place"));
    }
    for queue in rows(facts, "queues") {
        let count = |name: &str| field(queue, name);
        let error = queue["error"].as_str().map(|error| format!(" ({})", escape::line(error))).unwrap_or_default();
        let [ready, consumers, returned, dead] = ["ready", "consumers", "returned", "dead"].map(count);
        let counts = format!("{ready} ready, {consumers} consumers, {returned} returned, {dead} dead");
        row("queue", format!("{}: {counts}{error}", count("queue")));
    }
    for host in rows(facts, "hosts") {
        let [name, busy, slots, renewed] = ["name", "busy", "slots", "renewed_at"].map(|name| field(host, name));
        row("host", format!("{name}: {busy} of {slots} slots in use, renewed {renewed}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_come_first_and_text_from_elsewhere_is_escaped() {
        let answer = json!({
            "id": "01920c3e-0000-7000-8000-000000000001", "state": "pending", "since": "2026-01-02T03:04:05Z",
            "causes": [
                {"code": "no_consumer", "message": "nothing consumes \u{1b}[31mx", "remedy": "start a host"},
                {"code": "queued", "message": "it waits", "remedy": null},
            ],
            "facts": {
                "place": "RabbitMQ", "database": null,
                "queues": [{"queue": "default", "ready": 3, "consumers": 0, "returned": 0, "dead": null, "error": null}],
                "hosts": [{"name": "a", "busy": 1, "slots": 2, "renewed_at": "2026-01-02T03:04:05Z"}],
            },
        });
        insta::assert_snapshot!(shown(&answer));
    }
}
